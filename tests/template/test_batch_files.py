"""Batch files: what the hook has written for each cluster, and what is rendered for each kind of job."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ladder
import pytest

from lightning_hpc.clusters import presets
from lightning_hpc.clusters.placement import resolve
from lightning_hpc.clusters.presets import Preset
from lightning_hpc.clusters.resources import Resources
from lightning_hpc.slurm import batch

TOOLS = Path(sys.executable).parent
PROJECT = ladder.ROOT / ladder.PROJECT_FOLDER
CLUSTERS = presets.names(PROJECT)
REQUEST = {"account": "proj01", "qos": "normal", "gpus": 1, "mail": "ada@example.org"}
# What shell scripts stumble over, in every place where a user's text can stand.
NASTY = Path('/home/zoë/it\'s 100% "new" $HOME `id` #1/project')


def rendered(cluster: str, kind: str, root: Path = NASTY, **request) -> str:
    preset, resources = resolved(cluster, **request)
    places = dict(project=root, code=root / "runs/wide/code", experiment=root / "runs/wide")
    return batch.render(preset, resources, kind, name="wide", **({} if kind in batch.BY_HAND else places))


def resolved(cluster: str, **request) -> tuple[Preset, Resources]:
    preset = presets.load(cluster, PROJECT)
    typed = {"gpu_type": "a100"} if cluster == "sulis" else {}
    return preset, resolve(preset, REQUEST | typed | request, array=8)


def directives(text: str) -> list[str]:
    """The #SBATCH lines, without their mark."""
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]


def shellcheck(*files: Path) -> None:
    done = subprocess.run([TOOLS / "shellcheck", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_what_the_hook_writes(cluster, bake):
    """For the chosen cluster, account or not; the same as `render` makes of the package where it stands."""
    for account in ("", "proj01"):
        project = bake(cluster=cluster, slurm_account=account)
        files = [project / name for name in batch.BY_HAND.values()]
        shellcheck(*files)
        preset = presets.load(cluster, project)
        resources = resolve(preset, presets.project_resources(project), partial=True)
        texts = [batch.render(preset, resources, kind, name="my-research-project") for kind in batch.BY_HAND]
        assert [file.read_text() for file in files] == texts
        asked = "--account=proj01" in directives(texts[0])
        assert asked == bool(account)
        if "account" in preset.required:
            assert ("--account=…" in texts[0]) != asked  # it says what is missing


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_every_kind_is_clean(cluster, tmp_path):
    files = []
    for kind in batch.KINDS:
        text = rendered(
            cluster, kind, environment={"A": 'it\'s "$HOME" `id` \\ ä'}, before="echo begins", after="echo ends"
        )
        assert text.startswith("#!/bin/bash\n#SBATCH ") and text.endswith("\n") and "\r" not in text
        body = text.rpartition("#SBATCH")[2]
        assert text.count("\n#SBATCH") == len(directives(text)) == len(text.removesuffix(body).splitlines()) - 1
        given = directives(text)
        assert "--open-mode=append" in given and "--requeue" in given
        assert any(line.startswith("--ntasks-per-node=") for line in given)
        assert not any(line.startswith("--ntasks=") for line in given)
        files.append(tmp_path / f"{kind}.sbatch")
        files[-1].write_text(text)
    shellcheck(*files)


def test_no_secret_of_the_shell_gets_in(monkeypatch):
    for name in ("WANDB_API_KEY", "NOTIFY_WEBHOOK", "HF_TOKEN"):
        monkeypatch.setenv(name, "0123456789abcdef" * 2 + "01234567")
    assert not any("0123456789abcdef" in rendered(cluster, kind) for cluster in CLUSTERS for kind in batch.KINDS)


def test_values_reach_bash_as_they_are(tmp_path):
    """Not a word of a path or a value is expanded, split or run."""
    value = 'it\'s "$HOME" `id` \\ ä  two'
    lines = rendered("generic", "array", environment={"A": value}).splitlines()
    kept = [line for line in lines if line.startswith(("export A=", "code=", "arguments="))]
    program = "\n".join(["SLURM_ARRAY_TASK_ID=3", *kept, 'printf "%s\\n" "$A" "$code" "${arguments[@]}"'])
    said = subprocess.run(["bash", "-c", program, "job", "1000"], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [value, f"{NASTY}/runs/wide/code", "--run", f"{NASTY}/runs/wide", "--index", "1003"]
    (line,) = [line for line in directives("\n".join(lines)) if line.startswith("--output=")]
    assert shlex.split(line) == [f"--output={str(NASTY).replace('%', '%%')}/runs/wide/logs/%a.log"]


def test_a_log_that_slurm_could_not_write_is_refused():
    with pytest.raises(batch.SettingsError, match="backslash"):
        rendered("generic", "array", root=Path("/home/a\\b"))


def test_what_each_cluster_wants():
    def asked(cluster: str, kind: str = "array", **request) -> str:
        return " ".join(directives(rendered(cluster, kind, **request)))

    assert "--partition=gpu-short" in asked("hec") and "--gres=gpu:1 --cpus-per-task=4 --mem=16G" in asked("hec")
    assert "--gres=gpu:tesla_v100-pcie-32gb:2" in asked("hec", gpu_type="v100", gpus=2)
    assert "--mail" not in asked("hec") and "--mail" not in asked("hec", "agent")
    assert "--mail-user=ada@example.org" in asked("hec", "notify") and "--partition=serial" in asked("hec", "notify")
    assert "--mail-user=ada@example.org --mail-type=END,FAIL" in asked("sulis")
    assert "--cpus-per-task" not in asked("bede-gh") and "--mem" not in asked("bede-gh", "notify")
    assert "--gpus=1 --cpus-per-gpu=36" in asked("baskerville")
    assert "--gpus=8 --time" in asked("isambard-ai", gpus=4, nodes=2)
    assert "--gpus=1" in asked("isambard-ai", "notify")  # a job without a GPU fails there
    assert "--gres=gpu:ampere_a100:1 --cpus-per-gpu=42" in asked("sulis")
    assert not re.search(r"--g(pus|res)", asked("generic", gpus=0))
    assert "--signal=USR1@300" in asked("generic") and "--signal=B:USR1@300" in asked("generic", "agent")
    assert "--signal" not in asked("generic", "evaluate")
    assert asked("generic", directives=["--exclusive", "--nice=10"]).endswith("--requeue --exclusive --nice=10")
    assert all(f"{key}=" in asked("generic", begin="now+1hour", memory="8G") for key in ("--begin", "--mem", "--qos"))


def test_environments_are_activated_where_they_are():
    assert 'source activate "$global_storage/wide" ||' in rendered("hec", "train")
    assert 'conda activate "/nobackup/projects/proj01/$USER/aarch64/wide"' in rendered("bede-gh", "train")
    assert ".venv/bin/activate" in rendered("generic", "train")
    assert f"python={sys.executable}\n" in rendered("hec", "array")  # the one that submits
    text = rendered("hec", "array", activate="source mine")
    assert "source mine || exit 2" in text and "python=python\n" in text


def test_where_requeue_is_forbidden():
    preset, resources = resolved("generic")
    strict = replace(preset, requeue=False)
    places = dict(project=Path("/p"), code=Path("/p/c"), experiment=Path("/p/e"))
    text = batch.render(strict, resources, "array", name="wide", **places)
    assert "--no-requeue" in directives(text) and "--resubmit /p/e/job.sbatch -- " in text
    agent = batch.render(strict, resources, "agent", name="wide", file="/p/sweeps/wide.sbatch")
    assert '--resubmit /p/sweeps/wide.sbatch --agent "$code_of_run" -- ' in agent


def test_one_decision_puts_runs_and_agents_back():
    for kind in ("array", "canary", "train", "agent"):
        text = rendered("generic", kind, max_requeues=7)
        assert 'SlurmTrain.py" finish --max_requeues 7 ' in text and "scontrol" not in text
    assert "finish" not in rendered("generic", "evaluate") + rendered("generic", "notify")


def test_ranks_wait_for_each_other_but_not_for_ever():
    assert '\nsrun --wait=300 "$python"' in rendered("generic", "array")  # sbatch --nodes=2 FILE has several, too


# Stands for srun and for Python; says what it was called for, where, and how many CPUs a task gets.
STAND_IN = """#!/bin/bash
echo "$(basename "$0") ${*##*/} in $PWD cpus ${SRUN_CPUS_PER_TASK:-none}" >> "$SAID"
[ "$(basename "$0")" != srun ] || exit 76
"""


@pytest.fixture
def run_job(tmp_path):
    """Runs element 3 of an array's batch file in a real bash: exit code, what srun and Python were called for."""
    root = tmp_path / "a project"
    (root / "runs/wide/logs").mkdir(parents=True)
    for name in ("srun", "python"):
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)

    def run(told: str = "2", kind: str = "array", **request):
        preset, resources = resolved("generic", **request)
        places = dict(project=root, code=root / "runs/wide/code", experiment=root / "runs/wide")
        text = batch.render(preset, resources, kind, name="wide", python=str(tmp_path / "python"), **places)
        (tmp_path / "job.sbatch").write_text(text)
        variables = dict(SLURM_JOB_ID="45", SLURM_ARRAY_TASK_ID="3", SLURM_RESTART_COUNT="1", SLURM_CPUS_PER_TASK=told)
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SAID": str(tmp_path / "said"), **variables}
        with (tmp_path / "log.txt").open("w") as log:
            command = ["bash", tmp_path / "job.sbatch", "1000"]
            code = subprocess.run(command, cwd=tmp_path, env=environment, stdout=log, stderr=log).returncode
        said = tmp_path / "said"
        return code, said.read_text().splitlines() if said.exists() else []

    return run


@pytest.mark.parametrize(
    "before", [[], ["set -euo pipefail"], ["trap 'exit 9' ERR"], ["cd /"], ["false", "trap - TERM USR1", "set -e"]]
)
def test_lines_of_the_user_do_not_keep_a_run_from_being_looked_after(run_job, tmp_path, before):
    code, said = run_job(before=before)
    assert code == 0, (tmp_path / "log.txt").read_text()
    run, finish = said
    assert run.startswith("srun --wait=300") and "Train.py fit --run wide --index 1003" in run
    assert finish.startswith("python SlurmTrain.py finish --max_requeues 50 -- --run wide --index 1003")
    assert all(f" in {tmp_path}/a project " in line for line in said)


def test_srun_gets_the_cpus_that_sbatch_was_told_on_its_command_line(run_job):
    """sbatch --cpus-per-task=4 FILE, where the file says 1."""
    _, (run, _) = run_job(told="4", cpus=1)
    assert run.endswith(" cpus 4")
    _, lines = run_job(told="")
    assert lines[2].endswith(" cpus none")


@pytest.mark.parametrize(
    "request_", [dict(activate="conda activate wide"), dict(before=["exit 3"]), dict(before=["echo 'no end"])]
)
def test_a_job_that_ends_before_train_py_leaves_its_id_and_its_log(run_job, tmp_path, request_):
    code, said = run_job(**request_)
    assert code != 0 and said == []
    (mark,) = (tmp_path / "a project/runs/wide/logs").glob(".job-*")
    assert mark.name == ".job-1003"
    assert mark.read_text().splitlines() == ["45", "1", os.uname().nodename, str(tmp_path / "log.txt")]


def test_options_of_sbatch_without_a_key_of_ours_stand_in_the_file():
    given = directives(rendered("generic", "array", constraint="a100&nvlink", exclusive=True, hold=False))
    assert given[-2:] == ['--constraint="a100&nvlink"', "--exclusive"]


def test_pages_name_every_preset():
    page = ladder.load_module(ladder.ROOT / "docs" / "filled_in.py").fill_in(
        (ladder.ROOT / "docs" / "clusters.md").read_text()
    )
    for cluster in CLUSTERS:
        preset = presets.load(cluster, PROJECT)
        (row,) = re.findall(rf"^\| `{cluster}` \| (?:current|unverified|legacy) .*$", page, re.MULTILINE)
        assert preset.checked in row and preset.source in row and all(name in row for name in preset.partitions)


# Stands for Apptainer, which is in no package of Debian 12 and is not built here: notes how it is called, and runs the
# command as Apptainer would, with nothing of the environment but what has its prefix.
APPTAINER = """#!/bin/bash
printf '%s\\n' "$@" > "$SEEN"
while [ "${1%.sif}" = "$1" ]; do shift; done
shift
for name in $(compgen -e); do
    case $name in APPTAINERENV_*) kept+=("${name#APPTAINERENV_}=${!name}") ;; esac
done
exec env -i PATH="$PATH" SEEN="$SEEN" "${kept[@]}" "$@"
"""


@pytest.mark.parametrize("cluster", ["generic", "bede-gh"])
def test_runs_go_into_a_container(cluster, tmp_path):
    """Every kind is clean; what reaches Python inside, and what does not."""
    options = dict(container="an image.sif", environment={"MINE": "it's $HOME"})
    if cluster == "bede-gh":
        options["account"] = "bdlan08"
    files = []
    for kind in batch.KINDS:
        text = rendered(cluster, kind, **options)
        files.append(tmp_path / f"{kind}.sbatch")
        files[-1].write_text(text)
        assert ("in_container" in text) == (kind != "notify")
        # What puts a run back into the queue calls SLURM, and stays outside.
        assert text.count('"$python" "$code/SlurmTrain.py"') == (
            kind in ("array", "canary", "train", "pack", "agent", "notify")
        )
    shellcheck(*files)

    fake, project = tmp_path / "bin" / "apptainer", tmp_path / "project"
    for folder in (fake.parent, project):
        folder.mkdir()
    fake.write_text(APPTAINER)
    fake.chmod(0o755)
    (project / "an image.sif").touch()
    (fake.parent / "python").write_text('#!/bin/bash\necho "python $*"\nenv\n')
    (fake.parent / "python").chmod(0o755)

    text = rendered(cluster, "array", project, **options)
    begin, end = text.index("in_container() {"), text.index("# srun no longer")
    program = f'export MINE="it\'s \\$HOME"\n{text[begin:end]}\n"${{inside[@]}}" -u "$code/Train.py" fit "two words"'
    environment = {
        "PATH": f"{fake.parent}:/usr/bin:/bin", "SEEN": str(tmp_path / "seen"), "code": "CODE",
        "SLURM_PROCID": "3", "JOB_BEGAN": "1", "WANDB_API_KEY": "secret", "PYTHONPATH": "/of/the/node",
        "LD_LIBRARY_PATH": "/of/the/node",
    }  # fmt: skip
    done = subprocess.run(["bash", "-c", program], cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == "python -u CODE/Train.py fit two words"
    inside = dict(line.partition("=")[::2] for line in said[1:])
    assert inside["SLURM_PROCID"] == "3" and inside["JOB_BEGAN"] == "1" and inside["MINE"] == "it's $HOME"
    assert inside["PYTHONNOUSERSITE"] == "1" and inside["XDG_CACHE_HOME"] == f"{project}/.cache"
    assert not {"PYTHONPATH", "LD_LIBRARY_PATH", "code"} & set(inside)

    # A key goes in by the environment, never by an argument, which others on the node can read.
    call = (tmp_path / "seen").read_text().splitlines()
    assert inside["WANDB_API_KEY"] == "secret" and not any("secret" in word for word in call)
    assert call[:4] == ["exec", "--nv", "--cleanenv", "--no-home"] and f"--pwd={project}" in call
    assert f"--bind={project}" in call and ("--bind=/nobackup" in call) == (cluster == "bede-gh")
    assert call[call.index("an image.sif") + 1] == "python"


def test_a_container_sees_folders_outside_of_the_project():
    preset, resources = resolved("generic", container="x.sif")
    places = dict(project=Path("/home/me/project"), code=Path("/scratch/wide/code"), experiment=Path("/scratch/wide"))
    text = batch.render(preset, resources, "array", name="wide", **places)
    assert '--bind="$PWD" --bind=/scratch/wide/code --bind=/scratch/wide x.sif' in text
    assert '--bind="$PWD" "' not in rendered("generic", "array")


def test_without_a_container_nothing_of_it_is_in_a_batch_file():
    assert not any("apptainer" in rendered("bede-gh", kind).lower() for kind in batch.KINDS)


def test_a_missing_image_is_said_at_once(tmp_path):
    text = rendered("generic", "array", tmp_path, container="not-here.sif")
    begin, end = text.index("in_container() {"), text.index("# srun no longer")
    done = subprocess.run(["bash", "-c", text[begin:end]], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "error: there is no image not-here.sif\n"
