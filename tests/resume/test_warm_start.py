"""Weights to start from: whatever file has them, whatever prefixes its names have, and what does not fit is told."""

import argparse
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lightning_hpc.attempts.warm_start import warm_start
from lightning_hpc.survive.checkpoint_files import CheckpointError


class Net(nn.Module):
    """The whole of some programs; a part, under some name, of others."""

    def __init__(self, classes=3):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
        self.head = nn.Linear(8, classes)


class Wrapped(nn.Module):
    def __init__(self, name, classes=3):
        super().__init__()
        setattr(self, name, Net(classes))


def equal(one, other):
    """True if two models have the same weights, whatever they are called."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


ALL = len(Net().state_dict())


def prefixed(prefix, net):
    return {f"{prefix}{name}": value for name, value in net.state_dict().items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"state_dict": weights, "epoch": torch.tensor(3), "optimizer": {"state": {0: torch.ones(2)}}},
        lambda weights: {"model": weights, "step": 7},
        lambda weights: {"state_dict": {"model": weights}},
        lambda weights: {"my own word": weights, "note": "text"},
    ],
)
def test_wherever_in_a_file_the_weights_are(tmp_path, wrap):
    source, model = Net(), Net()
    torch.save(wrap(source.state_dict()), tmp_path / "file.pt")
    line, left_out = warm_start(model, tmp_path / "file.pt")
    assert line == f"weights from {tmp_path}/file.pt: {ALL} of {ALL} tensors" and left_out == []
    assert equal(model, source)


@pytest.mark.parametrize("key", ["", "model"])
def test_safetensors(tmp_path, monkeypatch, key):
    source, model = Net(), Wrapped("network")
    save_file(prefixed(f"{key}." if key else "", source), tmp_path / "w.safetensors")
    line, _ = warm_start(model, tmp_path / "w.safetensors")
    assert f"{ALL} of {ALL} tensors, the file's names " in line and equal(model, source)

    (tmp_path / "broken.safetensors").write_bytes(b"no header")
    with pytest.raises(CheckpointError, match=r"can't read \S+broken.safetensors: \S+"):
        warm_start(model, tmp_path / "broken.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(CheckpointError, match=r"w.safetensors needs the package safetensors: pip install safetensors"):
        warm_start(model, tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "prefix, model, words",
    [
        ("", Wrapped("network"), "with `network.` before them"),
        ("", Wrapped("my_resnet"), "with `my_resnet.` before them"),
        ("module.", Net(), "without `module.`"),
        ("module.model.", Net(), "without `module.model.`"),
        ("their_name.", Net(), "without `their_name.`"),
        ("model.", Wrapped("network"), "without `model.` and with `network.` before them"),
        ("network.", Wrapped("network"), None),
        ("_orig_mod.", Net(), None),
        ("module._orig_mod.", Wrapped("network"), "without `module.` and with `network.` before them"),
        ("network._orig_mod.", Wrapped("network"), None),
    ],
)
def test_prefixes_need_not_be_the_same(tmp_path, prefix, model, words):
    source = Net()
    torch.save(prefixed(prefix, source), tmp_path / "file.pt")
    line, left_out = warm_start(model, tmp_path / "file.pt")
    said = f", the file's names {words}" if words else ""
    assert line.endswith(f"{ALL} of {ALL} tensors{said}") and left_out == []
    assert equal(model, source)


def test_a_compiled_part_of_the_model(tmp_path):
    model, source = Wrapped("network"), Net()
    model.network = torch.compile(model.network)
    torch.save(prefixed("module.", source), tmp_path / "file.pt")
    warm_start(model, tmp_path / "file.pt")
    assert "network._orig_mod.head.weight" in model.state_dict() and equal(model, source)


def test_what_does_not_fit_is_refused_or_named_in_full(tmp_path):
    source, model = Net(classes=10), Wrapped("network", classes=3)
    extra = {f"decoder.{number}": torch.ones(1) for number in range(20)}
    torch.save(prefixed("module.", source) | extra, tmp_path / "file.pt")
    model.mine = nn.Linear(1, 1)

    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        warm_start(model, tmp_path / "file.pt")
    assert str(error.value) == (
        f"{tmp_path}/file.pt does not fit the model: not in the file: mine.weight, mine.bias; not in the model: "
        "decoder.0, decoder.1, decoder.2, decoder.3, decoder.4 and 15 more; of another shape: network.head.weight is "
        "[10, 8] in the file and [3, 8] in the model, network.head.bias is [10] in the file and [3] in the model. "
        "--init_strict false loads what fits"
    )
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())

    line, left_out = warm_start(model, tmp_path / "file.pt", strict=False)
    assert f"{ALL - 2} of {ALL + 2} tensors, the file's names without `module.` and with `network.`" in line
    assert line.endswith(
        "left out: 2 not in the file, 20 not in the model, 2 of another shape, which the log file names"
    )
    assert [entry.partition(":")[0] for entry in left_out] == [
        "not in the file",
        "not in the model",
        "of another shape",
    ]
    assert all(name in left_out[1] for name in extra)
    assert torch.equal(model.network.body[0].weight, source.body[0].weight)
    assert torch.equal(model.network.head.weight, before["network.head.weight"])


def test_values_that_are_no_tensors_and_lazy_layers(tmp_path):
    class Counts(nn.Module):
        count = 0

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    source, model = nn.ModuleList([Counts(), nn.Linear(2, 2)]), nn.ModuleList([Counts(), nn.LazyLinear(2)])
    source[0].count = 5
    torch.save({"state_dict": source.state_dict()}, tmp_path / "file.pt")
    assert "3 of 3 tensors" in warm_start(model, tmp_path / "file.pt")[0]
    assert model[0].count == 5 and torch.equal(model[1].weight, source[1].weight)


@pytest.mark.parametrize("strict", [True, False])
def test_weights_of_which_none_fits_are_refused(tmp_path, strict):
    torch.save(nn.Conv2d(1, 1, 1).state_dict(), tmp_path / "file.pt")
    with pytest.raises(
        CheckpointError, match=r"nothing in \S+ fits the model: it has weight, bias; the model has body.0"
    ):
        warm_start(Net(), tmp_path / "file.pt", strict)


@pytest.mark.parametrize(
    "content, message",
    [
        (
            {"model": Net().state_dict(), "args": argparse.Namespace(lr=1)},
            "argparse.Namespace, which is no plain data. If",
        ),
        (Net(), r"Net, which is no plain data. If you trust it"),
        (
            {"teacher": Net().state_dict(), "student": Net().state_dict()},
            "no weights, as such or under .* teacher, student",
        ),
        ([torch.ones(1)], "no weights, as such or under one of state_dict"),
        ({}, "no weights, as such"),
    ],
)
def test_files_that_are_not_taken_say_why(tmp_path, content, message):
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match=message):
        warm_start(Net(), tmp_path / "file.pt")


@pytest.mark.parametrize("content", ["hello", "<!DOCTYPE html><html>", "version https://git-lfs.github.com/spec/v1\n"])
def test_a_file_that_holds_something_else(tmp_path, content):
    (tmp_path / "file.pt").write_text(content)
    with pytest.raises(CheckpointError, match=r"can't read \S+file.pt: torch.save has not written it, or it is dama"):
        warm_start(Net(), tmp_path / "file.pt")


def test_no_file_and_a_cut_one(tmp_path):
    with pytest.raises(CheckpointError, match="nothing.ckpt is neither a file nor a run's folder"):
        warm_start(Net(), tmp_path / "nothing.ckpt")
    with pytest.raises(CheckpointError, match="is neither a file nor a run's folder"):
        warm_start(Net(), tmp_path)
    torch.save(Net().state_dict(), tmp_path / "file.pt")
    content = (tmp_path / "file.pt").read_bytes()
    for length in (0, 10, len(content) // 2):
        (tmp_path / "file.pt").write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"can't read \S+file.pt: \S"):
            warm_start(Net(), tmp_path / "file.pt")


def test_a_run_starts_from_another_runs_best_checkpoint_and_its_log_names_what_was_left_out(train, capsys):
    source = train("fit", "--name=source")
    capsys.readouterr()
    run = train(
        "fit", "--name=target", f"--init_from={source.folder}", "--init_strict=false", "--model.network.width=16"
    )
    told = "".join(capsys.readouterr())
    best = Path("runs", "source", source.folder.name, "checkpoints", "best.ckpt")
    assert run.code == 0 and f"weights from {best}: " in told and "which the log file names" in told
    assert "of another shape: " not in told
    log = (run.folder / "logs" / "rank-0.log").read_text()
    (line,) = [line for line in log.splitlines() if "of another shape: " in line]
    width = run.checkpoint()["state_dict"]["network.block1.0.weight"].shape
    assert f"network.block1.0.weight is [32, {width[1]}, 3, 3] in the file and {list(width)} in the model" in line
