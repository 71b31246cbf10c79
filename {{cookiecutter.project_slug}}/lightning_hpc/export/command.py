"""The command `Train.py export`."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..settings.errors import SettingsError
from ..settings.one_run import one_run_parser, run_of
from .packages import FORMATS, check_installed

if TYPE_CHECKING:
    from ..survive.checkpoint_files import Found

DESCRIPTION = "Write the model of a run as a file for other programs. Nothing is overwritten."
EXAMPLES = """formats:
  onnx           what the model computes, for other programs and languages; a batch of any size
  torchscript    what the model computes, for PyTorch without this code; a batch of any size
  state_dict     the weights alone, for torch.load
  safetensors    the weights alone, in a format that many programs read

examples:
  python Train.py export runs/wide/001-width=64-0123abcd
  python Train.py export runs/wide/001-width=64-0123abcd --checkpoint last --format safetensors -o wide.safetensors
"""


def main(argv: Sequence[str], root: Path) -> int:
    """Export the model of a run, and say what was written and how to load it; returns the exit code.

    Args:
        argv: the command's arguments.
        root: the project's folder.

    Raises:
        SettingsError, CheckpointError: what was asked for can't be done; nothing has been written.
    """
    arguments = parser().parse_args(argv)
    run = run_of(arguments, "export")
    check_installed(arguments.format)

    # Late: torch takes seconds, and the help needs none.
    from .computation import export_computation
    from .weights import export_weights

    found = checkpoint_of(run, arguments.checkpoint, root)
    target = arguments.output
    if target is None:
        target = found.path.parent.parent / "export" / f"{found.path.stem}{FORMATS[arguments.format].ending}"
    check_free(target)

    # All of it is written and checked beside the target, and then gets its name: a file there is a whole one.
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
        file = Path(folder) / target.name
        if FORMATS[arguments.format].weights_only:
            lines = export_weights(found.path, file, arguments.format)
        else:
            lines = export_computation(found.path, file, arguments.format, root)

        # Of a large ONNX model the weights are a second file.
        parts = sorted(Path(folder).iterdir())
        size = sum(part.stat().st_size for part in parts)
        for part in parts:
            check_free(target.with_name(part.name))
        for part in parts:
            part.replace(target.with_name(part.name))

    print(f"wrote     {target} ({size / 1e6:.3g} MB), from {found.path} (step {found.step}, epoch {found.epoch})")
    for name, text in lines:
        print(f"{name:<9} {text}")
    print(f"load it   {FORMATS[arguments.format].how_to_load.format(file=target)}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = one_run_parser("export", DESCRIPTION, EXAMPLES, "the run's folder, or one of its checkpoints")
    option = command.add_argument
    option("--format", choices=FORMATS, default="onnx", help="see below (default: onnx)")
    option("--checkpoint", metavar="NAME", help="best, last or step-… (default: best, where there is one)")
    option("-o", "--output", type=Path, metavar="FILE", help="the file to write (default: in the run's export/)")
    return command


def checkpoint_of(run: Path, name: str | None, root: Path) -> "Found":
    """The checkpoint to export.

    Args:
        run: a run's folder or a checkpoint; it counts from the working folder, or else from the project's.
        name: of the checkpoint; None for the best, or the last where none is known as the best.
        root: the project's folder.

    Raises:
        SettingsError, CheckpointError: there is no such run or checkpoint, or it is no single file.
    """
    from ..survive.checkpoint_files import find_checkpoint

    if not run.exists() and (root / run).exists():
        run = root / run
    if run.is_file():
        if name is not None:
            raise SettingsError(f"{run} is a checkpoint already: leave out --checkpoint {name}")
        return find_checkpoint(run.parent, str(run))

    folder = run / "checkpoints"
    if not folder.is_dir():
        raise SettingsError(f"{run} is neither a run's folder nor a checkpoint")
    if name is None:
        name = "best" if (folder / "best.ckpt").exists() else "last"
    found = find_checkpoint(folder, name)
    if found.path.is_dir():
        raise SettingsError(
            f"{found.path} is a folder, as FSDP and DeepSpeed write it: make one file of it first, such as by "
            "python -m lightning.pytorch.utilities.consolidate_checkpoint"
        )
    return found


def check_free(file: Path) -> None:
    """Raise SettingsError if something has this name already."""
    if file.exists() or file.is_symlink():
        raise SettingsError(f"{file} is there already: move it away, or name another file with -o")
