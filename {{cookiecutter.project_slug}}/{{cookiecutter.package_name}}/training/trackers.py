"""Experiment trackers. CSV is always written (metrics.csv); Weights & Biases is on in configs/base.yaml; TensorBoard,
MLflow and Comet are overlays in configs/trackers/.
"""

import csv
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment

from ..runs.folder import EXIT_CODES, RunFolder
from ..runs.request import Request

logger = logging.getLogger(__name__)

# Settings of loggers that name a folder; a relative one is meant relative to the run's folder.
FOLDER_SETTINGS = ("save_dir", "offline_directory")

# In a W&B sweep: a run that was killed or has crashed comes back until it has had so many attempts. More would let a
# run with a fault come back for ever; a run that was asked to stop, and has saved, comes back any number of times.
MOST_ATTEMPTS = 3
SECONDS_TO_EXIT = 60  # after its end, a run that hangs would keep W&B's agent from starting the next one


class WandB(WandbLogger):
    """Weights & Biases, online where a key is found and offline where none is. A restart continues the same W&B run.

    The key is read by W&B itself, from WANDB_API_KEY or the file that `wandb login` writes; it is never a setting here.
    WANDB_MODE (online, offline, disabled) has the last word. A server that does not answer costs the run no more than
    the two timeouts: it goes on offline, and `wandb sync` uploads the rest.

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
        # Silent, because reporting.py says where the run is: once, and in the log file too.
        settings = dict(
            init_timeout=init_timeout, finish_timeout=finish_timeout, finish_timeout_raises=True, silent=True
        )
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
        """Record into files only. Steps of an earlier attempt go on only under `must`, which needs such an attempt."""
        earlier = any(Path(self.save_dir or ".", "wandb").glob(f"*run-*-{self._id}"))
        self._wandb_init.update(mode="offline", resume="must" if earlier else "allow")

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run, begun at the first use."""
        import wandb

        if self._experiment is not None:
            return self._experiment
        # W&B's service inherits the mask. Schedulers send SIGTERM to every process of a job, and without its service a
        # run can neither upload what is left nor say that it was preempted.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
        try:
            run = super().experiment
        except wandb.Error as error:  # the server is away or does not take the key; that must not cost the run
            reason = str(error).splitlines()[-1]
            logger.warning(f"warning: W&B can't be reached, so this run is recorded offline: {reason}")
            wandb.teardown()  # otherwise the id counts as in use
            self.go_offline()
            run = super().experiment
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_sweep() and RunFolder(self.save_dir or ".").status().get("attempt", 1) < MOST_ATTEMPTS:
            run.mark_preempting()  # at once: a run that is killed can't say any more that it wants to come back
        if not (run.disabled or run.offline):
            logger.info(f"W&B: {run.url}")
        return run

    def where(self) -> str | None:
        """How to see the run in W&B, in one line; None if W&B is disabled."""
        run = self.experiment
        if run.disabled:
            return None
        return f"wandb sync {self.save_dir}/wandb/offline-run-*" if run.offline else run.url


def finish_trackers(loggers: Sequence[Logger], code: int) -> None:
    """Let W&B upload what is left and mark its run finished, or crashed if the exit code is not 0."""
    for each in loggers:
        if isinstance(each, WandB):
            told = what_the_sweep_hears(each, code) if in_sweep() else code
            try:
                each.experiment.finish(exit_code=told)
            except TimeoutError:
                logger.warning(f"warning: W&B has not taken all data; the rest: wandb sync {each.save_dir}/wandb/run-*")
    if in_sweep():
        threading.Thread(target=exit_for_sure, args=[code], daemon=True).start()


def exit_for_sure(code: int) -> None:
    """In a thread: once the program has come to its end, end the process even if something in it hangs."""
    threading.main_thread().join()
    time.sleep(SECONDS_TO_EXIT)
    os._exit(code)


def in_sweep() -> bool:
    """Whether this run was started by an agent of a W&B sweep, which then has chosen its W&B id and project."""
    return "WANDB_SWEEP_ID" in os.environ


def what_the_sweep_hears(each: WandB, code: int) -> int:
    """The exit code for W&B: with one that is not 0, a run marked as preempting is handed out again.

    That is right when the agent had to leave, and wrong when the sweep has stopped the run (early termination), which
    looks the same to the run: SIGTERM from the agent or an interrupt from W&B. SweepAgent.py tells them apart: it makes
    the file SWEEP_AGENT_LEAVING before it lets its run stop.
    """
    note = os.environ.get("SWEEP_AGENT_LEAVING")
    leaving = Path(note).exists() if note else code == EXIT_CODES["preempted"]
    if code in (EXIT_CODES["preempted"], EXIT_CODES["interrupted"]) and not leaving:
        return 0
    if code in (EXIT_CODES["preempted"], EXIT_CODES["time limit"], EXIT_CODES["interrupted"]):
        each.experiment.mark_preempting()
    return code


def report_again(loggers: Sequence[Logger], settings: dict[str, Any], folder: RunFolder) -> None:
    """Give a W&B sweep the results of a run that was done already when the sweep asked for its settings."""
    with (folder.path / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for each in loggers:
        if isinstance(each, WandB):
            each.log_hyperparams(settings)
            if each.experiment.step == 0:  # otherwise it was killed between its end and W&B's hearing of it
                for row in rows:
                    metrics = {name: float(value) for name, value in row.items() if value and name != "step"}
                    each.log_metrics(metrics, step=int(row["step"] or 0))
    finish_trackers(loggers, 0)


def default_mode() -> str:
    """online, offline or disabled, as W&B's own settings have it; offline if nobody has asked for online without a key.

    Neither asks anybody for a key nor calls W&B's server.
    """
    # Not public, but the public ways ask for a key, call the server or start W&B's service.
    from wandb.sdk import wandb_setup
    from wandb.sdk.lib.wbauth import read_netrc_auth

    settings = wandb_setup.singleton().settings
    key = os.environ.get("WANDB_API_KEY") or read_netrc_auth(host=settings.base_url)
    return settings.mode if key or settings.mode != "online" or "WANDB_MODE" in os.environ else "offline"


def place_loggers(loggers: Any, request: Request) -> list[Any]:
    """Give each configured logger the run's folder and, for W&B, the run's id, name, group and tags.

    Args:
        loggers: the parsed setting trainer.logger: None, a bool, one logger or a list of them.
        request: the run.

    Returns:
        the list of loggers, settings changed in place.
    """
    if not loggers or loggers is True:
        return []
    loggers = loggers if isinstance(loggers, list) else [loggers]
    for each in loggers:
        settings: Namespace = each.get("init_args") or Namespace()
        for key in FOLDER_SETTINGS:
            if isinstance(settings.get(key), str | Path):
                settings[key] = str(request.folder.path / settings[key])
        if each.class_path.endswith(".WandB"):
            changes = request.changes.items()
            own_id = f"{request.group}-{request.identity}"
            defaults = dict(
                id=os.environ.get("WANDB_RUN_ID", own_id) if in_sweep() else own_id,
                name=request.folder.path.name,
                group=request.group,
                tags=[f"{key}={value}"[:64] for key, value in changes if not isinstance(value, list | dict)],
            )
            for key, value in defaults.items():
                if settings.get(key) is None:
                    settings[key] = value
    return loggers
