"""Runs that are done in another experiment: offered, linked, counted once, and never lost when folders move."""

import os
import shutil

import pytest
import yaml

from lightning_hpc.experiments.experiment import Experiment
from lightning_hpc.experiments.links import done_elsewhere
from lightning_hpc.results.run_files import find_runs

RATES = [0.1, 0.01, 0.001]


@pytest.fixture
def slurm_train(project, tmp_path, monkeypatch, capsys, told):
    """Runs SlurmTrain.py in this process; returns exit code, output and errors."""
    from lightning_hpc.entrance import slurm_train as main

    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main([str(each) for each in arguments], root=project)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def spec(tmp_path, name: str, rates=RATES):
    """A specification of runs that differ in their learning rate."""
    quick = {"trainer": {"max_epochs": 1, "limit_train_batches": 2, "accelerator": "cpu"}, "cka": None}
    quick["runs_dir"] = str(tmp_path / "runs")
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(quick))
    file = tmp_path / f"{name}.yaml"
    parameters = {"model.optimizer.lr": rates}
    file.write_text(yaml.safe_dump({"name": name, "configs": [str(tmp_path / "quick.yaml")], "parameters": parameters}))
    return file


def test_what_is_done_elsewhere_is_offered_and_linked(train, slurm_train, told, tmp_path, capsys, monkeypatch):
    """One of three runs was trained by hand in another experiment; then all of them are there."""
    monkeypatch.setenv("COLUMNS", "300")  # of the table
    run = train("fit", "--config", str(spec(tmp_path, "wide").with_name("quick.yaml")), "--name=old",
                "--model.optimizer.lr=0.01")  # fmt: skip
    assert run.code == 0
    submit = ["submit", spec(tmp_path, "wide"), "--yes", "--no-check"]
    offer = "1 of them are done in another experiment (old): --link links them instead of training them again"
    said = slurm_train(*submit, "--dry-run")[1]
    assert offer in said and "--array=0-2 " in said and not (tmp_path / "runs/wide").exists()

    told.says("sbatch", "7")
    code, said, errors = slurm_train(*submit, "--link")
    assert code == 0, errors
    assert "--array=0,2 " in told.calls("sbatch")[0]
    link = next(path for path in (tmp_path / "runs/wide").iterdir() if path.is_symlink())
    assert os.readlink(link) == f"../old/{run.folder.name}" and (link / "checkpoints" / "last.ckpt").exists()
    status = slurm_train("status", "runs/wide")[1]
    assert "3 runs: 1 done, 2 waiting" in status and f"-> ../old/{run.folder.name}" in status

    # It is one run, whichever folder one looks into.
    assert find_runs([tmp_path / "runs"]) == [tmp_path / "runs/old" / run.folder.name]
    assert find_runs([tmp_path / "runs/wide"]) == [link]

    # Where all are there, nothing is submitted.
    calls = len(told.calls("sbatch"))
    same = spec(tmp_path, "again", [0.01])
    assert "nothing to submit" in slurm_train("submit", same, "--yes", "--no-check", "--link")[1]
    assert "1 run: 1 done" in slurm_train("status", "runs/again")[1] and len(told.calls("sbatch")) == calls

    # The old experiment is started over: it moves aside, and the links go with it.
    told.says("sbatch", "8")
    old = spec(tmp_path, "old")
    assert slurm_train("submit", old, "--yes", "--no-check")[0] == 0  # an experiment now, of which one run is done
    code, said, errors = slurm_train("submit", old, "--yes", "--no-check", "--overwrite")
    assert code == 0, errors
    assert link.resolve() == tmp_path / "runs/.old/old-1" / run.folder.name
    assert "1 done" in slurm_train("status", "runs/wide")[1]

    # An experiment with links moves aside, too.
    assert slurm_train("submit", spec(tmp_path, "wide"), "--yes", "--no-check", "--overwrite")[0] == 0
    (aside,) = [path for path in (tmp_path / "runs/.old/wide-1").iterdir() if path.is_symlink()]
    assert (aside / "status.json").exists()

    # What a link led to is deleted: then the run is trained here.
    shutil.rmtree(tmp_path / "runs/.old/old-1")
    assert "1 run: 1 waiting" in slurm_train("status", "runs/again")[1]
    code, said, errors = slurm_train("retry", "runs/again", "--yes")
    assert code == 0, errors
    assert "run 0 was linked to ../.old/old-1/" in said and "which is gone" in said
    assert not any(path.is_symlink() for path in (tmp_path / "runs/again").iterdir())


def test_only_a_run_that_is_done_under_the_same_identity_counts(tmp_path):
    def run(experiment: str, name: str, state: str, identity: str):
        folder = tmp_path / experiment / name
        folder.mkdir(parents=True)
        (folder / "status.json").write_text(f'{{"state": "{state}", "identity": "{identity}"}}')
        return folder

    wanted, similar = "0123456789abcdef", "01234567ffffffff"
    run("a", "000-x-01234567", "failed", wanted)
    run("b", "000-x-01234567", "done", similar)  # another run, whose identity begins with the same digits
    run(".old", "000-x-01234567", "done", wanted)
    run("mine", "000-x-01234567", "done", wanted)
    assert done_elsewhere(tmp_path / "mine", [wanted]) == {}
    found = run("c", "007-y-01234567", "done", wanted)
    run("d", "000-x-01234567", "done", wanted)
    assert done_elsewhere(tmp_path / "mine", [wanted]) == {wanted: found}
    assert done_elsewhere(tmp_path / "nowhere" / "mine", [wanted]) == {}


def test_what_has_begun_here_stays_as_it_is(tmp_path):
    from lightning_hpc.experiments.links import link_runs

    (tmp_path / "mine" / "000-x-01234567").mkdir(parents=True)
    row = '{"index": 0, "identity": "0123456789abcdef", "folder": "000-x-01234567", "overlay": {}}\n'
    (tmp_path / "mine" / "manifest.jsonl").write_text(row)
    (tmp_path / "other").mkdir()
    experiment = Experiment(tmp_path / "mine")
    assert link_runs(experiment, {"0123456789abcdef": tmp_path / "other"}) == []
    assert not (tmp_path / "mine" / "000-x-01234567").is_symlink()
