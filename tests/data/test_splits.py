"""Every cell of the table in data/splits.py, and what holds for all of them."""

import math
import random
import statistics
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_hpc.data.splits import SplitError, split, strata

N, VALIDATION, TEST = 101, 30, 20
GIVEN = {
    "train": {"train": N},
    "train, test": {"train": N, "test": TEST},
    "train, validation, test": {"train": N, "validation": VALIDATION, "test": TEST},
}
# Sizes of train, val and test; 20 % of 101 samples are 21. For cross-validation: fold 0 of 5.
CELLS = {
    ("train", "normal"): (59, 21, 21),
    ("train", "cross-validation"): (64, 16, 21),
    ("train", "final"): (80, 0, 21),
    ("train, test", "normal"): (80, 21, 20),
    ("train, test", "cross-validation"): (80, 21, 20),
    ("train, test", "final"): (101, 0, 20),
    ("train, validation, test", "normal"): (101, 30, 20),
    ("train, validation, test", "cross-validation"): (104, 27, 20),
    ("train, validation, test", "final"): (131, 0, 20),
}


def parts(result):
    return [result.train, result.val, result.test]


@pytest.mark.parametrize(("source", "mode"), CELLS)
@pytest.mark.parametrize("stratified", [True, False])
def test_each_cell(source, mode, stratified):
    lengths = GIVEN[source]
    total = sum(lengths.values())
    labels = [random.Random(index).choice("aaab") for index in range(total)] if stratified else None
    result = split(lengths, mode, labels=labels)
    assert tuple(map(len, parts(result))) == CELLS[source, mode]
    assert sorted(sum(parts(result), [])) == list(range(total))  # each sample once
    assert all(part == sorted(part) for part in parts(result))
    if "test" in lengths:
        assert result.test == list(range(total - TEST, total))
    if source == "train, validation, test" and mode == "normal":
        assert result.val == list(range(N, N + VALIDATION))
    elif stratified:
        share = Counter(labels[index] for index in result.train + result.val)
        for part in (result.train, result.val):
            counts = Counter(labels[index] for index in part)
            for label, count in share.items():
                expected = count * len(part) / sum(share.values())
                assert abs(counts[label] - expected) < 1.001, (label, counts, expected)


@pytest.mark.parametrize("source", GIVEN)
def test_folds_validate_each_sample_once_and_share_one_test_set(source):
    folds = [split(GIVEN[source], "cross-validation", 5, fold) for fold in range(5)]
    validated = sorted(index for each in folds for index in each.val)
    assert validated == sorted(folds[0].train + folds[0].val)
    assert max(len(each.val) for each in folds) - min(len(each.val) for each in folds) <= 1
    others = [split(GIVEN[source], mode) for mode in ("normal", "final")]
    assert all(each.test == folds[0].test for each in folds + others)


def test_the_draw_is_the_same_for_ever():
    """Written down once: another Python, another machine or a change of the code must not move a sample."""
    labels = [index % 3 for index in range(20)]
    assert parts(split({"train": 20}, labels=labels)) == [
        [2, 3, 4, 5, 7, 11, 13, 15, 16, 17, 18, 19],
        [6, 9, 10, 14],
        [0, 1, 8, 12],
    ]


def test_another_seed_is_another_draw_of_everything():
    one, two = (split({"train": 1000}, seed=seed) for seed in (0, 1))
    assert len(set(one.test) & set(two.test)) < 80 and len(set(one.val) & set(two.val)) < 80
    assert split({"train": 1000}, seed=1) == two


TARGETS = {
    "different": [random.Random(index).gauss(0, 1) for index in range(500)],
    "whole": list(range(500)),
    "a few, with fractions": [index % 7 / 2 for index in range(500)],
}


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("mode", ["normal", "cross-validation"])
def test_targets_that_are_no_classes_are_spread_evenly_and_drawn_by_the_seed(targets, mode):
    splits = [split({"train": 500}, mode, seed=seed, labels=targets) for seed in range(4)]
    for one, two in zip(splits[:-1], splits[1:], strict=True):
        assert len(set(one.test) & set(two.test)) < 50 and len(set(one.val) & set(two.val)) < 50  # of 100
    spread = max(targets) - min(targets)
    for drawn in splits:
        for part in parts(drawn):
            assert abs(statistics.mean(targets[index] for index in part) - statistics.mean(targets)) < 0.02 * spread


def test_labels_of_any_kind_can_be_sorted():
    labels = [None, math.nan, "b", 2, "a", 1.0, math.inf, True] * 10
    assert strata(labels) == [5, 5, 4, 1, 3, 0, 2, 0] * 10  # bins of at least ten, since infinity is no class
    result = split({"train": 80}, labels=labels)
    assert sorted(sum(parts(result), [])) == list(range(80))


@pytest.mark.parametrize(("source", "mode"), CELLS)
@pytest.mark.parametrize("stratified", [True, False])
def test_groups_stay_together(source, mode, stratified):
    """Patients with one to eight samples each; half of them are ill."""
    lengths, draw, owner = GIVEN[source], random.Random(0), []
    for length in lengths.values():
        owner += [f"{length}-{patient}" for patient in range(length) for _ in range(draw.randint(1, 8))][:length]
    labels = [int(name.split("-")[1]) % 2 for name in owner] if stratified else None
    result = split(lengths, mode, labels=labels, groups=owner)
    for one, other in [(result.train, result.val), (result.train, result.test), (result.val, result.test)]:
        assert not {owner[index] for index in one} & {owner[index] for index in other}
    for part, size in zip(parts(result), CELLS[source, mode], strict=True):
        assert abs(len(part) - size) <= 8
    if stratified and mode == "cross-validation":
        ill = sum(labels[index] for index in result.val) / len(result.val)
        assert abs(ill - sum(labels) / len(labels)) < 0.2


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=12, max_size=60),
    st.integers(2, 6),
    st.sampled_from(["normal", "cross-validation", "final"]),
    st.integers(0, 5),
)
def test_whatever_is_given_each_sample_is_used_once(labels, folds, mode, seed):
    for labelled in (labels, None):
        result = split({"train": len(labels)}, mode, folds, folds - 1, seed=seed, labels=labelled)
        assert sorted(sum(parts(result), [])) == list(range(len(labels)))
        assert result.train


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(lengths={"test": 3}), "a data set gives train, or .*; not test"),
        (dict(lengths={"train": 3, "validation": 3}), "not train and validation"),
        (dict(lengths={"train": 1}), "0 samples train"),
        (dict(lengths={"train": 4}, mode="cross-validation", folds=5, fold=4), "0 validate"),
        (dict(lengths={"train": 9}, mode="cross-validation", groups=[1] * 5 + [2] * 4), "groups"),
    ],
)
def test_what_cannot_be_split(arguments, message):
    with pytest.raises(SplitError, match=message):
        split(**arguments)
