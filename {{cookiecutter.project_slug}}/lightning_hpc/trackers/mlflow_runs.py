"""MLflow: one run for all attempts, in a database beside the runs or on a server."""

import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
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

KEY = "lightning_hpc.run"  # the tag by which an attempt finds the run of the one before

# What MLflow's client calls errors that may pass: a server that is away, a database that is locked.
PASSING = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")

PAUSE = 60.0  # seconds from a failure to the next try

# MLflow itself would try for four minutes, each time, while the run waits.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}

MOST_PARAMS, MOST_METRICS = 100, 1000  # in one request

NOT_IN_NAMES = re.compile(r"[^\w/. :-]+", re.ASCII)

ENDED_WITHOUT_FAULT = (EXIT_CODES["preempted"], EXIT_CODES["time limit"], EXIT_CODES["interrupted"])


class MLflow(Tracker, Logger):
    """MLflow. A restart continues the same MLflow run, and what is logged once more is there once.

    A server that is away costs the run no more than a minute at a time: what it has not taken waits in memory and is
    sent later, at the run's end for the last time.

    Args:
        experiment_name: MLflow's experiment.
        tracking_uri: the server's or database's address; default: MLFLOW_TRACKING_URI, or else the file mlflow.db
            beside the runs' folders.
        name: name shown; filled in with the run folder's name.
        tags: filled in with the experiment's name and what the run changes.
        save_dir: the run's folder; filled in.
    """

    title = "MLflow"

    def __init__(
        self,
        experiment_name: str,
        tracking_uri: str | None = None,
        name: str | None = None,
        tags: dict[str, Any] | None = None,
        save_dir: str = ".",
    ) -> None:
        super().__init__()
        for variable, value in PATIENCE.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient

        runs = Path(save_dir).resolve().parent.parent
        self._artifacts = None if tracking_uri else str(runs / "mlflow-artifacts")
        self.tracking_uri = tracking_uri or f"sqlite:///{runs / 'mlflow.db'}"
        self.experiment_name, self.run_name, self.tags = experiment_name, name, tags or {}
        self._save_dir = save_dir

        self._client = MlflowClient(self.tracking_uri)
        self._experiment_id: str | None = None
        self._run_id: str | None = None
        self._params: set[str] = set()  # names of those that MLflow has: their values can't be changed
        self._before: dict[str, set[tuple[int, float]]] = {}  # metric → steps and values of earlier attempts
        self._continues = False
        self._waiting: list[Callable[[], None]] = []
        self._next_try = 0.0
        self._warned = False

    @classmethod
    def settings_of(cls, run: Run) -> dict[str, Any]:
        tags = {"experiment": run.group}
        for key, value in run.changes.items():
            if key != "name" and not isinstance(value, list | dict):
                tags[key] = str(value)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or None
        return dict(tracking_uri=uri, name=run.folder.path.name, tags=tags)

    @property
    def name(self) -> str:
        return self.experiment_name

    @property
    def version(self) -> str | None:
        return self._run_id

    @property
    def save_dir(self) -> str:
        return self._save_dir

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """MLflow's client; the run in it is `run_id`."""
        self._send()
        return self._client

    @property
    def run_id(self) -> str | None:
        """The id of the run in MLflow; None while MLflow is away, and on other ranks than the first."""
        return self._run_id

    def _begin(self) -> None:
        """Find the run of an earlier attempt, or make one."""
        if self._run_id is not None:
            return

        experiment = self._find_experiment()
        key = key_of(RunFolder(self._save_dir))
        found = self._client.search_runs([experiment], filter_string=f"tags.`{KEY}` = '{key}'", max_results=1)
        if found:
            run = found[0]
            self._client.update_run(run.info.run_id, status="RUNNING")
            self._params = set(run.data.params)
            self._continues = True
        else:
            run = self._client.create_run(experiment, run_name=self.run_name, tags={**self.tags, KEY: key})
        self._experiment_id, self._run_id = experiment, run.info.run_id

    def _find_experiment(self) -> str:
        """The id of MLflow's experiment, which is made if it is not there."""
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(self.experiment_name)
        if found is None:
            try:
                return self._client.create_experiment(self.experiment_name, artifact_location=self._artifacts)
            except MlflowException:
                found = self._client.get_experiment_by_name(self.experiment_name)
                if found is None:  # no other run has just made it: MLflow is away, or its database is locked
                    raise
        return found.experiment_id

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        from mlflow.entities import Param

        def send() -> None:
            new = [Param(key, value) for key, value in flat(params).items() if key not in self._params]
            for start in range(0, len(new), MOST_PARAMS):
                self._client.log_batch(self._run_id, params=new[start : start + MOST_PARAMS])
            self._params |= {param.key for param in new}

        self._send(send)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(NOT_IN_NAMES.sub("_", name), float(value), now, step or 0) for name, value in metrics.items()]

        def send() -> None:
            new = [value for value in values if not self._is_there(value)]
            for start in range(0, len(new), MOST_METRICS):
                self._client.log_batch(self._run_id, metrics=new[start : start + MOST_METRICS])

        self._send(send)

    def _is_there(self, value: Any) -> bool:
        """True if an earlier attempt has logged the same value at the same step."""
        if not self._continues:
            return False
        if value.key not in self._before:
            history = self._client.get_metric_history(self._run_id, value.key)
            self._before[value.key] = {(earlier.step, earlier.value) for earlier in history}
        return (value.step, value.value) in self._before[value.key]

    @rank_zero_only
    def log_image(self, key: str, images: Sequence[str], step: int | None = None) -> None:
        """Keep pictures as artifacts, in a folder of this name.

        Args:
            key: the folder's name.
            images: the files.
            step: as Lightning gives it; the files' names say it.
        """

        def send() -> None:
            for image in images:
                self._client.log_artifact(self._run_id, image, key)

        self._send(send)

    def _send(self, call: Callable[[], None] | None = None, last: bool = False) -> None:
        """Send what waits, then this; what a server that is away does not take waits for the next time.

        Args:
            call: sends something.
            last: True to try now, whenever the last try was.
        """
        from mlflow.exceptions import MlflowException

        if call is not None:
            self._waiting.append(call)
        if time.monotonic() < self._next_try and not last:
            return

        try:
            self._begin()
            while self._waiting:
                self._send_first()
        except (MlflowException, OSError) as error:
            self._next_try = time.monotonic() + PAUSE
            self._warn(error, "what it has not taken is sent later")

    def _send_first(self) -> None:
        """Send what has waited longest; what MLflow refuses for good is left out."""
        from mlflow.exceptions import MlflowException

        try:
            self._waiting[0]()
        except MlflowException as error:
            if error.error_code in PASSING:
                raise
            self._warn(error, "it does not take this")
        self._waiting.pop(0)

    def _warn(self, error: Exception, what: str) -> None:
        """Say once that MLflow is away, or has refused something."""
        if not self._warned:
            reason = " ".join(str(error).split())[:300]
            logger.warning(f"warning: MLflow ({self.tracking_uri}): {what}, and the run continues: {reason}")
        self._warned = True

    def finalize(self, status: str) -> None:
        """Nothing: how the run ends is known when it has ended, see `finish`."""

    def where(self) -> str | None:
        if self._run_id is None:
            return None
        if self.tracking_uri.startswith("http"):
            return f"{self.tracking_uri.rstrip('/')}/#/experiments/{self._experiment_id}/runs/{self._run_id}"
        return f"mlflow ui --backend-store-uri {quoted(self.tracking_uri)}"

    @rank_zero_only
    def finish(self, code: int) -> None:
        status = "FINISHED"
        if code != 0:
            status = "KILLED" if code in ENDED_WITHOUT_FAULT else "FAILED"
        if self._run_id is not None or self._waiting:
            self._send(lambda: self._client.set_terminated(self._run_id, status), last=True)
        if self._waiting:
            logger.warning("warning: MLflow has not taken all data; metrics.csv has all values")


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Settings as MLflow's parameters: short key → text, such as data/init_args/batch_size → 64."""
    params: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            params |= flat(value, f"{above}{key}/")
        else:
            params[NOT_IN_NAMES.sub("_", f"{above}{key}")[:250]] = str(value)[:6000]
    return params
