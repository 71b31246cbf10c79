"""Why runs are not done, by cause: what each cause looks like, and what helps.

Evidence, in this order: how SLURM says the job has ended, the reason in status.json, and what was
printed into the log at the end of the last attempt. Whoever is to be told of one more cause adds a line to CAUSES.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..scheduler.sbatch import array
from ..settings.places import command
from .experiment import Experiment
from .standing import Standing


@dataclass(frozen=True)
class Cause:
    """One kind of cause.

    Attributes:
        name: as `retry --cause` takes it.
        says: what has happened.
        remedy: what helps; {retry} stands for the command, {nodes} for the nodes of these runs.
        signs: a regular expression that finds it in the evidence, upper and lower case alike.
    """

    name: str
    says: str
    remedy: str
    signs: str


# The first one whose signs are found. SLURM calls a job that was out of time or whose node has failed cancelled, too.
CAUSES = (
    Cause(
        "memory",
        "out of memory",
        "{retry} --memory with more than before; on a GPU, a smaller data.batch_size in a new experiment",
        r"out.?of.?memory|oom.?kill|exceeded( job)? memory limit|MemoryError|can(no|')t allocate memory"
        r"|killed by signal: killed",
    ),
    Cause(
        "nan",
        "the loss is no number any more",
        "a retry ends the same way: a lower model.optimizer.lr or trainer.gradient_clip_val, in a new experiment",
        r"\bDiverged\b|\bnans?\b|non-?finite|\binf\b",
    ),
    Cause(
        "disk",
        "the disk is full, or may not be written",
        "make room, or ask for a larger quota; then {retry}",
        r"no space left|quota exceeded|file too large|read-only file system|disk full|could not be written",
    ),
    Cause(
        "node",
        "a node or its GPU has failed",
        "{retry} --exclude {nodes}",
        r"node.?fail|BOOT_FAIL|uncorrectable|\bECC\b|no CUDA-capable|CUDA driver|unspecified launch failure|\bNVML\b"
        r"|stale file handle|transport endpoint|input/output error|bus error",
    ),
    Cause(
        "import",
        "code or environment could not be loaded",
        "mend `activate`, the modules or the packages, then {retry}; for changed code add --fresh-code",
        r"ModuleNotFoundError|ImportError|cannot open shared object|command not found|before Train\.py began",
    ),
    Cause(
        "time",
        "the time was not enough to get further",
        "{retry} --time (or --slice) with more than before, or save more often: checkpoints.every_n_minutes",
        r"no progress|max_requeues|TIMEOUT|time limit|DEADLINE",
    ),
    Cause(
        "cancelled",
        "cancelled, or stopped and not put back",
        "{retry}; it resumes",
        r"cancelled|preempt|interrupted|not put back|not submitted again",
    ),
    Cause(
        "data",
        "data are missing or damaged",
        "look at the path and the file that it names, then {retry}",
        r"DownloadError|FileNotFoundError|no such file|UnpicklingError|BadZipFile|EOFError|ReadError|SplitError"
        r"|DataLoader worker|damaged|the data have changed",
    ),
)

OTHER = Cause("other", "an error of its own", "see its log, {log}", "")

UNKNOWN = Cause("unknown", "gone without a word", "see its log, {log}, and ask `sacct` or the site; then {retry}", "")

NAMES = tuple(cause.name for cause in (*CAUSES, OTHER, UNKNOWN))

# Reasons that list what may have been, or that follow from something earlier: the log knows more.
VAGUE = re.compile("without a word|no progress between|max_requeues|has ended: (FAILED|COMPLETED)")

SILENT = re.compile("without a word")

# Lines of a log that tell how an attempt has ended: SLURM's, and those of a run that could not write its status.json.
ENDING = re.compile(r"^(slurmstepd|slurmd|srun|error:|warning: the state)\b.*", re.MULTILINE)

START = "run folder: "  # Train.py's first line in a log


def cause_of(experiment: Experiment, run: Standing) -> tuple[Cause, str]:
    """Why a run is not done, and the line that shows it."""
    reason = run.reason or run.state
    evidence = [text for text in last_words(experiment.log(run.index)) if not VAGUE.search(text)]
    is_vague = VAGUE.search(reason) or run.state == "stopped"
    texts = [*evidence, reason] if is_vague else [reason, *evidence]

    for text in texts:
        if SILENT.search(text):
            continue
        for cause in CAUSES:
            if re.search(cause.signs, text, re.IGNORECASE):
                return cause, text
        if not is_vague and text == reason:
            return OTHER, reason  # its own error says more than what SLURM prints of its end
    return UNKNOWN, reason


def last_words(log: Path) -> list[str]:
    """What a log says of the end of the last attempt, the last line first; [] without a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 65536))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    found = [match[0].strip() for match in ENDING.finditer(text.rpartition(START)[2])]
    return found[::-1]


def of_cause(experiment: Experiment, stand: Sequence[Standing], name: str) -> list[Standing]:
    """The runs that are not done for a cause of this name."""
    return [run for run in unfinished(stand) if cause_of(experiment, run)[0].name == name]


def unfinished(stand: Sequence[Standing]) -> list[Standing]:
    """The runs that have ended before they were done."""
    return [run for run in stand if run.state in ("failed", "lost", "stopped")]


def why(experiment: Experiment, stand: Sequence[Standing]) -> list[str]:
    """Two lines for each cause: which runs, what shows it; and what helps."""
    groups: dict[str, list[tuple[Standing, Cause, str]]] = {}
    for run in unfinished(stand):
        cause, text = cause_of(experiment, run)
        groups.setdefault(cause.name, []).append((run, cause, text))

    lines = []
    for name in sorted(groups, key=NAMES.index):
        runs = [run for run, _, _ in groups[name]]
        first, cause, text = groups[name][0]
        nodes = {experiment.last_job(run.index).get("node") or run.status.get("host") or "NODE" for run in runs}
        remedy = cause.remedy.format(
            retry=command("SlurmTrain.py", "retry", experiment.shown, "--cause", name),
            nodes=",".join(sorted(nodes)),
            log=experiment.log(first.index),
        )
        which = f"run{'s' * (len(runs) > 1)} {array([run.index for run in runs], None)}"
        lines += [f"{name}: {cause.says}, {which}: {text[:200]}", f"    {remedy}"]
    return lines
