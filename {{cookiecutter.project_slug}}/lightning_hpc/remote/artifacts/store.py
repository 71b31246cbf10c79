"""wandb://ENTITY/PROJECT: artifacts of Weights & Biases; `client.py` says how files become artifacts.

W&B's client runs in a process of its own, which is started by the first question and ends with this one.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...settings.errors import SettingsError
from ..answers import refused
from ..store import Missing, StoreError, check_size, relative, whole

CLIENT = Path(__file__).with_name("client.py")

FAREWELL = 5.0  # seconds

KEYS = "log in with `wandb login`, or set WANDB_API_KEY"

# Of W&B's variables those that say who asks, and whom. The rest is of the training's own run, or of its sweep.
KEPT = {
    "WANDB_API_KEY",
    "WANDB_BASE_URL",
    "WANDB_CONFIG_DIR",
    "WANDB_CREDENTIALS_FILE",
    "WANDB_IDENTITY_TOKEN_FILE",
    "WANDB_INSECURE_DISABLE_SSL",
    "WANDB_X_EXTRA_HTTP_HEADERS",
}


class Client:
    """The process that speaks to W&B, and the folder that W&B's client writes into.

    Args:
        place: entity and project.
    """

    def __init__(self, place: Sequence[str]) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="mirror-", ignore_cleanup_errors=True)
        environment = {name: value for name, value in os.environ.items() if not name.strip("_").startswith("WANDB_")}
        environment |= {name: os.environ[name] for name in KEPT & set(os.environ)}
        environment |= dict.fromkeys(("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"), self.folder.name)
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

        # A session of its own: Ctrl-C on a terminal is for the run.
        command = [sys.executable, "-P", str(CLIENT), *place]
        self.process = subprocess.Popen(command, env=environment, start_new_session=True, text=True, **pipes)

    def ask(self, operation: str, argument: Any) -> dict[str, Any]:
        """What it answers, see `client.py`; {}: it has ended."""
        try:
            print(json.dumps([operation, argument]), file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline() or "{}")
        except BrokenPipeError:
            return {}

    def end(self) -> None:
        """End it; it has some seconds to end its run in W&B."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(FAREWELL)
        with contextlib.suppress(ProcessLookupError):  # what it has started: W&B's service
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self.folder.cleanup()


class Artifacts:
    """A project of W&B as a place for files: each is in a folder, of which a put is all or nothing.

    Args:
        address: wandb://ENTITY/PROJECT.

    Raises:
        SettingsError: the address is none, or wandb is not installed.
    """

    seconds_between_puts = 0.0

    def __init__(self, address: str) -> None:
        found = re.fullmatch(r"wandb://([\w.-]+)/([\w.-]+)", address)
        if not found:
            raise SettingsError(f"{address}: an address of W&B is wandb://ENTITY/PROJECT")
        if find_spec("wandb") is None:
            raise SettingsError("a mirror at wandb:// needs wandb: pip install wandb")

        self.address = address
        self.place = found.groups()
        self.lock = threading.Lock()
        self.client: Client | None = None

    def put(self, files: Mapping[str, Path]) -> None:
        """As `Store.put`; of each folder all files or none."""
        paths = {}
        for name, source in files.items():
            name = relative(name)
            if not re.fullmatch(r"[\w.-]{1,128}/.+", name):
                raise StoreError(f"{self.address}: {name!r} is in no folder that W&B could have", permanent=True)
            source.open("rb").close()  # a file here that can't be read is no fault of W&B
            paths[name] = str(source.absolute())
        if paths:
            self._ask("put", paths)

    def get(self, name: str, target: Path) -> None:
        """As `Store.get`."""
        with whole(target) as part:
            size = self._ask("get", [relative(name), str(part.absolute())])
            check_size(self.address, name, part, size)

    def list(self, folder: str) -> dict[str, int]:
        """As `Store.list`."""
        return self._ask("sizes", relative(folder) if folder else "")

    def delete(self, names: Iterable[str]) -> None:
        """As `Store.delete`; a version of which nothing counts any more goes as a whole."""
        paths = [relative(name) for name in names]
        if paths:
            self._ask("delete", paths)

    def _ask(self, operation: str, argument: Any) -> Any:
        """What the client answers.

        Raises:
            Missing, StoreError: as `Store` says.
            OSError: of the disk here.
        """
        mode = os.environ.get("WANDB_MODE", "online")
        if mode not in ("online", "shared"):
            raise StoreError(f"{self.address}: W&B was told to stay away (WANDB_MODE={mode})", permanent=True)

        with self.lock:
            if self.client is None:
                self.client = self._start()
            said = self.client.ask(operation, argument)

            # After a failure W&B's run may take nothing more, or its service have died; the next client begins anew.
            if not {"answer", "missing"} & set(said):
                self.client.end()
                self.client = None

        if "answer" in said:
            return said["answer"]
        if "missing" in said:
            raise Missing(self.address, argument[0])
        if said.get("errno"):
            raise OSError(said["errno"], os.strerror(said["errno"]), said["file"])
        if said.get("status"):
            raise refused(self.address, said["status"], said.get("headers"), keys=KEYS)
        raise StoreError(f"{self.address}: no answer ({said.get('kind', 'W&B client has ended')})")

    def _start(self) -> Client:
        """The client, which ends at the latest with this process or object."""
        client = Client(self.place)
        weakref.finalize(self, client.end)
        return client
