"""What a model computes, as ONNX or TorchScript: its `forward` in evaluation mode, for a batch of any size."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from ..logs import quiet_lightning
from ..settings.errors import SettingsError
from ..training.evaluate import LoadedRun, load
from .packages import is_installed

SAMPLES = 2  # of the batch that the model is followed with: of 1, PyTorch would take the size as fixed

# How far a number may be from the model's own, as a share of the largest: another order of sums does no more.
TOLERANCE = 1e-4

# A file of ONNX holds at most 2 GiB; the weights of larger models are a second file beside it.
LARGEST = 2**31 - 2**24


class Forward(nn.Module):
    """`forward` of a model and no more, with its outputs in a fixed order: tensors, for a program that knows no dicts.

    Args:
        model: a LightningModule.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Any:
        outputs = tuple(outputs_of(self.model(*inputs)).values())
        return outputs[0] if len(outputs) == 1 else outputs


def export_computation(checkpoint: Path, file: Path, name: str, root: Path) -> list[tuple[str, str]]:
    """Write what a model computes, and hold it against the model.

    Args:
        checkpoint: the run's checkpoint.
        file: the file to write.
        name: onnx or torchscript.
        root: the project's folder.

    Returns:
        what there is to say: name, text.

    Raises:
        SettingsError: the model can't be exported so, or what was exported computes something else.
    """
    run = load(checkpoint, root)
    inputs = example_inputs(run)
    model = Forward(run.model).eval()
    with torch.no_grad():
        outputs = outputs_of(run.model(*inputs))

    write = write_onnx if name == "onnx" else write_torchscript
    try:
        checked_by, difference = write(model, inputs, list(outputs), file)
    except SettingsError:
        raise
    except Exception as error:  # whatever a model can be, the exporters have as many ways to say that they can't
        raise SettingsError(f"--format {name}: this model can't be exported so: {first_line(error)}") from error

    lines = [("inputs", ", ".join(shape(key, value) for key, value in zip(input_names(inputs), inputs, strict=True)))]
    lines += [("outputs", ", ".join(shape(key, value) for key, value in outputs.items()))]
    if checked_by is None:
        lines.append(("checked", "not, since onnxruntime is not installed: pip install onnxruntime"))
    else:
        lines.append(("checked", f"{checked_by} gives what the model gives, to within {difference:.1g}"))
    return lines


def write_onnx(model: Forward, inputs: tuple[Tensor, ...], outputs: list[str], file: Path) -> tuple[str | None, float]:
    """Write ONNX; returns what has checked it, if something could, and the largest difference."""
    for noisy in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    batch = torch.export.Dim("batch", min=1)
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            inputs,
            file,
            dynamo=True,
            verbose=False,
            input_names=input_names(inputs),
            output_names=outputs,
            dynamic_shapes=(tuple({0: batch} for _ in inputs),),
            external_data=size > LARGEST,
        )
    if not is_installed("onnxruntime"):
        return None, 0.0

    import onnxruntime

    session = onnxruntime.InferenceSession(file)

    def run(*arguments: Tensor) -> list[Tensor]:
        named = {key: value.numpy() for key, value in zip(input_names(inputs), arguments, strict=True)}
        return [torch.from_numpy(value) for value in session.run(None, named)]

    return f"onnxruntime {onnxruntime.__version__}", compare(model, run, inputs)


def write_torchscript(
    model: Forward, inputs: tuple[Tensor, ...], outputs: list[str], file: Path
) -> tuple[str | None, float]:
    """Write TorchScript; returns what has checked it and the largest difference."""
    # PyTorch looks at every attribute, and a LightningModule's `trainer` is an error as long as it has none.
    quiet_lightning()
    model.model.trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript is no longer developed; who asks for it knows
        torch.jit.trace(model, inputs, check_trace=False).save(file)
        traced = torch.jit.load(file)

    def run(*arguments: Tensor) -> list[Tensor]:
        return list(outputs_of(traced(*arguments)).values())

    return "torch.jit", compare(model, run, inputs)


def compare(model: Forward, run: Any, inputs: tuple[Tensor, ...]) -> float:
    """The largest difference between a model and what was exported, for batches of other sizes, too.

    Args:
        model: the model.
        run: the same, as it was exported: inputs → list of outputs.
        inputs: of SAMPLES samples.

    Raises:
        SettingsError: they compute different things.
    """
    largest = 0.0
    for size in (SAMPLES, 1, 2 * SAMPLES + 1):
        indices = torch.arange(size) % SAMPLES
        arguments = tuple(value[indices] for value in inputs)
        with torch.no_grad():
            expected = outputs_of(model(*arguments)).values()
            computed = run(*arguments)

        for ours, theirs in zip(expected, computed, strict=True):
            if ours.shape != theirs.shape:
                shapes = f"{list(theirs.shape)} instead of {list(ours.shape)}"
                raise SettingsError(f"what was exported gives {shapes} for {size} samples; nothing was kept")
            difference = (ours.double() - theirs.double()).abs().max().item() if ours.numel() else 0.0
            if not difference <= TOLERANCE * max(1.0, ours.double().abs().max().item()):
                raise SettingsError(f"what was exported differs from the model by {difference:.2g}; nothing was kept")
            largest = max(largest, difference)
    return largest


def example_inputs(run: LoadedRun) -> tuple[Tensor, ...]:
    """Inputs of the model for SAMPLES samples: its `example_input_array`, or the first part of a batch of the data.

    Raises:
        SettingsError: there is no data, or a batch does not begin with a tensor.
    """
    inputs = getattr(run.model, "example_input_array", None)
    if inputs is None:
        batch = first_batch(run)
        inputs = batch[0] if isinstance(batch, tuple | list) else batch
    if isinstance(inputs, Tensor):
        inputs = (inputs,)
    if not isinstance(inputs, tuple) or not all(isinstance(value, Tensor) and value.ndim for value in inputs):
        raise SettingsError(
            "what the model takes can't be seen from a batch of its data: set self.example_input_array in the "
            "LightningModule, to a tensor or a tuple of tensors"
        )
    return tuple(value[torch.arange(SAMPLES) % len(value)] for value in inputs)


def first_batch(run: LoadedRun) -> Any:
    """The first batch of the validation data, or of the training data where there is none.

    Raises:
        SettingsError: there is no sample, or there are no data but the model's own.
    """
    if run.data is None:
        raise SettingsError("the model has loaders of its own: set self.example_input_array in it to what it takes")
    loaders = run.data.val_dataloader()
    if not loaders:
        run.data.setup("fit")
        loaders = run.data.train_dataloader()
    if isinstance(loaders, list | tuple):
        loaders = loaders[0]
    for batch in loaders:
        return batch
    raise SettingsError("there is no sample in the data to show what the model takes")


def outputs_of(result: Any) -> dict[str, Tensor]:
    """The tensors that `forward` returns, by their names or numbers.

    Raises:
        SettingsError: there are none.
    """
    if isinstance(result, Tensor):
        return {"output": result}
    named = dict(result) if isinstance(result, Mapping) else {}
    if isinstance(result, tuple | list):
        named = {f"output_{number}": value for number, value in enumerate(result)}
    tensors = {key: value for key, value in named.items() if isinstance(value, Tensor)}
    if not tensors:
        raise SettingsError(f"forward returns a {type(result).__name__}, and only tensors can be exported")
    return tensors


def input_names(inputs: tuple[Tensor, ...]) -> list[str]:
    """`input`, or input_0, input_1, …"""
    if len(inputs) == 1:
        return ["input"]
    return [f"input_{number}" for number in range(len(inputs))]


def shape(name: str, value: Tensor) -> str:
    """A line such as `input float32 (N, 1, 8, 8)`, N being any number of samples."""
    sizes = ", ".join(["N", *(str(size) for size in value.shape[1:])])
    return f"{name} {str(value.dtype).removeprefix('torch.')} ({sizes})"


def first_line(error: BaseException) -> str:
    """What an exporter says, without the pages that follow."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
