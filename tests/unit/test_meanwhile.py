"""Two things that have to agree, and what somebody else does between the look at the one and at the other."""

import json
import shutil
import threading
import time

import pytest

from lightning_hpc.attempts.attempt import start_attempt
from lightning_hpc.data import source as sources
from lightning_hpc.data.source import Source
from lightning_hpc.experiments import experiment as room
from lightning_hpc.experiments.experiment import Experiment
from lightning_hpc.experiments.standing import standings
from lightning_hpc.failures import Cause, leave_note, noted_cause
from lightning_hpc.files import hash_of, place_aside
from lightning_hpc.locks import lock as locks
from lightning_hpc.packing.packs import newest_of_runs, write_packs
from lightning_hpc.runs.folder import RunFolder
from lightning_hpc.runs.run import Run
from lightning_hpc.settings.errors import SettingsError
from lightning_hpc.settings.layers import Settings


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "runs" / "default" / "000-base-0123abcd")


@pytest.fixture
def experiment(tmp_path):
    """An experiment of one run."""
    place = tmp_path / "runs" / "one"
    place.mkdir(parents=True)
    row = dict(index=0, identity="0123abcd00000000", folder="000-base-0123abcd", overlay={})
    (place / "manifest.jsonl").write_text(json.dumps(row) + "\n")
    return Experiment(place)


def test_a_second_start_waits_for_a_first_that_ends_before_it_begins(folder, monkeypatch):
    """Ctrl-C, and the same command at once: what the first start removes is its own folder, not the second one's."""
    second, begun, tries = RunFolder(folder.path), [], threading.Event()
    take = locks.Lock.take

    def watched(path):
        try:
            return take(path)
        finally:
            if threading.current_thread() is thread:
                tries.set()

    def start_again():
        with second.locked():
            begun.append(second.start())

    thread = threading.Thread(target=start_again)
    with pytest.raises(KeyboardInterrupt), folder.locked():
        monkeypatch.setattr(locks.Lock, "take", watched)
        thread.start()
        assert tries.wait(10)
        raise KeyboardInterrupt
    thread.join(10)
    assert begun == [1] and second.status()["state"] == "running"


def test_a_start_that_never_began_leaves_a_second_one_its_folder(folder, monkeypatch):
    """The second one takes the lock between the removal of the first one's lock and that of its folder."""
    unlink = type(folder.path).unlink

    def then_the_next(path, **options):
        unlink(path, **options)
        if path == folder.lock_file:
            path.write_text("{}")

    monkeypatch.setattr(type(folder.path), "unlink", then_the_next)
    with pytest.raises(SettingsError, match="a setting is wrong"), folder.locked():
        raise SettingsError("a setting is wrong")
    assert folder.lock_file.exists()


def test_what_ended_an_earlier_start_in_the_same_job_is_not_told_of_a_later_one(folder, monkeypatch):
    """In an interactive job all starts have its number; what a rank of this start has noted so far still counts."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    run = Run("fit", Settings(), [], {}, folder, "0123abcd00000000", "default", [])
    start_attempt(run)
    leave_note(folder.path, 1, Cause("RuntimeError: a fault that is mended by now"))
    folder.end("failed", "a fault that is mended by now")
    time.sleep(0.01)
    start_attempt(run)
    assert noted_cause(folder.path) is None

    folder.end("interrupted")
    time.sleep(0.01)
    leave_note(folder.path, 1, Cause("RuntimeError: another fault"))
    start_attempt(run)
    assert noted_cause(folder.path) == Cause("rank 1: RuntimeError: another fault")


def test_packs_are_looked_at_while_more_are_written(tmp_path, monkeypatch):
    write_packs(tmp_path, [0], [0, 1], 2)
    write_text, seen = type(tmp_path).write_text, []

    def looked_at_meanwhile(path, text, **options):
        write_text(path, text[:10], **options)
        seen.append(newest_of_runs(tmp_path))
        return write_text(path, text, **options)

    monkeypatch.setattr(type(tmp_path), "write_text", looked_at_meanwhile)
    write_packs(tmp_path, [1, 2], [2, 3, 4], 2)
    assert seen == [{0: 0, 1: 0}, {0: 0, 1: 0, 2: 1, 3: 1}]
    assert newest_of_runs(tmp_path) == {0: 0, 1: 0, 2: 1, 3: 1, 4: 2}


def test_a_run_that_ends_while_it_is_looked_at_is_not_lost(experiment, monkeypatch):
    """One that somebody has started by hand: its status.json is read first, and then who holds its lock."""
    run = RunFolder(experiment.folder / experiment.rows[0]["folder"])
    run.start(identity=experiment.rows[0]["identity"])
    look = RunFolder.holder

    def ends_before(folder):
        run.end("done")
        return look(folder)

    monkeypatch.setattr(RunFolder, "holder", ends_before)
    (stand,) = standings(experiment, [])
    assert stand.state == "done"


def test_a_copy_of_the_code_that_is_not_whole_is_none(experiment, tmp_path, monkeypatch):
    project = tmp_path / "project"
    project.mkdir()
    (project / "Train.py").write_text("print('first')\n")
    experiment.take_code(project)
    take = room.take_snapshot

    def disk_full(root, target, without):
        take(root, target, without)
        (target / "Train.py").unlink()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(room, "take_snapshot", disk_full)
    with pytest.raises(OSError, match="No space left"):
        experiment.take_code(project)
    assert experiment.code.name == "code" and (experiment.code / "Train.py").exists()

    monkeypatch.undo()
    experiment.take_code(project)
    assert experiment.code.name == "code-2" and (experiment.code / "Train.py").exists()


def test_a_new_copy_of_the_code_has_a_new_name_where_an_old_one_was_deleted(experiment, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (project / "Train.py").write_text("print('first')\n")
    for _ in range(2):
        experiment.take_code(project)
    shutil.rmtree(experiment.folder / "code")
    (project / "Train.py").write_text("print('second')\n")
    experiment.take_code(project)
    assert experiment.code.name == "code-3"
    assert "first" in (experiment.folder / "code-2" / "Train.py").read_text()


def test_what_is_moved_aside_has_a_new_name_where_an_old_one_was_deleted(tmp_path):
    for _ in range(2):
        place_aside(tmp_path / "study").mkdir()
    (tmp_path / ".old" / "study-1").rmdir()
    assert place_aside(tmp_path / "study").name == "study-3"


def test_a_download_that_is_removed_while_it_is_checked_is_not_there(tmp_path, monkeypatch):
    file = tmp_path / "data.bin"
    file.write_bytes(b"the data")
    source = Source(["http://127.0.0.1/data.bin"], file, sha256=hash_of(file))
    assert source.is_there()

    def hash_of_what_goes(path, algorithm):
        path.unlink()
        return hash_of(path, algorithm)

    monkeypatch.setattr(sources, "hash_of", hash_of_what_goes)
    assert not source.is_there()
