"""Weights & Biases: one run for all attempts, online or offline, also in a sweep."""

import contextlib
import csv
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ..failures import service_has_died
from ..private_names import check_wandb
from ..runs.folder import EXIT_CODES, RunFolder
from ..runs.run import Run
from ..settings.places import quoted
from ..stand_ins import without_job_queues, without_pandas
from .tracker import Tracker

logger = logging.getLogger(__name__)

# In a W&B sweep, a run that was killed or has crashed comes back until it has had so many attempts: with more, a run
# with a fault would come back for ever. A run that was asked to stop, and has saved, comes back any number of times.
MOST_ATTEMPTS = 3

SECONDS_TO_EXIT = 60  # after its end, a run that hangs would keep W&B's agent from starting the next one


class WandB(Tracker, WandbLogger):
    """Weights & Biases, online where a key is found and offline where none is. A restart continues the same W&B run.

    The key is read by W&B itself, from WANDB_API_KEY or the file that `wandb login` writes; it is never a setting here.
    WANDB_MODE (online, offline, disabled) has the last word. A server that does not answer costs the run no more than
    the two timeouts: it continues offline, and `wandb sync` uploads the rest.

    Args:
        project: W&B project.
        entity: W&B user or team; none means your default.
        group: W&B group; filled in with the experiment's name.
        name: name shown; filled in with the run folder's name.
        id: W&B run id; filled in with the run's identity.
        tags: filled in with what the run changes, as key=value.
        save_dir: where W&B keeps its files; filled in with the run folder.
        init_timeout: seconds to wait for the server at the start.
        finish_timeout: seconds to wait for the last uploads at the end.
    """

    title = "W&B"

    def __init__(
        self,
        project: str,
        entity: str | None = None,
        group: str | None = None,
        name: str | None = None,
        id: str | None = None,
        tags: list[str] | None = None,
        save_dir: str = ".",
        init_timeout: float = 60.0,
        finish_timeout: float = 600.0,
    ) -> None:
        # Silent, because the run says itself where it is in W&B: once, and in the log file too.
        settings: dict[str, Any] = dict(
            init_timeout=init_timeout, finish_timeout=finish_timeout, finish_timeout_raises=True, silent=True
        )

        # Fewer files, and questions about files: no links to the newest of the folder's one or two attempts, and no
        # looking whether there is a folder .wandb.
        settings |= dict(symlink=False, use_dot_wandb=False)
        super().__init__(
            name=name,
            save_dir=save_dir,
            id=id,
            project=project,
            entity=entity,
            group=group,
            tags=tags,
            settings=settings,
        )
        self._wandb_init.pop("anonymous")  # W&B warns about this setting, which Lightning still passes

        if default_mode() in ("offline", "dryrun"):
            self.go_offline()

    def go_offline(self) -> None:
        """Record into files only."""
        # Steps are counted on from an earlier attempt only under `must`, which fails where there was none.
        earlier = any(Path(self.save_dir or ".", "wandb").glob(f"*run-*-{self._id}"))
        resume = "must" if earlier else "allow"
        self._wandb_init.update(mode="offline", resume=resume)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run, begun at the first use."""
        import wandb

        if self._experiment is not None:
            return self._experiment

        # W&B's service inherits the mask. Schedulers send SIGTERM to every process of a job, and without its service a
        # run can neither upload what is left nor say that it was preempted.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP})
        try:
            with without_job_queues():
                run = super().experiment
        except wandb.Error as error:  # the server is away or does not take the key; that must not cost the run
            reason = str(error).splitlines()[-1]
            logger.warning(f"warning: W&B can't be reached, so this run is recorded offline: {reason}")
            wandb.teardown()  # otherwise the id counts as in use
            self.go_offline()
            with without_job_queues():
                run = super().experiment
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

        if in_sweep():
            attempt = RunFolder(self.save_dir or ".").status().get("attempt", 1)
            if attempt < MOST_ATTEMPTS:
                run.mark_preempting()  # at once: a run that is killed can't say any more that it wants to come back
        if not (run.disabled or run.offline):
            logger.info(f"W&B: {run.url}")
        return run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._call(super().log_metrics, metrics, step)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self._call(super().log_hyperparams, params)

    @rank_zero_only
    def log_png(self, key: str, picture: bytes, step: int | None = None) -> None:
        """Log a picture. W&B reads its file three times: one on this machine, as the run's folder may be on another.

        Args:
            key: its name.
            picture: the content of a file.
            step: the training step that it shows.
        """
        with tempfile.TemporaryDirectory() as here:
            file = Path(here, "picture.png")
            file.write_bytes(picture)
            self.log_image(key, [str(file)], step=step)

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **options: Any) -> None:
        with without_pandas():
            super().log_image(key, images, step, **options)

    def _call(self, method: Callable[..., Any], *arguments: Any) -> None:
        """Call a method of W&B's; if its service has died, continue offline, and call it again."""
        try:
            method(*arguments)
        except Exception as error:
            if not service_has_died(error):
                raise
            logger.warning("warning: W&B's service has died, so the rest of this run is recorded offline")
            self.forget_service()
            self.go_offline()
            method(*arguments)

    def forget_service(self) -> None:
        """Let the next use of W&B start another service, and begin another record of the run."""
        import wandb
        from wandb.sdk.lib.module import unset_globals

        vars(self)["_experiment"] = None
        with contextlib.suppress(Exception, SystemExit):  # it would say once more that the service is gone
            wandb.teardown()
        unset_globals()  # the next run would otherwise be taken for this one, which has no service

    @classmethod
    def settings_of(cls, run: Run) -> dict[str, Any]:
        run_id = f"{run.group}-{run.identity}"
        if in_sweep():
            run_id = os.environ.get("WANDB_RUN_ID", run_id)

        tags = []
        for key, value in run.changes.items():
            if not isinstance(value, list | dict):
                tags.append(f"{key}={value}"[:64])  # W&B takes no longer ones
        return dict(id=run_id, name=run.folder.path.name, group=run.group, tags=tags)

    def where(self) -> str | None:
        run = self.experiment
        if run.disabled:
            return None
        if run.offline:
            return f"wandb sync {quoted(self.save_dir)}/wandb/offline-run-*"
        return run.url

    def finish(self, code: int) -> None:
        code_for_wandb = sweep_code(self, code) if in_sweep() else code
        try:
            self.experiment.finish(exit_code=code_for_wandb)
        except TimeoutError:
            rest = f"wandb sync {quoted(self.save_dir)}/wandb/run-*"
            logger.warning(f"warning: W&B has not taken all data; the rest: {rest}")
        except Exception as error:
            if not service_has_died(error):
                raise
            self.forget_service()
            logger.warning(
                f"warning: W&B's service has died; what it has kept: wandb sync {quoted(self.save_dir)}/wandb/*run-*"
            )


def exit_for_sure(code: int) -> None:
    """In a sweep: once the program has come to its end, end the process even if something in it hangs."""
    if not in_sweep():
        return

    def wait_and_exit() -> None:
        threading.main_thread().join()
        time.sleep(SECONDS_TO_EXIT)
        os._exit(code)

    threading.Thread(target=wait_and_exit, daemon=True).start()


def in_sweep() -> bool:
    """True if an agent of a W&B sweep has started this run; the sweep then has chosen its W&B id and project."""
    return "WANDB_SWEEP_ID" in os.environ


def sweep_code(tracker: WandB, code: int) -> int:
    """The exit code that W&B is told in a sweep.

    With one that is not 0, W&B hands a run that is marked as preempting out again. That is right when the agent had to
    leave, and wrong when the sweep has stopped the run (early termination), which looks the same to the run: SIGTERM
    from the agent or an interrupt from W&B. SweepAgent.py tells them apart: it makes the file SWEEP_AGENT_LEAVING
    before it lets its run stop.
    """
    preempted, interrupted = EXIT_CODES["preempted"], EXIT_CODES["interrupted"]

    # Without the file's name, W&B's own agent has started the run, and a scheduler's SIGTERM is all there is to go by.
    note = os.environ.get("SWEEP_AGENT_LEAVING")
    agent_leaves = Path(note).exists() if note else code == preempted

    if code in (preempted, interrupted) and not agent_leaves:
        return 0  # the sweep has stopped it
    if code in (preempted, interrupted, EXIT_CODES["time limit"]):
        tracker.experiment.mark_preempting()
    return code


def report_again(loggers: Sequence[Logger], settings: dict[str, Any], folder: RunFolder) -> None:
    """Give a W&B sweep the results of a run that was done already when the sweep asked for its settings."""
    with (folder.path / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))

    for tracker in loggers:
        if not isinstance(tracker, WandB):
            continue
        tracker.log_hyperparams(settings)
        told = dict(tracker.experiment.summary)
        for row in rows:
            metrics = {name: float(value) for name, value in row.items() if value and name not in ("step", "seconds")}
            step = int(row["step"] or 0)
            if not has_been_told(told, metrics, step):
                tracker.log_metrics(metrics, step=step)

    for tracker in loggers:
        if isinstance(tracker, WandB):
            tracker.finish(0)
    exit_for_sure(0)


def has_been_told(told: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> bool:
    """True if a row is in what W&B was told by a run that was killed: `told` is the last value of each metric."""
    last = told.get("trainer/global_step", -1)
    if step != last:
        return step < last
    return all(told.get(name) == value for name, value in metrics.items() if name != "epoch")  # counted from 0 there


def default_mode() -> str:
    """online, offline or disabled, as W&B's own settings have it; offline if nobody has asked for online without a key.

    Neither asks anybody for a key nor calls W&B's server.
    """
    # Not public, but the public ways ask for a key, call the server or start W&B's service.
    check_wandb()
    from wandb.sdk import wandb_setup
    from wandb.sdk.lib.wbauth import read_netrc_auth

    settings = wandb_setup.singleton().settings
    key = os.environ.get("WANDB_API_KEY") or read_netrc_auth(host=settings.base_url)
    if settings.mode == "online" and not key and "WANDB_MODE" not in os.environ:
        return "offline"
    return settings.mode
