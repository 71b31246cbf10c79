"""The commands `Train.py push` and `Train.py pull`: a run into its mirror, and out of it. No torch."""

import argparse
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..remote import Store, StoreError, open_store
from ..runs.folder import RunFolder, now
from ..runs.identity import existing_folder
from ..settings.errors import SettingsError
from ..settings.flat import Flat, find_settings_file, read_settings
from ..settings.layers import BASE
from ..settings.one_run import one_run_parser, run_of
from ..settings.places import command, existing, in_project, shown
from ..survive.checkpoint_files import whole_steps
from ..survive.whole import damage
from .fence import Taken, check_free, new_owner, who
from .fetch import Fetcher, asked, total
from .pointer import POINTER, Piece, Pointer
from .run_mirror import RunMirror
from .sender import note_of
from .settings import Mirror, MirrorError, read_mirror
from .upload import About, Upload

PAUSES = (2.0, 10.0, 30.0, 60.0)  # seconds between the tries of an upload

PUSH = "Upload what is not yet in its mirror of a run: settings, status, metrics, and the newest and best checkpoints."
PUSH_EXAMPLES = """examples:
  python Train.py push runs/default/000-base-0123abcd
  python Train.py push runs/default/000-base-0123abcd --mirror.url file:///scratch/mirror
  python Train.py push runs/default/000-base-0123abcd --dry-run
"""

PULL = """Fetch a run from the mirror into its folder here: its newest and its best checkpoint, and all small files.
What is as new or newer here stays as it is."""
PULL_EXAMPLES = """examples:
  python Train.py pull 0123abcd                         by its identity, or the first digits of it
  python Train.py pull runs/default/000-base-0123abcd   by its folder, whether it is here or not
  python Train.py pull --all --small                    all runs without checkpoints, for Report.py and status
  python Train.py pull 0123abcd --config mirrors/s3.yaml --mirror.url s3://my-bucket/project
"""


def push(argv: Sequence[str], root: Path) -> int:
    """Upload a run; returns the exit code.

    Args:
        argv: the command's arguments.
        root: the project's folder.

    Raises:
        SettingsError: there is no such run or mirror, or the mirror is ahead, or refuses.
    """
    parser = one_run_parser("push", PUSH, PUSH_EXAMPLES, "the run's folder")
    add_mirror(parser)
    arguments = parser.parse_args(argv)
    path = existing(run_of(arguments, "push"))
    config = path / "config.yaml"
    if not config.is_file():
        raise SettingsError(f"{path} is not a run's folder: it has no config.yaml")

    settings = mirror_of(arguments, settings_of(arguments, root, read_settings(config)))
    folder = RunFolder(path)
    with folder.locked():
        status = folder.status()
        mirror = RunMirror(opened(settings), str(status.get("identity")))
        pointer = asked(mirror.read)
        check_may_push(pointer, folder, mirror)

        about = About(mirror.identity, status.get("name", path.parent.name), path.name)
        upload = Upload(mirror, folder, about, settings, pointer)
        try:
            return upload_all(upload, arguments.dry_run)
        finally:
            upload.staging.clear()


def check_may_push(pointer: Pointer | None, folder: RunFolder, mirror: RunMirror) -> None:
    """Check that what is in the mirror is older than what is here, and that no machine trains the run.

    Raises:
        MirrorError: it is newer, or one does.
    """
    if pointer is None:
        return
    me = new_owner(folder.path, note=False)
    check_free(pointer, me, pointer.notice, lambda: asked(mirror.read), print)
    here = max(whole_steps(folder.path / "checkpoints"), default=0)
    if pointer.step > here:
        raise MirrorError(
            f"the mirror is ahead: step {pointer.step} is there and {here} here. Fetch it: "
            f"{command('Train.py', 'pull', folder.path)}"
        )


def upload_all(upload: Upload, dry_run: bool) -> int:
    """Upload the state of a run's folder, or say what that would be; returns the exit code."""
    newest, best = upload.staging.on_disk(), upload.staging.best()
    if dry_run:
        pieces = set(upload.staging.small_files())
        for staged in (newest, best):
            pieces |= set(staged.copy().pieces) if staged else set()
        there = asked(upload.mirror.sizes)
        missing = [piece for piece in pieces if there.get(piece.name) != piece.size]
        print(listing(missing))
        print(f"{total(missing)} would go to {upload.mirror.address}; nothing was sent")
        return 0

    for pause in (*PAUSES, None):
        try:
            began = time.monotonic()
            sent = upload.send(newest, best, with_small=True, released=True)
            break
        except Taken as error:
            raise MirrorError(str(error)) from None
        except StoreError as error:
            if error.permanent or pause is None:
                raise MirrorError(f"{error}. What was in the mirror before is still there") from error
            print(f"{error}; it is tried again in {pause:.0f} s")
            time.sleep(max(pause, min(error.retry_after or 0.0, 300.0)))

    upload.folder.update(mirror=note_of(upload))
    seconds = time.monotonic() - began
    step = upload.pointer.step if upload.pointer else 0
    print(f"sent {sent / 1e6:,.1f} MB in {seconds:.1f} s; {upload.mirror.address} has step {step}")
    return 0


def pull(argv: Sequence[str], root: Path) -> int:
    """Fetch one run, or all; returns the exit code.

    Args:
        argv: the command's arguments.
        root: the project's folder.

    Raises:
        SettingsError: there is no such run or mirror, or it can't be asked.
    """
    parser = one_run_parser("pull", PULL, PULL_EXAMPLES, "the run's identity, 8 to 16 digits, or its folder")
    parser.add_argument("--all", action="store_true", help="all runs that the mirror has")
    parser.add_argument("--small", action="store_true", help="without checkpoints: what tables and reports need")
    add_mirror(parser)
    arguments = parser.parse_args(argv)
    if arguments.all and (arguments.run or arguments.named):
        raise SettingsError("--all means all runs: name none")

    flat = settings_of(arguments, root)
    runs = in_project(str(flat.get("runs_dir", "runs")))
    store = opened(mirror_of(arguments, flat))
    if arguments.all:
        identities = sorted(all_runs(store))
    else:
        identities = [identity_of(run_of(arguments, "pull"), store)]

    for identity in identities:
        mirror = RunMirror(store, identity)
        pointer = asked(mirror.read)
        if pointer is None:
            raise SettingsError(f"{mirror.address}: there is no such run in the mirror")
        pull_one(mirror, pointer, shown(runs), arguments)
    if arguments.all:
        print(f"{len(identities)} run{'s' * (len(identities) != 1)} in {store.address}")
    return 0


def pull_one(mirror: RunMirror, pointer: Pointer, runs: Path, arguments: argparse.Namespace) -> None:
    """Fetch a run that a mirror has.

    Args:
        mirror: the run's folder there.
        pointer: what it says.
        runs: the folder of all runs here.
        arguments: of the command line.
    """
    folder = existing_folder(runs / pointer.experiment / pointer.folder, pointer.identity)
    state = pointer.state
    if not pointer.released:
        ago = max(0.0, time.time() - pointer.heartbeat)
        state = f"{state}, by {who(pointer)}, last sign of life {ago:.0f} s ago"
    print(f"{folder.path}: step {pointer.step}, {state}")

    here = whole_steps(folder.path / "checkpoints")
    newest = max(here, default=0)
    is_same = here and newest == pointer.step and folder.status().get("state") == state
    if newest > pointer.step or is_same:
        print(f"nothing to fetch: step {newest} is here")
        return

    if arguments.dry_run:
        pieces = list(pointer.files)
        if not arguments.small:
            pieces += {piece for copy in (*pointer.checkpoints[:1], pointer.best) if copy for piece in copy.pieces}
        print(listing(pieces))
        print(f"{total(pieces)} would come from {mirror.address}; nothing was fetched")
        return

    with folder.locked():
        fetcher = Fetcher(mirror, folder.path, damage, tell=lambda line: print(f"  {line}", flush=True))
        fetched = fetcher.small(pointer) if arguments.small else fetcher.newest(pointer)
        pointer = fetched.pointer  # a later one, if the run went on meanwhile
        note = dict(time=now(), host=pointer.owner.get("host"), ended=pointer.released)
        folder.update(fetched=note)
    for line in fetched.damaged:
        print(f"warning: {line}")
    print(f"fetched {fetched.files} file{'s' * (fetched.files != 1)}, {fetched.size / 1e6:,.1f} MB")


def add_mirror(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which mirror."""
    option = parser.add_argument
    option("--config", "-c", action="append", default=[], metavar="FILE", help="settings that name the mirror")
    option("--mirror.url", dest="url", metavar="URL", help="the mirror (default: that of the settings)")
    option("--mirror.public", dest="public", choices=["true", "false"], help="true: everybody may read it")
    option("--dry-run", action="store_true", help="say what would be done, and do nothing")


def settings_of(arguments: argparse.Namespace, root: Path, of_run: Flat | None = None) -> Flat:
    """The settings of the project, then of a run, as far as it has a mirror, then of the files that were named."""
    flat = dict(read_settings(root / BASE))
    flat |= {key: value for key, value in (of_run or {}).items() if value is not None}
    for name in arguments.config:
        flat |= read_settings(find_settings_file(name, root))
    return flat


def mirror_of(arguments: argparse.Namespace, flat: Flat) -> Mirror:
    """The mirror that is meant: the command line wins over what `settings_of` has found.

    Raises:
        SettingsError: none is named.
    """
    flat = dict(flat)
    if arguments.url:
        flat["mirror.url"] = arguments.url
    if arguments.public:
        flat["mirror.public"] = arguments.public == "true"

    settings = read_mirror(flat)
    if settings.url is None:
        raise SettingsError("no mirror is named: --mirror.url URL, or mirror.url in configs/base.yaml")
    return settings


def opened(settings: Mirror) -> Store:
    """The mirror itself.

    Raises:
        MirrorError: it can't be asked.
    """
    return asked(lambda: open_store(str(settings.url), public=settings.public))


def all_runs(store: Store) -> list[str]:
    """The identities of all runs in a mirror."""
    names = asked(lambda: store.list(""))
    return [name.split("/")[0] for name in names if name.count("/") == 1 and name.endswith(f"/{POINTER}")]


def identity_of(run: Path, store: Store) -> str:
    """The identity of the run that was typed.

    Args:
        run: a run's folder, here or not, or the run's identity or the beginning of it.
        store: the mirror.

    Raises:
        SettingsError: the mirror has no such run, or several.
    """
    known = RunFolder(existing(run)).status().get("identity")
    if known:
        return known

    digits = re.search(r"(?:^|-)([0-9a-f]{8,16})$", run.name)
    if digits is None:
        raise SettingsError(f"{run} is neither a run's folder nor an identity, which is 8 to 16 hexadecimal digits")
    if len(digits[1]) == 16:
        return digits[1]
    found = [identity for identity in all_runs(store) if identity.startswith(digits[1])]
    if len(found) != 1:
        several = f": {', '.join(found)}" if found else ""
        raise SettingsError(f"{store.address} has {len(found)} runs whose identity begins with {digits[1]}{several}")
    return found[0]


def listing(pieces: Iterable[Piece]) -> str:
    """A line for each file, with its size in bytes."""
    ordered = sorted(pieces, key=lambda piece: piece.place)
    return "\n".join(f"{piece.size:>15,}  {piece.place}" for piece in ordered)
