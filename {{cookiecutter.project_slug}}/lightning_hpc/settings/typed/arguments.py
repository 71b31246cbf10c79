"""The settings that Train.py has, beside those of the classes that are chosen: the parser that knows their types."""

from typing import Literal

from jsonargparse import ActionConfigFile
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser

from ..classes import import_class
from ..errors import SettingsError
from .messages import one_line

# Sections whose class is another room's: by name, as all that a user can name.
CHECKPOINTS = "lightning_hpc.survive.checkpoints.Checkpoints"
MIRROR = "lightning_hpc.mirror.settings.Mirror"
CKA_CALLBACK = "lightning_hpc.cka.CKACallback"


class Parser(LightningArgumentParser):
    """The parser, with errors of one line instead of the whole usage."""

    def error(self, message: str, ex: Exception | None = None) -> None:
        # The parser of a class within only raises: the outermost one has the whole message and reports it.
        if not self.exit_on_error:
            super().error(message, ex)

        raise SettingsError(one_line(message)) from ex


def build_parser(command: str) -> Parser:
    """The parser of a command of Train.py, which takes a good part of a second to build.

    Args:
        command: fit, validate, test or predict.
    """
    parser = Parser(prog=f"Train.py {command}", description=None, allow_abbrev=False)

    # Files are merged before the parser is asked; --config is here for --help, and to hand it one object.
    parser.add_argument("--config", "-c", action=ActionConfigFile, help="File of settings; may be repeated.")
    parser.add_argument(
        "--seed_everything", type=bool | int, default=0, help="Seed of all that is random; default: the trial."
    )

    # subclass_mode: the settings choose the class, and the class has the settings.
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    add_run_arguments(parser)

    # fit has --resume for this, which takes a checkpoint too.
    if command != "fit":
        parser.add_argument(
            "--ckpt_path", type=str | None, help="Checkpoint: its path or name (best, last, step-…); default: the best."
        )

    return parser


def add_run_arguments(parser: Parser) -> None:
    """Add the settings that are not those of a class of Lightning's."""
    # What a run is called, and what tells it from others.
    parser.add_argument("--name", default="default", help="Experiment: its runs share a folder and a W&B group.")
    parser.add_argument(
        "--runs_dir",
        default="runs",
        help="Where run folders go. Typed, a relative path counts from where it is typed; in a file, from the project.",
    )
    parser.add_argument("--trial", type=int, default=0, help="Repetition: gives the seed and the folder's number.")
    parser.add_argument("--codeversion", type=str | None, help="Any text; a new one makes new runs of old settings.")
    parser.add_argument("--init_seed", type=int | None, help="Seed of the initial weights; default: seed_everything.")

    # Where training begins.
    parser.add_argument(
        "--resume",
        default="auto",
        help="fit: auto, never, must, or a checkpoint's path or name (best, last, step-…).",
    )
    parser.add_argument("--extend", type=str | None, help="Folder of a finished run, which this one trains for longer.")
    parser.add_argument(
        "--code",
        type=Literal["same", "changed"],
        default="same",
        help="changed: continue an interrupted run although its code has changed since.",
    )
    parser.add_argument("--then", type=Literal["test"] | None, help="test: test the run at its end, as `test` does.")
    parser.add_argument("--canary", type=bool, default=False, help="Save and stop after the first validation.")
    parser.add_argument(
        "--init_from",
        type=str | None,
        help="Weights that a new run starts from: a run's folder, a checkpoint, a file of weights (.pt, .safetensors).",
    )
    parser.add_argument(
        "--init_strict", type=bool, default=True, help="All weights must be in it, and no others; false: what fits."
    )

    # The user sets Checkpoints but doesn't choose another class for it; the run itself fills in `config`.
    parser.add_class_arguments(import_class(CHECKPOINTS), "checkpoints", instantiate=False, skip={"config"})
    parser.add_class_arguments(import_class(MIRROR), "mirror", instantiate=False)
    parser.add_subclass_arguments(import_class(CKA_CALLBACK), "cka", required=False)

    # How the network runs, and for how long; steps and samples are put into the Trainer's own terms later.
    parser.add_argument("--compile", type=bool, default=False, help="torch.compile the network.")
    parser.add_argument(
        "--total_batch_size",
        type=int | None,
        help="Samples per optimizer step over all devices; sets the accumulation.",
    )
    parser.add_argument("--max_samples", type=int | None, help="Length of the run in training samples.")
    parser.add_argument(
        "--val_every_steps",
        type=int | None,
        help="Validate every so many optimizer steps, counted as accumulation × batches.",
    )
    parser.add_argument("--val_every_samples", type=int | None, help="Validate every so many training samples.")
