"""One ssh call: a script and files go over, words come back. Plain OpenSSH, with the user's own configuration.

The first call logs in; the connection stays open for some minutes, and those that follow need no password, no second
factor and no second login. Host keys are checked as ~/.ssh/config says, and nothing here weakens that.
"""

import os
import re
import secrets
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..processes import SSH_OPTIONS
from ..settings.errors import SettingsError

# Where connections are shared. A socket's path is at most 100 characters long, which TMPDIR may use up.
SHARED = Path(f"/tmp/lightning-hpc-{os.getuid()}")

PERSIST = "10m"  # how long a connection waits for the next command

QUIET = 0.5  # seconds without a new word, after which ssh is taken to wait for an answer of the user's

# What ssh says before it is logged in, and what helps. After any of these nothing has been sent.
REFUSALS = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED|host key for .* has changed",
     "its host key is not the one in ~/.ssh/known_hosts, so it may be another machine, and nothing was sent. Only if "
     "the site says that its key is new: ssh-keygen -R {host}"),
    ("Host key verification failed|authenticity of host",
     "its host key is not known here: type `ssh {host}` once, and compare what it shows with what the site publishes"),
    ("Could not resolve hostname",
     "ssh knows no host of that name: give its whole name, or an entry of your ~/.ssh/config"),
    ("Connection refused", "it is there, and no ssh answers: is the port right (~/.ssh/config)?"),
    ("timed out during banner|connect to .* timed out|No route to host|Network is unreachable",
     "no answer: are you in the site's network or VPN?"),
    ("Permission denied|Too many authentication failures|no more authentication methods",
     "it does not let you in: `ssh {host}` has to work first"),
    ("kex_exchange_identification|no matching|banner exchange", "ssh could not log in"),
    ("Bad configuration option|bad configuration options|Bad owner or permissions", "your ~/.ssh/config has a mistake"),
)  # fmt: skip


class LostConnection(SettingsError):
    """The connection has ended before the command there has, so nobody knows what has become of it."""


def options(host: str) -> list[str]:
    """Options for ssh: those of every call, and for a connection that later calls share, unless the user's own does so.

    Args:
        host: as one types it after ssh.
    """
    configured = call(["ssh", "-G", "--", host]).lower()
    if re.search(r"^controlpath (?!none$)", configured, re.MULTILINE):
        return [*SSH_OPTIONS]

    # Nobody else may put a socket there.
    try:
        SHARED.mkdir(mode=0o700, exist_ok=True)
        there = SHARED.lstat()
    except OSError:
        return [*SSH_OPTIONS]
    if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.getuid() or stat.S_IMODE(there.st_mode) & 0o077:
        return [*SSH_OPTIONS]
    path = f"ControlPath={SHARED}/%C"
    return [*SSH_OPTIONS, "-o", "ControlMaster=auto", "-o", path, "-o", f"ControlPersist={PERSIST}"]


def call(command: Sequence[str]) -> str:
    """The output of a command that asks nothing.

    Raises:
        SettingsError: it is not installed here.
    """
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
    except OSError:
        raise SettingsError(f"{command[0]} is not installed here") from None


class Conversation:
    """A program that talks to a host: its lines one by one, and what it says of errors.

    Args:
        command: ssh or rsync, with its arguments.
        sent: what it reads.
        variables: its environment; None: that of this process.

    Attributes:
        begun: True once the host has answered; from then on errors are shown as they come.
        code: the exit code, once all lines were read.
        errors: what it has said of errors that was not shown.
    """

    def __init__(self, command: Sequence[str], sent: bytes = b"", variables: Mapping[str, str] | None = None) -> None:
        self.command, self.sent, self.variables = command, sent, variables
        self.begun = False
        self.code: int | None = None
        self.errors = ""

    def lines(self) -> Iterator[str]:
        """Run it, and yield its lines.

        Raises:
            SettingsError: it is not installed here.
        """
        # Files, not pipes, for what is sent and for errors: a shared connection stays, and may keep a pipe open.
        with tempfile.TemporaryFile() as sent, tempfile.TemporaryFile() as said:
            sent.write(self.sent)
            sent.seek(0)
            try:
                process = subprocess.Popen(
                    self.command, stdin=sent, stdout=subprocess.PIPE, stderr=said, env=self.variables
                )
            except OSError:
                raise SettingsError(f"{self.command[0]} is not installed here") from None

            over = threading.Event()
            watch = threading.Thread(target=self._show_errors, args=(said.fileno(), over), daemon=True)
            watch.start()
            try:
                with process:
                    for line in process.stdout:
                        yield line.decode("utf-8", errors="replace").rstrip("\n")
            finally:
                over.set()
                watch.join()
            self.code = process.returncode

    def _show_errors(self, file: int, over: threading.Event) -> None:
        """Show errors as they come; before the host has answered only those after which ssh waits for the user."""
        shown, last = 0, b""
        while True:
            is_over = over.wait(QUIET)
            new = os.pread(file, 1 << 20, shown)
            waits = new == last and not is_over
            if new and (self.begun or waits):
                sys.stderr.write(new.decode("utf-8", errors="replace"))
                sys.stderr.flush()
                shown, new = shown + len(new), b""
            if is_over:
                self.errors = new.decode("utf-8", errors="replace")
                return
            last = new


def refusal(host: str, errors: str) -> SettingsError | None:
    """What to do about a login that has failed; None if these errors are not about a login."""
    for said, helps in REFUSALS:
        if re.search(said, errors, re.IGNORECASE):
            lines = [line.strip() for line in errors.splitlines() if line.strip(" @\r")]
            return SettingsError(f"{host}: {helps.format(host=host)} (ssh: {lines[-1]})")
    return None


def run_script(host: str, script: str, sent: bytes = b"") -> list[str]:
    """Run a script in a login shell of the host; its lines are printed.

    Args:
        host: as one types it after ssh.
        script: for bash; with `$mark` it begins the lines that it tells this program.
        sent: what the script reads from its standard input.

    Returns:
        what the script has told, without the mark; `begun` is the first.

    Raises:
        SettingsError: there was no login.
        LostConnection: it has ended, and nobody knows where in the script.
    """
    mark = f"#{secrets.token_hex(8)}"
    command = ["ssh", *options(host), "--", host, "bash", "-l", "-s"]
    talk = Conversation(command, f"mark='{mark}'\n{script}".encode() + sent)
    told: list[str] = []
    for line in talk.lines():
        words, found, rest = line.partition(mark)  # not always a line of its own: the one before may have no end
        if talk.begun and (words or not found):  # before that, a profile greets
            print(words, file=sys.stderr if words.startswith("error: ") else sys.stdout, flush=True)
        if found:
            told.append(rest.strip())
            talk.begun = True

    if not told and talk.code and (problem := refusal(host, talk.errors)):
        raise problem
    if not told and talk.code not in (0, 255):
        raise SettingsError(f"{host} can't run `bash -l`: {' '.join(talk.errors.split()) or f'exit code {talk.code}'}")
    if not told or talk.code:
        words = " ".join(talk.errors.split())
        raise LostConnection(
            f"the connection to {host} was lost{f' ({words})' if words else ''}", page="slurm.md#from-a-laptop"
        )
    return told
