"""Saves that a thread writes: a consistent copy, one at a time, told of when whole, waited for at every end."""

import threading
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from test_checkpoints import Model, fit

from lightning_hpc import signals
from lightning_hpc.signals import Stopped
from lightning_hpc.survive.checkpoint_files import find_checkpoint, read_meta, step_files
from lightning_hpc.survive.checkpoint_io import AtomicCheckpointIO, unusable
from lightning_hpc.survive.checkpoints import Checkpoints
from lightning_hpc.survive.saving import copies
from lightning_hpc.survive.saving.copies import Copier, NotCopied, bytes_of, has_room


def saved(value, folder: Path) -> tuple:
    """What torch.save makes of a value: all that is read again, and the sizes of the parts of the file."""
    torch.save(value, folder / "value")
    with zipfile.ZipFile(folder / "value") as archive:
        sizes = [info.file_size for info in archive.infolist() if "/data/" in info.filename]
    return described(torch.load(folder / "value", weights_only=True)), sizes


def described(value):
    """All that there is to know of plain data, in numbers and words that can be compared."""
    if isinstance(value, torch.Tensor):
        return type(value), value.dtype, value.shape, value.stride(), value.requires_grad, value.tolist()
    if isinstance(value, dict):
        return type(value), vars(value) if hasattr(value, "_metadata") else {}, [*map(described, value.items())]
    if isinstance(value, list | tuple):
        return type(value), [*map(described, value)]
    return type(value), value


def awkward() -> dict:
    """Plain data with all that torch.save keeps of tensors."""
    weight = torch.randn(6, 4)
    state = OrderedDict(weight=weight, tied=weight, view=weight[1:3].t(), scalar=torch.tensor(3.0))
    state._metadata = {"": {"version": 1}}
    return dict(
        state=state,
        parameter=torch.nn.Parameter(torch.ones(2), requires_grad=False),
        leaf=torch.ones(2, requires_grad=True),
        whole=torch.arange(5),
        half=torch.ones(3, dtype=torch.bfloat16),
        empty=torch.empty(0, 3),
        plain=[1, "two", (3.0, None), {4}, b"five", torch.Size([6]), torch.float16],
    )


def test_a_copy_is_saved_as_the_value_itself_is(tmp_path):
    """With strides, what shares memory once, parameters, and what state_dict() adds."""
    value = awkward()
    assert saved(Copier().copied(value), tmp_path) == saved(value, tmp_path)


def test_a_copy_does_not_change_with_the_value(tmp_path):
    value = awkward()
    copy, before = Copier().copied(value), saved(value, tmp_path)
    with torch.no_grad():
        for tensor in (value["state"]["weight"], value["parameter"], value["leaf"], value["whole"], value["half"]):
            tensor.zero_()
    value["state"].clear()
    value["plain"].append(7)
    value["plain"][3].add(8)
    assert saved(copy, tmp_path) == before


@pytest.mark.parametrize(
    "value",
    [
        torch.eye(2).to_sparse(),
        torch.ones(2, dtype=torch.complex64).conj(),
        torch.empty(2, device="meta"),
        threading.Lock(),
    ],
    ids=["sparse", "conjugate", "meta", "a lock"],
)
def test_what_is_rare_is_not_copied(value):
    with pytest.raises(NotCopied):
        Copier().copied([value])


def test_the_size_counts_what_is_shared_once():
    value = awkward()
    copier = Copier()
    copier.copied(value)
    assert bytes_of(value) == copier.size == 4 * (24 + 1 + 2 + 2) + 8 * 5 + 2 * 3


@pytest.mark.parametrize("version", [1, 2])
def test_a_limit_of_the_batch_system_counts_as_what_the_machine_has(tmp_path, monkeypatch, version):
    """The kernel's own files can't be written here, so these are copies of two of its layouts."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n")
    place = "1:name=systemd:/x\n7:memory:/slurm/job_1" if version == 1 else "0::/slurm/job_1"
    (tmp_path / "proc/self/cgroup").write_text(f"{place}\n")
    job = tmp_path / "cgroup" / ("memory" if version == 1 else "") / "slurm" / "job_1"
    job.mkdir(parents=True)
    limit, used = copies.LIMITS[0 if version == 2 else 1]
    (job / limit).write_text("1000000\n")
    (job / used).write_text("700000\n")
    (job / "memory.stat").write_text("anon 1\ninactive_file 100000\n")
    (job.parent / limit).write_text("max" if version == 2 else f"{2**63 - 4096}")

    monkeypatch.setattr(copies, "SMALL", 0)
    monkeypatch.setattr(copies, "PROC", tmp_path / "proc")
    monkeypatch.setattr(copies, "CGROUPS", tmp_path / "cgroup")
    assert has_room(int(400_000 / copies.MARGIN))
    assert not has_room(int(400_000 / copies.MARGIN) + 2)

    (tmp_path / "proc/self/cgroup").unlink()
    assert has_room(6_000_000_000) and not has_room(7_000_000_000)
    (tmp_path / "proc/meminfo").unlink()
    assert has_room(2**60)  # nobody tells


class SlowDisk(Callback):
    """Writes nothing before it is allowed to, after some step; what happens until then.

    Args:
        until: after this step it is allowed to; None: never by itself.
    """

    def __init__(self, until=None):
        self.until, self.allowed = until, threading.Event()
        self.in_main_thread, self.at_once, self.most_at_once = [], 0, 0
        self.weights, self.told = {}, []

    def write(self, write, *arguments):
        self.in_main_thread.append(threading.current_thread() is threading.main_thread())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        assert self.allowed.wait(60)
        write(*arguments)
        self.at_once -= 1

    def on_train_batch_end(self, trainer, pl_module, *arguments):
        self.weights[trainer.global_step] = pl_module.layer.weight.detach().clone()
        if trainer.global_step == self.until:
            assert not step_files(Path(trainer.default_root_dir) / "checkpoints") and not self.told
            self.allowed.set()


@pytest.fixture
def slow(monkeypatch):
    """Makes the disk slow; a CheckpointIO of another class would not be used by a thread."""
    original = AtomicCheckpointIO.save_checkpoint

    def made(disk):
        monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", lambda *given, **_: disk.write(original, *given))
        return disk

    return made


def every_third(disk, **settings):
    checkpoints = Checkpoints(every_n_steps=3, every_n_minutes=None, monitor=None, keep=9, **settings)
    checkpoints.on_save.append(lambda entry: disk.told.append(entry["step"]))
    return checkpoints


def test_training_goes_on_while_a_checkpoint_of_before_is_written(tmp_path, slow):
    disk = slow(SlowDisk(until=5))
    fit(tmp_path, every_third(disk), callbacks=[disk], epochs=2)
    assert disk.told == [3, 6, 8] and disk.in_main_thread == [
        False,
        False,
        True,
    ]  # at the end there is nothing to train
    assert disk.most_at_once == 1
    for step, path in step_files(tmp_path / "checkpoints").items():
        assert torch.equal(torch.load(path, weights_only=True)["state_dict"]["layer.weight"], disk.weights[step])

    first = read_meta(tmp_path / "checkpoints")["kept"][0]
    assert 0 <= first["stalled"] <= first["seconds"]


def test_it_can_be_switched_off(tmp_path, slow):
    disk = slow(SlowDisk())
    disk.allowed.set()
    fit(tmp_path, every_third(disk, background=False), callbacks=[disk], epochs=1)
    assert disk.told == [3, 4] and disk.in_main_thread == [True, True]


class Ends(Callback):
    """Something that ends the run after step 5, while nothing can be written for another moment."""

    def __init__(self, disk, how):
        self.disk, self.how = disk, how

    def on_train_batch_end(self, trainer, *arguments):
        if trainer.global_step == 5:
            threading.Timer(0.5, self.disk.allowed.set).start()
            if isinstance(self.how, str):
                signals.stop(self.how)
            else:
                raise self.how


def test_a_signal_waits_for_what_is_written_and_saves(tmp_path, slow):
    disk = slow(SlowDisk())
    try:
        with pytest.raises(Stopped):
            fit(tmp_path, every_third(disk), callbacks=[disk, Ends(disk, "preempted")], epochs=2)
    finally:
        signals.reset()
    assert disk.told == [3, 5] and disk.in_main_thread == [False, True]
    assert all(unusable(path) is None for path in step_files(tmp_path / "checkpoints").values())


@pytest.mark.parametrize("error", [ValueError("a mistake in the model"), Stopped("preempted")], ids=["error", "stop"])
def test_whatever_ends_the_run_waits_for_what_is_written(tmp_path, slow, error):
    disk = slow(SlowDisk())
    with pytest.raises(type(error)):
        fit(tmp_path, every_third(disk), callbacks=[disk, Ends(disk, error)], epochs=2)
    assert disk.told == [3] and find_checkpoint(tmp_path / "checkpoints", check=unusable).step == 3


def test_what_ends_the_run_when_a_checkpoint_is_noted_ends_it(tmp_path):
    """Such as that the folder is another process's by now: no failure to write."""

    class TakenOver(BaseException):
        pass

    def told(entry):
        raise TakenOver

    checkpoints = Checkpoints(every_n_steps=3, every_n_minutes=None, monitor=None)
    checkpoints.on_save.append(told)
    with pytest.raises(TakenOver):
        fit(tmp_path, checkpoints, epochs=2)
    assert find_checkpoint(tmp_path / "checkpoints").step == 3


def test_where_memory_has_no_room_training_waits_and_says_so(tmp_path, slow, monkeypatch):
    disk = slow(SlowDisk())
    disk.allowed.set()
    monkeypatch.setattr(copies, "SMALL", 0)
    monkeypatch.setattr(copies, "_free_bytes", lambda: iter([10]))
    with pytest.warns(UserWarning, match="training waits while .*: memory has no room for a copy of it") as warned:
        fit(tmp_path, every_third(disk), callbacks=[disk], epochs=2)
    assert disk.told == [3, 6, 8] and all(disk.in_main_thread)
    assert len([warning for warning in warned if "training waits" in str(warning.message)]) == 1


def test_a_save_that_takes_longer_than_the_notice_is_told(tmp_path, slow, monkeypatch):
    monkeypatch.setenv("SIGNAL_SECONDS", "0")
    disk = slow(SlowDisk())
    threading.Timer(0.3, disk.allowed.set).start()
    with pytest.warns(UserWarning, match="the job is told 0 s before its time limit: the one that is written then may"):
        fit(tmp_path, every_third(disk), callbacks=[disk], epochs=1)


class Changes(Model):
    """Has a state in its checkpoint that goes on changing."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(float(batch_idx))
        return super().training_step(batch, batch_idx)

    def on_save_checkpoint(self, checkpoint):
        checkpoint["seen"] = self.seen


def test_what_a_model_adds_is_as_it_was(tmp_path, slow):
    disk = slow(SlowDisk(until=5))
    fit(tmp_path, every_third(disk), Changes(), callbacks=[disk], epochs=2)
    lengths = {step: len(torch.load(path)["seen"]) for step, path in step_files(tmp_path / "checkpoints").items()}
    assert lengths == {3: 3, 6: 6, 8: 8}
