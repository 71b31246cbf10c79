"""Whether two runs are the same to the bit and, if not, where they differ first and what was different around them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..provenance.environment import differences
from ..provenance.fingerprints import Fingerprint
from .kept import Kept, Row

# What a record has under other names than people use.
IN_WORDS = {
    "cpu": "processor",
    "vector_instructions": "vector instructions",
    "threads": "threads of the processor",
    "matmul_precision": "precision of matrix products",
}
MOST_NAMED = 12

NOTHING_DIFFERS = (
    "nothing that is kept is different here: is something random that no seed decides, or read from outside?"
)
NOT_DETERMINISTIC = "on a GPU, sums are added in any order unless the run has --trainer.deterministic true"


class Difference(NamedTuple):
    """The first difference of one kind; differences are ordered by when they appear.

    Attributes:
        step: optimizer steps that were done.
        rank: which of several at one step is the cause rather than the effect: 0 first.
        text: what differs.
    """

    step: int
    rank: int
    text: str


@dataclass
class Verdict:
    """The answer.

    Attributes:
        same: True if all that is kept of both is the same to the bit.
        lines: what was compared, or what differs, the first difference first.
    """

    same: bool
    lines: list[str]


def compare(then: Kept, now: Kept) -> Verdict:
    """Compare a run with another that was trained in the same way.

    Args:
        then: the run.
        now: the one that was trained again, to its end.
    """
    found = [
        first_weights(then.fingerprints, now.fingerprints),
        first_batch(then, now),
        first_row(then.rows, now.rows),
    ]
    differing = sorted(one for one in found if one is not None)
    if differing:
        lines = [f"first difference: {differing[0].text}", *(f"also: {one.text}" for one in differing[1:])]
        if found[0] is None:
            lines.append("the weights are the same all along: what differs is how they are measured, or on which data")
        return Verdict(False, [*lines, *reasons(then, now)])

    common = len(pairs(then.fingerprints, now.fingerprints))
    count = len(then.fingerprints[-1].tensors)
    times = f"{common} times, the first before training and the last at its end"
    return Verdict(True, [f"{count} tensors at {times}; {len(then.rows)} rows of metrics.csv"])


def pairs(then: Sequence[Fingerprint], now: Sequence[Fingerprint]) -> list[tuple[Fingerprint, Fingerprint]]:
    """Fingerprints of the same epoch; of large models, not every epoch has one."""
    at_epoch = {one.epoch: one for one in now}
    return [(one, at_epoch[one.epoch]) for one in then if one.epoch in at_epoch]


def first_weights(then: Sequence[Fingerprint], now: Sequence[Fingerprint]) -> Difference | None:
    """The first fingerprint that differs, and which tensors do."""
    for one, other in pairs(then, now):
        if one.step != other.step:
            return Difference(
                min(one.step, other.step), 3, f"{one.epoch} epochs were {one.step} steps then and {other.step} now"
            )
        if one.weights == other.weights:
            continue
        names = [name for name, digits in one.tensors.items() if other.tensors.get(name) != digits]
        names += [name for name in other.tensors if name not in one.tensors]
        text = "the initial weights" if one.epoch == 0 else f"the weights after epoch {one.epoch}"
        rank = 0 if one.epoch == 0 else 3
        named = ": " + names[0] if names else ""  # in one of 2³² cases the shorter digits of a tensor are the same
        more = f" and {len(names) - 1} more tensors" if len(names) > 1 else ""
        return Difference(one.step, rank, f"{text} (step {one.step}){named}{more}")

    last, last_now = then[-1].step, now[-1].step
    if last != last_now:
        return Difference(min(last, last_now), 3, f"it ended at step {last} then and {last_now} now")
    return None


def first_batch(then: Kept, now: Kept) -> Difference | None:
    """The first batch of the first epoch that differs; None if none does, or nobody has looked."""
    sides = []
    for run in (then, now):
        sides.append(next((one.batches for one in run.fingerprints if one.batches), []))
    accumulation = (then.environments[0].get("settings") or {}).get("trainer.accumulate_grad_batches")
    each = accumulation if isinstance(accumulation, int) and accumulation > 0 else 1

    for number, (one, other) in enumerate(zip(*sides, strict=False)):
        if one != other:
            step = number // each
            return Difference(step, 1, f"batch {number + 1} of epoch 1 (step {step}) has other data")
    return None


def first_row(then: Sequence[Row], now: Sequence[Row]) -> Difference | None:
    """The first row of metrics.csv that differs, and in which metric."""
    for one, other in zip(then, now, strict=False):
        if one == other:
            continue
        step = int(float(one.get("step", 0)))
        names = [name for name in dict.fromkeys((*one, *other)) if one.get(name) != other.get(name)]
        name = names[0]
        values = f"{one.get(name, 'nothing')} then and {other.get(name, 'nothing')} now"
        more = f", and {len(names) - 1} more" if len(names) > 1 else ""
        return Difference(step, 2, f"the metric {name} at step {step}: {values}{more}")

    if len(then) != len(now):
        step = int(float((then or now)[-1].get("step", 0)))
        return Difference(step, 2, f"metrics.csv has {len(then)} rows then and {len(now)} now")
    return None


def reasons(then: Kept, now: Kept) -> list[str]:
    """What was different around two runs that differ."""
    here = now.environments[-1] if now.environments else {}
    lines = in_words(differences(then.environments[0], here), "different here")
    if not lines:
        on_gpu = here.get("cuda") is not None and not here.get("deterministic")
        lines.append(NOT_DETERMINISTIC if on_gpu else NOTHING_DIFFERS)

    for record in then.environments[1:]:
        changed = differences(then.environments[0], record)
        lines += in_words(changed, f"the run itself went on with another from step {record.get('from_step')} on")
    return lines


def in_words(changed: Mapping[str, tuple[Any, Any]], beginning: str) -> list[str]:
    """Lines for what differs between two records."""
    lines = []
    for name, (before, after) in list(changed.items())[:MOST_NAMED]:
        sides = ["none" if value is None else value for value in (before, after)]
        lines.append(f"{beginning}: {IN_WORDS.get(name, name)} {sides[0]} then, {sides[1]} now")
    if len(changed) > MOST_NAMED:
        lines.append(f"{beginning}: {len(changed) - MOST_NAMED} more")
    return lines
