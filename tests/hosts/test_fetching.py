"""Small files of runs by a real rsync: which come, which folders it does not look into, and the line as it is typed."""

import shlex
import subprocess
from pathlib import Path

import pytest

from lightning_hpc.hosts import fetching
from lightning_hpc.hosts.host import Host
from lightning_hpc.results.rows import FILES
from lightning_hpc.results.run_files import METRICS

RUN = "001-lr=0.1-0123abcd"
SMALL = [
    "cka/epoch-001.npz", "checkpoints/meta.json", "config.yaml", "metrics.csv", "overlay.yaml", "status.json",
    "test.json", "validate.json", "environment.json", "fingerprints.jsonl",
]  # fmt: skip
LARGE = [
    "checkpoints/last.ckpt", "checkpoints/step-10.ckpt", "cka/epoch-001.png", "logs/rank-0.log", "predictions.pt",
    "predictions.csv", "splits.npz", "export/best.onnx", "wandb/run-1/files/config.yaml", "wandb/run-1/metrics.csv",
]  # fmt: skip


def fill(folder, names):
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"content of {name}\n")


@pytest.fixture
def runs(tmp_path):
    """A folder of runs: two experiments, of which one has linked a run of the other."""
    runs = tmp_path / 'there\'s "more"' / "runs"
    fill(runs / "wide" / RUN, [*SMALL, *LARGE])
    fill(
        runs / "wide",
        ["manifest.jsonl", "spec.yaml", "code/Train.py", "code/configs/config.yaml", "configs/00-base.yaml"],
    )
    fill(runs / "wide", ["logs/0.log", "job.sbatch"])
    fill(runs / "deep" / "000-0123abce", SMALL)
    fill(runs / ".old" / "wide-1" / RUN, SMALL)
    fill(runs / ".code", ["Train.py"])
    (runs / "deep" / RUN).symlink_to(f"../wide/{RUN}")
    return runs


def copied(source, target, *options):
    """What rsync copies from a folder of this machine, and what it says."""
    words = fetching.rsync_command(Host("x", "x", "y"), target)[:-2]
    done = subprocess.run([*words, *options, f"{source}/", f"{target}/"], capture_output=True, text=True, check=True)
    return {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}, done.stdout


def test_what_the_table_reads_is_among_them():
    assert {METRICS, *FILES} <= set(SMALL)


def test_only_small_files_come_at_each_level(runs, tmp_path):
    wide = {*SMALL}
    assert copied(runs / "wide" / RUN, tmp_path / "run")[0] == wide
    of_experiment = {"manifest.jsonl", "spec.yaml", *(f"{RUN}/{name}" for name in wide)}
    assert copied(runs / "wide", tmp_path / "experiment")[0] == of_experiment
    of_all = {f"wide/{name}" for name in of_experiment} | {f"deep/000-0123abce/{name}" for name in SMALL}
    there, _ = copied(runs, tmp_path / "all")
    assert {name for name in there if not name.startswith(f"deep/{RUN}/")} == of_all


def test_a_linked_run_stays_a_link_or_comes_whole(runs, tmp_path):
    copied(runs, tmp_path / "all")
    assert (tmp_path / "all" / "deep" / RUN).is_symlink()
    copied(runs / "deep", tmp_path / "deep")
    linked = tmp_path / "deep" / RUN
    assert not linked.is_symlink() and (linked / "status.json").read_text() == "content of status.json\n"


def test_it_does_not_look_into_trackers_and_copies_of_code(runs, tmp_path):
    for number, source in enumerate((runs, runs / "wide")):
        _, said = copied(source, tmp_path / f"{number}", "-vv")
        hidden = {line.split()[3] for line in said.splitlines() if line.startswith("[sender] hiding directory")}
        run = f"wide/{RUN}" if source == runs else RUN
        assert {f"{run}/wandb", f"{run}/export", f"{run}/logs"} <= hidden
        assert "wandb/run-1" not in said and "step-10" not in "".join(sorted(hidden))


@pytest.mark.parametrize(
    "folder, place",
    [
        ("project/runs", "fetched/x"),
        ("/scratch/me/project/runs/wide", "fetched/x/wide"),
        ("runs/runs/wide/000-1", "fetched/x/wide/000-1"),
        ("elsewhere", "fetched/x/elsewhere"),
        ("../..", "fetched/x"),
    ],
)
def test_where_results_go(folder, place):
    assert fetching.place_here(Host("x", "x", folder), Path()) == Path(place)


def test_the_printed_line_does_what_go_does(laptop, runs):
    code, line, errors = laptop.types("report", "rsync", f"there:{runs}/wide")
    assert code == 0, errors
    assert shlex.split(line)[-1] == "fetched/there/wide/" and "--protect-args" in line
    assert not (laptop.folder / "fetched").exists()
    subprocess.run(["mkdir", "-p", "fetched/there"], check=True)
    subprocess.run(line, shell=True, check=True, cwd=laptop.folder)
    assert (laptop.folder / "fetched" / "there" / "wide" / RUN / "metrics.csv").exists()

    code, told, errors = laptop.types("report", "rsync", f"there:{runs}/wide", "again", "--go")
    assert code == 0 and told.startswith(f"fetched {len(SMALL) + 2} new or changed files, "), errors
    (runs / "wide" / RUN / "metrics.csv").write_text("longer than before, since it is going on\n")
    code, told, _ = laptop.types("report", "rsync", f"there:{runs}/wide", "again", "--go")
    assert code == 0 and told.startswith("fetched 1 new or changed files, ")
    assert (laptop.folder / "again" / RUN / "metrics.csv").read_text().startswith("longer")


def test_fetch_says_what_it_would_do_and_what_is_not_there(laptop, runs):
    laptop.describe(folder=str(runs.parent))
    code, told, errors = laptop.slurm_train("fetch", "runs/wide", "--dry-run")
    assert (
        code == 0 and f"{RUN}/metrics.csv" in told and f"would fetch {len(SMALL) + 2} new or changed files" in told
    ), errors
    assert not (laptop.folder / "fetched").exists()
    code, _, errors = laptop.slurm_train("fetch", "runs/narrow")
    assert code == 2 and errors.startswith("error: there is no folder") and errors.count("\n") == 1
    laptop.describe(host="silent")
    code, _, errors = laptop.slurm_train("fetch", "runs/wide")
    assert code == 2 and errors.startswith("error: silent: it is there, and no ssh answers")


@pytest.mark.parametrize(
    "code, errors, message",
    [
        (127, "bash: line 1: rsync: command not found", "there has no rsync"),
        (12, "sh: rsync: not found\nrsync: connection unexpectedly closed", "there has no rsync"),
        (11, "rsync: write failed: No space left on device (28)", "what has come so far stays"),
    ],
)
def test_what_rsync_says_becomes_one_line(code, errors, message):
    said = str(fetching.problem(Host("there", "there", "x"), code, errors))
    assert message in said and "\n" not in said
