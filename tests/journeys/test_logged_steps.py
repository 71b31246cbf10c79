"""`is_logged` leaves out what nobody reads: the rows are those of a model that logs at every step."""

import json

import pytest

MODEL = """
from {package}.model import Classifier


class AtEveryStep(Classifier):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("train/loss", loss, prog_bar=True)
        return loss
"""

CASES = {
    "several epochs": ["--trainer.log_every_n_steps=3", "--trainer.max_epochs=2"],
    "accumulation": ["--trainer.log_every_n_steps=2", "--trainer.accumulate_grad_batches=3"],
    "validation in the epoch": ["--trainer.log_every_n_steps=4", "--trainer.val_check_interval=3"],
    "validation over the run": ["--trainer.log_every_n_steps=4", "--val_every_steps=3", "--trainer.max_steps=8"],
    "end in the epoch": ["--trainer.log_every_n_steps=3", "--trainer.max_steps=5"],
}


def of(run) -> tuple[list[dict], dict]:
    """The rows, but for what takes time, and the metrics of the end."""
    timed = ("seconds", "time/", "throughput", "memory", "usage/", "samples_per_second", "epoch_seconds")
    rows = [{key: value for key, value in row.items() if not key.startswith(timed)} for row in run.rows]
    metrics = json.loads((run.folder / "status.json").read_text())["metrics"]
    return rows, {key: value for key, value in metrics.items() if not key.startswith(timed)}


@pytest.mark.parametrize("case", CASES)
def test_the_rows_are_those_of_a_model_that_logs_at_every_step(case, train, tmp_path):
    (tmp_path / "every.py").write_text(MODEL.format(package="my_research_project"))
    settings = ["--trainer.limit_train_batches=10", "--checkpoints.monitor=train/loss", *CASES[case]]

    at_some = train("fit", "--name=some", *settings)
    at_every = train("fit", "--name=every", "--model=every.AtEveryStep", *settings)

    assert at_some.code == at_every.code == 0
    rows, metrics = of(at_some)
    assert any(row.get("train/loss") for row in rows)
    assert (rows, metrics) == of(at_every)
