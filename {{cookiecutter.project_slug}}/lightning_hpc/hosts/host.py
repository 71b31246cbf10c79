"""Which login node, and where the project is there: configs/hosts/NAME.yaml, or HOST:FOLDER as it is typed."""

import re
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath

from ..settings.errors import SettingsError, did_you_mean
from ..settings.yaml_files import read_yaml

HOSTS = "configs/hosts"

# As ssh takes it, with a user or without. A word that begins with a hyphen would be an option to ssh.
ADDRESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*", re.ASCII)


@dataclass(frozen=True)
class Host:
    """A login node, and the project there.

    Attributes:
        name: what it is called here: of its file, or as it was typed.
        host: what one types after ssh; user, port and keys belong in ~/.ssh/config.
        folder: the project's folder there; a relative one counts from the home directory.
        cluster: the preset of its cluster; None: that of configs/slurm.yaml.
        activate: a line of shell that activates the project's environment there; None: that of the preset, or .venv.
    """

    name: str
    host: str
    folder: str
    cluster: str | None = None
    activate: str | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.folder}"


def names(root: Path) -> list[str]:
    """The hosts that the project in `root` has files for."""
    return sorted(file.stem for file in (root / HOSTS).glob("*.yaml"))


def find_host(typed: str, root: Path) -> Host:
    """The host that --on names.

    Raises:
        SettingsError: there is no file of that name and it is not HOST:FOLDER, or what it says can't be.
    """
    known = names(root)
    if typed in known:
        return read_host(root / HOSTS / f"{typed}.yaml")
    if ":" not in typed:
        raise SettingsError(
            f"there is no {HOSTS}/{typed}.yaml{did_you_mean(typed, known)}: write that file, with `host:` and "
            "`folder:`, or name the host and the project's folder there as HOST:FOLDER"
        )
    host, _, folder = typed.partition(":")
    return checked(Host(host, host, folder), typed)


def read_host(file: Path) -> Host:
    """The host that a file describes.

    Raises:
        SettingsError: a key is missing or unknown, or a value can't be.
    """
    where = f"{HOSTS}/{file.name}"
    data = read_yaml(file)
    known = [field.name for field in fields(Host) if field.name != "name"]
    for key, value in data.items():
        if key not in known:
            raise SettingsError(f"{where}: unknown key {key}{did_you_mean(str(key), known)}")
        if not isinstance(value, str) or not value:
            raise SettingsError(f"{where}: {key} has to be text")
    for key in ("host", "folder"):
        if key not in data:
            raise SettingsError(f"{where} lacks `{key}:`")
    return checked(Host(name=file.stem, **data), where)


def checked(host: Host, where: str) -> Host:
    """A host whose address and folder can be handed to ssh and rsync as they are.

    Raises:
        SettingsError: they can't.
    """
    if not ADDRESS.fullmatch(host.host):
        raise SettingsError(
            f"{where}: {host.host!r} is no host: write what you type after ssh, such as user@login.example.org; "
            "a port and all else belongs in ~/.ssh/config"
        )

    folder = host.folder.removeprefix("~/")
    if not folder or folder.startswith(("~", ":", "-")) or not folder.isprintable():
        raise SettingsError(
            f"{where}: {host.folder!r} is no folder: write that on {host.host}, from the home directory or from /"
        )
    return Host(host.name, host.host, str(PurePosixPath(folder)), host.cluster, host.activate)
