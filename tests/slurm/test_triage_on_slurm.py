"""Eight faults on a real SLURM, each of which happens for real: `status --why` names them all."""

import re

import pytest
import yaml

pytestmark = pytest.mark.slow

FAULTY = """\
import resource, time

import numpy, torch

from my_research_project.model import Classifier


class Faulty(Classifier):
    def __init__(self, *args, fault: str = "", **kwargs):
        super().__init__(*args, **kwargs)
        self.fault = fault

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if self.fault == "memory":
            torch.empty(10**13)
        if self.fault == "nan":
            return loss * float("nan")
        if self.fault == "disk":
            resource.setrlimit(resource.RLIMIT_FSIZE, (8000, resource.RLIM_INFINITY))
        if self.fault == "data":
            numpy.load("data/no-such-file.npy")
        if self.fault == "import":
            import no_such_package
        if self.fault in ("time", "cancelled", "node"):
            time.sleep(0.5)
        return loss
"""
FAULTS = ["memory", "nan", "disk", "data", "import", "time", "cancelled"]
EPOCHS = {"time": 200, "cancelled": 200}  # the others end by themselves


def test_eight_faults_are_all_named_and_retried_by_cause(project, slurm):
    """In two experiments, since the fault of a node would take the other runs with it."""
    (project.folder / "faulty.py").write_text(FAULTY)
    project.forbid_requeue("no-requeue")
    (project.folder / "configs" / "faulty.yaml").write_text(yaml.safe_dump({"model": {"class_path": "faulty.Faulty"}}))
    options = ["--no-check", "--cluster=no-requeue", "--max_requeues=0"]
    files = ["quick.yaml", "faulty.yaml"]
    runs = [{"model.fault": fault, "trainer.max_epochs": EPOCHS.get(fault, 1)} for fault in FAULTS]
    several = project.submit("faults-by-cause", *options, configs=files, search_space=runs)
    alone = {"model.fault": ["node"], "trainer.max_epochs": [200]}
    node = project.submit("node-by-cause", *options, "--partition=failing", configs=files, parameters=alone)

    job = several.job
    several.wait(lambda: several.training(5) and several.training(6), "the last two to train")
    slurm.run("scancel", "--signal=USR1", f"{job}_5")  # as at the time limit
    slurm.run("scancel", f"{job}_6")
    node.wait(lambda: node.training(0), "one on a node that will fail")
    where = slurm.job(f"{node.job}_0")["NodeList"]
    slurm.fail_node(where)
    several.wait_states(*["failed"] * 6, "preempted")
    for experiment in (several, node):
        experiment.wait_empty()
    slurm.revive_node(where)

    said = project.command("SlurmTrain.py", "status", "runs/faults-by-cause", "--why")
    for index, name in enumerate(FAULTS):
        assert re.search(rf"^{name}: .*, run {index}: .*\n    \S", said, re.MULTILINE), said
    assert len(re.findall(r", run \d: ", said)) == 7 and "7 runs: 1 stopped, 6 failed" in said
    said = project.command("SlurmTrain.py", "status", "runs/node-by-cause", "--why")
    # The job's own processes may be quick enough to say it, before they die with the node.
    assert re.search("^node: a node or its GPU has failed, run 0: .*(NODE_FAIL|Node failure)", said, re.MULTILINE), said
    assert f"retry runs/node-by-cause --cause node --exclude {where}" in said

    # What the remedy says is what one types; and only the runs of that cause are submitted again.
    calls = len(slurm.sbatch_calls())
    retry = ["SlurmTrain.py", "retry", "--yes", "--begin", "now+1hour"]
    project.command(*retry, "runs/node-by-cause", "--cause", "node", "--exclude", where)
    project.command(*retry, "runs/faults-by-cause", "--cause", "data")
    first, second = slurm.sbatch_calls()[calls:]
    assert "--array=0 " in first and "--array=3 " in second
    assert f"--exclude={where}" in (node.folder / "job.sbatch").read_text()
    assert "nothing to submit again" in project.command(*retry, "runs/faults-by-cause", "--cause", "node")
