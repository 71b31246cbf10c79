"""fingerprints.jsonl: what a run's weights were before the first epoch and after each, and what it was trained on.

A line with `names` says which tensors the following lines are about. Each of these has

    epoch, step     how many epochs and optimizer steps were done
    weights         32 hexadecimal digits for all parameters and buffers
    tensors         8 digits for each of them, in the order of `names`
    batches         8 digits for each batch of the first epoch, in the line of that epoch
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import write_all, write_atomically

FILE = "fingerprints.jsonl"
DIGITS = 8  # of a single tensor or batch


@dataclass
class Fingerprint:
    """What the weights were at one time.

    Attributes:
        epoch: how many epochs were done; 0 for the weights that training began with.
        step: how many optimizer steps were done.
        weights: digits for all tensors together.
        tensors: name of a parameter or buffer → its digits.
        batches: digits of each batch of the first epoch; empty in other epochs, and where batches have no tensors.
    """

    epoch: int
    step: int
    weights: str
    tensors: dict[str, str]
    batches: list[str] = field(default_factory=list)

    def line(self) -> str:
        """Its line of the file."""
        content: dict[str, Any] = dict(epoch=self.epoch, step=self.step, weights=self.weights)
        content["tensors"] = "".join(self.tensors.values())
        if self.batches:
            content["batches"] = "".join(self.batches)
        return json.dumps(content) + "\n"


def fingerprint_of(epoch: int, step: int, sums: Mapping[str, int], batches: Sequence[int]) -> Fingerprint:
    """A fingerprint from checksums.

    Args:
        epoch, step: how many are done.
        sums: name of a tensor → its checksum, of 64 bits with a sign.
        batches: the checksums of the first epoch's batches.
    """
    text = json.dumps(list(sums.items()))
    weights = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    tensors = {name: digits_of(value) for name, value in sums.items()}
    return Fingerprint(epoch, step, weights, tensors, [digits_of(value) for value in batches])


def digits_of(checksum: int) -> str:
    """The upper half of a checksum, on which all bits of the words have an influence, as hexadecimal digits."""
    return f"{(checksum >> 32) & 0xFFFFFFFF:08x}"


def read_fingerprints(folder: Path) -> list[Fingerprint]:
    """All whole lines of a run's file, in order; [] if there is none. A line that can't be read ends it."""
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        return []

    found, names = [], []
    for line in text[: text.rfind("\n") + 1].splitlines():
        try:
            content = json.loads(line)
            if "names" in content:
                names = list(content["names"])
                continue
            tensors = dict(zip(names, in_parts(content["tensors"]), strict=True))
            batches = in_parts(content.get("batches", ""))
            found.append(Fingerprint(content["epoch"], content["step"], content["weights"], tensors, batches))
        except (ValueError, KeyError, TypeError):
            break
    return found


def in_parts(digits: str) -> list[str]:
    """Digits of several tensors or batches, one by one."""
    return [digits[start : start + DIGITS] for start in range(0, len(digits), DIGITS)]


def names_line(names: Iterable[str]) -> str:
    """The line that says which tensors the next ones are about."""
    return json.dumps(dict(names=list(names))) + "\n"


class FingerprintsFile:
    """Writes the file of one run.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file: Any = None  # unbuffered, and open from `begin` to `close`
        self.names: list[str] | None = None  # of the file's last line with names
        self.last_step = -1  # of its last fingerprint

    def begin(self, epochs: int) -> None:
        """Keep the fingerprints up to this many epochs: a run that resumes makes the later ones again.

        Raises:
            OSError: the file can't be written.
        """
        kept = [one for one in read_fingerprints(self.folder) if one.epoch <= epochs]
        lines, self.names, self.last_step = [], None, -1
        for one in kept:
            lines += self._lines(one)
        if lines:
            write_atomically(self.folder / FILE, "".join(lines), lasting=False)
        self.close()
        self.file = (self.folder / FILE).open("ab" if lines else "wb", buffering=0)

    def add(self, one: Fingerprint) -> None:
        """Add a fingerprint, between `begin` and `close`.

        Raises:
            OSError: it can't be written.
        """
        write_all(self.file, "".join(self._lines(one)).encode())

    def close(self) -> None:
        """Leave the file as it is."""
        if self.file is not None:
            self.file.close()
        self.file = None

    def _lines(self, one: Fingerprint) -> list[str]:
        """Its line, after one with the names of its tensors if they are not those of the line before."""
        lines = [one.line()]
        if list(one.tensors) != self.names:
            self.names = list(one.tensors)
            lines.insert(0, names_line(self.names))
        self.last_step = one.step
        return lines
