"""The pages say what is so: commands run, errors shown are printed, named files exist, the reference is complete."""

import importlib
import inspect
import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import ladder
import pytest
import yaml
from page_blocks import BLOCK, blocks, commands, named_file

ROOT = ladder.ROOT
filled_in = ladder.load_module(ROOT / "docs" / "filled_in.py")
FOLDERS = [ROOT, *(ROOT / "docs" / name for name in ("", "benchmarks", "tutorials"))]
PAGES = sorted(page for folder in FOLDERS for page in folder.glob("*.md"))
# Named in the text, and written by other commands, or gone since.
NOT_HERE = {
    "cka/epoch-NNN.npz",
    "kubernetes/train-job.yaml",
    "latest.json",
    ".cruft.json",
    ".old/",
    "cross-validation.json",
    "predictions-FOLDER.csv",
    "resources.yaml",
}
GENERATED_README = "my-research-project/README.md"

# Commands that can't run here, by a part of them.
SKIPPED = {
    "torchvision.": "there is no CPU build of torchvision that goes with any torch",
    "timm.yaml": "timm needs torchvision",
    "my_file.": "stands for a file of the reader's own",
}
# These need a GPU, or packages for one: only their settings are resolved.
NEED_A_GPU = ("trainer/gpu.yaml", "trainer/ddp.yaml", "trainer/fsdp.yaml", "trainer/deepspeed.yaml")
QUICK = {"--trainer.max_epochs": "1", "--trainer.limit_train_batches": "2", "--trainer.limit_val_batches": "2"}
HERE = "--runs_dir=runs"  # the project is everybody's, the folder of the test is not
FEWER = {"--folds 5": "--folds 2"}
# These programs run, too, where they neither need a cluster nor write into the project.
DOORS = {"Report.py": "report", "SlurmTrain.py": "slurm_train", "CreateSweep.py": "create_sweep"}
ELSEWHERE = ("rsync", "serve", "fetched/", "RUN")
OF_ALL_RUNS = {
    "table": 1,
    "html": 1,
    "verify": 2,
}  # commands that read the project's runs unless a folder is named here
EXAMPLE = re.compile(r"-[0-9a-f]{8}$")  # a run's folder on a page, with an identity that no run has


def text_of(page: Path | str, project: Path) -> str:
    """A page as its reader sees it."""
    return (project / "README.md").read_text() if page == GENERATED_README else filled_in.fill_in(page.read_text())


def page_id(page: Path | str) -> str:
    return page if isinstance(page, str) else str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [*PAGES, GENERATED_README], ids=page_id)
def test_commands_run(page, project, tmp_path, monkeypatch, capsys):
    import torch

    from lightning_hpc import signals
    from lightning_hpc.entrance import train as main

    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    shown = blocks(text_of(page, project))
    for _, content in shown:
        if file := named_file(content):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
    for _, content in shown:
        for (program, *arguments), below in commands(fewer(content)):
            error = below if below.startswith("error: ") else None
            line = shlex.join([program, *arguments])
            if program != "Train.py":
                run_another(program, arguments, page, project)
                continue
            if any(part in line for part in SKIPPED):
                continue
            if any(part in line for part in NEED_A_GPU):
                arguments.append("--print_config")
            if "--run" in arguments:  # the folder's name in the text is an example
                runs = sorted(Path("runs").glob("*/*/status.json"), key=lambda file: file.stat().st_mtime_ns)
                arguments[arguments.index("--run") + 1] = str(runs[-1].parent)
            elif arguments and not error:
                quick = QUICK | {"--cka": "null"}
                arguments += [f"{key}={value}" for key, value in quick.items() if key not in line]
                arguments.append(HERE)
            signals.reset()
            try:
                code = main(arguments, root=project)
            except SystemExit as end:  # --help and --print_config
                code = end.code or 0
            out, err = capsys.readouterr()
            assert code == (2 if error else 0), f"{line}\n{out}\n{err}"
            if error:
                assert error in err.splitlines(), f"{line} prints: {err}"
    for name in set(sys.modules) - before:
        if (tmp_path / f"{name}.py").exists():
            del sys.modules[name]


def fewer(content: str) -> str:
    """A block with smaller numbers where larger ones would only take longer."""
    for shown, typed in FEWER.items():
        content = content.replace(shown, typed)
    return content


def run_another(program: str, arguments: list[str], page: Path | str, project: Path) -> None:
    """Run a program of the page's own, or one of the project's that reads runs, plans, or is told not to act."""
    from lightning_hpc import entrance

    if Path(program).exists():
        runpy.run_path(program, run_name="__main__")
        return
    if page == GENERATED_README or program not in DOORS:
        return
    if program != "Report.py" and not {"plan", "--dry-run"} & set(arguments):
        return
    if any(part in argument for part in ELSEWHERE for argument in arguments):
        return
    if not (arguments := with_folders(arguments)):
        return  # of runs that a cluster has trained, or agents
    code = getattr(entrance, DOORS[program])(arguments, project)
    assert code == 0, shlex.join([program, *arguments])


def with_folders(arguments: list[str]) -> list[str]:
    """Arguments as a shell hands them on; runs that are examples become runs that are there. [] without such runs."""
    there = sorted(map(str, Path().glob("runs/*/*-*")))
    place = OF_ALL_RUNS.get(arguments[0])
    if place and not any(argument.startswith("runs/") for argument in arguments):
        return [*arguments[:place], "runs", *arguments[place:]] if there else []  # the project's are everybody's
    filled = []
    for argument in arguments:
        if not argument.startswith("runs/"):
            filled.append(argument)
        elif Path(argument).exists():
            filled.append(argument)
        elif "*" in argument:
            filled += sorted(map(str, Path().glob(argument)))
        elif EXAMPLE.search(argument) and there:
            filled.append(there.pop())
        else:
            return []
    return filled


@pytest.fixture(scope="module")
def finished(project, tmp_path_factory) -> Path:
    """The folder of a run that was trained and evaluated, for the names of the files in it."""
    from lightning_hpc import signals
    from lightning_hpc.entrance import train as main

    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        quick = [f"{key}={value}" for key, value in QUICK.items()]
        for command in ("fit", "validate", "test", "predict"):
            signals.reset()
            assert main([command, *quick, HERE], root=project) == 0
    return next(folder.glob("runs/default/*"))


@pytest.mark.parametrize("page", [*PAGES, GENERATED_README], ids=page_id)
def test_links_and_files_exist(page, project, finished):
    text = text_of(page, project)
    prose = BLOCK.sub("", text)
    folder = project if page == GENERATED_README else page.parent
    for target in re.findall(r"\]\(<?([^)\s>]+)>?\)", prose):
        if not target.startswith(("http://", "https://")):
            file, _, heading = target.partition("#")
            linked = folder / file if file else page
            assert linked.exists(), f"link to {target}"
            assert not heading or heading in anchors(linked), f"there is no heading {target}"

    written = {str(file) for _, content in blocks(text) if (file := named_file(content))}
    options = {name for names in ladder.FILES_OF_OPTIONS.values() for name in names}
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    places = [ladder.files_in(project), ladder.files_in(finished), tracked.stdout.splitlines(), written, options]
    exist = {f"/{name}" for names in places for name in names}
    for name in re.findall(r"`([\w./-]+(?:\.(?:py|md|ya?ml|toml|json|csv|ckpt|png|npz|pt)|/))`", prose):
        if name.endswith("/"):
            found = any(f"/{name}" in path for path in exist) or name.startswith(("runs/", "wandb/"))
        else:
            found = any(path.endswith(f"/{name}") for path in exist)
        assert found or name in NOT_HERE, f"{name} is in no project, run or template"


def anchors(page: Path) -> set[str]:
    """The names of a page's headings in links, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_has_a_place_in_the_contents():
    for index in (folder / "index.md" for folder in FOLDERS[1:]):
        trees = "".join(content for language, content in blocks(index.read_text()) if language == "{toctree}")
        named = {line for line in trees.split() if "/" not in line and not line.startswith(":")}
        there = {page.stem for page in index.parent.glob("*.md")} - {"index"}
        assert there <= named, f"not in {index}: {there - named}"


def test_readme_is_short_and_maps_every_top_level_file():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 100
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in {line.strip('"').split("/")[0] for line in tracked.splitlines()} - {".gitignore", "README.md"}:
        assert re.search(rf"^(\S+  )?{re.escape(name)}", readme, re.MULTILINE), f"{name} is not on README's map"


def test_the_reference_says_what_python_says(project):
    """The pages parse the code; this imports it."""
    markers = filled_in.MARKER.findall((ROOT / "docs" / "reference.md").read_text())
    named = {path for kind, path, _ in markers if kind == "class"}
    line = re.compile(r"^- `(\w+)` \(`.*?`, (required|default `.*`)\): \S", re.MULTILINE)
    for path in named:
        module, _, name = path.rpartition(".")
        if not module.startswith("lightning_hpc"):
            module = f"my_research_project.{module}"
        imported = getattr(importlib.import_module(module), name)
        expected = {
            key: "required" if parameter.default is parameter.empty else f"default `{parameter.default!r}`"
            for key, parameter in inspect.signature(imported).parameters.items()
        }
        assert dict(line.findall(filled_in.class_arguments(path))) == expected

    configs = "".join(file.read_text() for file in (project / "configs").rglob("*.yaml"))
    used = set(re.findall(r"(?:my_research_project|lightning_hpc)\.([\w.]+\.[A-Z]\w*)", configs))
    assert {path.rpartition(".")[2] for path in used} <= {path.rpartition(".")[2] for path in named}


@pytest.mark.parametrize("room", ["cka", "data", "results", "trackers", "training"])
def test_the_reference_lists_what_user_code_may_import(room):
    """The front doors of the rooms are the public interface: what they export is what the page lists."""
    module = importlib.import_module(f"lightning_hpc.{room}")
    assert sorted(filled_in.exported_names(room)) == sorted(module.__all__)
    assert f"<!-- interface: {room} -->" in (ROOT / "docs" / "interface.md").read_text()
    for name in module.__all__:
        assert getattr(module, name).__doc__, name


def test_the_reference_has_every_setting_of_train_py(finished):
    settings = yaml.safe_load((finished / "config.yaml").read_text())
    page = filled_in.fill_in((ROOT / "docs" / "reference.md").read_text())
    for key in settings:
        assert re.search(rf"--{key}[\s.`]", page) or key == "trainer", f"{key} is not in the reference"


def test_results_describe_status_and_exit_codes(finished):
    from lightning_hpc.runs.folder import EXIT_CODES

    page = (ROOT / "docs" / "results.md").read_text()
    cells = [line.split("|")[1] for line in page.split("## status.json")[1].split("##")[0].splitlines() if "|" in line]
    fields = set(re.findall(r"`(\w+)`", " ".join(cells)))
    assert fields == set(json.loads((finished / "status.json").read_text()))
    codes = dict(re.findall(r"^\| `([\w ]+)` \| (\d+) \|", page, re.MULTILINE))
    assert codes == {state: str(code) for state, code in EXIT_CODES.items()}


def test_all_options_are_described():
    page = (ROOT / "docs" / "template.md").read_text()
    for key, value in ladder.QUESTIONS.items():
        if not key.startswith("_"):
            row = re.search(rf"^\|[^|]*`{key}`.*$", page, re.MULTILINE)
            assert row, f"{key} is not described"
            for choice in value if isinstance(value, list) else []:
                assert f"`{choice}`" in row[0], f"{key}: {choice} is not described"
    for combination in ladder.UNSUPPORTED:
        for key, value in combination.items():
            assert f"`{key}={value}`" in page


def test_figures_are_a_table_or_not_there(tmp_path, monkeypatch):
    assert filled_in.fill_in("<!-- figures: no-such-file.json -->") == "*Not measured yet.*"
    monkeypatch.setattr(filled_in, "DOCS", tmp_path)
    rows = [{"case": "one", "seconds": 0.000123456, "ratio": 1}, {"case": "two", "seconds": 2.0}]
    (tmp_path / "benchmarks" / "data").mkdir(parents=True)
    record = {"machine": "2 cores", "date": "2026-01-02", "command": "python b.py", "rows": rows}
    (tmp_path / "benchmarks" / "data" / "b.json").write_text(json.dumps(record))
    lines = filled_in.fill_in("<!-- figures: b.json -->").splitlines()
    assert lines[0] == "| case | seconds | ratio |" and lines[2] == "| one | 0.0001235 | 1 |"
    assert "2026-01-02" in lines[-1] and "`python b.py`" in lines[-1] and "2 cores" in lines[-1]
