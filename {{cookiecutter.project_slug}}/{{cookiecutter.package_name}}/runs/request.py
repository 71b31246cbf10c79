"""From a command line to a request: which settings, which run, which folder. The same for a hand, a job or a sweep."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .folder import RunFolder
from .identity import counting, folder_name, identity
from .settings import Flat, Settings, SettingsError, did_you_mean, parse_arguments, read, same_class

COMMAND_LINE = "the command line"
BASE = "configs/base.yaml"
MANIFEST = "manifest.jsonl"  # of an experiment: one line for each planned run

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
        changes: what differs from configs/base.yaml; for a planned run, from the other runs of its experiment.
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
    indices, rest = take_options(rest, "--index")
    rest = [token.replace(".init_args.", ".") if token.startswith("--") else token for token in rest]
    more = [(read(found), short(found, root)) for found in (find(name, root) for name in configs)]
    row: dict = {}
    if indices:
        row, layers = planned(Path(runs[-1] if runs else ""), indices[-1])
    elif runs:
        config = Path(runs[-1]) / "config.yaml"
        if not config.is_file():
            raise SettingsError(f"--run {runs[-1]} is not a run's folder: it has no config.yaml")
        layers = [(read(config), short(config, root))]
    else:
        layers = [(read(root / BASE), short(root / BASE, root))]
    wanted = assemble(command, [*layers, *more], rest)
    wanted.typed = list(arguments)

    if row:
        wanted.changes = row["overlay"]
        wanted.folder = existing(Path(runs[-1]) / row["folder"], row["identity"])
    elif runs:
        wanted.folder = RunFolder(runs[-1])
        status = wanted.folder.status()
        wanted.group = status.get("name", wanted.folder.path.parent.name)
        wanted.identity = status.get("identity", wanted.identity)
        wanted.changes = read(overlay) if (overlay := wanted.folder.path / "overlay.yaml").is_file() else {}
    else:
        wanted.folder = existing(wanted.folder.path, wanted.identity)
    changing = wanted.identity != row["identity"] if row else counting(parse_arguments(rest)) or more
    if runs and command == "fit" and changing:
        raise SettingsError("fit --run goes on with a run as it is; other settings make another run: leave out --run")
    return wanted


def planned(experiment: Path, index: str) -> tuple[dict, list[tuple[Flat, str]]]:
    """One run of an experiment as it was submitted: its line in the manifest, and its layers of settings.

    Args:
        experiment: the experiment's folder, with configs/ and manifest.jsonl (launch/experiment.py writes them).
        index: the run's place in the manifest, from 0.

    Raises:
        SettingsError: there is no such experiment or no such run in it.
    """
    try:
        with (experiment / MANIFEST).open(encoding="utf-8") as manifest:
            line = next((line for number, line in enumerate(manifest) if str(number) == index), None)
    except OSError:
        raise SettingsError(f"--run {experiment} is no planned experiment: it has no {MANIFEST}") from None
    if line is None:
        raise SettingsError(f"--index {index}: {experiment / MANIFEST} has no such run")
    row = json.loads(line)
    return row, [*frozen_layers(experiment), (row["overlay"], f"run {index}")]


def frozen_layers(experiment: Path) -> list[tuple[Flat, str]]:
    """The settings that all runs of an experiment share, as they were when it was submitted, and their files."""
    return [(read(file), file.name) for file in sorted((experiment / "configs").glob("*.yaml"))]


def existing(folder: Path, run_identity: str) -> RunFolder:
    """The folder of the run with this identity, which may have another name; the given one if there is none yet.

    A run's readable name depends on what it was planned with; started by hand it is still the same run.
    """
    if not folder.exists():
        for other in folder.parent.glob(f"*-{run_identity[:8]}"):
            if RunFolder(other).status().get("identity") == run_identity:
                return RunFolder(other)
    return RunFolder(folder)


def assemble(command: str, layers: Sequence[tuple[Flat, str]], arguments: Sequence[str]) -> Request:
    """Merge layers of settings and a command line into a request. Reads nothing.

    Args:
        command: fit, validate, test or predict.
        layers: settings, each with where they come from, the first being what the run's changes are counted from.
        arguments: the command line's settings, without files.

    Raises:
        SettingsError: the settings contradict each other.
    """
    files, settings = Settings(), Settings()
    typed = parse_arguments(arguments)
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

    base = layers[0][0]
    changes = {k: v for k, v in settings.flat.items() if k not in base or base[k] != v}
    if seed == trial:
        changes.pop("seed_everything", None)
    codeversion = settings.flat.get("codeversion")
    run_identity = identity(settings.flat, None if codeversion is None else str(codeversion))
    group = settings.flat.get("name", "default")
    if not (isinstance(group, str) and NAME.fullmatch(group)):
        raise SettingsError(
            f"--name {group} can't name an experiment: use letters, digits and ._=+- (no bare number or date)"
        )
    leaf = folder_name(trial, changes, run_identity)
    folder = RunFolder(Path(str(settings.flat.get("runs_dir", "runs"))) / group / leaf)
    return Request(
        command, settings, files, list(arguments), list(arguments), changes, folder, run_identity, group, overrides
    )


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
