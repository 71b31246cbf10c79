"""A sweep's file, in W&B's own schema: read, checked, and completed with the command that its agents run.

    name: width-and-lr                  # the experiment: its runs are in runs/width-and-lr
    method: bayes                       # or grid, or random
    metric: {name: val/loss_best, goal: minimize}
    parameters: …                       # runs/space.py
    run_cap: 30                         # how many runs; a grid ends by itself
    early_terminate: {type: hyperband, min_iter: 3}
    command: ["${env}", "${interpreter}", Train.py, fit, --name=width-and-lr, "${args}"]    # the default

Any key of a setting can be a parameter: Train.py takes it from its command line. Settings of all runs are arguments
in `command`, or parameters with one `value`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runs import space
from ..runs.request import NAME, Request, request, take_options
from ..runs.settings import Flat, SettingsError, did_you_mean, read_yaml

KEYS = (
    "name", "description", "method", "metric", "parameters", "command", "run_cap", "early_terminate", "project",
    "entity", "program",
)  # fmt: skip
METHODS = ("grid", "random", "bayes")
GOALS = ("minimize", "maximize")
HYPERBAND = ("type", "min_iter", "max_iter", "eta", "s", "strict")
VERBS = ("fit", "crossvalidate")
ARGS = "${args}"


@dataclass(frozen=True)
class Sweep:
    """A sweep's file.

    Attributes:
        config: the file's content, with a name and a command.
        source: the file or folder.
    """

    config: Mapping[str, Any]
    source: Path

    @property
    def name(self) -> str:
        return self.config["name"]

    @property
    def method(self) -> str:
        return self.config["method"]

    @property
    def parameters(self) -> Mapping[str, Any]:
        return self.config["parameters"]

    @property
    def metric(self) -> str | None:
        """What is optimized; None for a grid or a random search that names nothing."""
        return (self.config.get("metric") or {}).get("name")

    @property
    def maximize(self) -> bool:
        return (self.config.get("metric") or {}).get("goal") == "maximize"

    @property
    def verb(self) -> str:
        """What the runs do: fit, or crossvalidate."""
        return next(word for word in self.config["command"] if word in VERBS)

    def arguments(self, overlay: Flat) -> list[str]:
        """What follows `Train.py fit` in a run with these parameters; for a cross-validation, in its first fold."""
        command = self.config["command"]
        after = command[command.index(self.verb) + 1 :]
        place = after.index(ARGS)
        given = [*after[:place], *as_arguments(overlay), *after[place + 1 :]]
        if self.verb == "fit":
            return given
        folds, rest = take_options(given, "--folds")
        return [*rest, "--data.mode=cross-validation", *(f"--data.folds={each}" for each in folds[-1:])]

    def logged(self, metrics: list[str]) -> list[str]:
        """Names of the metrics that a run logs, from those that a single fit logs."""
        return metrics if self.verb == "fit" else [f"cross_validation_{name}" for name in metrics]

    def requests(self, root: Path) -> Iterator[tuple[str, Request]]:
        """Requests that show whether every listed value and both ends of every distribution are right.

        Raises:
            SettingsError: settings contradict each other; the message says with which values.
        """
        for overlay in space.corners(self.parameters):
            name = ", ".join(f"{key}={value}" for key, value in overlay.items())
            try:
                yield f"with {name}", request("fit", self.arguments(overlay), root)
            except SettingsError as error:
                raise SettingsError(f"with {name}: {error}") from None

    def for_wandb(self) -> dict[str, Any]:
        """The file as W&B gets it: with dotted names instead of nested ones, which its agents would pass as one map."""
        parameters = {name: dict(entry) for name, entry in space.unnest(self.parameters)}
        for entry in parameters.values():  # its agents pass nothing as None, which is a text
            entry.update({key: nothing_as_text(entry[key]) for key in ("value", "values") if key in entry})
        return {**self.config, "parameters": parameters}


def nothing_as_text(value: Any) -> Any:
    """A value, or each of a list, with None as the text null, which YAML reads as nothing."""
    return [nothing_as_text(each) for each in value] if isinstance(value, list) else "null" if value is None else value


def as_arguments(overlay: Flat) -> list[str]:
    """Settings as arguments of Train.py, written as W&B's agents write them."""
    return [f"--{key}={nothing_as_text(value)}" for key, value in overlay.items()]


def read_sweep(name: str | Path, root: Path) -> Sweep:
    """Read and check a sweep's file, or a folder of files.

    Args:
        name: a file or folder as typed, or below the project's folder, configs/ or configs/sweeps/. In a folder,
            sweep.yaml has everything but parameters, which are in the other files, one map from key to entry each.
        root: the project's folder.

    Raises:
        SettingsError: it is missing or wrong; the message says what is.
    """
    path = find(Path(name), root)
    config = read_folder(path) if path.is_dir() else read_yaml(path)
    try:
        return Sweep(checked(config, path.stem), path)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def find(path: Path, root: Path) -> Path:
    """The file or folder that is meant."""
    folders = (Path(), root, root / "configs", root / "configs" / "sweeps")
    for candidate in (folder / each for folder in folders for each in (path, path.with_name(f"{path.name}.yaml"))):
        if candidate.is_file() or (candidate / "sweep.yaml").is_file():
            return candidate
    there = [each.name for each in sorted((root / "configs" / "sweeps").glob("*"))]
    hint = did_you_mean(path.name, there) or f"; configs/sweeps has {', '.join(there) or 'none'}"
    raise SettingsError(f"no such sweep file, or folder with a sweep.yaml: {path}{hint}")


def read_folder(folder: Path) -> dict[str, Any]:
    """sweep.yaml, with the parameters of the folder's other files, in sorted order."""
    config = read_yaml(folder / "sweep.yaml")
    parameters, source = dict(config.get("parameters") or {}), {}
    source = dict.fromkeys(parameters, "sweep.yaml")
    for file in sorted(folder.glob("*.yaml")):
        for key, entry in read_yaml(file).items() if file.name != "sweep.yaml" else ():
            if key in source:
                raise SettingsError(f"{folder}: parameter {key} is in {source[key]} and in {file.name}")
            parameters[key], source[key] = entry, file.name
    return {**config, "parameters": parameters}


def checked(config: dict[str, Any], stem: str) -> dict[str, Any]:
    """The content of a sweep's file with a name and a command, once everything in it is known to have a meaning."""
    for key in config:
        if key not in KEYS:
            raise SettingsError(f"unknown key {key}{did_you_mean(str(key), KEYS)}; settings go under `parameters:`")
    name = config.get("name", stem)
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise SettingsError(f"`name: {name}` can't name an experiment: use letters, digits and ._=+-")
    method = config.get("method")
    if method not in METHODS:
        raise SettingsError(f"method must be one of {', '.join(METHODS)}, got {method}")
    space.check(config.get("parameters") or {})
    if method == "grid":
        space.grid(config["parameters"])
    metric = config.get("metric")
    if metric is not None or method == "bayes" or "early_terminate" in config:
        if not (isinstance(metric, dict) and isinstance(metric.get("name"), str) and metric.get("goal") in GOALS):
            raise SettingsError("metric is needed: `metric: {name: val/loss_best, goal: minimize}`, or goal: maximize")
    cap = config.get("run_cap")
    if cap is not None and (isinstance(cap, bool) or not isinstance(cap, int) or cap < 1):
        raise SettingsError(f"run_cap must be a whole number from 1 on, got {cap}")
    if "early_terminate" in config:
        check_hyperband(config["early_terminate"])
    command = config.get("command", ["${env}", "${interpreter}", "Train.py", "fit", f"--name={name}", ARGS])
    if not (isinstance(command, list) and ARGS in command and set(VERBS) & set(command[: command.index(ARGS)])):
        raise SettingsError(f"command must be a list with Train.py, fit (or crossvalidate) and, after them, {ARGS}")
    return {**config, "name": name, "command": [str(each) for each in command]}


def check_hyperband(settings: Any) -> None:
    """early_terminate as W&B has it: hyperband, by its first step (min_iter) or by its last (max_iter and s)."""
    if not isinstance(settings, dict) or settings.get("type") != "hyperband":
        raise SettingsError(
            "early_terminate: the only type is hyperband: `early_terminate: {type: hyperband, min_iter: 3}`"
        )
    if unknown := [key for key in settings if key not in HYPERBAND]:
        raise SettingsError(f"early_terminate has no {unknown[0]}{did_you_mean(unknown[0], HYPERBAND)}")
    if ("min_iter" in settings) == ("max_iter" in settings):
        raise SettingsError("early_terminate needs either min_iter or max_iter, a number of validations")
    for key in ("min_iter", "max_iter", "eta", "s"):
        value = settings.get(key, 2)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < (1 if key != "eta" else 2):
            raise SettingsError(
                f"early_terminate: {key} must be a number from {2 if key == 'eta' else 1} on, got {value}"
            )
