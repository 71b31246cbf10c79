"""Runs that are killed again and again end equal to the bit: real signals, real processes, moments drawn from a seed.

A failure prints the setup and the kills; the same seed kills at the same Python call again.
"""

import csv
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch
from chain import HERE, Server, differences, run_chain
from victim import Setup

from lightning_hpc.survive.checkpoint_files import step_files
from lightning_hpc.survive.whole import is_complete

FACTORS = dict(
    ranks=(1, 2),
    workers=(0, 2),
    persistent=(False, True),
    accumulate=(1, 3),
    averaging=("none", "averaged", "both", "swa"),
    clip=(None, 0.5),
    validations=(1.0, 0.5),
    schedulers=("none", "step", "epoch", "plateau"),
    length=("epochs", "steps", "one batch"),
    sampler=("shuffle", "weighted", "batches", "two"),
    early_stopping=(False, True),
    sanity=(0, 1),
    save_every=(2, 9),
    background=(True, False),
)


def make(length: str = "epochs", **settings) -> Setup:
    if not settings["workers"]:
        settings["persistent"] = False
    lengths = {
        "epochs": {},
        "steps": dict(max_steps=25 if settings["accumulate"] == 1 else 9),
        "one batch": dict(limit=1, epochs=6),
    }
    return Setup(**settings, **lengths[length])


def all_pairs() -> list[Setup]:
    """Setups in which each pair of levels of two factors comes together at least once, found greedily."""
    draw, names = random.Random(0), list(FACTORS)
    missing = {
        ((one, a), (other, b))
        for one, other in itertools.combinations(names, 2)
        for a in FACTORS[one]
        for b in FACTORS[other]
    }
    setups = []
    while missing:
        candidates = [{name: draw.choice(FACTORS[name]) for name in names} for _ in range(200)]
        covered = [set(itertools.combinations(candidate.items(), 2)) for candidate in candidates]
        best = max(range(len(candidates)), key=lambda number: len(covered[number] & missing))
        missing -= covered[best]
        setups.append(make(**candidates[best]))
    return setups


PAIRS = all_pairs()
MANUAL = [Setup(manual=True, save_every=2), Setup(manual=True, ranks=2, save_every=3, validations=0.5)]


def check(server: Server, setup: Setup, folder: Path, seed: int, kills: int) -> None:
    chain = run_chain(server, setup, folder, seed, kills, ("run", "validation", "save"))
    assert chain.kills, "nothing was killed"
    assert not chain.differences, f"{setup}, killed by {chain.kills}: {chain.differences}"


# The first ones cover most pairs, and each level of each factor; all of them need minutes.
FIRST = 8


def test_the_first_pairs_have_every_level_of_every_factor():
    """What is left to the slow tests are pairs only."""
    for field in fields(Setup):
        first, all_levels = ({getattr(setup, field.name) for setup in setups} for setups in (PAIRS[:FIRST], PAIRS))
        assert first == all_levels


@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=[pytest.mark.slow] if n >= FIRST else []) for n in range(len(PAIRS))]
)
def test_every_pair_of_settings_survives(server, tmp_path, number):
    check(server, PAIRS[number], tmp_path, seed=number, kills=4)


@pytest.mark.parametrize("setup", MANUAL, ids=["1 rank", "2 ranks"])
def test_manual_optimization_survives(server, tmp_path, setup):
    check(server, setup, tmp_path, seed=0, kills=4)


LOADERS = {
    "a stream with a state, 2 workers": Setup(sampler="stateful", workers=2, transfer=True, save_every=2),
    "a stream without one": Setup(sampler="stream", transfer=True, save_every=3),
    "max_size, whose shorter loader ends": Setup(sampler="max_size", workers=1, save_every=2),
    "other data every second epoch": Setup(reload=2, workers=1, transfer=True, epochs=4, save_every=3),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if number == 0 else [pytest.mark.slow]) for number, kind in enumerate(LOADERS)]
)
def test_kinds_of_loaders_survive(server, tmp_path, kind):
    check(server, LOADERS[kind], tmp_path, seed=0, kills=4)


FOLDERS = {
    "one folder": Setup(strategy="folder", averaging="averaged", limit=6, epochs=2, save_every=2),
    "fsdp": Setup(strategy="fsdp", ranks=2, accumulate=3, limit=6, epochs=2, schedulers="plateau", save_every=1),
    "fsdp, 2 workers": Setup(strategy="fsdp", ranks=2, workers=2, validations=0.5, schedulers="step", save_every=2),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if number < 2 else [pytest.mark.slow]) for number, kind in enumerate(FOLDERS)]
)
def test_runs_whose_checkpoints_are_folders_survive(server, tmp_path, kind):
    check(server, FOLDERS[kind], tmp_path, seed=0, kills=4)
    checkpoints = tmp_path / "killed" / "checkpoints"
    assert (checkpoints / "last.ckpt").is_symlink() and (checkpoints / "last.ckpt").is_dir()
    assert all(is_complete(path) for path in step_files(checkpoints).values())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_random_settings_survive(server, tmp_path, seed):
    draw = random.Random(seed)
    setup = make(**{name: draw.choice(levels) for name, levels in FACTORS.items()})
    check(server, setup, tmp_path, seed=1000 + seed, kills=8)


@pytest.fixture(scope="module")
def saved_often(server, tmp_path_factory):
    """A setup that saves at every other step, and the folder of a run with it that was not killed."""
    setup, whole = Setup(save_every=2), tmp_path_factory.mktemp("saved_often") / "whole"
    whole.mkdir()
    assert server.attempt(whole, setup) == [0]
    return setup, whole


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("moment", [2_000, 20_000, 40_000, 60_000])
def test_a_kill_during_the_save_leaves_a_whole_checkpoint(server, saved_often, tmp_path, moment, background):
    setup, whole = saved_often
    setup = replace(setup, background=background)
    run = tmp_path / "run"
    run.mkdir()
    assert server.attempt(run, setup, (signal.SIGKILL, moment, "save")) == [-signal.SIGKILL]
    assert server.attempt(run, setup) == [0]
    assert list(differences(whole, run)) == []
    assert not list((run / "checkpoints").glob(".*.part"))  # of the save that was killed


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 75), (signal.SIGUSR1, 76), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_within_a_batch_and_a_save(server, tmp_path, number, code):
    run = tmp_path / "run"
    run.mkdir()
    assert server.attempt(run, Setup(save_every=1000), (number, 500_000, "run")) == [code]
    (step,) = step_files(run / "checkpoints")
    losses = [row for row in csv.DictReader((run / "metrics.csv").open()) if row["train/loss_step"]]
    assert 0 < step < 33
    assert step - 3 <= int(losses[-1]["step"]) + 1 <= step  # every third step is logged, as the number of steps before


def test_sigterm_to_rank_1_alone_ends_both_ranks(server, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    assert server.attempt(run, Setup(ranks=2), (signal.SIGTERM, 400_000, "run"), victim=1, grace=30) == [75, 75]
    assert step_files(run / "checkpoints")


def test_stock_lightning_does_not_pass_this_test(server, tmp_path):
    """A check that can't fail proves nothing: the same chain, with what Lightning offers, ends with other weights.

    Killed while it validates, which is after the first steps: a run that is killed before them has lost nothing.
    """
    setup = Setup(stock=True, averaging="averaged", accumulate=3, schedulers="plateau", workers=2, save_every=2)
    chain = run_chain(server, setup, tmp_path, seed=0, kills=4, phases=("validation",))
    assert any("state_dict" in difference for difference in chain.differences)
    assert any("metrics.csv" in difference for difference in chain.differences)


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("averaging", ["none", "both"])
def test_deterministic_kernels_on_a_gpu_survive(server, tmp_path, averaging):
    check(server, Setup(device="cuda", averaging=averaging, accumulate=3, schedulers="step"), tmp_path, seed=0, kills=6)


@pytest.mark.slow
def test_processes_killed_from_outside_survive(server, tmp_path):
    """Processes of their own, killed by another one after a time: no warm start, and moments that nobody has chosen."""
    whole, run, draw, ends = tmp_path / "whole", tmp_path / "run", random.Random(0), []
    whole.mkdir()
    setup = Setup(workers=2, averaging="both", accumulate=3, validations=0.5, schedulers="plateau", epochs=8)
    environment = os.environ | dict(OMP_NUM_THREADS="1")
    for number in (signal.SIGKILL, signal.SIGUSR1, None):
        process = subprocess.Popen(
            [sys.executable, HERE / "victim.py", run, json.dumps(asdict(setup))], env=environment
        )
        if number is not None:
            before = (run / "metrics.csv").stat().st_mtime_ns if (run / "metrics.csv").exists() else 0
            while not (run / "metrics.csv").exists() or (run / "metrics.csv").stat().st_mtime_ns == before:
                time.sleep(0.01)
            time.sleep(draw.uniform(0.05, 0.5))
            process.send_signal(number)
        ends.append(process.wait(600))
    assert ends == [-signal.SIGKILL, 76, 0]
    assert server.attempt(whole, setup) == [0]
    assert list(differences(whole, run)) == []
