"""What goes over to a host: the project's code, by the rules of a snapshot, and the files of a specification."""

import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..code.listing import read_code
from ..code.sent import SUMS, VERSION, line_of, version_text
from ..code.snapshot import TRIES, Version, check_keys, read_version
from ..settings.errors import SettingsError
from ..settings.flat import read_settings
from ..settings.layers import BASE
from ..settings.places import in_project


class Packed(NamedTuple):
    """A file as it was when it was packed."""

    content: bytes
    mode: int
    changed: float


@dataclass
class Parcel:
    """Files of a project that are sent, as they were when they were looked at: somebody may edit them before they go.

    Attributes:
        files: their paths in the project, with slashes, sorted, and what is in them.
        links: links to folders of the project, with what they point to.
        version: which version of the code they are.
    """

    files: dict[str, Packed]
    links: dict[str, str]
    version: Version

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(len(file.content) for file in self.files.values())

    def archive(self) -> bytes:
        """A tar archive: the files below files/, and beside it their SHA-256 and which version they are."""
        sums = []
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for name, file in self.files.items():
                sums.append(line_of(name, file.content))
                member = tarfile.TarInfo(f"files/{name}")
                member.size, member.mtime = len(file.content), file.changed
                member.mode = file.mode & 0o755  # no rights for others
                archive.addfile(member, io.BytesIO(file.content))

            for name, target in self.links.items():
                member = tarfile.TarInfo(f"files/{name}")
                member.type, member.linkname = tarfile.SYMTYPE, target
                archive.addfile(member)

            version = version_text(self.version.commit, self.version.uncommitted_changes, self.version.diff)
            for name, text in ((SUMS, "".join(sums)), (VERSION, version)):
                content = text.encode()
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return stream.getvalue()


def pack(root: Path, named: Iterable[Path] = ()) -> Parcel:
    """Take what is sent.

    Args:
        root: the project's folder.
        named: files that are needed whether or not they are code: a specification and its settings.

    Raises:
        SettingsError: one of them has a key in it, lies outside the project, or has a name that can't be sent; or they
            change all the time.
    """
    runs = in_project(read_settings(root / BASE).get("runs_dir", "runs"))
    named_there = [within(file, root) for file in named]

    # Somebody may be editing them: then the version, and the look for keys, would be about others than those sent.
    for _ in range(TRIES):
        try:
            code = read_code(root, runs)
            code.files = sorted({*code.files, *named_there})
            files = {name: packed(code.root / name) for name in code.files}
            check_keys(code)
            version = read_version(root, code)
            changed = next((name for name in files if packed(code.root / name) != files[name]), None)
        except FileNotFoundError as error:
            changed = error.filename
        if changed is None:
            break
    else:
        raise SettingsError(f"{changed} is being changed while the project is packed: try again when that is over")

    for name in files:
        if not name.isprintable() or "\\" in name:
            raise SettingsError(f"{name!r} can't be sent: give it a name without backslashes and control characters")
    links = {name: target for name, target in code.links.items() if not target.startswith("/")}
    return Parcel(files, links, version)


def packed(file: Path) -> Packed:
    """A file as it is now."""
    status = file.stat()
    return Packed(file.read_bytes(), status.st_mode, status.st_mtime)


def within(file: Path, root: Path) -> str:
    """A file's path in the project.

    Raises:
        SettingsError: it lies elsewhere.
    """
    path = file.absolute()
    for project in (root.absolute(), root.resolve()):
        if path.is_relative_to(project):
            return path.relative_to(project).as_posix()
    raise SettingsError(f"{file} lies outside the project, and only the project is sent: copy it into configs/")
