"""Comet: one experiment for all attempts, online or in files that are uploaded later."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ..runs.folder import EXIT_CODES, RunFolder
from ..runs.run import Run
from ..settings.places import quoted
from .tracker import Tracker, key_of

logger = logging.getLogger(__name__)

# Set before comet_ml is imported. It is to log what it is given and to say only what goes wrong; and its uploads at the
# end may take ten minutes, not an hour.
ENVIRONMENT = {"COMET_DISABLE_AUTO_LOGGING": "1", "COMET_LOGGING_CONSOLE": "ERROR", "COMET_TIMEOUT_CLEANING": "600"}


class Comet(Tracker, Logger):
    """Comet, online where a key is found and offline where none is. A restart continues the same experiment.

    The key is read by Comet itself, from COMET_API_KEY or the file that `comet login` writes; it is never a setting
    here. If Comet can't be reached at the start, the run is recorded offline.

    Args:
        project: Comet's project.
        workspace: Comet's workspace; none means your default.
        name: name shown; filled in with the run folder's name.
        tags: filled in with what the run changes, as key=value.
        save_dir: the run's folder; filled in. What is recorded offline is in its folder comet/, an archive for each
            attempt.
        online: True or False have the last word; default: whether there is a key.
    """

    title = "Comet"

    def __init__(
        self,
        project: str,
        workspace: str | None = None,
        name: str | None = None,
        tags: list[str] | None = None,
        save_dir: str = ".",
        online: bool | None = None,
    ) -> None:
        super().__init__()
        for variable, value in ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        import comet_ml  # noqa: F401 - if it is not installed, that is said before the run begins

        self.project, self.workspace = project, workspace
        self.run_name, self.tags = name, tags or []
        self._save_dir, self._online = save_dir, online
        self._experiment: Any = None

    @classmethod
    def settings_of(cls, run: Run) -> dict[str, Any]:
        tags = [run.group]
        for key, value in run.changes.items():
            if key != "name" and not isinstance(value, list | dict):
                tags.append(f"{key}={value}")
        return dict(name=run.folder.path.name, tags=tags)

    @property
    def name(self) -> str:
        return self.project

    @property
    def version(self) -> str | None:
        return None if self._experiment is None else self._experiment.get_key()

    @property
    def save_dir(self) -> str:
        return self._save_dir

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Comet's experiment, begun at the first use."""
        if self._experiment is not None:
            return self._experiment
        import comet_ml
        from comet_ml.exceptions import CometException

        online = self._online
        if online is None:
            online = bool(comet_ml.get_config("comet.api_key"))
        if online:
            try:
                self._experiment = self._start(online=True)
            except (OSError, CometException) as error:  # away, or it does not take the key
                reason = " ".join(str(error).split())[:300]
                logger.warning(f"warning: Comet can't be reached, so this run is recorded offline: {reason}")
        if self._experiment is None:
            self._experiment = self._start(online=False)
        return self._experiment

    def _start(self, online: bool) -> Any:
        """Begin or continue the experiment of this run."""
        import comet_ml

        # A folder of its own: to tell archives apart, Comet draws a number, which seeds make the same in each attempt.
        folder = Path(self._save_dir) / "comet" / time.strftime("%Y%m%d-%H%M%S")
        folder.mkdir(parents=True, exist_ok=True)

        # The run's folder has the code, the settings and the output, and Comet needs no copy of them.
        config = comet_ml.ExperimentConfig(
            name=self.run_name,
            tags=self.tags,
            offline_directory=str(folder),
            log_code=False,
            log_git_patch=False,
            parse_args=False,
            auto_output_logging=False,
            display_summary_level=0,
        )
        return comet_ml.start(
            online=online,
            mode="get_or_create",
            experiment_key=key_of(RunFolder(self._save_dir)),
            project_name=self.project,
            workspace=self.workspace,
            experiment_config=config,
        )

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        self.experiment.log_parameters(params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = {name: float(value) for name, value in metrics.items()}
        epoch = values.pop("epoch", None)
        self.experiment.log_metrics(values, step=step, epoch=None if epoch is None else int(epoch))

    @rank_zero_only
    def log_image(self, key: str, images: Sequence[str], step: int | None = None) -> None:
        """Log pictures.

        Args:
            key: their name.
            images: their files.
            step: the training step that they show.
        """
        for image in images:
            self.experiment.log_image(image, name=key, step=step)

    def finalize(self, status: str) -> None:
        """Nothing: how the run ends is known when it has ended, see `finish`."""

    def where(self) -> str | None:
        if self._experiment is None:
            return None
        return self._experiment.url or f"comet upload {quoted(self._save_dir)}/comet/*/*.zip"

    @rank_zero_only
    def finish(self, code: int) -> None:
        if self._experiment is None:
            return
        states = {number: state for state, number in EXIT_CODES.items()}
        self._experiment.log_other("state", states.get(code, "failed"))
        self._experiment.end()
        self._experiment = None
