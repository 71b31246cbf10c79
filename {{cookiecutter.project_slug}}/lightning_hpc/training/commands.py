"""The commands of Train.py. Help and most wrong usage are answered before torch is imported, which takes seconds."""

import contextlib
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .. import signals
from ..logs import quiet_lightning, start_terminal
from ..private_names import check_packages
from ..processes import is_other_rank
from ..runs.folder import EXIT_CODES, RunFolder
from ..runs.owner import first_job
from ..runs.run import Run, read_command_line
from ..settings.errors import SettingsError, did_you_mean
from ..settings.flat import read_settings
from ..stand_ins import import_torchmetrics

COMMANDS = {
    "fit": "train; started again with the same settings, it resumes where it was",
    "validate": "evaluate a run's best checkpoint on the validation data",
    "test": "evaluate a run's best checkpoint on the test data",
    "predict": "save a run's predictions for the test data",
    "crossvalidate": "fit once for each of --folds K, then the mean and standard deviation of their metrics",
    "fetch": "download the data, on a node that has internet",
    "export": "write a run's model as a file for other programs: ONNX, TorchScript, weights (see export --help)",
    "reproduce": "train a run again, and say whether it is the same to the bit (see reproduce --help)",
    "push": "upload what its mirror lacks of a run (see push --help)",
    "pull": "fetch a run from the mirror, by its folder or its identity (see pull --help)",
}

HELP = f"""usage: python Train.py COMMAND [--KEY VALUE ...]

commands:
{chr(10).join(f"  {name:<14}{text}" for name, text in COMMANDS.items())}

settings (all of them: python Train.py fit --help):
  --KEY VALUE           any key of configs/base.yaml, or of a class it names: --data.batch_size 128
  --config FILE         lay a file of settings over configs/base.yaml; may be repeated
  --print_config        show the resolved settings and stop
  --name EXPERIMENT     the experiment the run belongs to
  --trial N             repeat the run with seed N, in a folder of its own
  --runs_dir FOLDER     where run folders go; a relative path counts from here, in a file from the project's folder
  --then test           fit: test the run at its end
  --run FOLDER          the run in this folder: fit continues it; validate, test and predict use it
  --extend FOLDER       fit: train the finished run in this folder for longer, in a folder of its own
  --run EXPERIMENT --index N   run N of a planned experiment, see SlurmTrain.py

examples:
  python Train.py fit
  python Train.py fit --name wide --model.network.width 64 --trial 1
  python Train.py fit --model.optimizer SGD --model.optimizer.lr 0.1
  python Train.py fit --config configs/trainer/gpu.yaml --trainer.max_epochs 50
  python Train.py test --run runs/wide/001-width=64-0123abcd
"""


def main(argv: Sequence[str], root: Path) -> int:
    """Run one command line; returns the exit code: 0 only on success, others in runs/folder.py.

    Args:
        argv: the command and its settings.
        root: the project's folder, which holds configs/.

    Raises:
        SettingsError, CheckpointError: what was asked for is wrong or missing; nothing has been written.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    command, *arguments = argv
    if command not in COMMANDS:
        near = did_you_mean(command, COMMANDS)
        raise SettingsError(f"unknown command {command}{near}; see python Train.py --help")

    start_terminal()
    if command == "fetch":
        return fetch(read_command_line("fit", arguments, root), root)

    # The one place where handlers of signals are installed, for all that saves before it stops: as early as possible,
    # since a signal that comes while torch is imported must not be lost. A library that is loaded later may take a
    # signal for itself; `signals.keep` then takes it back. `fetch` has nothing to save, so Ctrl-C ends it at once.
    if command == "crossvalidate":
        from .crossvalidation import crossvalidate

        signals.install()  # it hands them on to the fold that is being trained
        return crossvalidate(arguments, root)

    run = read_command_line(command, arguments, root)
    signals.install(at_once=partial(end_attempt, run.folder))
    if "WANDB_SWEEP_ID" in os.environ:
        signals.received()  # not before the first batch: W&B must hear from the run, or the sweep has lost a trial
    try:
        return carry_out(run, root)
    except signals.Stopped as stopped:
        return stopped_early(run, stopped.reason)


def end_attempt(folder: RunFolder, state: str, reason: str) -> int:
    """Write down how the attempt has ended, if one has begun in this process; returns the exit code."""
    if folder.started and not folder.is_lost():
        folder.end(state, reason)
    return EXIT_CODES[state]


def stopped_early(run: Run, state: str) -> int:
    """Say and write down that a signal has ended the command before its first batch; returns the exit code."""
    reason = "stopped before the first batch"
    print(f"{reason}: {state}; nothing was lost", file=sys.stderr)
    if run.command != "fit" or is_other_rank():
        return EXIT_CODES[state]

    # A job that is put back into the queue needs a word from the run itself. By hand, nothing has happened.
    folder = run.folder
    if not folder.started and first_job() is None:
        return EXIT_CODES[state]
    with contextlib.suppress(SettingsError), folder.locked():  # another process may be training in this folder
        if folder.status().get("state") == "done":
            return EXIT_CODES["done"]
        if not folder.started:
            folder.start(name=run.group, identity=run.identity)
        folder.end(state, reason)
    return EXIT_CODES[state]


def carry_out(run: Run, root: Path) -> int:
    """Fit, validate, test or predict; returns the exit code.

    Args:
        run: what to do, and with which run.
        root: the project's folder, or in a job the snapshot of it.

    Raises:
        SettingsError, CheckpointError: what was asked for is wrong or missing; nothing has been written.
    """
    import_torchmetrics()
    check_packages()  # first: what is missing would fail below, and not say what to do

    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    from ..settings.parser import CLI
    from .evaluate import evaluate
    from .fit import fit

    quiet_lightning()
    signals.keep()
    cli = CLI(run.command, run.settings)
    if run.command != "fit":
        return evaluate(cli, run, root)

    # A second process must not train in the same folder. Other ranks of this run do, so only rank 0 holds the lock.
    lock: contextlib.AbstractContextManager = contextlib.nullcontext()
    if rank_zero_only.rank == 0:
        lock = run.folder.locked(stop=lambda: signals.received() is not None)
    with lock:
        return fit(cli, run, root)


def fetch(run: Run, root: Path) -> int:
    """Download and prepare the data, and set the files' times to now; returns the exit code.

    For the login nodes of clusters: compute nodes have no internet, and scratch folders are purged of old files.

    Args:
        run: a run with this data.
        root: the project's folder, whose configs/ know the cluster.
    """
    import_torchmetrics()
    from ..data.staging import DownloadError, touch
    from ..settings.parser import CLI

    quiet_lightning()
    data = CLI(run.command, run.settings).datamodule
    try:
        data.prepare_data()
    except DownloadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1

    touch(Path(getattr(data, "data_dir", "data")))
    message = f"the data of {type(data).__name__} are ready"
    days = purge_days(root)
    if days:
        message += f"; files on scratch are purged after {days} days: run this again before that"
    print(message)
    return 0


def purge_days(root: Path) -> int | None:
    """How long files stay on the scratch of the cluster that configs/slurm.yaml names; None if it does not say."""
    resources = root / "configs" / "slurm.yaml"
    if not resources.exists():
        return None
    cluster = read_settings(resources).get("cluster")
    preset = root / "configs" / "clusters" / f"{cluster}.yaml"
    if not preset.exists():
        return None
    return read_settings(preset).get("purge_days")
