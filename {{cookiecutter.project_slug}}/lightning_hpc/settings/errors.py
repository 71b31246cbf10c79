"""What is wrong with what the user typed or wrote, and what was probably meant."""

import difflib
from collections.abc import Iterable


class SettingsError(ValueError):
    """Something is wrong with what the user typed or wrote; the message is one line that says what to do.

    Args:
        message: the line.
        page: of the documentation, where one line can't say enough: "slurm.md#slices". It is named below the line.
    """

    def __init__(self, message: str, page: str | None = None) -> None:
        super().__init__(message)
        self.page = page


def did_you_mean(word: str, choices: Iterable[str], prefix: str = "") -> str:
    """' (did you mean A or B?)' for the nearest choices, each after the prefix, or '' if none is near."""
    # Another case is no other word: `adamw` is AdamW, and not Adam, which has more letters in the right case.
    ordered = sorted(choices)
    near = [choice for choice in ordered if choice.lower() == word.lower()]
    near = near or difflib.get_close_matches(word, ordered, n=2, cutoff=0.6)
    if not near:
        return ""

    names = [f"{prefix}{choice}" for choice in near]
    return f" (did you mean {' or '.join(names)}?)"
