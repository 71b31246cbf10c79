"""From a command line to a run: its settings, its identity and its folder. The same for a hand, a job or a sweep."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..settings.classes import work_in
from ..settings.command_line import parse_arguments, take_options, take_questions
from ..settings.errors import SettingsError
from ..settings.flat import Flat, find_settings_file, read_layer, read_settings
from ..settings.layers import BASE, COMMAND_LINE, Settings, overridden, with_seed
from ..settings.places import EXISTING, FOLDERS, as_setting, command, existing, in_project, quoted, shown
from ..settings.reading.meaning import settle
from .folder import RunFolder
from .identity import counting, existing_folder, folder_name, identity, seed_of
from .manifest import Layers, frozen_layers, planned_run

# What an experiment may be called: it is a folder, a W&B group and a part of W&B run ids, which end at 128 characters.
EXPERIMENT_NAME = re.compile(r"[A-Za-z0-9_][\w.=+-]{0,99}", re.ASCII)

# What a command line said about one start of a run, and what is no setting of the run itself.
OF_ONE_START = ("resume", "canary")

LENGTHS = ("trainer.max_epochs", "trainer.max_steps", "max_samples")


@dataclass
class Run:
    """One run, as a start of Train.py asks for it: what to do, with which settings, in which folder.

    Attributes:
        command: fit, validate, test or predict.
        settings: all settings merged, those of the command line included.
        typed: the command line after the command, as typed.
        changes: what differs from configs/base.yaml; for a planned run, from the other runs of its experiment.
        folder: the run's folder.
        identity: 16 hexadecimal digits, see runs/identity.py.
        group: name of the experiment, the folder's parent.
        overrides: lines that say which command-line value replaces which file's value.
    """

    command: str
    settings: Settings
    typed: list[str]
    changes: Flat
    folder: RunFolder
    identity: str
    group: str
    overrides: list[str] = field(default_factory=list)


def read_command_line(command: str, arguments: Sequence[str], root: Path) -> Run:
    """Read the settings that a command line asks for and find the run's folder.

    Args:
        command: fit, validate, test or predict.
        arguments: what follows the command.
        root: the project's folder, which holds configs/base.yaml.

    Raises:
        SettingsError: a file is missing or wrong, or `--run` names no run.
    """
    work_in(root)
    configs, rest = take_options(arguments, "--config", "-c")
    folders, rest = take_options(rest, "--run")
    indices, rest = take_options(rest, "--index")
    extended, rest = take_options(rest, "--extend")
    if extended and (folders or command != "fit"):
        raise SettingsError("--extend is for fit, and makes a run of its own: leave out --run")
    overlays = [read_layer(find_settings_file(name, root), root) for name in configs]

    # With an index, the folder is that of an experiment.
    if indices:
        experiment = existing(folders[-1] if folders else "")
        run = read_planned_run(command, experiment, indices[-1], overlays, rest)
    elif folders:
        run = read_run(command, existing(folders[-1]), overlays, rest, root)
    elif extended:
        run = read_extension(existing(extended[-1]), overlays, rest, root)
    else:
        run = assemble(command, [read_layer(root / BASE, root), *overlays], rest)
        run.folder = existing_folder(run.folder.path, run.identity)
    run.typed = list(arguments)
    return run


def read_planned_run(command: str, experiment: Path, index: str, overlays: Layers, arguments: Sequence[str]) -> Run:
    """A run of an experiment, with the settings that it was submitted with.

    Args:
        command: fit, validate, test or predict.
        experiment: the experiment's folder.
        index: the run's place in the manifest, from 0.
        overlays: settings that are laid over its own.
        arguments: the command line's settings.

    Raises:
        SettingsError: there is no such run, or it would be trained with other settings.
    """
    planned = planned_run(experiment, index)
    layers = [*frozen_layers(experiment), (planned["overlay"], f"run {index}")]
    run = assemble(command, [*layers, *overlays], arguments)

    # Testing a run with other settings is fine; training it with them would spoil what its folder holds.
    if command == "fit" and run.identity != planned["identity"]:
        raise another_run(experiment / planned["folder"], arguments)

    run.changes = planned["overlay"]
    run.folder = existing_folder(experiment / planned["folder"], planned["identity"])
    return run


def read_run(command: str, folder: Path, overlays: Layers, arguments: Sequence[str], root: Path) -> Run:
    """The run that a folder holds, with the settings in its config.yaml.

    Args:
        command: fit, validate, test or predict.
        folder: the run's folder.
        overlays: settings that are laid over its own.
        arguments: the command line's settings.
        root: the project's folder.

    Raises:
        SettingsError: the folder holds no run, or it would be trained with other settings.
    """
    run = assemble(command, [settings_of(folder, "--run", root), *overlays], arguments)

    # Identities can't be compared: config.yaml also has the defaults, which the run's identity was made without.
    _, typed = take_questions(arguments)
    if command == "fit" and (overlays or counting(parse_arguments(typed))):
        raise another_run(folder, typed)

    # Its name, identity and changes are what they were when it began, whatever is laid over its settings now.
    run.folder = RunFolder(folder)
    status = run.folder.status()
    run.group = status.get("name", folder.parent.name)
    run.identity = status.get("identity", run.identity)
    overlay = folder / "overlay.yaml"
    run.changes = {}
    if overlay.is_file():
        run.changes = read_settings(overlay)
    return run


def read_extension(folder: Path, overlays: Layers, arguments: Sequence[str], root: Path) -> Run:
    """The run that trains a finished one for longer: its settings with others over them, in a folder of its own.

    Args:
        folder: the folder of the run that is extended.
        overlays, arguments: as for `read_run`; they say how long.
        root: the project's folder.

    Raises:
        SettingsError: the folder holds no run, or one that is not finished.
    """
    settings, source = settings_of(folder, "--extend", root)
    state = RunFolder(folder).status().get("state")
    if state != "done":
        raise SettingsError(
            f"--extend {folder}: that run is not done, but {state}; continue it with fit --run {quoted(folder)}"
        )

    # Its name in the identity must be the same however it was typed.
    place = as_setting("extend", str(folder))
    run = assemble("fit", [(settings, source), ({"extend": place}, "--extend"), *overlays], arguments)
    run.folder = existing_folder(run.folder.path, run.identity)
    return run


def settings_of(folder: Path, option: str, root: Path) -> tuple[Flat, str]:
    """The settings of a run, and where they are from; without those that were meant for one start of it.

    Raises:
        SettingsError: the folder, named with this option, holds no run.
    """
    config = folder / "config.yaml"
    if not config.is_file():
        raise SettingsError(f"{option} {folder} is not a run's folder: it has no config.yaml")
    settings, source = read_layer(config, root)
    return {key: value for key, value in settings.items() if key not in OF_ONE_START}, source


def another_run(folder: Path, arguments: Sequence[str]) -> SettingsError:
    """The error that says that a run is continued as it is, and how to train it for longer if that was meant."""
    message = "fit --run continues a run as it is; other settings make another run: leave out --run"
    _, typed = take_questions(arguments)
    lengths = {f"--{key}": value for key, value in parse_arguments(typed).items() if key in LENGTHS}
    if lengths:
        longer = command("Train.py", "fit", "--extend", folder, *itertools.chain(*lengths.items()))
        message += f". To train it for longer: {longer}"
    return SettingsError(message)


def assemble(command: str, layers: Sequence[tuple[Flat, str]], arguments: Sequence[str]) -> Run:
    """Merge layers of settings and a command line into a run. Reads no settings file.

    Args:
        command: fit, validate, test or predict.
        layers: settings, each with where they come from, the first being what the run's changes are counted from.
        arguments: the command line's settings, without files.

    Raises:
        SettingsError: the settings contradict each other.
    """
    unchanged = merge(layers[:1])
    settings = merge(layers)
    of_files = settings.copy()
    settings.add_arguments(arguments)

    # What is compared, named and hashed below is what the settings mean.
    for merged in (unchanged, of_files, settings):
        settle(merged)
    for key in (*FOLDERS, *EXISTING):
        if settings.source.get(key) == COMMAND_LINE:
            settings.flat[key] = as_setting(key, settings.flat[key])
    overrides = overridden(of_files, settings)

    give_seed(settings)
    run_identity = identify(settings)
    trial = settings.flat.get("trial", 0)

    changes = {}
    for key, value in settings.flat.items():
        if key not in unchanged.flat or unchanged.flat[key] != value:
            changes[key] = value

    # The folder's name begins with the trial, so a seed that only repeats it says nothing new.
    if settings.flat["seed_everything"] == trial:
        changes.pop("seed_everything", None)

    group = settings.flat.get("name", "default")
    if not (isinstance(group, str) and EXPERIMENT_NAME.fullmatch(group)):
        raise SettingsError(
            f"--name {group} can't name an experiment: use letters, digits and ._=+- (no bare number or date)"
        )

    leaf = folder_name(trial, changes, run_identity)
    folder = RunFolder(shown(in_project(str(settings.flat.get("runs_dir", "runs")))) / group / leaf)
    return Run(command, settings, list(arguments), changes, folder, run_identity, group, overrides)


def merge(layers: Sequence[tuple[Flat, str]]) -> Settings:
    """Layers of settings laid over each other, each given with where it comes from; see `Settings.add`."""
    settings = Settings()
    for layer, source in layers:
        settings.add(with_seed(layer), source)
    return settings


def give_seed(settings: Settings) -> None:
    """Give a run's settings the seed that they imply.

    Raises:
        SettingsError: trial and seed contradict each other.
    """
    seed = seed_of(settings.flat, settings.flat.get("trial", 0))
    settings.put("seed_everything", seed, "--trial")


def identify(settings: Settings) -> str:
    """The identity of a run with these settings: merged, settled, and with their seed."""
    # In a file, YAML reads a version such as 2 as a number; the identity knows it as text.
    codeversion = settings.flat.get("codeversion")
    if codeversion is not None:
        codeversion = str(codeversion)
    return identity(settings.flat, codeversion)
