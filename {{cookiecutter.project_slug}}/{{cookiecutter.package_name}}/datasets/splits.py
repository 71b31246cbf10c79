"""Which samples train, validate and test. Only indices are chosen here; data and transforms come later (module.py).

What a data set gives, and what becomes of it (shares are of the samples in `train`, rounded up):

    given                    normal                     cross-validation, fold k        final
    -----------------------  -------------------------  ------------------------------  --------------------------
    train                    test_share of it tests,    test_share of it tests, the     test_share of it tests,
                             val_share validates, the   rest in K folds: the k-th       the rest trains
                             rest trains                validates, the others train
    train, test              val_share of train         train in K folds                all of train trains
                             validates, the rest trains
    train, validation, test  as given                   train and validation together   train and validation
                                                        in K folds                      together train

A given test set always tests, and one that is taken from `train` is the same in every mode and fold.

The draw depends on the seed alone: `random.Random.random`, whose numbers Python promises never to change, decides the
order. So a split is the same on every rank and machine, after every restart, and under the next version of anything.
"""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SOURCES = ("train", "validation", "test")  # what a data set may give; any other name is an extra set to evaluate


class SplitError(ValueError):
    """The samples can't be split as asked for."""


@dataclass(frozen=True)
class Split:
    """Indices, ascending, of the samples that train, validate and test.

    They count through everything that is given: first `train`, then `validation`, then `test`.
    """

    train: list[int]
    val: list[int]
    test: list[int]


def split(
    lengths: Mapping[str, int],
    mode: str = "normal",
    folds: int = 5,
    fold: int = 0,
    val_share: float = 0.2,
    test_share: float = 0.2,
    seed: int = 0,
    labels: Sequence[Any] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> Split:
    """Split what a data set gives, by the table above.

    Args:
        lengths: number of samples of `train`, and of `test`, and of `validation`, where they are given.
        mode: normal, cross-validation or final.
        folds: number of folds, K.
        fold: which of them validates, from 0.
        val_share: share of `train` for validation.
        test_share: share of `train` for the test.
        seed: another seed, another draw. It is not the run's seed: repetitions of a run shall see the same split.
        labels: one per sample, of all that is given. Each part then has each label in the same proportion, to within a
            sample; numbers that are no classes are spread evenly too.
        groups: one per sample, such as the patient it is from. A group is never in two parts, and these then have
            their size and proportions only as nearly as whole groups allow.

    Raises:
        SplitError: the data set gives something else, or a part would be empty.
    """
    if "train" not in lengths or "validation" in lengths and "test" not in lengths:
        given = " and ".join(lengths)
        raise SplitError(f"a data set gives train, or train and test, or train, validation and test; not {given}")
    counted = iter(range(sum(lengths.values())))
    pool, val, test = ([next(counted) for _ in range(lengths.get(name, 0))] for name in SOURCES)
    facts = (labels, groups)
    if "test" not in lengths:
        test, pool = take(pool, math.ceil(test_share * lengths["train"]), f"test {seed}", *facts)
    if mode == "normal" and "validation" not in lengths:
        val, pool = take(pool, math.ceil(val_share * lengths["train"]), f"val {seed}", *facts)
    elif mode == "cross-validation":
        parts = deal(pool + val, folds, f"folds {seed}", *facts)
        val = parts.pop(fold)
        pool = [index for part in parts for index in part]
    elif mode == "final":
        pool, val = pool + val, []
    if not pool or not val and mode != "final":
        raise SplitError(f"{len(pool)} samples train and {len(val)} validate: there are too few, or too few groups")
    return Split(sorted(pool), sorted(val), sorted(test))


def take(
    indices: list[int], count: int, seed: str, labels: Sequence[Any] | None, groups: Sequence[Hashable] | None
) -> tuple[list[int], list[int]]:
    """Take `count` of the samples: (these, the rest)."""
    if groups is not None and count:
        share = count / len(indices)
        taken, rest = place(indices, [share, 1 - share], seed, labels, groups)
        return taken, rest
    taken, rest = [], []
    for position, index in enumerate(in_order(indices, seed, labels)):
        # Evenly spaced in an order by label, so that each label gives its share.
        (taken if position * count % len(indices) < count else rest).append(index)
    return taken, rest


def deal(
    indices: list[int], folds: int, seed: str, labels: Sequence[Any] | None, groups: Sequence[Hashable] | None
) -> list[list[int]]:
    """Deal the samples out to folds as one deals cards, so that sizes, and counts of a label, differ by one at most."""
    if groups is not None:
        return place(indices, [1 / folds] * folds, seed, labels, groups)
    order = in_order(indices, seed, labels)
    return [order[fold::folds] for fold in range(folds)]


def in_order(indices: list[Any], seed: str, labels: Sequence[Any] | None) -> list[Any]:
    """Shuffled, and then sorted by label if there are labels."""
    generator = random.Random(seed)
    shuffled = sorted(indices, key=lambda _: generator.random())
    return shuffled if labels is None else sorted(shuffled, key=lambda index: labels[index])


def place(
    indices: list[int], shares: list[float], seed: str, labels: Sequence[Any] | None, groups: Sequence[Hashable]
) -> list[list[int]]:
    """Put whole groups, the largest first, each into the part that still needs its labels most."""
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index in indices:
        members[groups[index]].append(index)
    if len(members) < len(shares):
        raise SplitError(f"there are {len(members)} groups for {len(shares)} parts")
    label = [0] * (max(indices) + 1) if labels is None else labels
    totals = Counter(label[index] for index in indices)
    needs = [{name: share * count for name, count in totals.items()} for share in shares]
    parts: list[list[int]] = [[] for _ in shares]
    for group in sorted(in_order([*members], seed, None), key=lambda group: -len(members[group])):
        counts = Counter(label[index] for index in members[group])
        need = [sum(needs_it[name] * count for name, count in counts.items()) for needs_it in needs]
        neediest = need.index(max(need))
        parts[neediest] += members[group]
        for name, count in counts.items():
            needs[neediest][name] -= count
    return parts
