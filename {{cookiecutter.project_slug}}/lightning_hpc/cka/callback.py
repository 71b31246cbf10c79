"""CKA during validation: how far has each layer moved from where it started, from its average, from another model?"""

import warnings
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

from .compare import Comparison
from .frozen import FrozenRecorder, run_recorded
from .functional import check_kernel
from .gram import CKAError
from .layers import select_layers
from .maps.map import CKAMap
from .maps.publishing import names_of, publish
from .models import (
    CannotCopy,
    averaging_callback,
    before_call,
    fixed_reference,
    frozen_copy,
    initial_weights,
    is_compiled,
    label_of,
    obstacle,
    original,
    recorded_module,
)
from .recorder import GramRecorder


class CKACallback(Callback):
    """Compare the model's layers with those of a reference on the validation data, while the model trains.

    The layers are recorded while ``validation_step`` runs; the reference is run on the same inputs just before. Each
    map goes to ``cka/epoch-NNN.npz`` and ``.png`` in ``trainer.default_root_dir``, with the step in the name if an
    epoch has several, and as a picture to the trackers; the CKA of each layer with its counterpart is logged as
    ``cka/REFERENCE/LAYER``, their mean as ``cka/REFERENCE/mean`` (with "self": the mean over all pairs of different
    layers).

    Training is the same, bit for bit, with and without this callback: it draws no random number, changes no mode,
    weight or statistic, adds nothing to checkpoints, and its hooks live only while a validation batch runs. A setting
    that can't work is an error before training starts. What goes wrong later (a layer that does not run, NaN
    activations, a full disk) is a warning, and training continues; so is a network that can't be copied.

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
    there it warns and stays off. A compiled child is fine: on recorded batches its original runs once more.

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
        self._label = label_of(reference)
        self._title = {"init": "initial weights", "ema": "averaged weights"}.get(self._label, self._label)

        self._reference_model: nn.Module | None = None  # on the CPU between validations
        self._frozen: FrozenRecorder | None = None  # of a reference that stays as it is
        self._off = False  # for the rest of this run

        # Of one validation
        self._due = False
        self._failure: str | None = None
        self._comparison: Comparison | None = None
        self._run_first: list[tuple[GramRecorder, nn.Module]] = []  # on the network's inputs, before the network

        # Of one batch
        self._recording = False
        self._hooks = ExitStack()
        self._called = self._running = False  # the network; the models of _run_first

    # ---- before training: find the module and the reference ----

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._off, self._frozen = False, None
        if problem := self.prepare(trainer, pl_module):
            self._turn_off(problem)

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> str | None:
        """Find the module, and the reference if it does not depend on the training; can be called before ``fit``.

        Returns why this model's layers can't be recorded, or None. A setting that can't work is a CKAError.
        """
        network = original(recorded_module(pl_module, self.module))
        problem = obstacle(trainer, pl_module, network if self.layers is None else None)
        if problem is not None:
            return problem

        select_layers(network, self.layers)  # for its errors
        if self._label != "reference":
            select_layers(network, self.reference_layers)
        if self._label == "ema":
            averaging_callback(trainer)
        try:
            self._reference_model = fixed_reference(self.reference, self.reference_layers, network, pl_module)
        except CannotCopy as error:
            problem = str(error)
        return problem

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not earlier: lazy layers get their weights in the sanity check.
        if self._off or self._label != "init":
            return
        try:
            self._reference_model = frozen_copy(recorded_module(pl_module, self.module))
        except CannotCopy as error:
            self._turn_off(str(error))
            return
        step = initial_weights(self._reference_model, Path(trainer.default_root_dir) / "cka" / "init.pt", trainer)
        self._title = f"weights at step {step}" if step else "initial weights"

    # ---- during validation: record, and run the reference on the same inputs ----

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch
        has_turn = epoch % self.every_n_epochs == 0 or epoch + 1 == trainer.max_epochs
        training = trainer.state.fn == "fit" and not trainer.sanity_checking
        self._due = has_turn and training and not self._off
        self._failure = None

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
            self._start(trainer, original(module), compiled)

        self._called = False
        if self._run_first:
            self._hooks.enter_context(before_call(module, partial(self._run_models, pl_module.device)))
        if not compiled:
            self._hooks.enter_context(self._network_recorder)

    def _start(self, trainer: Trainer, network: nn.Module, compiled: bool) -> None:
        """At the first recorded batch: make the recorders."""
        self._network_recorder = GramRecorder(network, self.layers, self.batch_dim)
        recorders = [self._network_recorder]
        self._run_first = [(self._network_recorder, network)] if compiled else []

        averaging = averaging_callback(trainer) if self._label == "ema" else None
        if averaging is not None:
            average = recorded_module(averaging._average_model.module, self.module)
            self._reference_model = frozen_copy(average).to(trainer.lightning_module.device)

        if self._reference_model is not None:
            arguments = (self._reference_model, self.reference_layers, self.batch_dim)
            if self._label != "ema":  # an average changes, any other reference stays as it is
                self._frozen = self._frozen or FrozenRecorder(*arguments)
                self._frozen.restart()
            recorder = self._frozen or GramRecorder(*arguments)
            self._run_first.append((recorder, self._reference_model))
            recorders.append(recorder)

        # During validation Lightning has the averaged weights in the network, and the network's in the average; a
        # callback that evaluates both leaves each where it is.
        if averaging is not None and getattr(averaging, "evaluate", "averaged") != "both":
            recorders.reverse()
        self._comparison = Comparison(*recorders, kernel=self.kernel)

    def _run_models(self, device: torch.device, args: tuple, kwargs: dict) -> None:
        """Just before the network is called: run the reference on what it is called with."""
        if self._running:  # the network itself, called from here
            return
        self._called = self._running = True
        try:
            run_recorded(self._run_first, device, args, kwargs)
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
        if self._run_first and not self._called:
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

        # The ranks continue together, or a rank that failed would leave the others waiting for its sums.
        succeeded = self._comparison is not None and not self._failure
        if trainer.strategy.reduce_boolean_decision(succeeded, all=True):
            self._finish(trainer, pl_module)
        else:
            self._turn_off(self._failure or "it failed on another rank")
        self._release()

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the map, log its numbers, write it to files, and send its picture to the trackers."""
        name, row_label = names_of(trainer)
        column_label = row_label if self._label == "self" else self._title
        try:
            self.map = self._comparison.result(row_label, column_label)
        except CKAError as error:
            rank_zero_warn(f"{error}. No map {name}")
            return

        numbers = {f"cka/{self._label}/{name}": value for name, value in self.map.summary().items()}
        pl_module.log_dict(numbers, sync_dist=True)
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / "cka" / f"{name}.png"
            if publish(self.map, path, trainer.loggers, f"cka/{self._label}/map", trainer.global_step):
                self.picture = path

    # ---- at the end, whatever has happened ----

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._release()

    def _release(self) -> None:
        """Forget what one validation needed; a fixed reference waits on the CPU for the next."""
        self._hooks.close()
        self._comparison, self._run_first = None, []
        if self._label == "ema":
            self._reference_model = None
        elif self._reference_model is not None:
            self._reference_model.cpu()

    def _turn_off(self, why: str) -> None:
        self._off = True
        warnings.warn(f"CKA is off for the rest of this run: {why}", stacklevel=2)
