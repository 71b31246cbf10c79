"""A preset beside a real SLURM that is not as it says; and a first preset for that SLURM, with which a job runs."""

import pytest
import yaml

pytestmark = pytest.mark.slow


def test_a_preset_is_held_against_the_cluster_and_a_first_one_is_written(project, slurm):
    command = ["SlurmTrain.py", "cluster"]
    said = project.command(*command, "private", "--write")
    assert "did not answer: sacctmgr" in said  # nobody keeps accounts here
    file = project.folder / "configs" / "clusters" / "private.yaml"
    preset = yaml.safe_load(file.read_text())
    assert list(preset["partitions"]) == ["main", "patient", "restless", "failing", "high"]
    assert preset["partitions"]["main"] == {"time": "2-00:00:00", "gpus": {"gpu": 8}}
    assert preset["array_limit"] == 1001
    assert "nothing differs" in project.command(*command, "private")

    # The site changes a limit and closes a partition; somebody has changed the preset.
    slurm.run("scontrol", "update", "PartitionName=main", "MaxTime=12:00:00")
    slurm.run("scontrol", "update", "PartitionName=high", "State=INACTIVE")
    file.write_text(file.read_text().replace("gpu: 8", "gpu: 4", 1).replace("1001", "2000"))
    try:
        said = project.command(*command, "private")
    finally:
        slurm.run("scontrol", "update", "PartitionName=main", "MaxTime=2-0")
        slurm.run("scontrol", "update", "PartitionName=high", "State=UP")
    for remark in (
        "partitions.main.time: 12:00:00 here, 2-00:00:00 in the preset",
        "partitions.main.gpus: {gpu: 8} here, {gpu: 4} in the preset",
        "partitions.high: in the preset, and not here",
        "array_limit: 1001 here, 2000 in the preset",
    ):
        assert f"# {remark}" in said
    assert yaml.safe_load(said)["partitions"] == {"main": {"time": "12:00:00", "gpus": {"gpu": 8}}}

    # The first preset is good enough to be submitted with.
    spec = project.spec("with-first-preset", parameters={"trial": [0]})
    submit = ["SlurmTrain.py", "submit", spec, "--yes", "--no-check", "--cluster", "private", "--begin", "now+1hour"]
    said = project.command(*submit, "--time", "20:00:00")
    assert "private, main: 1 run" in said and "warning: private is unverified" in said
    job = slurm.job(f"{project.experiment('with-first-preset').job}_0")
    assert (job["Partition"], job["TimeLimit"]) == ("main", "20:00:00")
