"""The conda environments: they parse, they name the packages of pyproject.toml, and they solve where they should.

The solver is the real one (rattler, that of pixi); the channel is a small model of conda-forge. So these tests prove
the syntax, the pins against each other and the reasoning about CUDA, not that a release exists on conda-forge.
"""

import asyncio
import importlib.metadata
import json
import tomllib
from pathlib import Path

import ladder
import pytest
import rattler
import yaml
from packaging.requirements import Requirement
from rattler.exceptions import SolverError

hook = ladder.load_module(ladder.ROOT / "hooks" / "post_gen_project.py")
PLATFORMS = ["linux-64", "linux-aarch64"]
# conda-forge's names of PyPI's packages, beside the hook's own table so that a slip in one of the two shows.
CONDA_FORGE = {"torch": "pytorch", "matplotlib": "matplotlib-base", "docstring-parser": "docstring_parser"}


def record(name: str, version: str, build: str = "0", subdir: str = "noarch", **fields) -> dict:
    """One modelled package of the channel."""
    return {
        "name": name,
        "version": version,
        "build": build,
        "build_number": 0,
        "subdir": subdir,
        "depends": [],
    } | fields


def modelled_conda_forge() -> list[dict]:
    """What conda-forge held in August 2026, as far as the environments depend on it (builds, pins, virtual packages).

    Releases that the pins must avoid are modelled too: Lightning 2.7 and jsonargparse 5.
    """
    noarch = [
        record("cuda-version", "12.9", constrains=["__cuda >=12"]),
        record("cuda-version", "13.0", constrains=["__cuda >=13"]),
        record("lightning", "2.6.6", depends=["python >=3.10", "pytorch >=2.1", "torchmetrics"]),
        record("lightning", "2.7.0", depends=["python >=3.10", "pytorch >=2.1", "torchmetrics"]),
        record("jsonargparse", "4.53.0", depends=["python >=3.10", "pyyaml"]),
        record("jsonargparse", "5.0.0", depends=["python >=3.10", "pyyaml"]),
        record("torchmetrics", "1.9.0", depends=["python >=3.10", "pytorch >=2.0"]),
    ]
    versions = {"docstring_parser": "0.18.0", "typeshed-client": "2.14.0", "wandb": "0.31.0", "pysmartdl": "1.3.4"}
    versions |= {"jsonschema": "4.26.0", "pillow": "13.0.0"}
    versions |= {"pyyaml": "6.0.3", "rich": "15.0.0", "filelock": "4.2.11", "jinja2": "3.1.6", "optuna": "5.0.0"}
    versions |= {"matplotlib-base": "3.11.2", "pandas": "3.1.1", "scikit-learn": "1.9.1", "huggingface_hub": "2.4.0"}
    versions |= {"fsspec": "2026.9.0", "pytest": "9.2.0", "ruff": "0.17.5", "pre-commit": "4.7.0"}
    versions |= {"s3fs": "2026.9.0", "gcsfs": "2026.10.1", "aiohttp": "3.14.5", "paramiko": "5.1.0"}
    noarch += [record(name, version, depends=["python >=3.10"]) for name, version in versions.items()]

    native = []
    for platform in PLATFORMS:
        native += [record("python", f"{minor}.9", subdir=platform) for minor in ("3.9", "3.11", "3.12", "3.13")]
        native.append(record("pytorch", "2.13.0", "cpu_generic_0", platform, depends=["python >=3.10"]))
        native.append(record("pytorch-cpu", "2.13.0", "cpu_generic_0", platform, depends=["pytorch 2.13.0 cpu*"]))
        for cuda, needs in {"129": "cuda-version >=12.9,<13", "130": "cuda-version >=13.0,<14"}.items():
            build, depends = f"cuda{cuda}_0", ["python >=3.10", "__cuda", needs]
            native.append(record("pytorch", "2.13.0", build, platform, depends=depends))
            native.append(record("pytorch-gpu", "2.13.0", build, platform, depends=[f"pytorch 2.13.0 cuda{cuda}*"]))
    native.append(record("python", "3.9.18", subdir="linux-ppc64le"))  # and no PyTorch
    native.append(record("python", "3.11.9", subdir="linux-ppc64le"))
    return noarch + native


def modelled_open_ce() -> list[dict]:
    """The last PyTorch for POWER9, from Open-CE."""
    depends = ["python >=3.9,<3.10"]
    return [record("pytorch", "2.1.2", "cuda11.8_py39_1", "linux-ppc64le", depends=depends)]


def write_channel(folder: Path, records: list[dict]) -> str:
    """Write `records` as a channel and return its address."""
    for subdir in {"noarch", *PLATFORMS, "linux-ppc64le"}:
        packages = {
            f"{one['name']}-{one['version']}-{one['build']}.conda": one for one in records if one["subdir"] == subdir
        }
        (folder / subdir).mkdir(parents=True)
        repodata = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": packages, "repodata_version": 1}
        (folder / subdir / "repodata.json").write_text(json.dumps(repodata))
    return folder.as_uri()


@pytest.fixture(scope="module")
def channels(tmp_path_factory) -> dict[str, str]:
    """Addresses of the modelled channels by the names that the environment files use."""
    folder = tmp_path_factory.mktemp("channels")
    return {
        "conda-forge": write_channel(folder / "conda-forge", modelled_conda_forge()),
        "https://ftp.osuosl.org/pub/open-ce/current/": write_channel(folder / "open-ce", modelled_open_ce()),
    }


@pytest.fixture
def solve(channels, tmp_path):
    """A function that solves an environment file and returns {package: (version, build)}; cuda is the driver's."""

    def run(path: Path, platform: str, cuda: str | None = None, extra: tuple[str, ...] = ()) -> dict:
        environment = yaml.safe_load(path.read_text())
        driver = (
            []
            if cuda is None
            else [
                rattler.GenericVirtualPackage(
                    rattler.PackageName("__cuda"), rattler.Version(cuda), rattler.BuildString("0")
                )
            ]
        )
        found = asyncio.run(
            rattler.solve(
                [channels[name] for name in environment["channels"] if name != "nodefaults"],
                [rattler.MatchSpec(spec) for spec in [*environment["dependencies"], *extra]],
                gateway=rattler.Gateway(cache_dir=tmp_path / "cache"),
                platforms=[platform, "noarch"],
                virtual_packages=driver,
            )
        )
        return {one.name.normalized: (str(one.version), str(one.build)) for one in found}

    return run


@pytest.mark.parametrize("environment", ["cpu", "cuda12", "cuda13"])
@pytest.mark.parametrize("python", ladder.CHOICES["python_version"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_environment_solves(environment, python, platform, bake, solve):
    project = bake(conda_environment=environment, python_version=python)
    cuda = {"cpu": None, "cuda12": "12.9", "cuda13": "13.0"}[environment]
    found = solve(project / "environment.yml", platform, cuda)
    expected = {"cpu": "cpu_generic_0", "cuda12": "cuda129_0", "cuda13": "cuda130_0"}[environment]
    assert found["pytorch"] == ("2.13.0", expected)
    assert found["python"][0].startswith(python)
    assert found["lightning"][0] == "2.6.6" and found["jsonargparse"][0] == "4.53.0"

    on_a_laptop = solve(project / "environment-cpu.yml", platform)
    assert on_a_laptop["pytorch"][1] == "cpu_generic_0" and "cuda-version" not in on_a_laptop


@pytest.mark.parametrize("platform", PLATFORMS)
def test_cuda12_stays_12_on_a_newer_driver(platform, bake, solve):
    """CUDA 13 has no V100: a driver that could do more must not tempt the solver."""
    found = solve(bake(conda_environment="cuda12") / "environment.yml", platform, "13.2")
    assert found["cuda-version"][0] == "12.9" and found["pytorch"][1] == "cuda129_0"


def test_cpu_stays_cpu_beside_a_gpu(default_project, solve):
    assert solve(default_project / "environment-cpu.yml", "linux-64", "12.9")["pytorch"][1] == "cpu_generic_0"


@pytest.mark.parametrize(
    ("environment", "driver"), [("cuda12", None), ("cuda13", None), ("cuda12", "11.8"), ("cuda13", "12.9")]
)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_cuda_without_its_driver_is_refused_for_that_reason(environment, driver, platform, bake, solve):
    """Never a silent CPU build: on a login node the file's first lines say to set CONDA_OVERRIDE_CUDA."""
    path = bake(conda_environment=environment) / "environment.yml"
    with pytest.raises(SolverError, match="__cuda"):
        solve(path, platform, driver)
    assert "CONDA_OVERRIDE_CUDA=" in path.read_text().split("name:")[0]


def test_power9_cannot_run_the_project_and_the_legacy_file_says_so(bake, solve):
    project = bake(cluster="bede-power9")
    with pytest.raises(SolverError, match="pytorch-cpu"):
        solve(project / "environment.yml", "linux-ppc64le")
    legacy = project / "environment-ppc64le-legacy.yml"
    assert legacy.read_text().startswith("# LEGACY")
    assert solve(legacy, "linux-ppc64le")["pytorch"][0] == "2.1.2"
    with pytest.raises(SolverError, match="lightning"):
        solve(legacy, "linux-ppc64le", extra=("lightning>=2.6,<2.7",))


@pytest.mark.parametrize("answers", [{}, *ladder.combinations()], ids=ladder.name_of)
def test_every_file_parses_and_stays_with_conda_forge(answers, bake):
    project = bake(**answers)
    paths = sorted(project.glob("environment*.yml"))
    assert len(paths) == (3 if answers.get("cluster") == "bede-power9" else 2)
    for path in paths:
        environment = yaml.safe_load(path.read_text())
        assert environment["channels"][-2:] == ["conda-forge", "nodefaults"]
        assert not {"pytorch", "nvidia", "defaults"} & set(environment["channels"])
        names = [rattler.MatchSpec(spec).name.normalized for spec in environment["dependencies"]]
        assert len(set(names)) == len(names) and "torch" not in names
    assert len({yaml.safe_load(path.read_text())["name"] for path in paths}) == len(paths)


@pytest.mark.parametrize("name", ["environment.yml", "environment-cpu.yml"])
@pytest.mark.parametrize("environment", ["cpu", "cuda12", "cuda13"])
def test_pyproject_and_environment_say_the_same(environment, name, bake):
    project = bake(conda_environment=environment)
    pyproject = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    extras = [one for extra in hook.CONDA_EXTRAS for one in pyproject["optional-dependencies"][extra]]
    expected = {"python": "3.11.*"}
    for requirement in map(Requirement, pyproject["dependencies"] + extras):
        conda_name = CONDA_FORGE.get(requirement.name, requirement.name.lower())
        expected[conda_name] = str(requirement.specifier)
        for extra in requirement.extras:
            expected |= {CONDA_FORGE.get(part, part): "" for part in parts_of_extra(requirement.name, extra)}

    found = {}
    for spec in yaml.safe_load((project / name).read_text())["dependencies"]:
        match = rattler.MatchSpec(spec)
        found[match.name.normalized] = str(match.version or "")
    cpu = environment == "cpu" or name == "environment-cpu.yml"
    found["pytorch"] = found.pop("pytorch-cpu" if cpu else "pytorch-gpu")
    assert found.pop("cuda-version", None) == (None if cpu else {"cuda12": "12.9.*", "cuda13": "13.0.*"}[environment])
    assert {key: set(value.split(",")) for key, value in found.items()} == {
        key: set(value.split(",")) for key, value in expected.items()
    }


def parts_of_extra(distribution: str, extra: str) -> set[str]:
    """The distributions that an extra of an installed distribution brings (in this Python)."""
    requirements = [Requirement(one) for one in importlib.metadata.requires(distribution)]
    chosen = [one for one in requirements if one.marker and one.marker.evaluate({"extra": extra})]
    return {one.name for one in chosen if one.name != distribution}


def test_tests_install_what_the_project_needs(default_project):
    """tests/requirements.txt repeats the project's dependencies, pins included."""
    pyproject = tomllib.loads((default_project / "pyproject.toml").read_text())["project"]
    lines = (ladder.ROOT / "tests" / "requirements.txt").read_text().splitlines()
    named = {Requirement(line).name: Requirement(line) for line in lines if line and not line.startswith("#")}
    for requirement in map(Requirement, pyproject["dependencies"]):
        assert named[requirement.name] == requirement


def test_extra_all_holds_every_other_extra(default_project):
    extras = tomllib.loads((default_project / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (everything,) = map(Requirement, extras.pop("all"))
    assert everything.name == "my-research-project" and everything.extras == set(extras)


def test_no_torch_under_pip_in_any_variant(bake):
    for environment in ("cpu", "cuda12", "cuda13"):
        for path in bake(conda_environment=environment).glob("environment*.yml"):
            assert not [one for one in yaml.safe_load(path.read_text())["dependencies"] if isinstance(one, dict)]
