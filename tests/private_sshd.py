"""An sshd of one's own for tests: on the loopback interface, with its own port, keys and configuration; no root.

    with PrivateSshd() as sshd:
        subprocess.run(["ssh", "there", "hostname"], env=sshd.environment)

`there` is its name for a program `ssh` that comes first on the PATH: the real one, with a configuration of its own in
place of the user's. Needs the Debian packages openssh-server, openssh-client and rsync.
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAMS = ("sshd", "ssh", "ssh-keygen", "rsync")
# The daemon is in /usr/sbin, which is not on every user's PATH.
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])

SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host-key
AuthorizedKeysFile {folder}/authorized-keys
PidFile {folder}/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
LogLevel VERBOSE
Subsystem sftp {folder}/sftp-server
"""

# What serves files; a test puts something else in its place to see a server that fails.
SFTP_SERVER = """\
#!/bin/sh
for program in /usr/lib/openssh/sftp-server /usr/libexec/openssh/sftp-server /usr/lib/ssh/sftp-server; do
    if [ -x $program ]; then {way}; fi
done
exit 1
"""

CLIENT = """\
Host there refusing
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known-hosts
    GlobalKnownHostsFile /dev/null
Host there
    IdentityFile {folder}/key
Host refusing
    IdentityFile {folder}/other-key
Host silent
    HostName 127.0.0.1
    Port {closed}
"""

# The real ssh, told where its configuration is; each call is written down.
SSH = """\
#!/bin/sh
printf "%s\\n" "$*" >> {folder}/ssh-calls
exec {ssh} -F {folder}/config "$@"
"""


def missing() -> list[str]:
    """The programs that are not installed."""
    return [program for program in PROGRAMS if not shutil.which(program, path=PATH)]


def free_port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def sshd() -> "Iterator[PrivateSshd]":
    """The daemon. Without it the tests are skipped, but fail in continuous integration."""
    if absent := missing():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no sshd here: {', '.join(absent)} not found")
    with PrivateSshd() as running:
        yield running


class PrivateSshd:
    """The daemon, and what a user has who can log in.

    Attributes:
        environment: variables with which `ssh there` reaches it.
        folder: its files, the user's keys and configuration among them.
    """

    def __enter__(self) -> "PrivateSshd":
        self.folder = Path(tempfile.mkdtemp(prefix="sshd-"))
        self.port = free_port()
        for name in ("key", "other-key", "host-key", "new-host-key"):
            self._keygen("-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name))
        shutil.copy(self.folder / "key.pub", self.folder / "authorized-keys")
        self.trust()

        values = dict(folder=self.folder, port=self.port, closed=free_port(), user=getpass.getuser())
        (self.folder / "sshd_config").write_text(SERVER.format(**values))
        (self.folder / "config").write_text(CLIENT.format(**values))
        (self.folder / "bin").mkdir()
        program = self.folder / "bin" / "ssh"
        program.write_text(SSH.format(folder=self.folder, ssh=shutil.which("ssh")))
        program.chmod(0o755)
        self.serve_files()
        self.environment = {**os.environ, "PATH": os.pathsep.join([str(program.parent), PATH])}
        self.environment.pop("PYTHONPATH", None)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.forget_connections()
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the daemon and wait until it listens."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where it separates privileges
        command = [shutil.which("sshd", path=PATH), "-D", "-f", str(self.folder / "sshd_config")]
        with (self.folder / "log").open("ab") as log:
            before = len(self.log())  # a daemon that was stopped has left its lines
            self.daemon = subprocess.Popen([*command, "-e"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + 60
        while f"listening on 127.0.0.1 port {self.port}" not in self.log()[before:]:
            assert self.daemon.poll() is None and time.monotonic() < end, self.log()
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the daemon; its sessions go on."""
        self.daemon.terminate()
        self.daemon.wait(30)

    def serve_files(self, way: str = "exec $program") -> None:
        """Say how sftp is served from the next login on, in the words of a shell: `$program` is the real server."""
        (self.folder / "sftp-server").write_text(SFTP_SERVER.format(way=way))
        (self.folder / "sftp-server").chmod(0o755)

    def trust(self, key: str = "host-key") -> None:
        """Let the user know a host key as that of this host, and no other."""
        public = (self.folder / f"{key}.pub").read_text()
        (self.folder / "known-hosts").write_text(f"[127.0.0.1]:{self.port} {public}")

    def forget_connections(self) -> None:
        """End the connection that calls share."""
        from lightning_hpc.hosts.ssh import SHARED

        for name in ("there", "refusing"):
            command = ["ssh", "-o", f"ControlPath={SHARED}/%C", "-O", "exit", name]
            subprocess.run(command, env=self.environment, capture_output=True)

    def sessions(self) -> list[int]:
        """Processes that serve a login."""
        said = subprocess.run(["pgrep", "-P", str(self.daemon.pid)], capture_output=True, text=True).stdout
        return [int(pid) for pid in said.split()]

    def end_sessions(self) -> None:
        """End all logins, as a host does that goes down."""
        for pid in self.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def log(self) -> str:
        """What the daemon has said."""
        return (self.folder / "log").read_text(errors="replace")

    def logins(self) -> int:
        """How many logins there have been."""
        return self.log().count("Accepted publickey")

    def calls(self) -> list[str]:
        """The command lines of ssh so far, without those that ask for the configuration."""
        file = self.folder / "ssh-calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if not line.startswith("-G ") and " -O " not in line]

    def _keygen(self, *arguments: str) -> None:
        subprocess.run(["ssh-keygen", *arguments], check=True, stdin=subprocess.DEVNULL)
