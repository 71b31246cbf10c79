"""What a small run asks of the file system that it shares with a thousand others stays under a ceiling.

benchmarks/footprint.py measures the same beside other programs.
"""

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import system_calls  # noqa: E402


def can_trace() -> bool:
    """True if strace is here, and the machine lets it look at processes."""
    return (
        bool(shutil.which("strace")) and not subprocess.run(["strace", "-qq", "true"], capture_output=True).returncode
    )


pytestmark = pytest.mark.skipif(not can_trace(), reason="needs strace (apt-get install strace)")

EPOCHS = 4


@pytest.fixture(scope="module")
def asked(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Counter]:
    """Kind → file in the run's folder → number of calls, of a default run that records into files for W&B.

    Files in folders count for the folder; a file that is being written has the number of its process in its name.
    """
    runs = tmp_path_factory.mktemp("runs")
    file = runs / "calls.txt"
    settings = [f"--runs_dir={runs}", f"--trainer.max_epochs={EPOCHS}", "--checkpoints.every_n_steps=17"]
    command = [sys.executable, "Train.py", "fit", *settings]
    system_calls.trace(command, project, {**os.environ, "WANDB_MODE": "offline"}, file)

    (run,) = runs.glob("default/*")
    counted: dict[str, Counter] = {kind: Counter() for kind in system_calls.KINDS}
    for call in system_calls.calls(file, project):
        if call.path == str(run) or call.path.startswith(f"{run}/"):
            name = call.path.removeprefix(str(run)).lstrip("/").partition("/")[0]
            counted[call.kind][name.removeprefix(".")] += 1
    return counted


def of(counted: Counter, name: str) -> int:
    """The calls about a file or a folder, those of its parts included."""
    return sum(number for found, number in counted.items() if found.startswith(name))


def test_a_save_opens_and_syncs_as_little_as_it_can(asked):
    """The checkpoint, meta.json and their folder; status.json is read, since another attempt may have begun."""
    saves = EPOCHS
    assert saves <= of(asked["syncs"], "checkpoints") <= 3 * saves
    assert of(asked["opens"], "checkpoints") <= 3 * saves + 6  # the folder is read when the run begins and when it ends
    assert of(asked["writes"], "checkpoints") <= 3 * saves
    assert of(asked["opens"], "status.json") <= 2 * saves + 15
    assert of(asked["syncs"], "status.json") <= saves + 4


def test_files_that_grow_stay_open(asked):
    assert of(asked["opens"], "fingerprints.jsonl") <= 2
    assert of(asked["opens"], "metrics.csv") <= 9  # once for each time that a metric is logged for the first time
    assert of(asked["syncs"], "metrics.csv") <= EPOCHS + 2
    assert of(asked["opens"], "logs") <= 2


def test_a_map_is_written_in_one_piece_and_its_picture_read_once(asked):
    assert 2 * EPOCHS <= of(asked["writes"], "cka") <= 2 * EPOCHS + 2
    assert of(asked["opens"], "cka") <= 3 * EPOCHS + 4


def test_the_whole_run_stays_under_a_ceiling(asked):
    totals = {kind: sum(asked[kind].values()) for kind in ("opens", "syncs", "names")}
    assert totals["opens"] <= 105, asked["opens"]
    assert totals["syncs"] <= 36, asked["syncs"]
    assert totals["names"] <= 90, asked["names"]
