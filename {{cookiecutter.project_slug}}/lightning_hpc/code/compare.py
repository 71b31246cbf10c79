"""Whether a run's code has changed since the run was trained with it; what to say, and what to type.

Files count that the run can have used: those of the packages and modules that its settings name, of what these import,
and of the rooms of lightning_hpc that take part in training. A new file counts by the one that has begun to import it.
"""

import ast
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..settings.errors import SettingsError
from ..settings.places import quoted
from .fingerprint import STORE, can_matter, copy_of, digest_of, keep, kept, name_of, read_fingerprint
from .listing import read_code
from .snapshot import is_snapshot, read_version

logger = logging.getLogger(__name__)

MACHINE_ROOM = "lightning_hpc"

# What of lightning_hpc has no part in training: it starts runs, and looks at them.
NOT_IN_TRAINING = {
    "code", "clusters", "arrays", "slurm", "scheduler", "experiments", "packing", "sweeps", "results", "export",
    "mirror", "remote", "planning", "report", "hosts", "kubernetes", "reproduction", "entrance.py", "notify.py",
    "printing.py",
}  # fmt: skip

MOST_NAMED = 4

# Variables by which a run knows that nobody is there to answer: an agent, or a container that was started again.
UNATTENDED = ("LIGHTNING_HPC_TRIAL", "WANDB_SWEEP_ID", "KUBERNETES_SERVICE_HOST", "RESUBMITTED")

# What to type: settings that make another run, or that start this one over.
NEW_RUN = "--codeversion NAME (any text) or --trial N for a new run"
START_OVER = "--resume never to start over (what is there moves to .old/)"


def note_code(status: Mapping[str, Any], root: Path, runs: Path) -> tuple[dict[str, Any], str | None]:
    """Keep the code of a run, and say what its status.json notes of it.

    Args:
        status: what it has noted so far.
        root: the folder of the code.
        runs: the folder of runs.

    Returns:
        its fields `code`, the fingerprint; `code_before`, those of earlier attempts; `commit`; `uncommitted_changes`;
        and what is not committed, as a patch.
    """
    code = None if is_snapshot(root) else read_code(root, runs)
    version = read_version(root, code)
    digests = read_fingerprint(root, code, runs / STORE)
    fingerprint = name_of(digests)
    try:
        keep(digests, root, runs / STORE)
    except OSError as error:  # the disk is full: the run can do without
        logger.warning("the code is not kept in %s: %s", runs / STORE, error)

    before = list(status.get("code_before") or [])
    last = status.get("code")
    if last not in (None, fingerprint):
        before.append(last)
    fields = dict(
        code=fingerprint,
        code_before=before,
        commit=version.commit,
        uncommitted_changes=version.uncommitted_changes,
    )
    return fields, version.diff


def changes_since(status: Mapping[str, Any], root: Path, runs: Path, settings: Mapping[str, Any]) -> list[str] | None:
    """What of a run's code is different from what it was trained with.

    Args:
        status: its status.json.
        root: the folder of today's code.
        runs: the folder of runs.
        settings: its settings, which name classes.

    Returns:
        the paths of files that are changed or removed; None where nobody knows what the code was.
    """
    then = kept(str(status.get("code")), runs / STORE)
    if not then:
        return None

    changed = [name for name, digest in then.items() if can_matter(name) and digest_of(root / name) != digest]
    if not changed:
        return []
    names = names_used(root, settings, then)
    return sorted(name for name in changed if is_used(name, names))


def is_used(name: str, names: set[str]) -> bool:
    """True if a run can have used a file.

    Args:
        name: its path.
        names: the packages and modules that the run uses.
    """
    path = PurePosixPath(name)
    if path.parts[0] == MACHINE_ROOM:
        return path.parts[1] not in NOT_IN_TRAINING

    # What is no Python can be read or compiled by anything.
    return path.suffix != ".py" or path.parts[0].removesuffix(".py") in names


def names_used(root: Path, settings: Mapping[str, Any], files: Mapping[str, str]) -> set[str]:
    """The packages and modules beside Train.py that a run uses: its settings name them, or one of them imports them."""
    own = {PurePosixPath(name).parts[0].removesuffix(".py") for name in files if name.endswith(".py")}
    own.discard(MACHINE_ROOM)

    text = json.dumps(list(settings.values()), default=str)
    pending = own & set(re.findall(r"\b([A-Za-z_]\w*)\.[A-Za-z_]", text))
    used: set[str] = set()
    while pending:
        name = pending.pop()
        used.add(name)
        pending |= (imports_of(root, name) & own) - used
    return used


def imports_of(root: Path, name: str) -> set[str]:
    """The first names of all that a package or module beside Train.py imports."""
    names: set[str] = set()
    for file in [root / f"{name}.py", *(root / name).rglob("*.py")]:
        try:
            tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue  # what can't be read can't be used either
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names


def in_words(changed: list[str], status: Mapping[str, Any], root: Path, runs: Path) -> str:
    """`model.py and networks.py have changed since (diff runs/.code/ab/cdef model.py)`."""
    named = changed[:MOST_NAMED]
    if len(changed) > MOST_NAMED:
        named = [*named, f"{len(changed) - MOST_NAMED} more files"]
    verb = "has" if len(changed) == 1 else "have"
    text = f"{' and '.join(filter(None, [', '.join(named[:-1]), named[-1]]))} {verb} changed since"

    # The copy of the first one shows what it was.
    first = changed[0]
    copy = copy_of(kept(str(status.get("code")), runs / STORE)[first], runs / STORE)
    file = root / first
    if copy.is_file() and file.is_file():
        text += f" (diff {quoted(copy)} {quoted(os.path.relpath(file))})"
    return text


def is_unattended(root: Path) -> bool:
    """True if nobody is there to answer: a job, also one that SLURM has put back, an agent's trial, a pod.

    Runs of a snapshot have their code chosen at submission, or by `retry --fresh-code`.
    """
    if is_snapshot(root) or any(name in os.environ for name in UNATTENDED):
        return True
    return "SLURM_JOB_ID" in os.environ and not os.isatty(0)


def check_code(
    status: Mapping[str, Any], root: Path, runs: Path, settings: Mapping[str, Any], changed_is_fine: bool
) -> list[str]:
    """Check that a run which resumes from a checkpoint has the code that it began with.

    Nobody has to answer where nobody is: what is unattended continues, and says that the code has changed. So does a
    run that has failed, since its code had to be mended.

    Args:
        status: the run's status.json.
        root: the folder of today's code.
        runs: the folder of runs.
        settings: the run's settings.
        changed_is_fine: the user has said that it may continue with other code.

    Returns:
        a warning, if the code has changed; [] if it has not, or nobody knows.

    Raises:
        SettingsError: the code has changed, and the user has to choose.
    """
    changed = changes_since(status, root, runs, settings)
    if not changed:
        return []

    words = in_words(changed, status, root, runs)
    if changed_is_fine or status.get("state") == "failed" or is_unattended(root):
        return [f"warning: from here on with other code: {words}"]
    raise SettingsError(
        f"this run was interrupted at step {status.get('step', 0)}, and {words}. Undo that, or add --code changed to "
        f"continue with today's code, {NEW_RUN}, {START_OVER}",
        page="configure.md#when-the-code-has-changed",
    )


def done_line(status: Mapping[str, Any], root: Path, runs: Path, settings: Mapping[str, Any]) -> str:
    """What to say about a run that is done already, and what to type for another one."""
    changed = changes_since(status, root, runs, settings)
    if changed:
        words = in_words(changed, status, root, runs)
        return f"This run is done already, with other code: {words}.\nAdd {NEW_RUN}, {START_OVER}."
    return f"This run is done already. Add other settings or another --trial for a new run, {START_OVER}."


def warn_of_other_code(status: Mapping[str, Any], root: Path, runs: Path, settings: Mapping[str, Any]) -> list[str]:
    """A line if a run was trained with other code than today's."""
    changed = changes_since(status, root, runs, settings)
    if not changed:
        return []
    return [f"warning: it was trained with other code: {in_words(changed, status, root, runs)}"]


def notes_on_done(
    statuses: Iterable[Mapping[str, Any]], root: Path, runs: Path, settings: Mapping[str, Any]
) -> list[str]:
    """Lines for runs of an experiment that are done and were trained with other code than today's: one a version."""
    versions: dict[str, list[Mapping[str, Any]]] = {}
    for status in statuses:
        versions.setdefault(str(status.get("code")), []).append(status)

    lines = []
    for same in versions.values():
        changed = changes_since(same[0], root, runs, settings)
        if changed:
            words = in_words(changed, same[0], root, runs)
            lines.append(f"note: {len(same)} done with other code: {words}; `codeversion: NAME` makes new runs")
    return lines
