"""A Hypothesis strategy for whatever can be a value in a YAML file, and often for what looks like something else."""

import json

from hypothesis import strategies as st

MISTAKABLE = (
    "null", "~", "None", "True", "true", "1e-3", "1.10", "0x1F", "1_000", "1:60", "2026-01-01", "2026-13-45", "# c",
    "a # b", "&z", "*x", "!t", "a: b", "- a", "[1", "{a", "%", "@", "|", ">", "=", "<<", "...", "---", "",
    "'", '"', " a ", "a\nb", "\t", "\x00", "\x85", "\u2028", "\ufeff", "😀", "C:\\n",
)  # fmt: skip

texts = st.sampled_from(MISTAKABLE) | st.text(st.characters(exclude_categories=["Cs"]))
moments = st.dates() | st.datetimes().map(lambda moment: moment.replace(fold=0))
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | moments


words = st.sampled_from(["a", "b", "lr", "null"])


def nested(values):
    """Lists and mappings of values; a mapping's keys are those of settings."""
    return st.lists(values, max_size=4) | st.dictionaries(words, values, max_size=4)


def as_text(value):
    """The same text for values that Train.py can't tell apart: a date and its text, keys in another order."""
    return json.dumps(value, sort_keys=True, default=str)


yaml_values = st.recursive(scalars, nested, max_leaves=8)
