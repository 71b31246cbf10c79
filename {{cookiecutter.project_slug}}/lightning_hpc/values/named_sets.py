"""Several evaluation sets with names: what a model logs of each is measured apart, and named after the set."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import nn
from torchmetrics import Metric, MetricCollection

KINDS = (Metric, MetricCollection)


class NamedSets(Callback):
    """Where val_dataloader or test_dataloader returns a mapping: name → loader, each set has results of its own.

    What the step logs of the first set has the name that the model gives it, such as val/loss; of another, called NAME,
    val_NAME/loss. Metric objects are used as ever: each further set has copies of its own. Outside the step, such as in
    on_validation_epoch_end, a model sees those of the first set.
    """

    def __init__(self) -> None:
        # Model and number of the set → the metrics in the model, by the module that has them and their name there
        self.metrics: dict[tuple[int, int], list[tuple[nn.Module, str, nn.Module]]] = {}
        self.batch = ExitStack()  # while a batch of a further set is evaluated

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.begin(trainer, pl_module, trainer.val_dataloaders, dataloader_idx)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.begin(trainer, pl_module, trainer.test_dataloaders, dataloader_idx)

    def begin(self, trainer: Trainer, pl_module: LightningModule, loaders: Any, number: int) -> None:
        """Measure a batch for its set.

        Args:
            trainer: the Trainer.
            pl_module: the model.
            loaders: what val_dataloader or test_dataloader has returned.
            number: of the set that the batch is from.
        """
        if not isinstance(loaders, Mapping) or len(loaders) < 2:
            return
        name = str(list(loaders)[number]) if number else None
        models = [pl_module]
        for callback in trainer.callbacks:  # a copy with averaged weights may be evaluated, too
            if isinstance(callback, WeightAveraging) and callback._average_model is not None:
                models.append(callback._average_model.module)
        for model in models:
            self.batch.enter_context(logging_as(model, name))
            if number:
                self.batch.enter_context(self.own_metrics(model, number))

    @contextmanager
    def own_metrics(self, model: LightningModule, number: int) -> Iterator[None]:
        """Put a set's own metrics in the place of the model's."""
        place = (id(model), number)
        if place not in self.metrics:
            self.metrics[place] = [(owner, key, new(metric)) for owner, key, metric in metrics_of(model)]

        # Lightning knows metric objects by their address.
        attributes, model._metric_attributes = model._metric_attributes, None
        originals = metrics_of(model)
        for owner, key, metric in self.metrics[place]:
            setattr(owner, key, metric)
        try:
            yield
        finally:
            for owner, key, metric in originals:
                setattr(owner, key, metric)
            model._metric_attributes = attributes

    def end(self, *_: Any) -> None:
        """Leave the model as it was."""
        self.batch.close()

    on_validation_batch_end = on_test_batch_end = on_exception = end


@contextmanager
def logging_as(model: LightningModule, name: str | None) -> Iterator[None]:
    """Let `self.log` of a model name what it logs after a set; None is the first one, whose names stay."""
    before = vars(model).get("log")  # an average that is evaluated has a way of its own
    log = model.log

    def log_of_set(metric: str, *arguments: Any, **keywords: Any) -> None:
        log(name_of(metric, name), *arguments, **{**keywords, "add_dataloader_idx": False})

    model.log = log_of_set  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model.log
        if before is not None:
            model.log = before  # type: ignore[method-assign]


def name_of(metric: str, name: str | None) -> str:
    """What a set's metric is called: val/loss → val_NAME/loss, test/loss → test_NAME/loss, loss → loss_NAME."""
    if name is None:
        return metric
    stage, slash, rest = metric.partition("/")
    if slash and stage in ("val", "valid", "validation", "test"):
        return f"{stage}_{name}/{rest}"
    return f"{metric}_{name}"


def metrics_of(model: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """The metrics and collections in a model, with the module that each is in and its name there."""
    found = []
    for owner in model.modules():
        if isinstance(owner, KINDS):
            continue  # what is in it goes with it
        found += [(owner, key, child) for key, child in owner.named_children() if isinstance(child, KINDS)]
    return found


def new(metric: Any) -> Any:
    """A metric of the same kind that has seen nothing."""
    copy = metric.clone()
    copy.reset()
    return copy
