"""Copies of the code, for jobs that may wait for days; and which commit it is, with all that is not committed."""

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .. import __version__
from ..settings.errors import SettingsError
from ..settings.places import NOTE, note_of
from .git import changed_files, commit_of, committed_sizes, diff_of, ignored_code, machine_room_changed
from .keys import key_by_name, key_in
from .listing import LARGEST_TEXT, NO_CODE, Code, read_code
from .sent import sent_version

DIFF = "uncommitted.diff"

TRIES = 5  # copies of code that changes while it is copied

MOST_NAMED = 8  # of what is left out; the rest is counted


@dataclass
class Version:
    """Which version of the code it is.

    Attributes:
        commit: of git; None where there is none.
        uncommitted_changes: whether it differs from the commit; None where there is none.
        diff: how it differs, as a patch; None if it does not.
    """

    commit: str | None = None
    uncommitted_changes: bool | None = None
    diff: str | None = None


def take_snapshot(root: Path, target: Path, without: Path) -> None:
    """Copy the project's code, and note which version it is.

    Args:
        root: the project's folder.
        target: where the copy goes; nothing is there yet.
        without: the folder of runs, wherever it is.

    Raises:
        SettingsError: code has a key in it, which must not be copied; or it changes all the time.
    """
    # Somebody may be editing it, or have another commit checked out: a copy of a bit of each would be no version.
    for _ in range(TRIES):
        try:
            code = read_code(root, without)
            check_keys(code)
            copy_files(code, target)
            version = read_version(root, code)
            changed = changed_meanwhile(code, target, version)
        except FileNotFoundError as error:
            changed = error.filename
        if changed is None:
            break
        shutil.rmtree(target, ignore_errors=True)
    else:
        raise SettingsError(f"{changed} is being changed while the code is copied: try again when that is over")

    # The list of files says, later, what of the copy is code: jobs may write other files beside it.
    note = dict(commit=version.commit, uncommitted_changes=version.uncommitted_changes, lightning_hpc=__version__)
    note |= dict(project=note_of(root, target), files=code.files, left_out=code.left_out)
    (target / NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    if version.diff:
        (target / DIFF).write_text(version.diff, encoding="utf-8")


def copy_files(code: Code, target: Path) -> None:
    """Copy the files of the code, and its links."""
    target.mkdir(parents=True, exist_ok=True)
    for name in code.files:
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(code.root / name, copy)
    for name, place in code.links.items():
        link = target / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(place)


def changed_meanwhile(code: Code, target: Path, version: Version) -> str | None:
    """What of the code is no longer as it was when it was copied, and its version was read; None if all is."""
    for name in code.files:
        if (code.root / name).read_bytes() != (target / name).read_bytes():
            return name
    commit = commit_of(code.root)
    return None if commit in (None, version.commit) else f"commit {commit}"


def check_keys(code: Code) -> None:
    """Check that no file of the code has a key in it.

    Raises:
        SettingsError: one has; the message says where.
    """
    for name in code.files:
        key = key_in((code.root / name).read_bytes())
        if key:
            raise SettingsError(
                f"{name} has what looks like {key}, and jobs run from a copy of the code: keep keys in the environment "
                "or outside the project, or let .gitignore name the file if the code does not need it",
                page="slurm.md#what-a-submission-does",
            )


def notes_on_code(root: Path, without: Path) -> list[str]:
    """Lines to read before jobs get a snapshot: changes of the machine room, and what a job may miss.

    Args:
        root: the project's folder.
        without: the folder of runs.
    """
    lines = []
    changed = machine_room_changed(root)
    if changed:
        lines.append(f"note: lightning_hpc/ is not as delivered, and is submitted as it is: {', '.join(changed)}")
    missing = left_out(root, without)
    if missing:
        lines.append(f"note: the jobs' copy of the code is without {', '.join(missing)}")
    return lines


def left_out(root: Path, without: Path) -> list[str]:
    """What a snapshot leaves out, and why."""
    reasons = dict(read_code(root, without).left_out)
    for path in ignored_code(root):
        reasons[path] = "named in .gitignore"

    # Pictures and weights beside the code are many and hardly missed; what may be missed is named.
    named, counted = [], Counter()
    for path, reason in sorted(reasons.items()):
        if reason == NO_CODE or len(named) == MOST_NAMED:
            counted[reason] += 1
        else:
            named.append(f"{path} ({reason})")
    return [*named, *(f"{number} more files ({reason})" for reason, number in counted.most_common(3))]


def is_snapshot(root: Path) -> bool:
    """True if a folder of code is a copy that jobs run from."""
    return (root / NOTE).is_file()


def read_note(root: Path) -> dict:
    """What was noted when a snapshot was taken: project, commit, uncommitted_changes, files, left_out."""
    return json.loads((root / NOTE).read_text(encoding="utf-8"))


def read_version(root: Path, code: Code | None = None) -> Version:
    """The commit of the code in a folder, and what is not committed; nothing where there is no commit.

    Args:
        root: a project's folder, or a snapshot of one, which has the answer in files.
        code: its files, if they are known.
    """
    # A run of an experiment works in a snapshot, where git would tell about another folder, or nothing.
    if is_snapshot(root):
        note, file = read_note(root), root / DIFF
        diff = file.read_text(encoding="utf-8") if file.is_file() else None
        return Version(note["commit"], note.get("uncommitted_changes"), diff)

    commit = commit_of(root)
    new = (code or read_code(root)).new
    if commit is None:
        return Version(**sent_version(root, new))
    changed = changed_files(root)
    if not new and not changed:
        return Version(commit, False)
    return Version(commit, True, read_diff(root, changed, new))


def read_diff(root: Path, changed: list[str], new: list[str]) -> str:
    """What is not committed, as a patch: changes of tracked files, and new files as a whole.

    Large files and those with keys are named at its top; git itself only names binary ones.
    """
    committed = committed_sizes(root)
    not_shown = {}
    for name in [*changed, *new]:
        file = root / name
        size = max(file.stat().st_size if file.is_file() else 0, committed.get(name, 0))
        if size > LARGEST_TEXT:
            not_shown[name] = f"{size / 1e6:.1f} MB"
        elif key_by_name(name):
            not_shown[name] = "looks like a key, by its name"

    patch = diff_of(root, [name for name in changed if name in not_shown])
    patches = [f"diff --git {text}" for text in f"\n{patch}".split("\ndiff --git ")[1:]]
    patches += [patch_of_new(root, name) for name in new if name not in not_shown]

    lines = [f"# not shown: {name} ({reason})" for name, reason in not_shown.items()]
    for text in patches:
        key = key_in(text.encode("utf-8"))
        if key:
            lines.append(f"# not shown: {text.splitlines()[0].rpartition(' b/')[2]} (has what looks like {key})")
        else:
            lines.append(text.removesuffix("\n"))
    return "\n".join(lines) + "\n"


def patch_of_new(root: Path, name: str) -> str:
    """A patch that makes a file that git does not know, in git's form."""
    content = (root / name).read_bytes()
    head = f"diff --git a/{name} b/{name}\nnew file mode 100644\n"
    if b"\0" in content[:8000]:
        return f"{head}Binary files /dev/null and b/{name} differ\n"

    if not content:
        return head

    lines = content.decode("utf-8", errors="replace").split("\n")
    ending = "\\ No newline at end of file\n"
    if not lines[-1]:
        lines, ending = lines[:-1], ""
    added = "".join(f"+{line}\n" for line in lines)
    return f"{head}--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{len(lines)} @@\n{added}{ending}"
