"""Several runs in one job: which, what each gets of it, what can't be packed, and how the job looks after them."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
from told_slurm import line

from lightning_hpc.arrays.calls import calls_for
from lightning_hpc.arrays.next_wave import about_waves, first_wave, submit_next_wave
from lightning_hpc.clusters.consequences import cost, trainer_settings
from lightning_hpc.clusters.placement import resolve
from lightning_hpc.clusters.presets import Preset
from lightning_hpc.clusters.resources import Resources
from lightning_hpc.experiments.early_endings import with_early_endings
from lightning_hpc.experiments.experiment import Experiment
from lightning_hpc.experiments.standing import standings
from lightning_hpc.experiments.waves import waiting
from lightning_hpc.packing import supervisor
from lightning_hpc.packing.packs import Pack, new_numbers, read_pack, write_packs
from lightning_hpc.packing.shares import command_in_step, environment_of_run
from lightning_hpc.packing.supervisor import Supervisor
from lightning_hpc.runs.folder import RunFolder
from lightning_hpc.scheduler.jobs import Element
from lightning_hpc.settings.errors import SettingsError
from lightning_hpc.slurm.batch import render
from lightning_hpc.slurm.submission import elements_for, send_in_waves

HERE = Preset("here", "", "", "", "current")
PACKED = Resources(pack=4)


def planned(folder, count: int) -> Experiment:
    """An experiment of so many runs."""
    rows = [dict(index=i, identity=f"{i:08x}00000000", folder=f"000-{i:08x}", overlay={}) for i in range(count)]
    (folder / "many" / "logs").mkdir(parents=True)
    (folder / "many" / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    experiment = Experiment(folder / "many")
    experiment.write_resources({"cluster": "generic"})
    return experiment


def test_a_thousand_runs_are_250_elements_and_one_call(tmp_path, told):
    experiment = planned(tmp_path, 1000)
    told.says("sbatch", "12")
    assert send_in_waves(experiment, range(1000), HERE, Resources(pack=4, throttle=10), []) == 0
    assert told.calls("sbatch") == [f"--parsable --array=0-249%10 {experiment.packed}"]
    assert read_pack(experiment.folder, 3).runs == [12, 13, 14, 15]
    assert len(experiment.rows) == 1000


def test_the_last_element_may_hold_fewer_and_a_retry_packs_what_is_left(tmp_path):
    experiment = planned(tmp_path, 10)
    write_packs(experiment.folder, new_numbers([], range(10), 4), range(10), 4)
    assert [read_pack(experiment.folder, number).runs for number in (0, 1, 2)] == [
        [0, 1, 2, 3], [4, 5, 6, 7], [8, 9],
    ]  # fmt: skip
    new = elements_for([1, 6, 9], PACKED, [0, 1, 2])
    assert new == [3]
    write_packs(experiment.folder, new, [1, 6, 9], 4)
    assert read_pack(experiment.folder, 3).runs == [1, 6, 9] and read_pack(experiment.folder, 3).size == 4
    (call,) = calls_for(experiment, new, HERE, PACKED)
    assert call == ["--array=3", str(experiment.packed)]
    with pytest.raises(SettingsError, match="no pack 7"):
        read_pack(experiment.folder, 7)


def test_limits_of_arrays_and_queues_count_elements(tmp_path, told):
    experiment = planned(tmp_path, 40)
    limited = Preset("here", "", "", "", "current", array_limit=6, jobs_per_user=8)
    new = elements_for(range(40), PACKED, [])
    first, second = calls_for(experiment, new, limited, PACKED)
    assert first == ["--array=0-5", str(experiment.packed)]
    logs = f"--output={experiment.logs}/pack-6+%a.log"
    assert second == ["--array=0-3", logs, str(experiment.packed), "6"]

    now = first_wave(new, limited, PACKED, [])
    assert now == list(range(8))
    assert "8 packs of 4 runs now, and 2 wait" in about_waves(new, now, limited, PACKED)[0]
    told.says("sbatch", "12", "13")
    send_in_waves(experiment, range(40), limited, PACKED, [])
    assert waiting(experiment) == list(range(32, 40))

    # A pack that ends submits the packs that wait.
    told.says("squeue", line("13", "1", "RUNNING", f"{experiment.packed} 6"))
    told.says("sbatch", "14")
    submit_next_wave(experiment, "12_0", pauses=())
    assert told.calls("sbatch")[-1].endswith(f"--array=2-3 {logs} {experiment.packed} 6")
    assert waiting(experiment) == []


def test_a_canary_goes_ahead_alone(tmp_path):
    experiment = planned(tmp_path, 8)
    canary, packs = calls_for(experiment, [0, 1], HERE, PACKED, canary=0)
    assert canary == ["--array=0", str(experiment.canary)]
    assert packs[0] == "--array=0-1" and packs[-1] == str(experiment.packed)


def element(experiment, task: int, state: str = "RUNNING", offset: int = 0) -> Element:
    batch = f"{experiment.packed} {offset}" if offset else str(experiment.packed)
    return Element("7", task, state, "", batch, uid=os.getuid())


def test_status_speaks_of_single_runs(tmp_path):
    """In a pack that runs, one is done, one has failed, one trains, one has not begun; the next pack waits."""
    experiment = planned(tmp_path, 6)
    write_packs(experiment.folder, [0, 1], range(6), 4)
    pack = read_pack(experiment.folder, 0)
    for index, state in ((0, "done"), (1, "failed")):
        folder = RunFolder(experiment.folder / experiment.rows[index]["folder"])
        folder.start(identity=experiment.rows[index]["identity"])
        folder.end(state, "its own error")
        pack = pack.without(index)
    pack.write(experiment.folder, 0)
    stand = standings(experiment, [element(experiment, 0), element(experiment, 1, "PENDING")])
    assert [run.state for run in stand] == ["done", "failed", "running", "running", "pending", "pending"]
    assert [run.job for run in stand] == [None, None, "7_0", "7_0", "7_1", "7_1"]


def test_a_run_that_was_killed_waits_for_the_others_of_its_pack(tmp_path):
    experiment = planned(tmp_path, 2)
    write_packs(experiment.folder, [0], range(2), 4)
    folder = RunFolder(experiment.folder / experiment.rows[0]["folder"])
    folder.start(identity=experiment.rows[0]["identity"])
    folder.end("preempted", "killed without a word")
    run, _ = standings(experiment, [element(experiment, 0)])
    assert run.state == "running" and run.reason == "preempted; goes on when the others of its pack have ended"


def test_a_pack_that_ends_before_its_runs_begin_says_so_for_each_of_them(tmp_path):
    experiment = planned(tmp_path, 3)
    write_packs(experiment.folder, [0, 1], range(3), 2)
    log = experiment.logs / "pack-0.log"
    log.write_text("module: command not found\n")
    (experiment.logs / ".job-pack-0").write_text(f"7\n0\nnode1\n{log}\n")
    stand = with_early_endings(experiment, standings(experiment, []), queue_known=True)
    assert [run.state for run in stand] == ["failed", "failed", "waiting"]
    assert "job 7 ended on node1 before Train.py began: module: command not found" in stand[1].reason
    assert experiment.log(1) == log


@pytest.mark.parametrize(
    "asked, message",
    [
        ({"nodes": 2}, "over several nodes can't share a job, set nodes to 1 or leave pack out"),
        ({"tasks": 2}, "of several processes can't share a job, set tasks to 1 or leave pack out"),
        ({"gpus": 3}, "can't be spread evenly over 3 GPUs"),
        ({"gpus": 8}, "can't be spread evenly over 8 GPUs"),
        ({"cpus": 3}, "3 CPUs are fewer than runs, which share them: set cpus to 4 or more"),
    ],
)
def test_what_cant_be_packed_is_refused_in_one_line(asked, message):
    with pytest.raises(SettingsError, match=message) as refused:
        resolve(HERE, {"pack": 4, **asked})
    assert "\n" not in str(refused.value) and str(refused.value).startswith("pack 4: ")


def test_runs_of_several_ranks_are_refused():
    resources = resolve(HERE, {"pack": 2})
    for key in ("trainer.devices", "trainer.num_nodes"):
        with pytest.raises(SettingsError, match=f"pack 2: {key} is 4"):
            trainer_settings(resources, {key: 4}, {})
    assert trainer_settings(resources, {"trainer.devices": 1, "trainer.num_nodes": 1}, {}) == {}


def test_a_pack_asks_for_one_process_and_a_cpu_for_each_run():
    shared = resolve(HERE, {"pack": 4, "gpus": 2})
    assert (shared.tasks, shared.cpus, shared.gpus) == (1, 4, 2)
    with_gpus = Preset("here", "", "", "", "current", cpus_per_gpu=8)
    assert resolve(with_gpus, {"pack": 4, "gpus": 1}).cpus is None
    assert resolve(HERE, {"pack": 1, "gpus": 2}).tasks == 2
    assert resolve(HERE, {"pack": None, "gpus": 2}).tasks == 2


def test_what_it_costs():
    hour = Resources(pack=4, gpus=1, time="1:00:00", seconds=3600, throttle=10)
    said = "1000 runs, 4 runs per job: 250 jobs × 1 GPU × 1 h = 250 GPU-hours at most, 10 at a time"
    assert cost(1000, hour) == said
    assert cost(3, hour).startswith("3 runs, 4 runs per job: 1 job × ")


def test_the_batch_file_of_packs(tmp_path):
    text = render(HERE, resolve(HERE, {"pack": 4, "slice": 30, "time": 90}), "pack", "many", tmp_path, None, tmp_path)
    assert "#SBATCH --signal=B:USR1@300" in text and "#SBATCH --cpus-per-task=4" in text and "/logs/pack-%a.log" in text
    assert '"$code/SlurmTrain.py" pack "${arguments[@]}" &' in text and "srun --wait" not in text
    assert '--slice 30 -- "${arguments[@]}"' in text


JOB = {"SLURM_JOB_ID": "9", "SLURM_CPUS_ON_NODE": "8", "CUDA_VISIBLE_DEVICES": "2,5", "SLURM_MEM_PER_NODE": "16000"}


def test_what_each_run_gets_of_the_job():
    command = command_in_step(["python"], slot=3, size=4, job=JOB)
    assert command == [
        "srun", "--overlap", "--nodes=1", "--ntasks=1", "--mem=3936M", "env", "CUDA_VISIBLE_DEVICES=5", "python",
    ]  # fmt: skip
    environment = environment_of_run(4, JOB)
    assert environment["OMP_NUM_THREADS"] == "2" and "SLURM_MEM_PER_NODE" not in environment
    assert environment_of_run(4, {**JOB, "OMP_NUM_THREADS": "1"})["OMP_NUM_THREADS"] == "1"
    assert environment_of_run(16, JOB)["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    "variables, share",
    [
        ({"SLURM_MEM_PER_NODE": "1000"}, ["--mem=475M"]),
        ({"SLURM_MEM_PER_CPU": "1000"}, ["--mem=3872M"]),
        ({"SLURM_MEM_PER_GPU": "1000", "CUDA_VISIBLE_DEVICES": "0,1"}, ["--mem=950M"]),
        ({"SLURM_MEM_PER_NODE": "0"}, []),
        ({}, []),
    ],
)
def test_the_share_of_the_memory(variables, share):
    command = command_in_step(["python"], 0, 2, {"SLURM_JOB_ID": "9", "SLURM_CPUS_ON_NODE": "8", **variables})
    assert [option for option in command if option.startswith("--mem")] == share


def test_outside_slurm_runs_are_plain_processes():
    assert command_in_step(["python"], 0, 2, {}) == ["python"]


# A run: notes who it is, and waits to be told. SIGTERM and SIGUSR1 let it save.
RUN = """\
import os, signal, sys, time
index, codes = sys.argv[1], {signal.SIGTERM: 75, signal.SIGUSR1: 76}
for number, code in codes.items():
    signal.signal(number, lambda number, frame: (print("saved", flush=True), os._exit(codes[number])))
print("begun", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
open(f"begun-{index}", "w").write(str(os.getpid()))
while not os.path.exists(f"end-{index}"):
    time.sleep(0.02)
sys.exit(int(open(f"end-{index}").read()))
"""


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """Four runs of a pack, outside SLURM; a thread does something to them while they run."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(supervisor, "STAGGER", 0.05)
    monkeypatch.setattr(supervisor, "LOOK", 0.02)
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in supervisor.REASONS}
    experiment = planned(tmp_path, 4)
    write_packs(experiment.folder, [0], range(4), 4)
    ended = []

    goes_on: list[int] = []

    def has_ended(index: int) -> bool:
        ended.append(index)
        return index not in goes_on

    def run(action, those: tuple[int, ...] = ()):
        goes_on[:] = those
        thread = threading.Thread(target=action)
        thread.start()
        command = [sys.executable, "-c", RUN]
        pack = Supervisor(experiment.folder, 0, lambda index: [*command, str(index)], run.has_ended).run()
        thread.join()
        return pack

    run.experiment, run.ended, run.has_ended = experiment, ended, has_ended
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def wait_for(file) -> str:
    end = time.monotonic() + 30
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < end, file
        time.sleep(0.02)
    return file.read_text()


def test_the_end_of_one_ends_no_other(packed, tmp_path, capfd):
    """One fails, one is killed, and only then the others come to their end."""

    def action() -> None:
        pids = [int(wait_for(tmp_path / f"begun-{index}")) for index in range(4)]
        (tmp_path / "end-1").write_text("1")
        os.kill(pids[2], signal.SIGKILL)
        while len(packed.ended) < 2:
            time.sleep(0.02)
        assert all(os.path.exists(f"/proc/{pids[index]}") for index in (0, 3))
        for index in (0, 3):
            (tmp_path / f"end-{index}").write_text("0")

    pack = packed(action, those=(2,))
    assert sorted(packed.ended[:2]) == [1, 2] and pack.left == [2] and pack.unstarted == []
    assert read_pack(packed.experiment.folder, 0) == pack
    said = capfd.readouterr().out
    assert "run 1: exit code 1\n" in said and "run 2: exit code -9, to go on" in said
    gpus = [(packed.experiment.logs / f"{index}.log").read_text().split()[1] for index in range(4)]
    assert gpus == ["0", "1", "0", "1"]
    assert packed.experiment.log(1) == packed.experiment.logs / "1.log"


@pytest.mark.parametrize("number, code", [(signal.SIGUSR1, 76), (signal.SIGTERM, 75)])
def test_signals_are_handed_on_and_what_went_on_is_all_that_is_started_again(packed, tmp_path, capfd, number, code):
    def action() -> None:
        (tmp_path / "end-0").write_text("0")
        for index in range(4):
            wait_for(tmp_path / f"begun-{index}")
        while packed.ended != [0]:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    pack = packed(action, those=(1, 2, 3))
    assert pack.left == [1, 2, 3] and f"run 3: exit code {code}, to go on" in capfd.readouterr().out

    def end() -> None:
        for index in (1, 2, 3):
            (tmp_path / f"end-{index}").write_text("0")

    assert packed(end).left == [] and packed.ended.count(0) == 1


def test_a_signal_while_runs_are_started(packed, tmp_path, monkeypatch):
    """The rest is not started, and is known not to have begun."""
    monkeypatch.setattr(supervisor, "STAGGER", 30)

    def action() -> None:
        wait_for(tmp_path / "begun-0")
        os.kill(os.getpid(), signal.SIGUSR1)

    pack = packed(action, those=(0,))
    assert pack.left == [0, 1, 2, 3] and pack.unstarted == [1, 2, 3] and packed.ended == [0]


def test_srun_is_not_told_to_end(packed, tmp_path, monkeypatch):
    """It would kill its step at once; SLURM tells each step by itself."""
    monkeypatch.setattr(supervisor, "command_in_step", lambda command, *_: command)

    def action() -> None:
        for index in range(4):
            wait_for(tmp_path / f"begun-{index}")
        monkeypatch.setenv("SLURM_JOB_ID", "9")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        assert packed.ended == []
        os.kill(os.getpid(), signal.SIGUSR1)

    assert packed(action).left == [] and len(packed.ended) == 4


def test_what_goes_wrong_around_one_run_ends_no_other(packed, tmp_path, monkeypatch, capfd):
    """One can't be started, of another nobody knows how it ended, and the disk is full."""
    monkeypatch.setattr(Pack, "write", Mock(side_effect=OSError("no space left")))
    commands = {1: ["/no/such/program"]}
    monkeypatch.setattr(supervisor, "command_in_step", lambda command, slot, *_: commands.get(slot, command))
    asked = packed.has_ended
    packed.has_ended = lambda index: Path("/no/such/status").stat() if index == 2 else asked(index)

    def action() -> None:
        for index in (0, 2, 3):
            wait_for(tmp_path / f"begun-{index}")
            (tmp_path / f"end-{index}").write_text("0")

    pack = packed(action)
    assert pack.left == [2] and sorted(packed.ended) == [0, 1, 3]
    said = capfd.readouterr().err
    assert "run 1 could not be started" in said and "how run 2 has ended is not known" in said
