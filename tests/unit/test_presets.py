"""Cluster presets: the files are valid, requests get what they need, and what a cluster can't serve is refused."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from package.launch import presets
from package.launch.presets import choose, load, names
from package.launch.resources import Resources, resolve, seconds
from package.runs.settings import SettingsError, parse_value

PROJECT = Path(__file__).parents[2] / "{{cookiecutter.project_slug}}"
CLUSTERS = ["baskerville", "bede-gh", "bede-power9", "generic", "hec", "isambard-ai", "sulis"]
COMPLETE = {"account": "proj01", "qos": "normal", "gpu_type": None}


def refusal(cluster: str, array: int | None = None, **request) -> str:
    """The message with which a request is refused."""
    with pytest.raises(SettingsError) as caught:
        resolve(load(cluster, PROJECT), request, array)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def project(tmp_path) -> Path:
    """A folder with the presets and nothing else."""
    shutil.copytree(PROJECT / "configs" / "clusters", tmp_path / "configs" / "clusters")
    return tmp_path


def test_these_presets_are_there():
    assert names(PROJECT) == CLUSTERS


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_preset_says_where_its_facts_are_from(cluster):
    preset = load(cluster, PROJECT)
    assert preset.source.startswith("https://") and preset.checked.startswith("20")
    assert (preset.status == "legacy") == (cluster == "bede-power9")


def test_files_match_the_schema_by_another_program():
    check = [Path(sys.executable).parent / "check-jsonschema", "--schemafile", presets.SCHEMA]
    files = sorted((PROJECT / "configs" / "clusters").glob("*.yaml"))
    done = subprocess.run([*check, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_schema_is_one_and_describes_every_key():
    check = [Path(sys.executable).parent / "check-jsonschema", "--check-metaschema", presets.SCHEMA]
    assert subprocess.run(check, capture_output=True).returncode == 0
    definitions = presets.schema()["$defs"]
    for definition in ("preset", "partition", "resources"):
        assert all("description" in each for each in definitions[definition]["properties"].values())
    assert set(definitions["preset"]["properties"]) == set(presets.Preset.__dataclass_fields__) - {"name"}
    assert set(definitions["partition"]["properties"]) == set(presets.Partition.__dataclass_fields__)
    filled_in = {"seconds", "mail_by_job"}
    assert set(definitions["resources"]["properties"]) == set(Resources.__dataclass_fields__) - filled_in


@pytest.mark.parametrize("cluster", sorted(set(CLUSTERS) - {"sulis"}))
def test_an_ordinary_request_is_served(cluster):
    got = resolve(load(cluster, PROJECT), {**COMPLETE, "gpus": 1}, array=8)
    assert (got.gpus, got.nodes, got.tasks) == (1, 1, 1) and got.seconds and got.signal_seconds == 300


@pytest.mark.parametrize("cluster", ["generic", "hec", "isambard-ai", "baskerville", "sulis"])
def test_a_request_without_gpus_is_served(cluster):
    got = resolve(load(cluster, PROJECT), {**COMPLETE, "gpus": 0})
    assert got.gpus == 0 and got.gpu_type is None and got.tasks == 1
    assert got.partition == {"hec": "serial", "isambard-ai": "workq", "sulis": "gpu"}.get(cluster)


def test_the_first_partition_that_fits_is_taken():
    hec = load("hec", PROJECT)
    assert resolve(hec, {}).partition == "gpu-short"
    assert resolve(hec, {"time": "13:00:00"}).partition == "gpu-medium"
    assert resolve(hec, {"time": "3-0"}).partition == "gpu-long"
    l40 = resolve(hec, {"gpu_type": "l40", "gpus": 4})
    assert (l40.partition, l40.gpu_type, l40.tasks) == ("astro", "nvidia_l40", 4)
    assert resolve(hec, {"gpu_type": "nvidia_h200_nvl"}).gpu_type == "nvidia_h200_nvl"
    assert resolve(hec, {"partition": "test", "gpus": 0, "time": 5}).partition == "test"
    infer = resolve(load("bede-power9", PROJECT), {"account": "a", "gpu_type": "t4"})
    assert (infer.partition, infer.gpu_type) == ("infer", None)  # what SLURM calls a T4 there is not known
    assert resolve(load("generic", PROJECT), {"gpu_type": "anything"}).gpu_type == "anything"


def test_layers_and_notice():
    hec = load("hec", PROJECT)
    assert resolve(hec, {"memory": "64G", "cluster": "hec"}).memory == "64G"  # over the preset's
    assert resolve(hec, {"memory": None}).memory is None  # as the cluster likes
    assert resolve(hec, {"time": 10}).signal_seconds == 120  # a fifth
    assert resolve(hec, {"time": 10, "signal_seconds": 30}).signal_seconds == 30
    assert resolve(hec, {"before": "echo one line"}).before == ("echo one line",)


# One refusal for each rule of each cluster.
@pytest.mark.parametrize(
    ("cluster", "request_", "words"),
    [
        ("hec", {"partition": "gpu-short", "time": "12:00:01"}, ["gpu-short", "12:00:00"]),
        ("hec", {"time": "8-00:00:00"}, ["gpu-long", "7-00:00:00"]),
        ("hec", {"partition": "gpu-short", "gpus": 4}, ["4", "at most 3", "more nodes"]),
        ("hec", {"partition": "gpu-long", "gpus": 3}, ["3 GPUs", "at most 2"]),
        ("hec", {"partition": "serial"}, ["no GPUs", "gpus to 0"]),
        ("hec", {"partition": "gpu-short", "gpu_type": "l40"}, ["l40", "v100, h200"]),
        ("hec", {"gpu_type": "h100"}, ["h100", "did you mean", "h200"]),
        ("hec", {"partition": "gpu-shrt"}, ["gpu-shrt", "did you mean gpu-short"]),
        ("bede-gh", {}, ["account", "configs/slurm.yaml"]),
        ("bede-gh", {"account": "a", "time": "49:00:00"}, ["gh", "2-00:00:00"]),
        ("bede-gh", {"account": "a", "gpus": 2}, ["at most 1", "more nodes"]),
        ("bede-gh", {"account": "a", "gpus": 0}, ["at least 1"]),
        ("bede-gh", {"account": "a", "cpus": 8}, ["leave `cpus` out"]),
        ("bede-gh", {"account": "a", "memory": "8G"}, ["leave `memory` out"]),
        ("bede-power9", {}, ["account"]),
        ("bede-power9", {"account": "a", "partition": "test", "time": 31}, ["0:30:00"]),
        ("bede-power9", {"account": "a", "gpus": 5}, ["at most 4"]),
        ("isambard-ai", {"time": "1-00:00:01"}, ["24:00:00"]),
        ("isambard-ai", {"gpus": 8}, ["at most 4"]),
        ("isambard-ai", {"gpus": 4, "nodes": 9}, ["36 GPUs", "at most 32"]),
        ("baskerville", {"qos": "q"}, ["account"]),
        ("baskerville", {"account": "a"}, ["qos"]),
        ("baskerville", {"account": "a", "qos": "q", "gpus": 5}, ["at most 4"]),
        ("sulis", {}, ["type", "a100", "l40"]),
        ("sulis", {"gpu_type": "a100", "gpus": 4}, ["at most 3"]),
        ("sulis", {"gpu_type": "a100", "time": "48:01:00"}, ["2-00:00:00"]),
    ],
)
def test_refusals(cluster, request_, words):
    message = refusal(cluster, **request_)
    assert all(word in message for word in [cluster, *words]), message


def test_mail_on_arrays_goes_by_a_job_of_its_own_where_it_is_rejected():
    hec, sulis = load("hec", PROJECT), load("sulis", PROJECT)
    mail = {"mail": "ada@example.org", "gpu_type": None}
    assert resolve(hec, mail, array=8).mail_by_job and not resolve(hec, mail).mail_by_job
    assert not resolve(sulis, mail | {"gpu_type": "l40"}, array=8).mail_by_job
    assert "mail: ADDRESS" in refusal("hec", array=8, directives=["--mail-type=END"])
    assert resolve(hec, {"directives": ["--mail-type=END"]}).directives == ("--mail-type=END",)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"gpuss": 1}, ["gpuss", "did you mean gpus"]),
        ({"gpus": "two"}, ["gpus", "'two'"]),
        ({"gpus": -1}, ["gpus", "-1"]),
        ({"memory": "16"}, ["memory", "16G"]),
        ({"time": "90d"}, ["time 90d", "D-HH:MM:SS"]),
        ({"time": "0"}, ["time 0"]),
        ({"mail": "ada"}, ["mail", "ada"]),
        ({"directives": ["mem=4G"]}, ["directives"]),
        ({"directives": ["--mem=4G\n#SBATCH --x"]}, ["directives"]),
        ({"before": "a\nb"}, ["before"]),
        ({"account": "a b"}, ["account"]),
        ({"environment": {"A-B": "1"}}, ["environment", "A-B"]),
        ({"environment": {"WANDB_API_KEY": "1"}}, ["WANDB_API_KEY", "secret", "export it"]),
    ],
)
def test_wrong_values_name_the_key(request_, words):
    message = refusal("generic", **request_)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 5400),
        ("30:00", 1800),
        ("12:00:00", 43200),
        ("2-0", 172800),
        ("1-12:30", 131400),
        ("1-12:30:15", 131415),
    ],
)
def test_time_limits_in_all_of_sbatchs_forms(text, expected):
    assert seconds(text) == expected
    assert resolve(load("generic", PROJECT), {"time": parse_value(text)}).seconds == expected  # as YAML reads it


@given(st.integers(1, 10**7))
def test_every_time_limit_can_be_written_in_days(total):
    days, rest = divmod(total, 86400)
    assert seconds(f"{days}-{rest // 3600}:{rest // 60 % 60:02d}:{rest % 60:02d}") == total


def test_no_time_limit_is_over_every_limit():
    assert "at most" in refusal("isambard-ai", time="UNLIMITED")
    assert resolve(load("generic", PROJECT), {"time": "UNLIMITED"}).time == "UNLIMITED"


def test_unknown_cluster():
    with pytest.raises(SettingsError, match="no such cluster: hecc .did you mean hec.*generic"):
        load("hecc", PROJECT)


def test_choice_by_name_then_file_then_host(project, monkeypatch):
    def host(name: str, machine: str = "x86_64") -> None:
        monkeypatch.setattr("socket.gethostname", lambda: name.split(".")[0])
        monkeypatch.setattr("socket.getfqdn", lambda: name)
        monkeypatch.setattr("platform.machine", lambda: machine)

    host("wayland-2022.hec.lancaster.ac.uk")
    assert choose(None, project).name == "hec"
    host("login1.bede.dur.ac.uk", "ppc64le")
    assert choose(None, project).name == "bede-power9"
    host("ghlogin1.bede.dur.ac.uk", "aarch64")
    assert choose("auto", project).name == "bede-gh"
    (project / "configs" / "slurm.yaml").write_text("cluster: sulis\n")
    assert choose(None, project).name == "sulis"
    assert choose("generic", project).name == "generic"
    host("my-laptop")
    with pytest.raises(SettingsError, match="my-laptop.*--cluster.*hec"):
        choose("auto", project)


def test_a_cluster_is_added_by_dropping_a_file(project):
    file = project / "configs" / "clusters" / "mine.yaml"
    file.write_text(
        "description: Mine\nsource: https://example.org\nchecked: 2026-01-02\nstatus: current\nrequeue: false\n"
        "partitions:\n  quick: {time: 2:00:00}\n  slow: {time: 3-0}\n"
    )
    mine = load("mine", project)
    assert mine.checked == "2026-01-02" and not mine.requeue
    assert resolve(mine, {"time": "2:00:01", "gpus": 8}).partition == "slow"
    file.write_text(file.read_text().replace("status: current", "status: good"))
    with pytest.raises(SettingsError, match="configs/clusters/mine.yaml: status: 'good'"):
        load("mine", project)
    file.write_text("descriptoin: Mine\n")
    with pytest.raises(SettingsError, match="unknown key descriptoin .did you mean description"):
        load("mine", project)
    file.write_text("[1, 2")
    with pytest.raises(SettingsError, match="mine.yaml is not valid YAML"):
        load("mine", project)


def test_nothing_heavy_is_imported():
    """Submission and --help have to answer at once; the hook has neither torch nor jsonschema."""
    code = "import sys; from package.launch import batch, presets; "
    code += "print(*{'torch', 'lightning', 'jsonschema', 'filelock'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
