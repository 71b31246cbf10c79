"""The settings of a mirror: the section `mirror` of configs/base.yaml."""

from collections.abc import Mapping
from typing import Any

from ..settings.errors import SettingsError

RUNNING = 3  # signs of life that may fail to come before another machine may take over


class MirrorError(SettingsError):
    """The mirror can't be asked, or another machine has the run; the message is one line that says what to do."""


class Mirror:
    """Where runs are mirrored, and how often.

    Args:
        url: one address for the whole project: s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, hf://OWNER/REPOSITORY,
            sftp://USER@HOST/FOLDER, wandb://ENTITY/PROJECT or file:///FOLDER; null: no mirror.
        every_n_minutes: minutes between two uploads of checkpoints, of which the newest goes up, and between two signs
            of life.
        take_over_after_minutes: minutes without a sign of life, after which another machine may continue the run.
        public: true where everybody may read the mirror; false refuses a place that is known to be public.

    Raises:
        SettingsError: a value can't be meant.
    """

    def __init__(
        self,
        url: str | None = None,
        every_n_minutes: float = 5.0,
        take_over_after_minutes: float = 20.0,
        public: bool = False,
    ) -> None:
        if every_n_minutes <= 0 or take_over_after_minutes < 0:
            raise SettingsError("mirror.every_n_minutes must be above 0, and take_over_after_minutes not below 0")
        self.url, self.public = url, public
        self.every = 60 * every_n_minutes  # seconds
        self.patience = 60 * take_over_after_minutes  # seconds

    @property
    def notice(self) -> float:
        """Seconds of silence that this machine asks others to wait for: some signs of life may fail to come."""
        return max(self.patience, RUNNING * self.every)


def read_mirror(flat: Mapping[str, Any]) -> Mirror:
    """The mirror that settings speak of.

    Args:
        flat: settings by short keys.

    Raises:
        SettingsError: a value can't be meant.
    """
    known = {}
    for name in ("url", "every_n_minutes", "take_over_after_minutes", "public"):
        if flat.get(f"mirror.{name}") is not None:
            known[name] = flat[f"mirror.{name}"]
    return Mirror(**known)
