"""What goes over to a host: the project's code, by the rules of a snapshot, and the files of a specification."""

import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..code.listing import read_code
from ..code.sent import SUMS, VERSION, line_of, version_text
from ..code.snapshot import Version, check_keys, read_version
from ..settings.errors import SettingsError
from ..settings.flat import read_settings
from ..settings.layers import BASE
from ..settings.places import in_project


@dataclass
class Parcel:
    """Files of a project that are sent.

    Attributes:
        root: the project's folder.
        files: their paths in it, with slashes, sorted.
        links: links to folders of the project, with what they point to.
        version: which version of the code they are.
    """

    root: Path
    files: list[str]
    links: dict[str, str]
    version: Version

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum((self.root / name).stat().st_size for name in self.files)

    def archive(self) -> bytes:
        """A tar archive: the files below files/, and beside it their SHA-256 and which version they are."""
        sums = []
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", dereference=True) as archive:
            for name in self.files:
                content = (self.root / name).read_bytes()
                sums.append(line_of(name, content))
                member = nobodys(archive.gettarinfo(self.root / name, f"files/{name}"))
                member.size = len(content)  # as it was read: somebody may be writing it
                archive.addfile(member, io.BytesIO(content))

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


def nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A file of an archive as a plain one, without its owner here and without rights for others."""
    member.type, member.linkname = tarfile.REGTYPE, ""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode &= 0o755
    return member


def pack(root: Path, named: Iterable[Path] = ()) -> Parcel:
    """Look which files are sent.

    Args:
        root: the project's folder.
        named: files that are needed whether or not they are code: a specification and its settings.

    Raises:
        SettingsError: one of them has a key in it, lies outside the project, or has a name that can't be sent.
    """
    runs = in_project(read_settings(root / BASE).get("runs_dir", "runs"))
    code = read_code(root, runs)
    for file in named:
        code.files.append(within(file, root))
    code.files = sorted(set(code.files))
    check_keys(code)

    for name in code.files:
        if not name.isprintable() or "\\" in name:
            raise SettingsError(f"{name!r} can't be sent: give it a name without backslashes and control characters")
    links = {name: target for name, target in code.links.items() if not target.startswith("/")}
    return Parcel(code.root, code.files, links, read_version(root, code))


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
