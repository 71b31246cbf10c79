"""How SLURM's commands are called, and what their silence means.

An answer is yes or no, or there is none. A command that does not answer raises `NoAnswer`: so silence can't be taken
for an empty queue, and whoever asks has to say what happens then.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from ..settings.errors import SettingsError

PAUSES = (1, 5, 15, 45)  # seconds before each new try, for somebody who waits at a terminal

LONG_PAUSES = (1, 5, 15, 45, 60, 60, 60, 120, 120, 120)  # inside a job, where giving up loses its place in the queue

# What asking again does not change.
FINAL = re.compile(
    "invalid|unrecognized|not installed|configuration source|denied|disabled|not permitted|not possible", re.IGNORECASE
)

# Variables that change what SLURM's commands show or do. None of them may change an answer.
PERSONAL = ("SLURM_", "SBATCH_", "SQUEUE_", "SCANCEL_", "SACCT_", "SCONTROL_")

# sbatch's variables whose option has another name; and those that belong to one call, not to a site or a user.
OPTION_OF = {"timelimit": "time", "mem-per-node": "mem"}
OF_ONE_CALL = ("array-inx", "wait")

# Options of which sbatch accepts one: where a batch file has one of them, no variable may add another.
ALTERNATIVES = (
    {"mem", "mem-per-cpu", "mem-per-gpu"},
    {"gres", "gpus", "gpus-per-node", "gpus-per-task"},
    {"cpus-per-task", "cpus-per-gpu"},
    {"requeue", "no-requeue"},
)


# Variables of sbatch, without SBATCH_, that say where a job goes and who pays: the same for all jobs of a submission.
LASTING = ("account", "clusters", "constraint", "partition", "qos", "reservation", "wckey")


class NoAnswer(SettingsError):
    """SLURM does not answer, so nobody knows.

    Args:
        command: which of its commands.
        said: its own words.
    """

    def __init__(self, command: str, said: str) -> None:
        super().__init__(f"{command} does not answer: {said}")
        self.said = said


def environment() -> dict[str, str]:
    """The variables for SLURM's commands: without those of a surrounding job and the user's own habits."""
    kept = {}
    for name, value in os.environ.items():
        # SLURM_CONF says where the cluster is.
        if name == "SLURM_CONF" or not name.startswith(PERSONAL):
            kept[name] = value
    return kept


def submission_environment(batch: str) -> dict[str, str]:
    """The variables for sbatch: outside a job with what the site or the user's profile says, such as SBATCH_ACCOUNT.

    To sbatch such a variable counts more than a line of the batch file. So one that the file has a line for is left
    out: what is in the file was asked for. Inside a job they are all left out, since they may be that job's own.

    Args:
        batch: path of the batch file.
    """
    kept = environment()
    if "SLURM_JOB_ID" in os.environ:
        return kept

    decided = {*OF_ONE_CALL, *options_in(batch)}
    for group in ALTERNATIVES:
        if group & decided:
            decided |= group

    for name, value in os.environ.items():
        option = name.removeprefix("SBATCH_").lower().replace("_", "-")
        if name == "SLURM_CLUSTERS":
            option = "clusters"
        elif not name.startswith("SBATCH_"):
            continue
        if OPTION_OF.get(option, option) not in decided:
            kept[name] = value
    return kept


def site_options(batch: str) -> list[str]:
    """What the site or the user's profile has set for sbatch, as options: for a job that submits more of the same.

    Args:
        batch: path of the batch file, which has no line for them.
    """
    kept = submission_environment(batch)
    options = []
    for option in LASTING:
        value = kept.get(f"SBATCH_{option.upper()}") or (kept.get("SLURM_CLUSTERS") if option == "clusters" else None)
        if value:
            options.append(f"--{option}={value}")
    return options


def options_in(batch: str) -> set[str]:
    """The names of the options in a batch file's #SBATCH lines."""
    try:
        with open(batch, encoding="utf-8") as file:
            return set(re.findall(r"^#SBATCH --([a-z-]+)", file.read(), re.MULTILINE))
    except OSError:
        return set()  # sbatch will say so


def call(
    command: Sequence[str], timeout: float = 120.0, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of SLURM's commands.

    Args:
        command: the command and its arguments.
        timeout: seconds to wait for it.
        variables: its environment; None: `environment()`.

    Raises:
        NoAnswer: it is not installed here.
    """
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment() if variables is None else variables,
            timeout=timeout,
        )
    except OSError:
        said = f"{command[0]} is not installed here: go to a login node of the cluster"
        raise NoAnswer(command[0], said) from None
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"timed out after {timeout:.0f} s")


def words(done: subprocess.CompletedProcess[str]) -> str:
    """What a command has said, in one line."""
    said = " ".join((done.stderr or done.stdout).split())
    return said or f"exit code {done.returncode} without a word"


def ask(command: Sequence[str], pauses: Sequence[float] = ()) -> str:
    """The output of a command that may be repeated.

    Args:
        command: the command and its arguments.
        pauses: seconds before each new try; (): ask once.

    Raises:
        NoAnswer: it has failed each time, or has said that it always will.
    """
    for pause in (*pauses, None):
        done = call(command)
        if done.returncode == 0:
            return done.stdout

        said = words(done)
        if pause is None or FINAL.search(said):
            raise NoAnswer(command[0], said)
        print(f"{command[0]}: {said}; trying again in {pause} s", file=sys.stderr, flush=True)
        time.sleep(pause)
    raise AssertionError("unreachable")
