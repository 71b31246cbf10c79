"""The weights of a checkpoint alone, under the names that they have in the LightningModule."""

from pathlib import Path

import torch
from torch import Tensor

from ..settings.errors import SettingsError
from ..survive.checkpoint_io import AtomicCheckpointIO


def export_weights(checkpoint: Path, file: Path, name: str) -> list[tuple[str, str]]:
    """Write the weights in a checkpoint, with averages in the place of weights where the run keeps such.

    Neither the data nor the code of the model is needed, and every tensor keeps its type.

    Args:
        checkpoint: the checkpoint.
        file: the file to write.
        name: state_dict or safetensors.

    Returns:
        what there is to say: name, text.

    Raises:
        SettingsError: the format can't hold what the checkpoint has.
        CheckpointError: the checkpoint can't be read.
    """
    weights = AtomicCheckpointIO().load_checkpoint(checkpoint)["state_dict"]
    tensors = {key: value for key, value in weights.items() if isinstance(value, Tensor)}

    if name == "state_dict":
        torch.save(weights, file)
        written = torch.load(file, weights_only=True)
    else:
        from safetensors.torch import load_file, save_file

        others = [key for key in weights if key not in tensors]
        if others:
            raise SettingsError(f"safetensors holds tensors only, and {others[0]} is none: use --format state_dict")
        save_file({key: value.clone().contiguous() for key, value in tensors.items()}, file)  # none shares its memory
        written = load_file(file)

    if any(not torch.equal(value, written[key]) for key, value in tensors.items()):
        raise SettingsError(f"{name}: what was written is not what was read; is the disk in order?")
    count = sum(value.numel() for value in tensors.values())
    return [("weights", f"{len(tensors)} tensors with {count:,} numbers, such as {next(iter(tensors), 'none')}")]
