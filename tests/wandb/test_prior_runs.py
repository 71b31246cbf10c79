"""What W&B says about runs that were made before, and messages through W&B."""

import json

import pytest
from stand_in import Run

from lightning_hpc.notify import notify
from lightning_hpc.runs.prior_runs import AT_ONCE, finished_in_wandb
from lightning_hpc.settings.errors import SettingsError


def remember(server, identity, code, id=None):
    """A run that the server has."""
    name = f"000-lr=0.1-{identity[:8]}"
    run = server.runs[id or f"study-{identity}"] = Run(id or f"study-{identity}", "researcher", "project", name)
    run.exit_codes = [] if code is None else [code]


def identity(number):
    return f"{number:08x}{number:08x}"


def test_finished_runs_count_and_failed_and_running_ones_do_not(server, key):
    for number, code in enumerate([0, 1, None, 0]):
        remember(server, identity(number), code)
    remember(server, identity(7), 0, id="x1y2z3")  # of a sweep: its id says nothing, its name does
    asked = [identity(number) for number in (0, 1, 2, 7, 8)]
    assert finished_in_wandb(asked, "project") == {identity(0), identity(7)}


def test_a_run_with_the_same_first_digits_is_another_run(server, key):
    remember(server, "00000001ffffffff", 0)
    assert finished_in_wandb(["0000000100000001"], "project") == set()


def test_many_identities_are_asked_for_in_a_few_questions(server, key):
    for number in range(120):
        remember(server, identity(number), 0)
    asked = {identity(number) for number in range(200)}
    assert finished_in_wandb(asked, "project") == {identity(number) for number in range(120)}
    assert server.operations.count("Runs") == -(-200 // AT_ONCE)


def test_a_key_that_is_refused_is_an_error_and_not_an_empty_answer(server, key):
    server.refused.add(key)
    with pytest.raises(SettingsError, match="W&B can't say what has run already"):
        finished_in_wandb([identity(0)], "project")


def test_an_alert_reaches_wandb(server, key, wandb_env):
    wandb_env.setenv("NOTIFY_WANDB", "1")
    assert notify("sweep ended", "20 of 20 trials", "project") == ["W&B alert: sent"]
    assert server.alerts == [("sweep ended", "20 of 20 trials")]


def test_a_submission_leaves_out_what_has_finished_elsewhere(server, key, project, tmp_path, monkeypatch, capsys):
    from lightning_hpc.entrance import slurm_train as main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.yaml").write_text("name: study\nparameters: {data.batch_size: [8, 16, 32]}\n")
    main(["plan", "spec.yaml", "--jsonl"], project)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    remember(server, rows[1]["identity"], 0)
    remember(server, rows[2]["identity"], 1)
    server.runs[f"study-{rows[1]['identity']}"].project = "my-research-project"
    submit = ["submit", "spec.yaml", "--dry-run", "--no-check"]
    assert main([*submit, "--check-wandb"], project) == 0
    told = capsys.readouterr().out
    assert "1 of them are done already" in told and "--array=0,2 " in told
    assert main(submit, project) == 0
    assert "--array=0-2 " in capsys.readouterr().out
