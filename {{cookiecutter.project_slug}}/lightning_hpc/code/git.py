"""What git knows of a project's folder: its files, its commit, what is not committed, and edits of the machine room."""

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

MACHINE_ROOM = "lightning_hpc"

# While git runs a hook, these point to the repository of the surrounding commit, which need not be the project's.
OF_ANOTHER_REPOSITORY = {
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_DIR", "GIT_GRAFT_FILE", "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE", "GIT_NAMESPACE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_REPLACE_REF_BASE", "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
}  # fmt: skip


@dataclass
class Listing:
    """Files and links below a folder, as paths with slashes relative to it; a repository inside it is one path.

    Attributes:
        tracked: what the folder's repository has.
        others: what it has not, without what .gitignore names.
    """

    tracked: list[str]
    others: list[str]


def git_output(root: Path, *command: str) -> str | None:
    """What a git command prints; None where there is no git or no repository."""
    environment = {name: value for name, value in os.environ.items() if name not in OF_ANOTHER_REPOSITORY}
    call = ["git", "-C", str(root), *command]
    try:
        process = subprocess.run(call, capture_output=True, check=True, timeout=60, env=environment)
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.decode("utf-8", errors="surrogateescape")


def git_paths(root: Path, *command: str) -> list[str] | None:
    """The paths that a git command with -z prints, sorted, none of them twice; None as for `git_output`."""
    text = git_output(root, *command)
    if text is None:
        return None
    return sorted(set(filter(None, text.split("\0"))))


def tracked_files(root: Path) -> list[str]:
    """The files of a folder that a repository has; [] where there is none, or the one around it does not know it."""
    return git_paths(root, "ls-files", "-z", "--cached", "--", ".") or []


def list_files(root: Path) -> Listing | None:
    """The files of a folder, with or without a repository; None where there is no git.

    A repository around the folder that tracks nothing in it is not the project's. The rules of .gitignore hold without
    a repository, too: an empty one, made for the question, knows them.
    """
    others = ["ls-files", "-z", "--others", "--exclude-standard"]
    tracked = tracked_files(root)
    if tracked:
        new = git_paths(root, *others, "--", ".")
        return None if new is None else Listing(tracked, new)

    with tempfile.TemporaryDirectory() as folder:
        if git_output(Path(folder), "init", "--quiet", "--template=") is None:
            return None
        here = [f"--git-dir={folder}/.git", f"--work-tree={root.resolve()}"]
        new = git_paths(root, *here, *others)
    return None if new is None else Listing([], new)


def ignored_code(root: Path) -> list[str]:
    """Python files, and packages, that .gitignore names: a package called data, for example."""
    if not tracked_files(root):
        return []
    ignored = git_paths(root, "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory", "--", ".")

    code = []
    for path in ignored or []:
        is_package = path.endswith("/") and (root / path / "__init__.py").is_file()
        if is_package or path.endswith(".py"):
            code.append(path)
    return code


def commit_of(root: Path) -> str | None:
    """The commit of a folder's code; None where there is none, or a repository around it does not know the folder."""
    if not tracked_files(root):
        return None
    return (git_output(root, "rev-parse", "HEAD") or "").strip() or None


def changed_files(root: Path) -> list[str]:
    """Tracked files of a folder that differ from its commit, deleted ones included."""
    return git_paths(root, "diff", "--relative", "--name-only", "-z", "HEAD", "--", ".") or []


def committed_sizes(root: Path) -> dict[str, int]:
    """File → bytes, as they are in the commit."""
    sizes = {}
    for line in (git_output(root, "ls-tree", "-r", "-l", "-z", "HEAD", ".") or "").split("\0"):
        fields, _, path = line.partition("\t")
        size = fields.rpartition(" ")[2]
        if size.isdigit():  # a repository inside this one has none
            sizes[path] = int(size)
    return sizes


def diff_of(root: Path, without: list[str]) -> str:
    """What has changed since the commit, as a patch for the folder, without some files."""
    plain = ["--relative", "--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/"]
    excluded = [f":(exclude,literal){path}" for path in without]
    text = git_output(root, "diff", *plain, "HEAD", "--", ".", *excluded) or ""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def machine_room_changed(root: Path) -> list[str] | None:
    """Which files of lightning_hpc/ somebody has changed since the template has delivered this version of it.

    The commit that last changed `__version__` is taken for the delivery. An edit that is older, and was merged with an
    update, counts as a part of it; so does one that a shallow clone no longer knows as an edit.

    Args:
        root: the project's folder.

    Returns:
        paths relative to it, sorted: files that are changed, removed or new, committed or not; None where nobody can
        know, since there is no git, or lightning_hpc/ has never been committed.
    """
    history = ["log", "-1", "--format=%H", "-G", "^__version__", "--", f"{MACHINE_ROOM}/__init__.py"]
    delivery = (git_output(root, *history) or "").strip()
    if not delivery:
        return None

    # --relative and -z: as seen from the project, which may be a part of a repository, and without quotes.
    changed = git_paths(root, "diff", "--relative", "--name-only", "-z", delivery, "--", MACHINE_ROOM)
    new = git_paths(root, "ls-files", "--others", "--exclude-standard", "-z", "--", MACHINE_ROOM)
    if changed is None or new is None:
        return None
    return sorted({*changed, *new})
