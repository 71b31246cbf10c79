"""Cluster presets: the files are valid, requests get what they need, and what a cluster can't serve is refused."""

import datetime
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_hpc.clusters import presets
from lightning_hpc.clusters.placement import doubts, resolve
from lightning_hpc.clusters.presets import choose, load, names, seconds
from lightning_hpc.clusters.resources import KEYS, SBATCH_OPTIONS, TAKEN, Resources, from_command_line, read_resources
from lightning_hpc.settings.errors import SettingsError
from lightning_hpc.settings.yaml_files import parse_value

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
    for definition in ("preset", "partition"):
        assert all("description" in each for each in definitions[definition]["properties"].values())
    assert set(definitions["preset"]["properties"]) == set(presets.Preset.__dataclass_fields__) - {"name"}
    assert set(definitions["partition"]["properties"]) == set(presets.Partition.__dataclass_fields__)


@pytest.mark.parametrize("cluster", sorted(set(CLUSTERS) - {"sulis"}))
def test_an_ordinary_request_is_served(cluster):
    got = resolve(load(cluster, PROJECT), {**COMPLETE, "gpus": 1}, array=8)
    assert (got.gpus, got.nodes, got.tasks) == (1, 1, 1) and got.seconds and got.signal_seconds == 300


@pytest.mark.parametrize("cluster", ["generic", "hec", "baskerville", "sulis"])
def test_a_request_without_gpus_is_served(cluster):
    got = resolve(load(cluster, PROJECT), {**COMPLETE, "gpus": 0})
    assert got.gpus == 0 and got.gpu_type is None and got.tasks == 1
    assert got.partition == {"hec": "serial", "sulis": "gpu"}.get(cluster)


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
    assert resolve(load("generic", PROJECT), {}).gpus == 0


def test_a_quota_can_be_overridden_by_those_who_have_another():
    isambard = load("isambard-ai", PROJECT)
    for answer in (True, "true"):
        assert resolve(isambard, {"gpus": 4, "nodes": 9, "over_quota": answer}).nodes == 9


def test_a_type_of_gpu_can_be_a_constraint():
    baskerville = load("baskerville", PROJECT)
    asked = {**COMPLETE, "gpu_type": "a100_80"}
    assert resolve(baskerville, asked).directives == ("--constraint=a100_80",)
    assert resolve(baskerville, asked).gpu_type is None
    both = resolve(baskerville, {**asked, "constraint": "icelake"}).directives
    assert both == ('--constraint="icelake&a100_80"',)
    assert resolve(baskerville, {**asked, "gpu_type": "a100"}).directives == ()


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
        ("hec", {"gpus": 4}, ["gpu-short: gpus 4", "at most 3", "astro: ", "set gpu_type to l40 or l40s"]),
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
        ("isambard-ai", {"gpus": 4, "nodes": 9}, ["36 GPUs", "at most 32", "--over_quota true"]),
        ("isambard-ai", {"gpus": 0}, ["at least 1"]),
        ("isambard-ai", {"memory": "8G"}, ["leave `memory` out"]),
        ("isambard-ai", {"gpus": 5, "over_quota": True}, ["at most 4"]),  # what is not there, no agreement gives
        ("baskerville", {"qos": "q"}, ["account"]),
        ("baskerville", {"account": "a"}, ["qos"]),
        ("baskerville", {"account": "a", "qos": "q", "gpus": 5}, ["at most 4"]),
        ("sulis", {"gpu_type": "a100"}, ["account"]),
        ("sulis", {"account": "a"}, ["type", "a100", "l40"]),
        ("sulis", {"account": "a", "gpu_type": "a100", "gpus": 4}, ["at most 3"]),
        ("sulis", {"account": "a", "gpu_type": "a100", "gpus": 3, "nodes": 11}, ["33 GPUs", "at most 30"]),
        ("sulis", {"account": "a", "gpu_type": "a100", "time": "48:01:00"}, ["2-00:00:00"]),
    ],
)
def test_refusals(cluster, request_, words):
    message = refusal(cluster, **request_)
    assert all(word in message for word in [cluster, *words]), message


def test_an_unverified_preset_says_so_once_and_what_was_not_checked():
    baskerville, sulis = load("baskerville", PROJECT), load("sulis", PROJECT)
    (said,) = doubts(baskerville, resolve(baskerville, {**COMPLETE, "time": "100-0"}))  # accepted: nobody knows
    assert said.startswith("warning: baskerville is unverified") and "how long a job may be is not known" in said
    assert baskerville.checked in said and "python SlurmTrain.py cluster baskerville" in said
    (said,) = doubts(sulis, resolve(sulis, {"account": "a", "gpu_type": "a100"}))
    assert "not known" not in said
    refused = refusal("sulis", account="a", gpu_type="a100", gpus=4)
    assert "unverified: where the site says otherwise, change configs/clusters/sulis.yaml" in refused

    # What the site itself says is final, and what `generic` does not know is no news.
    hec, generic = load("hec", PROJECT), load("generic", PROJECT)
    assert "unverified" not in refusal("hec", gpus=4)
    assert doubts(hec, resolve(hec, {})) == doubts(generic, resolve(generic, {"gpus": 9})) == []


def test_mail_on_arrays_goes_by_a_job_of_its_own_where_it_is_rejected():
    hec, sulis = load("hec", PROJECT), load("sulis", PROJECT)
    mail = {"mail": "ada@example.org", "gpu_type": None}
    assert resolve(hec, mail, array=8).mail_by_job and not resolve(hec, mail).mail_by_job
    assert not resolve(sulis, mail | {"gpu_type": "l40", "account": "a"}, array=8).mail_by_job
    assert "mail: ADDRESS" in refusal("hec", array=8, directives=["--mail-type=END"])
    assert resolve(hec, {"directives": ["--mail-type=END"]}).directives == ("--mail-type=END",)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"gpuss": 1}, ["gpuss", "did you mean gpus"]),
        ({"gpus": "two"}, ["gpus", "'two'"]),
        ({"gpus": -1}, ["gpus", "-1"]),
        ({"memory": "16"}, ["memory", "16G"]),
        ({"gpus": 1.5}, ["gpus", "1.5 is not a whole number", "(GPUs per node)"]),
        ({"gpus": True}, ["gpus", "True"]),
        ({"nodes": 0}, ["nodes", "less than 1"]),
        ({"tasks": 0}, ["tasks", "less than 1"]),
        ({"cpus": 0}, ["cpus", "less than 1"]),
        ({"throttle": 0}, ["throttle", "less than 1"]),
        ({"max_requeues": -1}, ["max_requeues", "less than 0"]),
        ({"signal_seconds": 0}, ["signal_seconds", "less than 1"]),
        ({"signal_seconds": 65536}, ["signal_seconds", "more than 65535"]),
        ({"memory": 16}, ["memory", "16G"]),
        ({"account": True}, ["account", "True"]),
        ({"activate": ["a", "b"]}, ["activate", "one line"]),
        ({"environment": {"A": [1]}}, ["environment", "A"]),
        ({"environment": "A=1"}, ["environment", "mapping"]),
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


def test_the_table_describes_every_key_once():
    assert set(KEYS) == set(Resources.__dataclass_fields__) - {"seconds", "slice_seconds", "mail_by_job"}
    assert all(known.help and callable(known.read) for known in KEYS.values())
    names = [name for own, known in KEYS.items() for name in known.sbatch]
    assert len(names) == len(set(names)) and not set(names) & (SBATCH_OPTIONS | set(TAKEN))
    assert not SBATCH_OPTIONS & set(TAKEN)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"mem": "4g"}, {"memory": "4G"}),
        ({"cpus-per-task": 4}, {"cpus": 4}),
        ({"cpus_per_task": "4"}, {"cpus": 4}),
        ({"ntasks-per-node": 2, "tasks": 2}, {"tasks": 2}),
        ({"mail-user": "ada@example.org"}, {"mail": "ada@example.org"}),
        ({"gpu-type": "a100"}, {"gpu_type": "a100"}),
        ({"gpus-per-node": "a100:2"}, {"gpus": 2, "gpu_type": "a100"}),
        ({"gres": "gpu:2"}, {"gpus": 2}),
        ({"gres": "gpu"}, {"gpus": 1}),
        ({"gres": "gpu:tesla_v100-pcie-32gb:3"}, {"gpus": 3, "gpu_type": "tesla_v100-pcie-32gb"}),
        ({"account": 12345, "qos": 7}, {"account": "12345", "qos": "7"}),
        ({"gpu_type": 2080, "partition": 1080}, {"gpu_type": "2080", "partition": "1080"}),
        ({"memory": 0}, {"memory": "0"}),
        ({"time": 90}, {"time": "90"}),
        ({"begin": datetime.date(2026, 2, 3)}, {"begin": "2026-02-03"}),
        ({"begin": datetime.datetime(2026, 2, 3, 4, 5)}, {"begin": "2026-02-03T04:05:00"}),
        ({"exclude": ["n1", "n2"], "nodelist": ("n3",)}, {"exclude": "n1,n2", "nodelist": "n3"}),
        ({"exclusive": True, "hold": False}, {"exclusive": True, "hold": None}),
        ({"time_min": 10, "cluster": "hec", "qos": None}, {"time-min": "10", "cluster": "hec", "qos": None}),
    ],
)  # fmt: skip
def test_keys_are_read_under_sbatchs_own_names_too(given, read):
    assert read_resources(given) == read
    assert read_resources(read) == read  # what has been read can be read again, as `retry` does


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mem": "4G", "memory": "8G"}, ["mem and memory mean the same and differ"]),
        ({"gres": "gpu:a100:2", "gpus": 1}, ["gres and gpus mean the same and differ"]),
        ({"gres": "shard:2"}, ["gres", "directives"]),
        ({"gres": "gpu:1,shard:2"}, ["gres", "directives"]),
        ({"gpus": "a100:two"}, ["gpus", "'a100:two' is not a whole number"]),
        ({"job-name": "x"}, ["job-name can't be set", "`name`"]),
        ({"ntasks": 4}, ["ntasks can't be set", "`tasks`"]),
        ({"constrain": "v100"}, ["unknown key constrain", "did you mean constraint"]),
        ({"comment": "a\nb"}, ["comment", "one line"]),
        ({"cluster": "a b"}, ["cluster", "'a b'"]),
    ],
)
def test_names_that_contradict_each_other_or_the_batch_file_are_refused(given, words):
    with pytest.raises(SettingsError) as caught:
        read_resources(given, "configs/slurm.yaml")
    assert str(caught.value).startswith("configs/slurm.yaml: ")
    assert all(word in str(caught.value) for word in words), caught.value


def test_options_without_a_key_become_directives():
    generic, hec = load("generic", PROJECT), load("hec", PROJECT)
    asked = {"constraint": "a100&nvlink", "exclusive": True, "hold": False, "directives": "--nice=10"}
    assert resolve(generic, asked).directives == ('--constraint="a100&nvlink"', "--exclusive", "--nice=10")
    assert resolve(hec, {"mem-per-cpu": "4G"}).memory is None  # SLURM accepts only one of both
    assert resolve(hec, {"cpus-per-gpu": 8}).cpus is None
    assert resolve(hec, {"mem-per-cpu": None}).memory == "16G"
    assert "leave `mem-per-gpu` out" in refusal("bede-gh", **{"account": "a", "mem-per-gpu": "4G"})
    assert "mail: ADDRESS" in refusal("hec", array=8, **{"mail-type": "END"})


def test_defaults_of_a_preset_are_checked_by_the_table(project):
    file = project / "configs" / "clusters" / "hec.yaml"
    file.write_text(file.read_text().replace("cpus: 4", "cpsu: 4"))
    with pytest.raises(SettingsError, match="configs/clusters/hec.yaml: defaults: unknown key cpsu .did you mean cpus"):
        resolve(load("hec", project), {})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("account", "0123", "0123"),
        ("gpus", "2", "2"),
        ("environment", "{A: 1}", {"A": 1}),
        ("directives", "[--a=1, --b]", ["--a=1", "--b"]),
        ("memory", "null", None),
        ("exclusive", "true", True),
        ("exclusive", "user", "user"),
        ("hold", "false", False),
    ],
)
def test_what_is_typed_is_yaml_only_where_the_key_needs_it(name, text, value):
    assert from_command_line(name, text) == value


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


@settings(deadline=None)
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
    code = "import sys; from lightning_hpc.clusters import presets; from lightning_hpc.slurm import batch; "
    code += "print(*{'torch', 'lightning', 'jsonschema', 'filelock'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
