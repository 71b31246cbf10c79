"""Experiment trackers. CSV is always written (metrics.csv); Weights & Biases is on in configs/base.yaml; TensorBoard,
MLflow and Comet are overlays in configs/trackers/.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment

from ..runs.request import Request

logger = logging.getLogger(__name__)

# Settings of loggers that name a folder; a relative one is meant relative to the run's folder.
FOLDER_SETTINGS = ("save_dir", "offline_directory")


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
        try:
            run = super().experiment
        except wandb.Error as error:  # the server is away or does not take the key; that must not cost the run
            reason = str(error).splitlines()[-1]
            logger.warning(f"warning: W&B can't be reached, so this run is recorded offline: {reason}")
            wandb.teardown()  # otherwise the id counts as in use
            self.go_offline()
            run = super().experiment
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
            try:
                each.experiment.finish(exit_code=code)
            except TimeoutError:
                logger.warning(f"warning: W&B has not taken all data; the rest: wandb sync {each.save_dir}/wandb/run-*")


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
            defaults = dict(
                id=f"{request.group}-{request.identity}",
                name=request.folder.path.name,
                group=request.group,
                tags=[f"{key}={value}"[:64] for key, value in changes if not isinstance(value, list | dict)],
            )
            for key, value in defaults.items():
                if settings.get(key) is None:
                    settings[key] = value
    return loggers
