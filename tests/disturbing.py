"""Something that happens to a run while it trains."""

import os
import signal
from pathlib import Path

from lightning.pytorch import Callback

from lightning_hpc.processes import descendants

EVERY_STEP = ("--trainer.limit_train_batches=1.0", "--trainer.log_every_n_steps=1")


class Disturb(Callback):
    """Does what the file `disturb` in the working folder says after the tenth batch, once.

    Attributes:
        server: what goes away where a server is to break down.
    """

    server = None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        note = Path("disturb")
        if batch_idx != 9 or not note.exists():
            return
        wish = note.read_text()
        note.unlink()

        if wish == "crash":
            raise RuntimeError("the run has a fault")
        if wish == "service dies":
            for pid in descendants(os.getpid()):
                if "wandb" in Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(pid, signal.SIGKILL)
        elif wish == "server breaks down":
            Disturb.server.go_away()
        else:
            os.kill(os.getpid(), signal.Signals[wish])


def disturbed(wish):
    """The argument for a run to which this happens: a signal's name, crash, service dies or server breaks down."""
    Path("disturb").write_text(wish)
    return f"--trainer.callbacks+={__name__}.Disturb"


def log(run):
    """What a run has said: all of it is in its log file, too."""
    return (run.folder / "logs" / "rank-0.log").read_text()
