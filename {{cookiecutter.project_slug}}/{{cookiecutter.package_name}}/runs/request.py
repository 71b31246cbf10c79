"""From a command line to a request: which settings, which run, which folder. The same for a hand, a job or a sweep."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .folder import RunFolder
from .identity import identity, short_name
from .settings import Flat, Settings, SettingsError, did_you_mean, parse_arguments, read, same_class

COMMAND_LINE = "the command line"
BASE = "configs/base.yaml"

# What an experiment may be called: it is a folder, a W&B group and a part of W&B run ids, which end at 128 characters.
NAME = re.compile(r"[A-Za-z0-9_][\w.=+-]{0,99}", re.ASCII)


@dataclass
class Request:
    """What one start of Train.py asks for.

    Attributes:
        command: fit, validate, test or predict.
        settings: all settings merged.
        files: the settings without the command line's values; what jsonargparse parses after them is in `arguments`.
        typed: the command line after the command, as typed.
        changes: what differs from configs/base.yaml.
        overrides: lines that say which command-line value replaces which file's value.
        folder: the run's folder.
        identity: 16 hexadecimal digits, see runs/identity.py.
        group: name of the experiment, the folder's parent.
    """

    command: str
    settings: Settings
    files: Settings
    arguments: list[str]
    typed: list[str]
    changes: Flat
    folder: RunFolder
    identity: str
    group: str
    overrides: list[str] = field(default_factory=list)


def request(command: str, arguments: Sequence[str], root: Path) -> Request:
    """Read the settings that a command line asks for and find the run's folder.

    Args:
        command: fit, validate, test or predict.
        arguments: what follows the command.
        root: the project's folder, which holds configs/base.yaml.

    Raises:
        SettingsError: a file is missing or wrong, or `--run` names no run.
    """
    configs, rest = take_options(arguments, "--config", "-c")
    runs, rest = take_options(rest, "--run")
    run = RunFolder(runs[-1]) if runs else None
    base = run.path / "config.yaml" if run else root / BASE
    if run and not base.is_file():
        raise SettingsError(f"--run {run.path} is not a run's folder: it has no config.yaml")

    files, settings = Settings(), Settings()
    rest = [token.replace(".init_args.", ".") if token.startswith("--") else token for token in rest]
    typed = parse_arguments(rest)
    base_layer = read(base)
    layers = [(base_layer, short(base, root))]
    layers += [(read(found), short(found, root)) for found in (find(name, root) for name in configs)]
    for layer, source in layers:
        files.add(with_seed(layer), source)
        settings.add(with_seed(layer), source)
    overrides = [
        f"{key} = {value} (instead of {files.flat[key]} in {files.source[key]})"
        for key, value in typed.items()
        if key in files.flat and not same_class(files.flat[key], value)
    ]
    settings.add(with_seed(typed), COMMAND_LINE)
    # A class chosen on the command line decides which of the files' settings below it still stand.
    files.add({k: v for k, v in typed.items() if any(other.startswith(f"{k}.") for other in files.flat)}, COMMAND_LINE)

    trial = settings.flat.get("trial", 0)
    if not isinstance(trial, int) or trial < 0:
        raise SettingsError(f"--trial must be a whole number from 0 on, got {trial}")
    seed = settings.flat.get("seed_everything")
    seed = trial if seed is None else seed
    if trial and trial != seed:  # two folders would hold the same run
        raise SettingsError(f"--trial {trial} means seed {trial}, but seed_everything is {seed}: give only one of them")
    for each in (files, settings):
        each.add({"seed_everything": seed}, "--trial")

    changes = {k: v for k, v in settings.flat.items() if k not in base_layer or base_layer[k] != v}
    if seed == trial:
        changes.pop("seed_everything", None)
    codeversion = settings.flat.get("codeversion")
    run_identity = identity(settings.flat, None if codeversion is None else str(codeversion))
    group = settings.flat.get("name", "default")
    if not run:
        if not (isinstance(group, str) and NAME.fullmatch(group)):
            raise SettingsError(
                f"--name {group} can't name an experiment: use letters, digits and ._=+- (no bare number or date)"
            )
        leaf = f"{trial:03d}-{short_name(changes)}-{run_identity[:8]}"
        run = RunFolder(Path(str(settings.flat.get("runs_dir", "runs"))) / group / leaf)
    else:
        status = run.status()
        group, run_identity = status.get("name", run.path.parent.name), status.get("identity", run_identity)
    return Request(command, settings, files, rest, list(arguments), changes, run, run_identity, group, overrides)


def with_seed(layer: Flat) -> Flat:
    """A layer of settings that sets the trial sets the seed, which is what a trial is."""
    return {"seed_everything": layer["trial"], **layer} if "trial" in layer else layer


def take_options(arguments: Sequence[str], *names: str) -> tuple[list[str], list[str]]:
    """Take an option that may be repeated (`--name value`, `--name=value`) out of a command line: values, the rest."""
    found: list[str] = []
    rest: list[str] = []
    tokens = iter(arguments)
    for token in tokens:
        name, equals, value = token.partition("=")
        if name not in names:
            rest.append(token)
            continue
        if not equals:
            value = next(tokens, "")
        if not value or value.startswith("--"):
            raise SettingsError(f"{name} needs a value")
        found.append(value)
    return found, rest


def find(name: str, root: Path) -> Path:
    """A settings file as typed, or below the project's folder or its configs/.

    Raises:
        SettingsError: there is none; the message names similar ones.
    """
    for candidate in (Path(name), root / name, root / "configs" / name):
        if candidate.is_file():
            return candidate
    there = [short(file, root) for file in (root / "configs").rglob("*.yaml")]
    raise SettingsError(f"no such settings file: {name}{did_you_mean(name, there)}")


def short(path: Path, root: Path) -> str:
    """A path as a person would say it: relative to the project where that is possible."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
