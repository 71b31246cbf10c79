"""CKA during validation: how far has each layer moved from where it started, from its average, from another model?"""

import os
import warnings
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

from .compare import CKAMap, Comparison, replacing
from .functional import check_kernel
from .metric import CKAError
from .models import (
    before_call,
    checkpoint_weights,
    frozen_copy,
    is_compiled,
    load_weights,
    original,
    recorded_module,
    same_randomness,
)
from .recorder import GramRecorder, select_layers


class CKACallback(Callback):
    """Compare the model's layers with those of a reference on the validation data, while the model trains.

    The layers are recorded while ``validation_step`` runs; the reference is run on the same inputs just before. Each
    map goes to ``cka/epoch-NNN.npz`` and ``.png`` in ``trainer.default_root_dir`` and, as a picture, to TensorBoard and
    W&B; the CKA of each layer with its own counterpart is logged as ``cka/REFERENCE/LAYER``, their mean as
    ``cka/REFERENCE`` (with "self": the mean over all pairs of different layers).

    Training is the same, bit for bit, with and without this callback: it draws no random number, changes no mode,
    weight or statistic, adds nothing to checkpoints, and its hooks live only while a validation batch runs. A setting
    that can't work is an error before training starts. What goes wrong later (a layer that does not run, NaN
    activations) is a warning, and training goes on.

    Args:
        reference: what to compare with.
            "init": the weights at the start of training, kept in ``cka/init.pt`` so that a resumed run finds them;
            "self": the model's own layers with each other;
            "ema": the average of Lightning's ``EMAWeightAveraging`` (or another ``WeightAveraging``) callback;
            a path: the weights of a checkpoint of this LightningModule;
            a module: any model that takes the same inputs. It is copied.
        layers: names or globs, see ``GramRecorder``; default: the children of the recorded module.
        reference_layers: of the reference; default: ``layers``.
        every_n_epochs: a map in epochs 0, n, 2n, … and in the last one.
        max_batches: use the first so many validation batches (of the first data loader); None: all. Unbiased HSIC
            needs few samples, so this is the lever on the cost.
        module: the attribute of the LightningModule to record, which must be called as a module in
            ``validation_step``. Default: ``network`` if there is one, or the only child (losses and metrics don't
            count), or else the LightningModule itself.
        kernel: "linear" or "rbf".
        batch_dim: the dimension of the layers' outputs that counts the samples.

    Attributes:
        picture: path of the newest picture, None before the first.
        map: the newest ``CKAMap``, on every rank.

    Not for sharded models (FSDP, DeepSpeed, tensor parallel) nor for a LightningModule that was compiled as a whole:
    there it warns and stays off. A compiled child is fine: on recorded batches its original runs a second time,
    uncompiled.

    Raises:
        CKAError: at the start of ``fit``, for layers that don't exist, a reference that does not fit, "ema" without a
            weight-averaging callback, a checkpoint that can't be read.

    Example:
        >>> callback = CKACallback(reference="init", layers=["encoder.*"], every_n_epochs=5)
        >>> trainer = Trainer(callbacks=[callback], max_epochs=20, logger=False, enable_model_summary=False)
    """

    def __init__(
        self,
        reference: str | nn.Module = "init",
        layers: list[str] | None = None,
        reference_layers: list[str] | None = None,
        every_n_epochs: int = 1,
        max_batches: int | None = 8,
        module: str | None = None,
        kernel: str = "linear",
        batch_dim: int = 0,
    ) -> None:
        check_kernel(kernel)
        if every_n_epochs < 1 or (max_batches is not None and max_batches < 1):
            raise CKAError(f"CKACallback: every_n_epochs ({every_n_epochs}) and max_batches ({max_batches}) start at 1")
        self.reference = reference
        self.layers = layers
        self.reference_layers = layers if reference_layers is None else reference_layers
        self.every_n_epochs = every_n_epochs
        self.max_batches = max_batches
        self.module = module
        self.kernel = kernel
        self.batch_dim = batch_dim
        self.picture: Path | None = None
        self.map: CKAMap | None = None
        if isinstance(reference, nn.Module):
            self._label = "reference"
        else:
            self._label = reference if reference in ("self", "init", "ema") else "checkpoint"
        self._title = {"init": "initial weights", "ema": "averaged weights"}.get(self._label, self._label)
        self._model: nn.Module | None = None  # the reference, on the CPU between validations
        self._comparison: Comparison | None = None
        self._hooks = ExitStack()
        self._beside: list[tuple[GramRecorder, nn.Module]] = []  # run on the network's inputs, before the network
        self._due = self._recording = self._running = self._off = False

    # ---- before training: find the module and the reference ----

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._off = False
        network = original(recorded_module(pl_module, self.module))
        if isinstance(trainer.strategy, (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)):
            self._turn_off(f"{type(trainer.strategy).__name__} shards the model")
        elif getattr(pl_module, "_compiler_ctx", None) is not None:
            self._turn_off("the LightningModule is compiled as a whole; compile the network in it instead")
        elif self.layers is None and not any(network.children()):
            self._turn_off(f"{type(network).__name__} has no children to take as layers")
        if self._off:
            return
        select_layers(network, self.layers)
        if self._label == "ema":
            averaging(trainer)
        elif self._label == "checkpoint":
            self._model = frozen_copy(network)
            load_weights(self._model, checkpoint_weights(self.reference, pl_module, network), self.reference)
        elif self._label == "reference":
            self._model = frozen_copy(recorded_module(self.reference))
            select_layers(self._model, self.reference_layers)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not earlier: lazy layers get their weights in the sanity check.
        if self._off or self._label != "init":
            return
        self._model = frozen_copy(recorded_module(pl_module, self.module))
        path = Path(trainer.default_root_dir) / "cka" / "init.pt"
        step = trainer.global_step
        resumed = trainer.ckpt_path is not None
        if resumed and trainer.strategy.reduce_boolean_decision(path.is_file(), all=True):
            saved = torch.load(path, map_location="cpu", weights_only=True)
            load_weights(self._model, saved["state_dict"], path)
            step = saved["step"]
        elif trainer.is_global_zero:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as part, part.open("wb") as file:
                torch.save({"state_dict": self._model.state_dict(), "step": step}, file)
                file.flush()
                os.fsync(file.fileno())
            if resumed:
                rank_zero_warn(f"CKA: {path} was missing, so the reference is not the initial weights but step {step}")
        self._title = f"weights at step {step}" if step else "initial weights"

    # ---- during validation: record, and run the reference on the same inputs ----

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch
        wanted = epoch % self.every_n_epochs == 0 or epoch + 1 == trainer.max_epochs
        self._due = wanted and not self._off and trainer.state.fn == "fit" and not trainer.sanity_checking
        self._failure: str | None = None

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        enough = self.max_batches is not None and batch_idx >= self.max_batches
        self._recording = self._due and not self._failure and not dataloader_idx and not enough
        if not self._recording:
            return
        module = recorded_module(pl_module, self.module)
        compiled = is_compiled(module)  # hooks may not fire in it, so its original runs once more
        if self._comparison is None:
            self._start(trainer, original(module), compiled, pl_module.device)
        self._called = False
        if self._beside:
            self._hooks.enter_context(before_call(module, partial(self._run_beside, pl_module.device)))
        if not compiled:
            self._hooks.enter_context(self._network)

    def _start(self, trainer: Trainer, network: nn.Module, compiled: bool, device: torch.device) -> None:
        """At the first recorded batch: make the recorders, and bring the reference to the device."""
        self._network = GramRecorder(network, self.layers, self.batch_dim)
        self._beside = [(self._network, network)] if compiled else []
        recorders = [self._network]
        if self._label == "ema":
            self._model = frozen_copy(recorded_module(averaging(trainer)._average_model.module, self.module))
        if self._model is not None:
            reference = GramRecorder(self._model.to(device), self.reference_layers, self.batch_dim)
            self._beside.append((reference, self._model))
            recorders.append(reference)
        if self._label == "ema" and getattr(averaging(trainer), "evaluate", "averaged") != "both":
            # During validation Lightning has the averaged weights in the network, and the network's in the average;
            # a callback that evaluates both leaves each where it is.
            recorders.reverse()
        self._comparison = Comparison(*recorders, kernel=self.kernel)

    def _run_beside(self, device: torch.device, args: tuple, kwargs: dict) -> None:
        if self._running:  # the network itself, called from here
            return
        self._called = self._running = True
        try:
            with torch.no_grad(), same_randomness(device), torch.compiler.set_stance("force_eager"):
                for recorder, module in self._beside:
                    with recorder:
                        module(*args, **kwargs)
        except Exception as error:  # whatever it is, without this callback it would not have happened
            self._failure = f"{self._title} can't be run on the validation data: {error}"
        finally:
            self._running = False

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx=0
    ) -> None:
        if not self._recording:
            return
        self._hooks.close()
        if self._beside and not self._called:
            name = type(original(recorded_module(pl_module, self.module))).__name__
            self._failure = f"{name} is not called in validation_step; name the module that is (`module`)"
        try:
            if not self._failure:
                self._comparison.update()
        except CKAError as error:
            self._failure = str(error)

    # ---- after validation: the map ----

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._due:
            return
        # The ranks go on together, or a rank that failed would leave the others waiting for its sums.
        if not trainer.strategy.reduce_boolean_decision(self._comparison is not None and not self._failure, all=True):
            self._turn_off(self._failure or "it failed on another rank")
        else:
            try:
                row = f"model, epoch {trainer.current_epoch}"
                self.map = self._comparison.result(row, row if self._label == "self" else self._title)
            except CKAError as error:
                rank_zero_warn(f"{error}. No map for epoch {trainer.current_epoch}")
            else:
                numbers = {f"cka/{self._label}/{name}": value for name, value in self.map.summary().items()}
                pl_module.log_dict(numbers, sync_dist=True)
                if trainer.is_global_zero:
                    self._publish(trainer)
        self._release()

    def _publish(self, trainer: Trainer) -> None:
        path = Path(trainer.default_root_dir) / "cka" / f"epoch-{trainer.current_epoch:03d}.png"
        figure = self.map.save(path)
        self.picture = path
        key, step = f"cka/{self._label}/map", trainer.global_step
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):  # W&B
                logger.log_image(key, [str(path)], step=step)
            elif hasattr(getattr(logger, "experiment", None), "add_image"):  # TensorBoard
                pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
                logger.experiment.add_image(key, pixels, step, dataformats="HWC")

    # ---- whatever happens ----

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._release()

    def _release(self) -> None:
        self._hooks.close()
        self._comparison, self._beside = None, []
        if self._model is not None:
            self._model = None if self._label == "ema" else self._model.cpu()

    def _turn_off(self, why: str) -> None:
        self._off = True
        warnings.warn(f"CKA is off for the rest of this run: {why}", stacklevel=2)


def averaging(trainer: Trainer) -> WeightAveraging:
    for callback in trainer.callbacks:
        if isinstance(callback, WeightAveraging):
            return callback
    raise CKAError(
        "CKA: reference 'ema' needs a weight-averaging callback; add EMAWeightAveraging to trainer.callbacks"
    )
