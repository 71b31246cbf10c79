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

BIN = 10  # at least so many samples have similar targets, where these are no classes

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
            sample; numbers that are no classes are spread evenly too, see `strata`.
        groups: one per sample, such as the patient it is from. A group is never in two parts, and these then have
            their size and proportions only as nearly as whole groups allow.

    Raises:
        SplitError: the data set gives something else, or a part would be empty.
    """
    if "train" not in lengths or "validation" in lengths and "test" not in lengths:
        given = " and ".join(lengths)
        raise SplitError(f"a data set gives train, or train and test, or train, validation and test; not {given}")

    if labels is not None:
        labels = strata(labels)

    # As given; indices count on from one source to the next.
    train, val, test = consecutive_indices(lengths)

    # The test set comes first, so that it is the same in every mode and fold.
    if "test" not in lengths:
        count = math.ceil(test_share * lengths["train"])
        test, train = draw(train, count, f"test {seed}", labels, groups)

    if mode == "normal" and "validation" not in lengths:
        count = math.ceil(val_share * lengths["train"])
        val, train = draw(train, count, f"val {seed}", labels, groups)
    elif mode == "cross-validation":
        parts = draw_folds(train + val, folds, f"folds {seed}", labels, groups)
        val = parts.pop(fold)
        train = [index for part in parts for index in part]
    elif mode == "final":
        train, val = train + val, []

    if not train or (not val and mode != "final"):
        raise SplitError(f"{len(train)} samples train and {len(val)} validate: there are too few, or too few groups")
    return Split(sorted(train), sorted(val), sorted(test))


def strata(labels: Sequence[Any]) -> list[int]:
    """The stratum of each sample; those in one stratum are the same to the draw.

    Args:
        labels: numbers or texts. None and NaN, for samples without a label, are a stratum of their own.

    Returns:
        Numbers from 0, in the order of the labels: one for each label; or, where the labels are no classes, since some
        have a fraction or hardly two are the same, one for each bin of BIN or more neighbours.
    """
    known = [None if label != label else label for label in labels]
    counts = Counter(known)
    has_fractions = any(isinstance(label, float) and not label.is_integer() for label in counts)
    smallest = BIN if has_fractions or len(counts) > len(labels) / 2 else 1

    stratum_of, stratum, size = {}, 0, 0
    for label in sorted(counts, key=sort_key):
        stratum_of[label] = stratum
        size += counts[label]
        if size >= smallest:
            stratum, size = stratum + 1, 0
    return [stratum_of[label] for label in known]


def sort_key(label: Any) -> tuple[int, float, str]:
    """Sorts labels of any kind: numbers by their value, then texts, then what has no label."""
    if label is None:
        return 2, 0, ""
    if isinstance(label, int | float):
        return 0, label, ""
    return 1, 0, str(label)


def consecutive_indices(lengths: Mapping[str, int]) -> list[list[int]]:
    """The indices of each of SOURCES, none where it is not given, counted through all of them."""
    indices, start = [], 0
    for name in SOURCES:
        stop = start + lengths.get(name, 0)
        indices.append(list(range(start, stop)))
        start = stop
    return indices


def draw(
    indices: list[int], count: int, seed: str, labels: Sequence[Any] | None, groups: Sequence[Hashable] | None
) -> tuple[list[int], list[int]]:
    """Draw `count` of the samples; returns these and the rest."""
    if groups is not None and count and indices:
        share = count / len(indices)
        drawn, rest = distribute_groups(indices, [share, 1 - share], seed, labels, groups)
        return drawn, rest

    # Evenly spaced in an order by label, so that each label gives its share.
    drawn, rest = [], []
    for position, index in enumerate(in_order(indices, seed, labels)):
        if position * count % len(indices) < count:
            drawn.append(index)
        else:
            rest.append(index)
    return drawn, rest


def draw_folds(
    indices: list[int], folds: int, seed: str, labels: Sequence[Any] | None, groups: Sequence[Hashable] | None
) -> list[list[int]]:
    """Deal the samples out to folds as one deals cards, so that sizes, and counts of a label, differ by one at most."""
    if groups is not None:
        return distribute_groups(indices, [1 / folds] * folds, seed, labels, groups)
    order = in_order(indices, seed, labels)
    return [order[fold::folds] for fold in range(folds)]


def in_order(items: list[Any], seed: str, labels: Sequence[Any] | None) -> list[Any]:
    """Shuffled, and then sorted by label if there are labels."""
    generator = random.Random(seed)
    shuffled = sorted(items, key=lambda _: generator.random())
    if labels is None:
        return shuffled
    return sorted(shuffled, key=lambda index: labels[index])


def distribute_groups(
    indices: list[int], shares: list[float], seed: str, labels: Sequence[Any] | None, groups: Sequence[Hashable]
) -> list[list[int]]:
    """Put whole groups, the largest first, each into the part that still needs its labels most.

    Args:
        indices: of the samples.
        shares: of the samples that each part should get; they add up to 1.
        seed: decides between groups of one size.
        labels: one per sample of all that is given, or None.
        groups: likewise.

    Returns:
        The indices in each part.

    Raises:
        SplitError: there are fewer groups than parts.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index in indices:
        members[groups[index]].append(index)
    if len(members) < len(shares):
        raise SplitError(f"there are {len(members)} groups for {len(shares)} parts")

    if labels is None:
        labels = [0] * (max(indices) + 1)
    totals = Counter(labels[index] for index in indices)
    missing = [{label: share * count for label, count in totals.items()} for share in shares]

    parts: list[list[int]] = [[] for _ in shares]
    largest_first = sorted(in_order(list(members), seed, None), key=lambda group: -len(members[group]))
    for group in largest_first:
        counts = Counter(labels[index] for index in members[group])
        needs = [sum(missing_here[label] * count for label, count in counts.items()) for missing_here in missing]
        neediest = needs.index(max(needs))

        parts[neediest] += members[group]
        for label, count in counts.items():
            missing[neediest][label] -= count
    return parts
