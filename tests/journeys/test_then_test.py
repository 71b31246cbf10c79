"""`fit --then test`: the results are those of `test`, whatever has stopped the run, and a grid has them, too."""

import json
import os
import signal
from pathlib import Path

import pytest
from lightning.pytorch import Callback

from lightning_hpc.results import read


class StopInTest(Callback):
    """Asks the run to stop in its first test."""

    def on_test_start(self, trainer, pl_module):
        note = Path("stopped")
        if not note.exists():
            note.touch()
            os.kill(os.getpid(), signal.SIGTERM)


def results(run, name="test.json"):
    found = json.loads((run.folder / name).read_text())
    return {key: value for key, value in found.items() if key != "time"}


@pytest.mark.parametrize("more", [[], ["--config=experiments/ema.yaml"]])
def test_the_results_are_those_of_the_command_test(train, capsys, more):
    run = train("fit", "--then=test", "--trainer.max_epochs=2", *more)
    assert run.code == 0 and run.status["state"] == "done"
    assert "val/acc" in run.status["metrics"] and "test/acc" not in run.rows[0]
    at_end = results(run)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("test ")]
    assert f"test/acc {at_end['test/acc']:.4g}" in line
    train("test", "--run", str(run.folder))
    assert results(run) == at_end


def test_a_run_that_is_stopped_in_its_test_is_tested_when_it_is_started_again(train):
    command = ("fit", "--then=test", f"--trainer.callbacks+={__name__}.StopInTest")
    stopped = train(*command)
    assert stopped.code == 75 and stopped.status["state"] == "preempted" and not (stopped.folder / "test.json").exists()
    rows = stopped.rows
    run = train(*command)
    assert run.code == 0 and run.status["state"] == "done" and run.rows == rows
    assert "test/acc" in results(run)


def test_a_quick_look_is_tested_too(train):
    run = train("fit", "--then=test", "--trainer.fast_dev_run=true")
    assert run.code == 0 and "test/acc" in results(run)


def test_a_run_that_was_done_without_is_tested_now_and_only_once(train):
    run = train("fit")
    assert not (run.folder / "test.json").exists()
    assert train("fit", "--then=test").folder == run.folder  # it is no other run
    before = (run.folder / "test.json").read_text()
    assert "test/acc" in json.loads(before)
    train("fit", "--then=test")
    assert (run.folder / "test.json").read_text() == before


def test_other_data_have_results_of_their_own(train):
    run = train("fit", "--then=test", "--data.test_on=val")
    assert "test/acc" in results(run, "test-val.json") and not (run.folder / "test.json").exists()


def test_a_grid_has_test_results(train, project):
    from lightning_hpc.planning.plan import plan

    grid = dict(name="widths", parameters={"model.network.width": [4, 8], "then": "test"})
    for planned in plan(grid, project).runs:
        settings = [f"--{key}={value}" for key, value in planned.overlay.items()]
        assert train("fit", "--name=widths", *settings).code == 0
    table = read("runs/widths").table
    assert len(table) == 2 and table["test/acc"].notna().all() and table["test/loss"].notna().all()


def test_a_model_without_a_test_is_refused_before_the_run_begins(train, capsys):
    Path("untested.py").write_text(
        "from lightning.pytorch import LightningModule\n"
        "from my_research_project.model import Classifier\n"
        "class Untested(Classifier):\n"
        "    test_step = LightningModule.test_step\n"
    )
    assert train("fit", "--then=test", "--model=untested.Untested").code == 2
    assert "--then test: Untested has no test_step" in capsys.readouterr().err
