"""What a cluster says of itself, beside its preset: read from SLURM's own words, printed as YAML to paste."""

import shutil
from pathlib import Path

import pytest
import yaml

from lightning_hpc.clusters.comparison import compare, first_preset, today
from lightning_hpc.clusters.own_words import OwnWords, ask_cluster
from lightning_hpc.clusters.presets import Preset, check_preset, load
from lightning_hpc.scheduler.commands import NoAnswer
from lightning_hpc.settings.errors import SettingsError
from lightning_hpc.slurm.command_line import main

PROJECT = Path(__file__).parents[2] / "{{cookiecutter.project_slug}}"
SHOW = "PartitionName={} Default={} QoS={} MaxTime={} RootOnly={} ReqResv=NO State=UP Nodes=n[1-2]"
PARTITIONS = [
    SHOW.format("gpu-devel", "NO", "N/A", "01:00:00", "NO"),
    SHOW.format("gpu", "YES", "gpu", "2-00:00:00", "NO"),
    SHOW.format("gpulowpri", "NO", "low", "1-00:00:00", "NO"),
    SHOW.format("maintenance", "NO", "N/A", "UNLIMITED", "YES"),
]
GPUS = [
    "gpu-devel|gpu:ampere_a100:3(S:0-1)",
    "gpu|gpu:ampere_a100:3(S:0-1)",
    "gpu|gpu:lovelace_l40:3,shard:9",
    "gpulowpri|gpu:ampere_a100:3,gpu:lovelace_l40:3",
    "hidden|gpu:h100:8",
]
CONFIG = "Configuration data as of today\nClusterName             = sulis\nMaxArraySize            = 1001\n"
QOS = "normal||\ngpu||cpu=999,gres/gpu=30\nlow|50|"


def as_sulis(told) -> None:
    """Let SLURM say, for one question, what the preset of Sulis says."""
    told.says("scontrol", "\n".join(PARTITIONS), CONFIG)
    told.says("sinfo", "\n".join(GPUS))
    told.says("sacctmgr", "su001|200|normal\nsu002|100|normal", QOS)


@pytest.fixture
def sulis(told):
    """SLURM as the preset of Sulis describes it."""
    as_sulis(told)
    return told


@pytest.fixture
def project(tmp_path):
    """A folder with the presets and nothing else."""
    shutil.copytree(PROJECT / "configs" / "clusters", tmp_path / "configs" / "clusters")
    return tmp_path


def test_what_a_cluster_says_of_itself_is_read(sulis):
    words = ask_cluster()
    assert list(words.partitions) == ["gpu", "gpu-devel", "gpulowpri"]  # the default one first; none for root alone
    a100, both = {"ampere_a100": 3}, {"ampere_a100": 3, "lovelace_l40": 3}
    assert words.partitions["gpu"] == {"time": "2-00:00:00", "gpus": both, "gpus_per_user": 30}
    assert words.partitions["gpu-devel"] == {"time": "01:00:00", "gpus": a100}
    assert words.partitions["gpulowpri"] == {"time": "1-00:00:00", "gpus": both, "jobs_per_user": 50}
    assert (words.name, words.array_limit, words.jobs_per_user) == ("sulis", 1001, 200)
    assert words.accounts == ["su001", "su002"] and words.silent == []


def test_a_preset_and_its_cluster_agree_however_each_writes_it(sulis):
    """24:00:00 is a day, and an A100 has another name in SLURM."""
    sulis.says("sinfo", "\n".join([*GPUS, "gpu-devel|gpu:lovelace_l40:3"]))
    text = compare(load("sulis", PROJECT), ask_cluster())
    assert "nothing differs" in text.splitlines()[0] and yaml.safe_load(text) == {"checked": today()}
    assert "# answered: scontrol show partition, sinfo" in text


def test_what_differs_is_yaml_that_the_preset_takes(sulis, project, capsys):
    changed = [line.replace("2-00:00:00", "3-00:00:00") for line in PARTITIONS if "gpulowpri" not in line]
    new = SHOW.format("big", "NO", "N/A", "12:00:00", "NO")
    sulis.says("scontrol", "\n".join([*changed, new]), CONFIG.replace("1001", "501"))
    sulis.says("sinfo", "\n".join([*GPUS, "gpu|gpu:h200:8", "big|gpu:h200:8", "gpu-devel|gpu:lovelace_l40:3"]))
    sulis.says("sacctmgr", "su001|80|normal", QOS)
    assert main(["cluster", "sulis"], project) == 0
    text = capsys.readouterr().out
    assert "# partitions.gpu.time: 3-00:00:00 here, 2-00:00:00 in the preset" in text
    assert "# partitions.gpu.gpus: {a100: 3, l40: 3, h200: 8} here, {a100: 3, l40: 3} in the preset" in text
    assert "# partitions.gpulowpri: in the preset, and not here; or you may not use it" in text
    assert "# array_limit: 501 here, 1000 in the preset" in text
    assert "# jobs_per_user: 80 here, 200 in the preset" in text and "# your accounts: su001" in text

    pasted = yaml.safe_load(text)
    gpu = {"time": "3-00:00:00", "gpus": {"a100": 3, "l40": 3, "h200": 8}, "gpus_per_user": 30}
    assert pasted["partitions"] == {"gpu": gpu, "big": {"time": "12:00:00", "gpus": {"h200": 8}}}
    preset = yaml.safe_load((project / "configs/clusters/sulis.yaml").read_text())
    check_preset({**preset, **pasted, "partitions": {**preset["partitions"], **pasted["partitions"]}}, "pasted")


def test_only_what_answers_is_compared_and_the_silence_is_named(told):
    told.says("scontrol", PARTITIONS[1], "error: Unable to contact slurm controller")
    told.says("sinfo", "error: sinfo: error: no")
    told.says("sacctmgr", "error: Only 'accounting_storage/slurmdbd' is supported.")
    words = ask_cluster()
    assert words.partitions == {"gpu": {"time": "2-00:00:00"}} and words.array_limit is None
    text = compare(load("sulis", PROJECT), words)
    assert "# did not answer: sacctmgr show assoc: Only 'accounting_storage/slurmdbd' is supported." in text
    assert "in the preset, and not here" in text and "partitions.gpu." not in text
    told.says("scontrol", "error: Unable to contact slurm controller")
    with pytest.raises(NoAnswer, match="scontrol show partition does not answer: Unable to contact"):
        ask_cluster()


def test_types_that_slurm_has_no_name_for(told):
    baskerville = load("baskerville", PROJECT)  # no partitions, and GPUs by constraint
    words = OwnWords("b", {"main": {"time": "10-00:00:00", "gpus": {"gpu": 4}}})
    text = compare(baskerville, words)
    assert "# limits.time: 10-00:00:00 here, nothing in the preset" in text and "limits.gpus" not in text
    words.partitions["main"]["gpus"] = {"a100": 4}
    assert "limits.gpus" not in compare(baskerville, words)
    words.partitions["main"]["gpus"] = {"a100": 8}
    assert "limits.gpus: {a100: 8} here" in compare(baskerville, words)
    none = Preset("x", "", "", "", "current", partitions={})
    assert "nothing differs" in compare(none, OwnWords())


def test_a_first_preset_is_written_only_when_asked_and_never_over_a_file(sulis, project, capsys):
    file = project / "configs/clusters/new.yaml"
    assert main(["cluster", "new"], project) == 0
    shown = capsys.readouterr().out
    assert "--write keeps this as configs/clusters/new.yaml" in shown and not file.exists()

    as_sulis(sulis)
    told = first_preset("new", ask_cluster())
    as_sulis(sulis)
    assert main(["cluster", "new", "--write"], project) == 0
    assert file.read_text() == told and f"written: {file}" in capsys.readouterr().out
    preset = load("new", project)
    assert (preset.status, preset.checked, preset.jobs_per_user) == ("unverified", today(), 200)
    assert list(preset.partitions) == ["gpu", "gpu-devel", "gpulowpri"]
    as_sulis(sulis)
    assert "nothing differs" in compare(preset, ask_cluster())

    for name in ("new", "hec"):
        with pytest.raises(SettingsError, match="is there already and is not overwritten"):
            main(["cluster", name, "--write"], project)
    assert file.read_text() == told
    with pytest.raises(SettingsError, match="can't name a preset"):
        main(["cluster", "../x", "--write"], project)
