"""`Report.py compare`, and what `Train.py reproduce` answers from what two runs have kept."""

import csv
import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lightning_hpc.code.fingerprint import keep, read_fingerprint
from lightning_hpc.entrance import report
from lightning_hpc.provenance.environment import differences, installed_packages, packages_in
from lightning_hpc.provenance.fingerprints import FingerprintsFile, fingerprint_of, read_fingerprints
from lightning_hpc.reproduction.chart import chart
from lightning_hpc.reproduction.kept import read_kept
from lightning_hpc.reproduction.verdict import compare
from lightning_hpc.settings.yaml_files import dump

HEADER = ("step", "epoch", "seconds", "train/loss", "val/acc", "time/epoch_s")
RECORD = dict(python="3.11.7", cpu="a", threads=2, packages=dict(torch="2.13.0", numpy="2.4.6"), from_step=0)


def write_run(
    folder, losses=(2.0, 1.0, 0.5), record=RECORD, weights=(1, 2, 3), batches=(7, 8), seconds=1.0, **settings
):
    """A run's folder as Train.py leaves it, with the code that lies beside the folder of runs."""
    folder.mkdir(parents=True)
    runs = folder.parent.parent
    root = runs.parent
    (root / "model.py").touch()
    code = keep(read_fingerprint(root), root, runs / ".code")
    status = dict(state="done", reason=None, monitor="val/acc", metrics={"train/loss": losses[-1], "val/acc": 0.5})
    (folder / "status.json").write_text(json.dumps(status | dict(code=code)))
    (folder / "config.yaml").write_text(
        dump(dict(model=dict(class_path="my.Model", init_args=dict(lr=0.1) | settings)))
    )
    (folder / "overlay.yaml").write_text(dump(settings))
    (folder / "test.json").write_text(json.dumps({"test/acc": 0.25}))
    (folder / "checkpoints").mkdir()
    best = dict(metrics={"train/loss": min(losses), "val/acc": 0.75})
    (folder / "checkpoints" / "meta.json").write_text(json.dumps(dict(best=best)))
    with (folder / "metrics.csv").open("w", newline="") as file:
        rows = [(10 * n, 1, seconds * n, loss, "", "") for n, loss in enumerate(losses)]
        csv.writer(file).writerows([HEADER, *rows, (20, 1, seconds * 9, "", 0.5, seconds)])

    file = FingerprintsFile(folder)
    file.begin(-1)
    for epoch, value in enumerate(weights):
        sums = {"layer.weight": value << 40, "layer.bias": 5 << 40}
        file.add(fingerprint_of(epoch, 10 * epoch, sums, [b << 40 for b in batches] if epoch == 1 else []))
    (folder / "environment.json").write_text(json.dumps([record]))
    return folder


@pytest.fixture
def pair(tmp_path):
    """Writes a run, and a second one in another way; returns both folders."""

    def write(**second):
        runs = tmp_path / "project" / "runs" / "x"
        return write_run(runs / "000-a-00000000"), write_run(runs / "001-b-11111111", **second)

    return write


def verdict(then, now):
    found = compare(read_kept(then), read_kept(now))
    return found.same, found.lines


# The verdict


def test_the_same_although_it_took_longer(pair):
    same, lines = verdict(*pair(seconds=7.0))
    assert same and lines == [
        "2 tensors at 3 times, the first before training and the last at its end; 4 rows of metrics.csv"
    ]


def test_each_difference_is_named_and_the_first_comes_first(pair):
    changed = RECORD | dict(threads=1, packages=dict(torch="2.12.0", numpy="2.4.6", new="1"))
    same, lines = verdict(*pair(weights=(1, 4, 5), batches=(7, 9), losses=(2.0, 1.5, 0.5), record=changed))
    assert not same and lines == [
        "first difference: batch 2 of epoch 1 (step 1) has other data",
        "also: the metric train/loss at step 10: 1.0 then and 1.5 now",
        "also: the weights after epoch 1 (step 10): layer.weight",
        "different here: threads of the processor 2 then, 1 now",
        "different here: new none then, 1 now",
        "different here: torch 2.13.0 then, 2.12.0 now",
    ]


def test_initial_weights_come_before_all_that_follows_from_them(pair):
    _, lines = verdict(*pair(weights=(2, 3, 4), losses=(2.5, 1.0, 0.5), batches=(1, 2)))
    assert lines[0] == "first difference: the initial weights (step 0): layer.weight"
    assert lines[1].startswith("also: batch 1") and lines[2].startswith("also: the metric train/loss at step 0")


def test_metrics_alone(pair):
    same, lines = verdict(*pair(losses=(2.0, 1.0, 0.25)))
    assert not same and "the weights are the same all along" in lines[1]
    assert lines[2].startswith("nothing that is kept is different here")


def test_a_run_that_starts_over_while_it_is_trained_again_is_compared_as_it_was(pair):
    then, now = pair()
    kept = read_kept(then)
    (then / "metrics.csv").write_text("step,epoch,seconds\n")
    assert compare(kept, read_kept(now)).same


def test_a_training_that_ended_elsewhere_is_not_the_same(pair):
    same, lines = verdict(*pair(weights=(1, 2)))
    assert not same and lines[0] == "first difference: it ended at step 20 then and 10 now"


def test_nan_is_the_same_as_nan(pair, tmp_path):
    first = write_run(tmp_path / "p" / "runs" / "x" / "a", losses=(math.nan, 1.0))
    second = write_run(tmp_path / "p" / "runs" / "x" / "b", losses=(math.nan, 1.0))
    assert verdict(first, second)[0]


def test_on_a_gpu_kernels_may_be_the_reason(tmp_path):
    record = RECORD | dict(cuda="13.0", deterministic=False)
    first = write_run(tmp_path / "p" / "runs" / "x" / "a", record=record)
    second = write_run(tmp_path / "p" / "runs" / "x" / "b", record=record, weights=(1, 2, 4))
    same, lines = verdict(first, second)
    assert not same and "--trainer.deterministic true" in lines[-1]


def test_an_environment_that_has_changed_on_the_way_is_named(pair):
    one, other = pair(weights=(1, 2, 4))
    (one / "environment.json").write_text(json.dumps([RECORD, RECORD | dict(threads=8, from_step=15)]))
    _, lines = verdict(one, other)
    changed = "threads of the processor 2 then, 8 now"
    assert lines[-1] == f"the run itself went on with another from step 15 on: {changed}"


# What is kept


def test_the_file_of_fingerprints_keeps_what_is_before_a_restart(tmp_path):
    file = FingerprintsFile(tmp_path)
    file.begin(-1)
    for epoch in range(4):
        names = ["a", "b"] if epoch < 2 else ["a", "b", "made.later"]
        file.add(fingerprint_of(epoch, epoch * 5, {name: epoch * 2**40 - 7 for name in names}, []))
    whole = (tmp_path / "fingerprints.jsonl").read_text()
    before = read_fingerprints(tmp_path)
    assert [len(one.tensors) for one in before] == [2, 2, 3, 3]

    again = FingerprintsFile(tmp_path)
    again.begin(2)
    assert read_fingerprints(tmp_path) == before[:3] and again.last_step == 10
    again.add(before[3])
    assert (tmp_path / "fingerprints.jsonl").read_text() == whole
    (tmp_path / "fingerprints.jsonl").write_text(whole[:-9])  # a kill has cut it off
    assert read_fingerprints(tmp_path) == before[:3]


def test_packages_are_found_where_python_looks(tmp_path, monkeypatch):
    import importlib.metadata

    found = installed_packages()
    for name in ("numpy", "pytest", "jsonargparse"):
        assert found[name] == importlib.metadata.version(name)
    (tmp_path / "Some_Package-1.2.3.dist-info").mkdir()
    (tmp_path / "numpy-0.1.dist-info").mkdir()
    assert dict(packages_in(tmp_path)) == {"some-package": "1.2.3", "numpy": "0.1"}
    monkeypatch.syspath_prepend(str(tmp_path))
    assert installed_packages()["numpy"] == "0.1"  # the one that would be imported


def test_settings_and_packages_are_compared_one_by_one():
    one = dict(settings={"lr": 1, "same": 2}, packages=dict(a="1"), threads=1, from_step=0)
    other = dict(settings={"lr": 3, "same": 2}, packages=dict(a="2"), threads=1, from_step=9)
    assert differences(one, other) == {"setting lr": (1, 3), "a": ("1", "2")}


@given(st.integers(0, 2**18 + 9), st.integers(0, 2**62), st.integers(1, 255), st.sampled_from([1, 2, 4, 8]))
def test_one_changed_byte_changes_the_checksum(size, place, change, element):
    import torch

    from lightning_hpc.provenance.checksums import checksum

    dtype = {1: torch.uint8, 2: torch.float16, 4: torch.float32, 8: torch.float64}[element]
    content = torch.zeros(max(size, element) // element * element, dtype=torch.uint8)
    content[::7] = 3
    changed = content.clone()
    changed[place % len(content)] ^= change
    sums = {int(checksum(one.view(dtype))) for one in (content, changed)}
    assert len(sums) == 2
    assert int(checksum(content.view(dtype))) in sums


def test_a_checksum_depends_on_places_and_not_on_memory():
    import torch

    from lightning_hpc.provenance.checksums import checksum, checksum_of_batch

    tensor = torch.arange(3 * 4096 * 4, dtype=torch.float32).view(6, -1)
    assert int(checksum(tensor)) != int(checksum(tensor.flip(0)))
    assert int(checksum(tensor.t())) == int(checksum(tensor.t().contiguous())) != int(checksum(tensor))
    assert int(checksum(torch.cat([torch.zeros(1), tensor[0]])[1:])) == int(checksum(tensor[0]))
    assert int(checksum(torch.zeros(0))) != int(checksum(torch.zeros(1)))
    batch = dict(images=tensor, more=[torch.ones(2, dtype=torch.bool), "text"])
    assert int(checksum_of_batch(batch)) == int(checksum_of_batch([tensor, torch.ones(2, dtype=torch.bool)]))
    assert checksum_of_batch(["text", 3]) is None


# Report.py compare


def test_compare_shows_what_differs(pair, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    record = RECORD | dict(packages=dict(torch="2.12.0", numpy="2.4.6"))
    one, other = pair(record=record, losses=(3.0, 2.0, 1.0), lr=0.5)
    (one.parents[2] / "model.py").write_text("width = 3\n")
    third = write_run(one.with_name("002-c-22222222"))
    assert report(["compare", str(one), str(other), str(third)], root=one.parents[2]) == 0
    said = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert f"A {one} done" in lines and f"C {third} done" in lines
    assert "model.lr 0.1 0.5 0.1" in lines
    assert "train/loss (best) 0.5 1 0.5" in lines and "train/loss (last) 0.5 1 0.5" in lines
    assert "val/acc (best) 0.75 0.75 0.75" in lines and "test/acc 0.25 0.25 0.25" in lines
    assert "torch 2.13.0 2.12.0 2.13.0" in lines and not any(line.startswith("numpy") for line in lines)
    assert "B: the same as A" in lines
    assert any(line.startswith("C: changed model.py (+1 -0): diff ") for line in lines)
    assert "train/loss by step" in lines and "val/acc by step" in lines
    assert said.isascii() and max(len(line) for line in said.splitlines() if "|" in line) <= 60


def test_compare_of_runs_of_which_little_is_known(pair, capsys):
    one, other = pair()
    for name in ("environment.json", "metrics.csv", "test.json", "config.yaml"):
        (other / name).unlink()
    (other / "status.json").write_text("{}")
    assert report(["compare", str(one), str(other)], root=one.parents[2]) == 0
    said = capsys.readouterr().out
    assert f"B: don't know, the code of {other} is not kept" in said


def test_compare_says_what_is_wrong(pair, capsys, tmp_path):
    one, other = pair()
    wrong = {
        "needs 2 to 26 runs, got 1": [one, one],
        "is not a run's folder": [one, tmp_path],
        "none of these runs has logged it (did you mean val/acc?)": [one, other, "--metrics", "val/ac"],
    }
    for message, arguments in wrong.items():
        assert report(["compare", *map(str, arguments)], root=tmp_path) == 2
        assert message in capsys.readouterr().err


@example({"A": [(1656406, 10006.0)]}, 20)  # the ends of the axis are longer than the axis
@given(
    st.dictionaries(
        st.sampled_from("ABC"),
        st.lists(st.tuples(st.integers(0, 10**9), st.floats(width=32)), max_size=30),
        min_size=1,
    ),
    st.integers(20, 120),
)
def test_a_chart_of_anything_fits(curves, width):
    lines = chart(curves, width)
    assert all(len(line) <= width + 16 and line.isascii() for line in lines)
    finite = [y for curve in curves.values() for _, y in curve if math.isfinite(y)]
    assert (lines == ["no values"]) == (not finite)


def test_a_chart_draws_each_curve_from_its_first_point_to_its_last():
    lines = chart(dict(A=[(0, 0.0), (10, 9.0)], B=[(5, 9.0), (10, 9.0)]), width=14)
    assert lines[0].startswith("9 |     BBBB")
    assert lines[9].startswith("0 |A") and lines[-1].split() == ["0", "10"]
