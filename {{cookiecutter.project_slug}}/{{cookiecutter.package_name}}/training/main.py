"""The entrance of Train.py: help and wrong settings are dealt with before torch is imported, which takes seconds."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..runs.request import request
from ..runs.settings import SettingsError, did_you_mean
from . import signals
from .logs import start_terminal

COMMANDS = {
    "fit": "train; started again with the same settings, it goes on where it was",
    "validate": "evaluate a run's best checkpoint on the validation data",
    "test": "evaluate a run's best checkpoint on the test data",
    "predict": "save a run's predictions for the test data",
    "crossvalidate": "fit once for each of --folds K, then the mean and standard deviation of their metrics",
    "fetch": "download the data, on a node that has internet",
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
  --runs_dir FOLDER     where run folders go
  --run FOLDER          the run in this folder: fit goes on with it; validate, test and predict use it
  --run EXPERIMENT --index N   run N of a planned experiment, see SlurmTrain.py

examples:
  python Train.py fit
  python Train.py fit --name wide --model.network.width 64 --trial 1
  python Train.py fit --model.optimizer SGD --model.optimizer.lr 0.1
  python Train.py fit --config configs/trainer/gpu.yaml --trainer.max_epochs 50
  python Train.py test --run runs/wide/001-width=64-0123abcd
"""


def main(argv: Sequence[str], root: Path) -> int:
    """Run one command line; returns the exit code: 0 only on success, 2 for wrong usage, others in runs/folder.py.

    Args:
        argv: the command and its settings.
        root: the project's folder, which holds configs/.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    command, *arguments = argv
    try:
        if command not in COMMANDS:
            raise SettingsError(
                f"unknown command {command}{did_you_mean(command, COMMANDS)}; see python Train.py --help"
            )
        if command == "fetch":
            start_terminal()
            from .fetch import fetch

            return fetch(request("fit", arguments, root), root)
        if command == "crossvalidate":
            signals.install()
            start_terminal()
            from .crossvalidation import crossvalidate

            return crossvalidate(arguments, root)
        wanted = request(command, arguments, root)
        for name in [name for name in os.environ if name.startswith("WANDB_") and not os.environ[name]]:
            del os.environ[name]  # left empty in .env, which means not set; W&B refuses an empty mode
        signals.install()  # before torch is imported: a signal in these seconds must not be lost
        start_terminal()
        from .run import run

        return run(wanted)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
