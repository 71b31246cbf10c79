"""Experiment trackers. CSV is always written (metrics.csv); Weights & Biases is on in configs/base.yaml; TensorBoard,
MLflow and Comet are overlays in configs/trackers/.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.loggers import Logger, WandbLogger

from ..runs.request import Request

# Settings of loggers that name a folder; a relative one is meant relative to the run's folder.
FOLDER_SETTINGS = ("save_dir", "offline_directory")


class WandB(WandbLogger):
    """Weights & Biases, online where a key is found and offline where none is. A restart continues the same W&B run.

    The key is read by W&B itself, from WANDB_API_KEY or the file that `wandb login` writes; it is never a setting here.
    WANDB_MODE (online, offline, disabled) has the last word.

    Args:
        project: W&B project.
        entity: W&B user or team; none means your default.
        group: W&B group; filled in with the experiment's name.
        name: name shown; filled in with the run folder's name.
        id: W&B run id; filled in with the run's identity.
        tags: filled in with what the run changes, as key=value.
        save_dir: where W&B keeps its files; filled in with the run folder.
        resume: filled in so that a second attempt continues the first.
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
        resume: str | None = None,
    ) -> None:
        self.offline = "WANDB_MODE" not in os.environ and not has_key()
        super().__init__(
            name=name, save_dir=save_dir, id=id, project=project, offline=self.offline,
            entity=entity, group=group, tags=tags, resume=resume,
        )  # fmt: skip
        self._wandb_init.pop("anonymous", None)  # W&B warns about this setting, which Lightning still passes

    def where(self) -> str | None:
        """How to see the run in W&B, in one line; None if W&B is disabled."""
        run = self.experiment
        if getattr(run, "disabled", False) or os.environ.get("WANDB_MODE") == "disabled":
            return None
        if run.offline:
            return f"wandb sync {self.save_dir}/wandb/offline-run-*"
        return run.url


def finish_trackers(loggers: Sequence[Logger], code: int) -> None:
    """Let W&B upload what is left and mark its run finished, or crashed if the exit code is not 0."""
    for logger in loggers:
        if isinstance(logger, WandB):
            logger.experiment.finish(exit_code=code)


def has_key() -> bool:
    """Whether there is an API key where W&B looks for one, without asking anybody or calling its server."""
    import wandb
    from wandb.sdk.lib.wbauth.wbnetrc import read_netrc_auth  # not public, but W&B has no other way that stays offline

    return bool(os.environ.get("WANDB_API_KEY") or read_netrc_auth(host=wandb.Settings().base_url))


def place_loggers(loggers: Any, request: Request, attempt: int) -> list[Any]:
    """Give each configured logger the run's folder and, for W&B, the run's id, name, group and tags.

    Args:
        loggers: the parsed setting trainer.logger: None, a bool, one logger or a list of them.
        request: the run.
        attempt: number of this attempt; from the second on, W&B is told to continue.

    Returns:
        the list of loggers, settings changed in place.
    """
    if not loggers or loggers is True:
        return []
    loggers = loggers if isinstance(loggers, list) else [loggers]
    for logger in loggers:
        settings: Namespace = logger.get("init_args") or Namespace()
        for key in FOLDER_SETTINGS:
            if isinstance(settings.get(key), str | Path):
                settings[key] = str(request.folder.path / settings[key])
        if logger.class_path.endswith(".WandB"):
            defaults = dict(
                id=f"{request.group}-{request.identity}",
                name=request.folder.path.name,
                group=request.group,
                tags=[
                    f"{key}={value}"[:64]
                    for key, value in request.changes.items()
                    if not isinstance(value, list | dict)
                ],
                # Offline runs continue only under "must"; a first attempt has nothing that must be there.
                resume="must"
                if attempt > 1 and not os.environ.get("WANDB_MODE") == "online" and not has_key()
                else "allow",
            )
            for key, value in defaults.items():
                if settings.get(key) is None:
                    settings[key] = value
    return loggers
