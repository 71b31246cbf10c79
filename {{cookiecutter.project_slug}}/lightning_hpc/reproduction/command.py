"""The command `Train.py reproduce`."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ..printing import counted
from ..provenance.environment import differences, of_machine
from ..runs.folder import EXIT_CODES, RunFolder
from ..settings.errors import SettingsError
from ..settings.one_run import one_run_parser, run_of
from ..settings.places import existing, shown
from .again import command_of, environment_of, place_of, prepare, train
from .kept import Kept, changed_code, obstacle, read_kept
from .verdict import compare, in_words

SAME, DIFFERENT, UNKNOWN = 0, 1, 3

DESCRIPTION = """Train a finished run again, from the code, the settings and the split that it has kept, into a folder
of its own, and say whether the result is the same to the bit; if not, what differs first, and what is different
here."""
EXAMPLES = """examples:
  python Train.py reproduce runs/wide/001-width=64-0123abcd
  python Train.py reproduce runs/wide/001-width=64-0123abcd --dry-run

exit codes: 0 the same to the bit, 1 not the same, 2 wrong usage, 3 nobody can say: the run is not done, was trained by
an earlier version, its code or its data are gone, or the training here has failed. 75, 76 and 130 as for fit: stopped,
and the same command goes on. --dry-run: 0 if it can be tried, otherwise 3
"""


def main(argv: Sequence[str], root: Path) -> int:
    """Reproduce one run; returns the exit code.

    Args:
        argv: the command's arguments.
        root: the project's folder.

    Raises:
        SettingsError: there is no such run, or it can't be trained by this command.
    """
    arguments = parser().parse_args(argv)
    run = read_kept(existing(run_of(arguments, "reproduce")))
    nodes = (run.environments[0].get("settings") or {}).get("trainer.num_nodes", 1) if run.environments else 1
    if nodes not in (1, None):
        raise SettingsError(f"{run.folder} was trained on {nodes} nodes, and reproduce starts processes on one only")
    reason = obstacle(run, root)
    if reason is not None:
        return unknown(reason)

    target = place_of(run)
    for line in plan(run, root, target):
        print(line, flush=True)
    if arguments.dry_run:
        return SAME

    if not target.exists():
        prepare(run, root, target)
    code = train(run, target)
    return answer(run, target, code)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = one_run_parser("reproduce", DESCRIPTION, EXAMPLES, "the run's folder")
    look = "say what would be done, and what is different here already"
    command.add_argument("--dry-run", action="store_true", help=look)
    return command


def plan(run: Kept, root: Path, target: Path) -> list[str]:
    """What is about to be done, one thing a line, and what is known to be different before it begins."""
    commit = run.status.get("commit")
    version = f"commit {commit[:8]}" if commit else "no commit"
    if run.status.get("uncommitted_changes"):
        version += " with changes"
    last = run.fingerprints[-1]
    length = f"{counted(last.epoch, 'epoch')}, {counted(last.step, 'step')}"
    lines = [
        f"run        {run.folder}, {length}, {run.status.get('seconds', 0):.0f} s",
        f"code       {len(run.code)} files as they were then ({version})",
        f"settings   {run.folder / 'config.yaml'}, without trackers",
    ]
    if (run.folder / "splits.npz").is_file():
        lines.append(f"split      {run.folder / 'splits.npz'}")
    changed = changed_code(run, root)
    if changed is not None:
        lines.append(f"note       today's code is another, and is not used: {changed}")

    lines.append(f"into       {shown(target)}{', which goes on' if target.exists() else ''}")
    threads = environment_of(run).get("OMP_NUM_THREADS")
    lines.append(f"command    OMP_NUM_THREADS={threads} {shlex.join(command_of(shown(target)))}")

    before = run.environments[0]
    here = of_machine()
    known = {name: value for name, value in before.items() if name in here}
    return lines + in_words(differences(known, here), "different here")


def answer(run: Kept, target: Path, code: int) -> int:
    """Say how the run that was trained again compares; returns the exit code.

    Args:
        run: what the run has kept.
        target: the folder in which it was trained again.
        code: the exit code of that training.
    """
    status = RunFolder(target).status()
    if code in (EXIT_CODES["preempted"], EXIT_CODES["time limit"], EXIT_CODES["interrupted"]):
        print("stopped: the same command goes on", file=sys.stderr)
        return code
    if code != 0 or status.get("state") != "done":
        return unknown(f"the training here has failed: {status.get('reason') or f'exit code {code}'}")

    again = read_kept(target)
    if not again.fingerprints:
        return unknown("the training here has left no fingerprints: is the disk full?")

    verdict = compare(run, again)
    print("the same to the bit" if verdict.same else "not the same")
    for line in verdict.lines:
        print(f"  {line}")
    return SAME if verdict.same else DIFFERENT


def unknown(reason: str) -> int:
    """Say why there is no answer; returns the exit code."""
    print(f"don't know: {reason}")
    return UNKNOWN
