"""Merged settings are checked, completed with facts about the data, parsed by jsonargparse, and made into objects.

Which value wins is decided in layers.py. The parser gets one object: it checks types and fills in defaults.
"""

import functools
import json
from collections.abc import Callable, Iterable
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from .errors import SettingsError
from .layers import Settings, replace_default_length
from .typed.arguments import Parser, build_parser
from .typed.facts import fill_from_data, make_data
from .typed.messages import check_keys, located
from .typed.parts import Part, parts_of
from .typed.values import as_object, drop_inherited, give_types, types_of


class CLI:
    """The settings of one start of Train.py, parsed; they become the model, the data and the Trainer.

    Args:
        command: fit, validate, test or predict.
        settings: the merged settings.

    Attributes:
        config: all settings, defaults and values filled in from the data included, as jsonargparse has them.
        resolved: the same as plain data, for config.yaml and trackers.
        model, datamodule, trainer: once they are made.
        config_init: all settings, with objects in the place of classes, once they are made.

    Raises:
        SettingsError: a setting is wrong.
    """

    model: LightningModule
    trainer: Trainer
    config_init: Namespace

    def __init__(self, command: str, settings: Settings) -> None:
        self.parser = build_parser(command)
        self.config, self._data = read(self.parser, settings)

        # Now, before folders and ids of this one run are put in: these settings are also good for another run.
        text = self.parser.dump(self.config, skip_none=False, skip_validation=True, format="json")
        self.resolved = json.loads(text)
        for key in ("config", "ckpt_path", "code"):  # of this one start
            self.resolved.pop(key, None)

    @functools.cached_property
    def datamodule(self) -> LightningDataModule:
        """The run's data: the object that was asked for facts, if it was asked."""
        if self._data is not None:
            return self._data
        return make_data(json.dumps(self.resolved["data"]), self.seed)

    @property
    def seed(self) -> int:
        """The seed of the initial weights."""
        if self.config.init_seed is not None:
            return self.config.init_seed
        return self.config.seed_everything

    def make_model(self) -> None:
        """Make the model, and all that the settings choose beside it; initial weights depend on init_seed alone."""
        config = self.config.clone()
        config.data = self.datamodule  # an object is left as it is

        # After the data are made: what their constructor draws must not change the weights.
        seed_everything(self.seed, workers=True, verbose=False)
        self.config_init = self.parser.instantiate_classes(config)
        self.model = self.config_init.model

    def make_trainer(self, callbacks: list[Callback], **trainer_settings: Any) -> None:
        """Make the Trainer, once the model is made.

        Args:
            callbacks: all its callbacks, those of the settings included, in the order in which they act.
            trainer_settings: settings of the Trainer that are not the user's, such as its folder.

        Raises:
            SettingsError: the Trainer refuses a setting.
        """
        settings = {**self.config_init.trainer, **trainer_settings, "callbacks": callbacks}
        try:
            self.trainer = Trainer(**settings)
        except (ValueError, MisconfigurationException) as error:
            raise SettingsError(f"trainer: {' '.join(str(error).split())}") from error


def read(parser: Parser, settings: Settings) -> tuple[Namespace, LightningDataModule | None]:
    """Check every key, fill in what the data knows, then let jsonargparse check every value.

    Args:
        parser: see build_parser.
        settings: the merged settings, which are not changed.

    Returns:
        the parsed settings, and the DataModule if it had to be made to fill in facts.

    Raises:
        SettingsError: a setting is wrong; the message says where it was written.
        SystemExit: a question was asked, such as --help, and has been answered.
    """
    types = types_of(parser)
    complete = settings.copy()

    # Keys come first: the parser's own message about an unknown one doesn't say where it was written.
    drop_inherited(complete)
    check_keys(complete, set(types))

    # What the layers had to leave open, since it takes the classes themselves to decide it.
    give_types(complete, types)
    replace_default_length(complete)

    try:
        data = fill_from_data(complete)
        if settings.questions:
            answer(parser, complete)
        return parser.parse_object(as_object(complete)), data
    except SettingsError as error:
        raise located(error, complete) from error


def answer(parser: Parser, settings: Settings) -> None:
    """Let jsonargparse's own command line answer what was asked, or say which setting lacks a value.

    Raises:
        SystemExit: the questions have been answered.
        SettingsError: one of them was no question but a setting without a value.
    """
    # A key without a value was taken as true until here; now jsonargparse says if it needs a value.
    for question in settings.questions:
        key = question.removeprefix("--")
        if key in settings.flat:
            settings.drop(key)
    parser.parse_args(["--config", json.dumps(as_object(settings)), *settings.questions])


def check_all(runs: Iterable[tuple[str, Settings]], progress: Callable[[int], object] = lambda done: None) -> None:
    """Check every key and every value of every run, exactly as `Train.py fit` would, without running anything.

    The parser takes about 40 ms for a run, so a run of which every part has been right in others is not parsed again: a
    grid of 10 optimizers, 2 networks and 50 learning rates takes 11 parses for its 1,000 runs; see `parts_of`.

    Args:
        runs: what to call each in an error, such as "run 73 (lr=abc)", and its settings.
        progress: called with the number of runs that are right so far.

    Raises:
        SettingsError: the first wrong one: which run, key and value, and what was expected.
    """
    parser = build_parser("fit")
    own = types_of(parser)
    right: set[Part] = set()
    for number, (name, settings) in enumerate(runs):
        parts = parts_of(settings, own)
        if not parts <= right:
            try:
                read(parser, settings)
            except SettingsError as error:
                raise SettingsError(f"{name}: {error}") from None
            right |= parts
        progress(number + 1)
