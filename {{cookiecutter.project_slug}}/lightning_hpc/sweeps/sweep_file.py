"""A sweep's file, in W&B's own schema: read, checked, and completed with the command that its agents run.

    name: width-and-lr                  # the experiment: its runs are in runs/width-and-lr
    method: bayes                       # or grid, or random
    metric: {name: val/loss_best, goal: minimize}
    parameters: …                       # planning/space.py
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

from ..planning import space
from ..runs.run import EXPERIMENT_NAME, Run, read_command_line
from ..settings.command_line import take_options
from ..settings.errors import SettingsError, did_you_mean
from ..settings.flat import Flat
from ..settings.yaml_files import read_yaml, typed_value

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
        """Return what follows `Train.py fit` in a run with these parameters, or in all folds of a cross-validation."""
        command = self.config["command"]
        after = command[command.index(self.verb) + 1 :]
        place = after.index(ARGS)
        arguments = [*after[:place], *as_arguments(overlay), *after[place + 1 :]]
        if self.verb == "fit":
            return arguments

        folds, rest = take_options(arguments, "--folds")
        return [*rest, "--data.mode=cross-validation", *(f"--data.folds={number}" for number in folds[-1:])]

    def logged(self, metrics: list[str]) -> list[str]:
        """Return the names of the metrics that a run logs, from those that a single fit logs."""
        if self.verb == "fit":
            return metrics
        return [f"cross_validation_{name}" for name in metrics]

    def runs_to_check(self, root: Path) -> Iterator[tuple[str, Run]]:
        """Yield runs that show whether every listed value and both ends of every distribution are right.

        Args:
            root: the project's folder.

        Yields:
            with which values, for messages; the run.

        Raises:
            SettingsError: settings contradict each other; the message says with which values.
        """
        for overlay in space.corners(self.parameters):
            values = ", ".join(f"{key}={value}" for key, value in overlay.items())
            try:
                yield f"with {values}", read_command_line("fit", self.arguments(overlay), root)
            except SettingsError as error:
                raise SettingsError(f"with {values}: {error}") from None

    def for_wandb(self) -> dict[str, Any]:
        """Return the content that W&B gets.

        Nested names are dotted, since its agents would pass them as one map. Its agents write a value as Python does,
        None as the text None, so each value goes there in a form that Train.py reads as the value in the file.
        """
        parameters = {}
        for name, entry in space.unnest(self.parameters):
            sent = dict(entry)
            if "value" in entry:
                sent["value"] = typed_value(entry["value"])
            if "values" in entry:
                sent["values"] = [typed_value(value) for value in entry["values"]]
            parameters[name] = sent
        return {**self.config, "parameters": parameters}


def as_arguments(overlay: Flat) -> list[str]:
    """Return settings as arguments of Train.py, written as W&B's agents write them."""
    return [f"--{key}={typed_value(value)}" for key, value in overlay.items()]


def read_sweep(name: str | Path, root: Path) -> Sweep:
    """Read and check a sweep's file, or a folder of files.

    Args:
        name: a file or folder as typed, or below the project's folder, configs/ or configs/sweeps/. In a folder,
            sweep.yaml has everything but parameters, which are in the other files, one map from key to entry each.
        root: the project's folder.

    Raises:
        SettingsError: it is missing or wrong; the message says what is.
    """
    path = find_sweep_file(Path(name), root)
    content = read_folder(path) if path.is_dir() else read_yaml(path)
    try:
        return Sweep(read_specification(content, path.stem), path)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def find_sweep_file(path: Path, root: Path) -> Path:
    """Return the file or folder that is meant, with or without .yaml.

    Raises:
        SettingsError: there is none.
    """
    for folder in (Path(), root, root / "configs", root / "configs" / "sweeps"):
        for candidate in (folder / path, folder / path.with_name(f"{path.name}.yaml")):
            if candidate.is_file() or (candidate / "sweep.yaml").is_file():
                return candidate

    names = [file.name for file in sorted((root / "configs" / "sweeps").glob("*"))]
    hint = did_you_mean(path.name, names) or f"; configs/sweeps has {', '.join(names) or 'none'}"
    raise SettingsError(f"no such sweep file, or folder with a sweep.yaml: {path}{hint}")


def read_folder(folder: Path) -> dict[str, Any]:
    """Read sweep.yaml, with the parameters of the folder's other files, in sorted order.

    Raises:
        SettingsError: a parameter is in two files, or there is something that looks like parameters and is not read.
    """
    for path in sorted(folder.iterdir()):
        is_meant = path.is_dir() or path.suffix == ".yml"
        if is_meant and not path.name.startswith((".", "__")):
            raise SettingsError(
                f"{folder}: {path.name} would not be read: parameters stand in files *.yaml beside sweep.yaml"
            )

    content = read_yaml(folder / "sweep.yaml")
    parameters = dict(content.get("parameters") or {})
    source = dict.fromkeys(parameters, "sweep.yaml")
    for file in sorted(folder.glob("*.yaml")):
        if file.name == "sweep.yaml":
            continue
        for key, entry in read_yaml(file).items():
            if key in source:
                raise SettingsError(f"{folder}: parameter {key} is in {source[key]} and in {file.name}")
            parameters[key], source[key] = entry, file.name
    return {**content, "parameters": parameters}


def read_specification(content: dict[str, Any], stem: str) -> dict[str, Any]:
    """Check a sweep file's content, and return it with a name and a command.

    Args:
        content: what is in the file.
        stem: the file's name without .yaml, which is the default name.

    Raises:
        SettingsError: something in it has no meaning.
    """
    for key in content:
        if key not in KEYS:
            raise SettingsError(f"unknown key {key}{did_you_mean(str(key), KEYS)}; settings go under `parameters:`")

    name = content.get("name", stem)
    if not (isinstance(name, str) and EXPERIMENT_NAME.fullmatch(name)):
        raise SettingsError(f"`name: {name}` can't name an experiment: use letters, digits and ._=+-")

    method = content.get("method")
    if method not in METHODS:
        raise SettingsError(f"method must be one of {', '.join(METHODS)}, got {method}")
    space.read_parameters(content.get("parameters") or {})
    if method == "grid":
        space.grid(content["parameters"])

    check_metric(content)
    cap = content.get("run_cap")
    if cap is not None and not (is_number(cap, int) and cap >= 1):
        raise SettingsError(f"run_cap must be a whole number from 1 on, got {cap}")
    if "early_terminate" in content:
        check_hyperband(content["early_terminate"])

    command = content.get("command", ["${env}", "${interpreter}", "Train.py", "fit", f"--name={name}", ARGS])
    check_command(command)
    return {**content, "name": name, "command": [str(word) for word in command]}


def check_metric(content: Mapping[str, Any]) -> None:
    """Check the metric: a grid or a random search needs none unless it stops runs early."""
    metric = content.get("metric")
    if metric is None and content["method"] != "bayes" and "early_terminate" not in content:
        return
    if isinstance(metric, dict) and isinstance(metric.get("name"), str) and metric.get("goal") in GOALS:
        return
    raise SettingsError("metric is needed: `metric: {name: val/loss_best, goal: minimize}`, or goal: maximize")


def check_command(command: Any) -> None:
    """Check that a command trains, and that the parameters have a place after that."""
    if isinstance(command, list) and ARGS in command:
        if set(VERBS) & set(command[: command.index(ARGS)]):
            return
    raise SettingsError(f"command must be a list with Train.py, fit (or crossvalidate) and, after them, {ARGS}")


def check_hyperband(settings: Any) -> None:
    """Check early_terminate as W&B has it: hyperband, by its first step (min_iter) or by its last (max_iter and s)."""
    if not isinstance(settings, dict) or settings.get("type") != "hyperband":
        raise SettingsError(
            "early_terminate: the only type is hyperband: `early_terminate: {type: hyperband, min_iter: 3}`"
        )
    unknown = [key for key in settings if key not in HYPERBAND]
    if unknown:
        raise SettingsError(f"early_terminate has no {unknown[0]}{did_you_mean(unknown[0], HYPERBAND)}")
    if ("min_iter" in settings) == ("max_iter" in settings):
        raise SettingsError("early_terminate needs either min_iter or max_iter, a number of validations")

    for key, least in dict(min_iter=1, max_iter=1, eta=2, s=1).items():
        value = settings.get(key, least)
        if not (is_number(value, int | float) and value >= least):
            raise SettingsError(f"early_terminate: {key} must be a number from {least} on, got {value}")


def is_number(value: Any, kind: Any) -> bool:
    """True if a value is of a numeric type; true and false are of type int too, and are none."""
    return isinstance(value, kind) and not isinstance(value, bool)
