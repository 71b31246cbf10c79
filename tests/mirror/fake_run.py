"""Run folders without a training: whole checkpoints of a few kilobytes, and what stands beside them."""

import zipfile
from pathlib import Path

from lightning_hpc.mirror.fence import new_owner
from lightning_hpc.mirror.run_mirror import RunMirror
from lightning_hpc.mirror.settings import Mirror
from lightning_hpc.mirror.upload import About, Upload
from lightning_hpc.remote import Store, open_store
from lightning_hpc.runs.folder import RunFolder
from lightning_hpc.survive.checkpoint_files import give_name, read_meta, remove_checkpoint, step_files, write_meta
from lightning_hpc.survive.whole import finish_folder

IDENTITY = "0123456789abcdef"


def content(step: int) -> bytes:
    """What the checkpoint of a step holds: 100 KB that are the same for the same step."""
    return (f"weights after {step} steps ".encode() * 6000)[:100_000]


def save(run: Path, step: int, best: bool = False, as_folder: bool = False) -> dict:
    """Write a checkpoint as a run does, the two newest being kept; returns what on_save is told."""
    folder = run / "checkpoints"
    path = folder / f"step-{step:08d}.ckpt"
    inner = path / ".metadata" if as_folder else path
    inner.parent.mkdir(parents=True, exist_ok=True)
    if as_folder:
        inner.write_bytes(content(step))
        finish_folder(path)
    else:
        with zipfile.ZipFile(inner, "w") as archive:
            archive.writestr(zipfile.ZipInfo("weights"), content(step))

    entry = dict(file=path.name, step=step, epoch=1, saved=f"at step {step}")
    give_name(path, folder / "last.ckpt")
    if best:
        give_name(path, folder / "best.ckpt")
    meta = read_meta(folder)
    kept = [*[old for old in meta.get("kept", []) if old["step"] < step][-1:], entry]
    write_meta(folder, dict(last=entry, best=entry if best else meta.get("best"), kept=kept))
    for old, file in step_files(folder).items():
        if old not in [one["step"] for one in kept]:
            remove_checkpoint(file)
    RunFolder(run).update(step=step)
    (run / "metrics.csv").write_text("step,loss\n" + "".join(f"{row},0.5\n" for row in range(step)))
    return entry


def weights(path: Path) -> bytes:
    """What a checkpoint holds."""
    if path.is_dir():
        return (path / ".metadata").read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read("weights")


def make_run(path: Path) -> RunFolder:
    """A run that has begun, in a new folder."""
    folder = RunFolder(path)
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").write_text("name: default\n")
    (path / "overlay.yaml").write_text("{}\n")
    if not folder.status():
        folder.update(identity=IDENTITY, name="default", state="running", attempt=1)
    return folder


def there(address: str) -> RunMirror:
    """The run in the mirror with this address."""
    return RunMirror(open_store(address), IDENTITY)


def upload_of(folder: RunFolder, store: Store | str, fresh: bool = False, resumed: int | None = None) -> Upload:
    """An upload of a run, as an attempt begins it."""
    mirror = RunMirror(open_store(store) if isinstance(store, str) else store, IDENTITY)
    about = About(IDENTITY, "default", folder.path.name)
    return Upload(mirror, folder, about, Mirror("file:///any"), mirror.read(), resumed, fresh)


def send(upload: Upload, step: int, best: bool = False, released: bool = False, as_folder: bool = False) -> None:
    """Save a checkpoint, and upload it."""
    entry = save(upload.folder.path, step, best, as_folder)
    staging = upload.staging
    upload.send(staging.newest(entry), staging.best() if best else None, True, released)


def stranger(**changes: object) -> dict:
    """The owner of a run on a machine that is not this one."""
    return new_owner(Path("/nowhere"), note=False) | dict(host="other", boot="another", pid=7) | changes
