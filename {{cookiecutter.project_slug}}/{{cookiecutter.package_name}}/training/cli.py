"""LightningCLI with short keys: a request's settings are checked, completed with facts about the data, and parsed."""

import functools
import json
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, seed_everything
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ..cka import CKACallback
from ..runs.request import Request
from ..runs.settings import Settings, SettingsError, unflatten
from .checkpoints import Checkpoints
from .errors import check_keys, class_of, class_settings, full_path, located, one_line
from .length import replace_default_length

# What networks call a fact about the data → the DataModule's attribute that has it (channels: of its input_shape).
DATA_FACTS = dict(
    classes="classes", num_classes="classes", num_labels="classes",
    input_shape="input_shape", in_channels="channels", in_chans="channels", num_channels="channels",
)  # fmt: skip


class Parser(LightningArgumentParser):
    """The parser, with errors of one line instead of the whole usage."""

    def error(self, message: str, ex: Exception | None = None) -> None:
        if not self.exit_on_error:  # the parser of a class within: the outermost one reports
            super().error(message, ex)
        raise SettingsError(one_line(message)) from ex


class CLI(LightningCLI):
    """Parses a request and makes the model, the data and the trainer; run.py does the rest.

    Args:
        wanted: settings and folder, see runs/request.py.

    Attributes:
        resolved: all settings, defaults and values filled in from the data included, as plain data.
    """

    def __init__(self, wanted: Request) -> None:
        self.wanted = wanted
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,  # run.py writes it, with the run's other files
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs=dict(allow_abbrev=False),
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )
        # Now, before folders and ids of this one run are put in: these settings are also good for another run.
        command = wanted.command
        text = self._parser(command).dump(self.config[command], skip_none=False, skip_validation=True, format="json")
        self.resolved = {key: value for key, value in json.loads(text).items() if key not in ("config", "ckpt_path")}

    def add_arguments_to_parser(self, parser: Parser) -> None:
        parser.add_argument("--name", default="default", help="Experiment: its runs share a folder and a W&B group.")
        parser.add_argument("--runs_dir", default="runs", help="Where run folders go.")
        parser.add_argument("--trial", type=int, default=0, help="Repetition: gives the seed and the folder's number.")
        parser.add_argument(
            "--codeversion", type=str | None, help="Any text; a new one makes new runs of old settings."
        )
        parser.add_argument(
            "--init_seed", type=int | None, help="Seed of the initial weights; default: seed_everything."
        )
        parser.add_argument(
            "--resume",
            default="auto",
            help="fit: auto, never, must, or a checkpoint's path or name (best, last, step-…).",
        )
        parser.add_argument("--canary", type=bool, default=False, help="Save and stop after the first validation.")
        parser.add_argument("--init_from", type=str | None, help="Checkpoint whose weights a new run starts from.")
        parser.add_argument("--init_strict", type=bool, default=True, help="All weights must be in it, and no others.")
        parser.add_class_arguments(Checkpoints, "checkpoints", instantiate=False, skip={"config"})
        parser.add_subclass_arguments(CKACallback, "cka", required=False)
        parser.add_argument("--compile", type=bool, default=False, help="torch.compile the network.")
        parser.add_argument(
            "--total_batch_size",
            type=int | None,
            help="Samples per optimizer step over all devices; sets the accumulation.",
        )
        parser.add_argument("--max_samples", type=int | None, help="Length of the run in training samples.")
        parser.add_argument(
            "--val_every_steps",
            type=int | None,
            help="Validate every so many optimizer steps, counted as accumulation × batches.",
        )
        parser.add_argument("--val_every_samples", type=int | None, help="Validate every so many training samples.")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Commands, and the arguments of the Trainer's methods that are not settings."""
        loaders = {"model", "dataloaders", "datamodule", "weights_only", "verbose"}
        return dict(
            fit={"model", "train_dataloaders", "val_dataloaders", "datamodule", "ckpt_path", "weights_only"},
            validate=loaders,
            test=loaders,
            predict=loaders | {"return_predictions"},
        )

    def parse_arguments(self, parser: Parser, args: Any = None) -> None:
        """Check every key, fill in what the data knows, then let jsonargparse check every value."""
        command, files = self.wanted.command, self.wanted.files
        known = {action.dest for action in self._parser(command)._actions}
        name_classes_in_full(self.wanted)
        check_keys(self.wanted.settings, known)
        drop_inherited(files)
        drop_inherited(self.wanted.settings)
        replace_default_length(self.wanted)
        try:
            fill_from_data(self.wanted)
            arguments = [command, "--config", json.dumps(unflatten(files.flat), default=str), *self.wanted.arguments]
            self.config = parser.parse_args(arguments)
        except SettingsError as error:
            raise located(error, self.wanted.settings) from error

    def _parse_ckpt_path(self) -> None:
        """Nothing: LightningCLI would lay a checkpoint's hyperparameters over the settings that were asked for."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing: run.py runs the command once everything is made."""

    def _set_seed(self) -> None:
        """Nothing: `make` seeds, with the seed for initial weights."""

    def instantiate_classes(self) -> None:
        """Nothing: so that a wrong setting is found before anything is written, `make` is called later."""

    def make(self, callbacks: list[Callback], **trainer_settings: Any) -> None:
        """Make model, data and trainer; the model's initial weights depend on init_seed alone.

        Args:
            callbacks: callbacks that every run has, beside the configured ones.
            trainer_settings: settings of the Trainer that are not the user's, such as its folder.

        Raises:
            SettingsError: the Trainer refuses a setting.
        """
        config = self.config[self.subcommand]
        seed = config.seed_everything if config.init_seed is None else config.init_seed
        seed_everything(seed, workers=True, verbose=False)
        self.config_init = self.parser.instantiate_classes(self.config)
        self.datamodule, self.model = self._get(self.config_init, "data"), self._get(self.config_init, "model")
        settings = self._get(self.config_init, "trainer")
        chosen = settings.callbacks or []
        if trainer_settings.get("enable_progress_bar") is False:  # a bar is for a terminal: in a log file it is noise
            settings.callbacks = [callback for callback in chosen if not isinstance(callback, ProgressBar)]
        elif any(isinstance(callback, ProgressBar) for callback in chosen):  # instead of ours
            callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
        self.trainer_defaults = dict(callbacks=callbacks)
        try:
            self.trainer = self.instantiate_trainer(**trainer_settings)
        except (ValueError, MisconfigurationException) as error:
            raise SettingsError(f"trainer: {' '.join(str(error).split())}") from error


def name_classes_in_full(wanted: Request) -> None:
    """Replace class names without a module in model, data and cka by class paths: `SGD` by `torch.optim.SGD`.

    To jsonargparse a short name is any imported class of that name, and ambiguous if there are two.
    """
    for key, name in wanted.settings.flat.items():
        if key.split(".")[0] in ("model", "data", "cka") and isinstance(name, str) and name.isidentifier():
            path = full_path(name)
            if path is None:
                continue
            for layer in (wanted.settings, wanted.files):
                if layer.flat.get(key) == name:
                    layer.flat[key] = path
            typed = wanted.arguments
            for index, token in enumerate(typed):
                if token == f"--{key}={name}":
                    typed[index] = f"--{key}={path}"
                elif token == name and typed[index - 1] == f"--{key}":
                    typed[index] = path


def drop_inherited(settings: Settings) -> None:
    """Forget settings made for another model or data class that the one now chosen does not have."""
    for key in sorted(settings.inherited):
        section, name = key.split(".")[:2]
        if name not in class_settings(class_of(section, settings)):
            settings.drop(key)


def fill_from_data(wanted: Request) -> None:
    """Fill in what the model and the network want to know about the data and nobody has set: classes, input_shape, …

    The DataModule is made once more for this, from the same settings; its constructor loads nothing.
    """
    files, typed = wanted.files, wanted.settings.flat
    targets = {
        f"{owner}.{fact}": fact
        for owner in ("model", "model.network")
        if isinstance(typed.get(owner), str)
        for fact in class_settings(class_of(owner, wanted.settings)) & set(DATA_FACTS)
        if f"{owner}.{fact}" not in typed
    }
    if not targets:
        return
    facts = data_facts(data_section(wanted))
    files.add({key: facts[DATA_FACTS[fact]] for key, fact in targets.items() if DATA_FACTS[fact] in facts}, "the data")


def data_section(wanted: Request) -> str:
    """The settings of the data, `data: …`, as JSON."""
    typed = wanted.settings.flat
    section = {key: value for key, value in typed.items() if key.split(".")[0] == "data" and key != "data.help"}
    return json.dumps(unflatten(section), sort_keys=True, default=str)


def make_data(section: str) -> LightningDataModule:
    """The DataModule alone.

    Args:
        section: see data_section.

    Raises:
        SettingsError: its constructor refuses a setting.
    """
    parser = Parser(allow_abbrev=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    settings = parser.parse_object(json.loads(section))
    try:
        return parser.instantiate_classes(settings).data
    except ValueError as error:  # jsonargparse's list of all types that it has tried
        raise error.__cause__ if isinstance(error.__cause__, SettingsError) else error from None


@functools.cache  # a launcher checks many runs, most of them with the same data
def data_facts(section: str) -> dict[str, Any]:
    """classes, input_shape and channels of a DataModule, as far as it has them.

    Args:
        section: see data_section.
    """
    data = make_data(section)
    facts = {name: getattr(data, name) for name in ("classes", "input_shape") if hasattr(data, name)}
    if "input_shape" in facts:
        facts["input_shape"] = list(facts["input_shape"])
        facts["channels"] = facts["input_shape"][0]
    return facts
