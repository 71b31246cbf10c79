"""A run moves from one cluster to another: two private SLURMs that share a mirror, and no folder of runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from private_slurm import PrivateSlurm
from same import unequal

pytestmark = pytest.mark.slow


@pytest.fixture
def other_cluster(slurm) -> Iterator[PrivateSlurm]:
    """Daemons of their own, with other job ids; what runs there does not have to wait in its steps."""
    ours = ("WANDB_MODE", "OMP_NUM_THREADS", "HOME", "PYTHONPATH")
    with PrivateSlurm() as running:
        running.environment = {name: value for name, value in running.environment.items() if name not in ours}
        running.environment |= {name: slurm.environment[name] for name in ours if name in slurm.environment}
        running.environment["PAUSE"] = "0"
        yield running


def checkpoint(run: Path) -> dict:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def test_a_run_cancelled_on_one_cluster_continues_on_another(project, other_cluster, tmp_path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    settings = {"mirror": {"url": f"file://{mirror}", "every_n_minutes": 0.001}}
    (project.folder / "configs" / "mirrored.yaml").write_text(yaml.safe_dump(settings))
    runs = dict(configs=["quick.yaml", "mirrored.yaml"])
    runs["parameters"] = {"model.pause": [0.5], "trainer.max_epochs": [3]}

    # The other cluster has the project, and nothing of its runs.
    elsewhere = project.with_train(tmp_path / "elsewhere", (project.folder / "Train.py").read_text())
    elsewhere.slurm = other_cluster

    here = project.submit("moving", "--no-check", **runs)
    here.wait(lambda: here.training(0), "an epoch")
    project.command("SlurmTrain.py", "cancel", here.folder)
    here.wait_empty()
    stopped = here.status(0)
    assert stopped["state"] != "done" and 0 < stopped["step"] < 30

    there = elsewhere.submit("moving", "--no-check", **runs)
    assert there.rows[0]["identity"] == here.rows[0]["identity"]
    there.wait_states("done")
    status = there.status(0)
    assert (status["step"], status["attempt"]) == (30, 2) and here.status(0)["step"] == stopped["step"]
    assert f"the mirror is ahead, at step {stopped['step']}" in there.log(0)

    # As if it had never moved: weights, optimizer, counters, and a row for each that an undisturbed run has.
    reference = project.undisturbed({"moving": [0]})["moving"][0]
    mine, other = checkpoint(there.run(0)), checkpoint(reference)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step", "epoch"):
        assert not list(unequal(mine[key], other[key], key))
    assert len(there.metrics(0)) == len((reference / "metrics.csv").read_text().splitlines()) - 1
