"""Settings of a run as one flat mapping of short keys: {"model.network": "…ConvNet", "model.network.width": 32, …}.

A short key is what one types after `--` on Train.py's command line. The same keys are used in configs/*.yaml, job specs
and sweeps, nested or dotted, with or without jsonargparse's `class_path` and `init_args`:

    model:                              model.network: my.Net            model:
      network:                          model.network.width: 32            network:
        class_path: my.Net                                                   width: 32
        init_args: (width: 32)

Settings come in layers (configs/base.yaml, each --config, the command line); the later one wins. This is the only place
where that is decided: the parser gets the merged settings as one object.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .classes import full_name, with_full_names
from .command_line import keys_without_value, list_above, parse_arguments, take_questions, typed_texts
from .errors import SettingsError
from .flat import Flat, depth, flatten, nested_value, set_in_last_item

BASE = "configs/base.yaml"

COMMAND_LINE = "the command line"  # as the source of a setting

# Sections whose settings are kept when their class changes (as far as the new class has them): another DataModule still
# has a batch_size. Below them, a class starts afresh: SGD must not inherit the weight decay meant for AdamW.
KEPT_SECTIONS = ("model", "data")


@dataclass
class Settings:
    """Layers of settings merged into one.

    Attributes:
        flat: short key → value, with class names in full.
        source: short key → where its value comes from (a file or "the command line").
        inherited: keys of `model` and `data` that the first layer has set for another class than the one now chosen;
            they are kept if that has them too. What other layers have set was asked for, and never lapses by itself.
        base: what the first layer is called.
        texts: short key → what was written, where that is not what is in flat: what was typed for a number, true, false
            or null, and a class name before it was put in full. A setting of type text gets it.
        questions: what only jsonargparse's command line can answer, such as --help, --print_config or --model.help.
    """

    flat: Flat = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    inherited: set[str] = field(default_factory=set)
    texts: dict[str, str] = field(default_factory=dict)
    questions: list[str] = field(default_factory=list)
    base: str | None = None

    def add(self, layer: Flat, source: str) -> None:
        """Put a layer over what is there. `key+` appends to a list; a section with nothing in it changes nothing.

        Raises:
            SettingsError: a class name has several meanings.
        """
        if self.base is None:
            self.base = source
        layer = self.spread(layer)

        # A class comes before its settings: replacing it makes those of the class before it lapse, not its own.
        for key in sorted(layer, key=depth):
            name = key.removesuffix("+")
            as_written = layer[key]

            try:
                value = with_full_names(name, as_written)
            except SettingsError as error:
                raise SettingsError(f"{where(name, source)}: {error}") from None

            # Only `key+` makes a list longer; a list under the plain key takes the place of the list below.
            if key.endswith("+"):
                self.append(name, value, source)
                continue

            # A list has no keys of its own, so what is set below it is meant for the class added last.
            list_key = list_above(name, self.flat)
            if list_key:
                below = name.removeprefix(f"{list_key}.")
                self.put(list_key, set_in_last_item(self.flat[list_key], below, value), source)
                continue

            # The same for a mapping whose keys have dots in them, such as the names of layers.
            mapping_key = self.mapping_above(name)
            if mapping_key:
                below = name.removeprefix(f"{mapping_key}.")
                self.put(mapping_key, {**self.flat[mapping_key], below: value}, source)
                continue

            self.replace(name, value, source, layer)

            # The setting may turn out to be a text that only looks like a class name; the parser knows its type.
            if isinstance(value, str) and value != as_written:
                self.texts[name] = as_written

    def add_arguments(self, arguments: Sequence[str]) -> None:
        """Put a command line over what is there: its settings, and its questions.

        Raises:
            SettingsError: a value has no key, or a class name has several meanings.
        """
        questions, rest = take_questions(arguments)
        self.questions = [asked_in_full(question) for question in questions]

        # A key without a value counts as true, but only the parser knows which settings need one, so it is asked too.
        for key in keys_without_value(rest):
            self.questions.append(f"--{key}")

        self.add(with_seed(parse_arguments(rest)), COMMAND_LINE)

        # Afterwards, since setting a value forgets its text. What was typed for a key below a list is not there.
        for key, text in typed_texts(rest).items():
            if key in self.flat and not isinstance(self.flat[key], str | list):
                self.texts[key] = text

    def replace(self, key: str, value: Any, source: str, layer: Flat) -> None:
        """Set a value, and forget the settings of the class that it takes the place of.

        Args:
            key: short key.
            value: its new value.
            source: where it comes from.
            layer: what is added together with it and so belongs to the new class.
        """
        old = self.flat.get(key)
        below = self.below(key)

        # A mapping adds to a mapping, in whichever of the two forms that is held.
        if isinstance(value, Mapping) and value and not isinstance(old, str):
            before = nested_value(self.flat, key)
            if isinstance(before, Mapping):
                value = {**before, **value}
            for name in below:
                self.drop(name)
            below = []

        # `model:` with nothing after it, all its lines commented out, is no wish to have no model.
        is_empty_section = value is None and (old is None or key in KEPT_SECTIONS)
        if below and is_empty_section:
            return

        # `null` is a change too, to no class; an empty mapping says nothing about the class.
        class_changes = not isinstance(value, Mapping) and not same_class(value, old)
        if class_changes and key in KEPT_SECTIONS:
            # Which of them the new class has is not asked here: that would import it, and planning imports nothing.
            self.inherited |= {name for name in below if self.source[name] == self.base != source}
        elif class_changes:
            for name in below:
                if name not in layer and self.lapses(name, key, value):
                    self.drop(name)

        self.put(key, value, source)

    def lapses(self, name: str, key: str, value: Any) -> bool:
        """True if a setting goes when its class does.

        Args:
            name: the setting.
            key: the class above it, still the old one.
            value: what takes the class's place.
        """
        # Without a class there are no settings. The first layer's are defaults, and those that were set together with
        # the old class were meant for that; any other was asked for, so the new class has it or it is an error.
        return value is None or self.source[name] in (self.base, self.source.get(key))

    def spread(self, layer: Flat) -> Flat:
        """A layer in which a mapping with dots in its keys is written out where it is below a class: as settings."""
        spread: Flat = {}
        for key, value in layer.items():
            if isinstance(value, Mapping) and value and isinstance(self.flat.get(key), str):
                spread |= flatten({f"{key}.{name}": item for name, item in value.items()})
            else:
                spread[key] = value
        return spread

    def mapping_above(self, key: str) -> str | None:
        """The nearest key above a key that holds a mapping as its value; None if there is none."""
        above = key.rpartition(".")[0]
        while above:
            if isinstance(self.flat.get(above), Mapping) and self.flat[above]:
                return above
            above = above.rpartition(".")[0]
        return None

    def append(self, key: str, value: Any, source: str) -> None:
        """Append one value or a list of them to a list; a single class that stands in its place becomes the first."""
        old = self.flat.get(key)
        if isinstance(old, list):
            items = old
        elif old is None:
            items = []
        else:
            # Its settings go into the list with it: below a list, no key has a meaning.
            items = [nested_value(self.flat, key)]
            for name in self.below(key):
                self.drop(name)

        if isinstance(value, list):
            items = [*items, *value]
        else:
            items = [*items, value]

        self.put(key, items, source)

    def put(self, key: str, value: Any, source: str) -> None:
        """Set one value and note where it comes from."""
        self.flat[key] = value
        self.source[key] = source

        # Both were remarks about the value that was there before.
        self.inherited.discard(key)
        self.texts.pop(key, None)

    def drop(self, key: str) -> None:
        """Forget a setting."""
        del self.flat[key], self.source[key]
        self.inherited.discard(key)
        self.texts.pop(key, None)

    def below(self, key: str) -> list[str]:
        """The keys below a key."""
        return [name for name in self.flat if name.startswith(f"{key}.")]

    def copy(self) -> "Settings":
        """Settings that can be changed without changing these; values are replaced, never changed in place."""
        questions = list(self.questions)
        return Settings(dict(self.flat), dict(self.source), set(self.inherited), dict(self.texts), questions, self.base)


def asked_in_full(question: str) -> str:
    """A question about a class by its full name, since to jsonargparse a short one is any imported class of that name.

    Raises:
        SettingsError: the class name has several meanings.
    """
    key, _, name = question.partition("=")
    if not (name and key.endswith(".help")):
        return question
    return f"{key}={full_name(name)}"


def with_seed(layer: Flat) -> Flat:
    """A layer of settings that sets the trial sets the seed, which is what a trial is."""
    if "trial" not in layer:
        return layer

    # A seed of the layer's own is kept: whether the two agree can be judged only when all layers are merged.
    return {"seed_everything": layer["trial"], **layer}


def replace_default_length(settings: Settings) -> None:
    """Let a length in steps or samples replace the default length in epochs, instead of the shorter of both winning."""
    lengths = [settings.flat.get(key) for key in ("trainer.max_steps", "max_samples")]
    is_asked_for = any(length not in (None, -1) for length in lengths)

    # Epochs that the user has set are no default: there, the shorter one wins, as Lightning has it.
    if is_asked_for and settings.source.get("trainer.max_epochs") == BASE:
        settings.put("trainer.max_epochs", -1, "the length asked for")


def same_class(a: Any, b: Any) -> bool:
    """True if two class names mean the same: `SGD` is short for `torch.optim.SGD`."""
    if not (isinstance(a, str) and isinstance(b, str)):
        return a == b

    return a == b or a.endswith(f".{b}") or b.endswith(f".{a}")


def written(key: str, settings: Settings) -> str:
    """A setting as it was written, and in which file: `--data.batch_size`, or "`data.batch_size` in gpu.yaml"."""
    return where(key, settings.source.get(key, COMMAND_LINE))


def where(key: str, source: str) -> str:
    """A setting as it is written in its source."""
    if source == COMMAND_LINE:
        return f"--{key}"
    return f"`{key}` in {source}"


def overridden(of_files: Settings, settings: Settings) -> list[str]:
    """Lines that say which values of files the command line has replaced with others."""
    lines = []

    for key, source in settings.source.items():
        # A list has mostly been added to, not replaced.
        if source != COMMAND_LINE or key not in of_files.flat or isinstance(of_files.flat[key], list):
            continue
        old, new = of_files.flat[key], settings.flat[key]
        if not same_class(old, new):
            lines.append(f"{key} = {new} (instead of {old} in {of_files.source[key]})")
    return lines
