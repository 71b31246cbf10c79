"""Every wrapper and running metric of torchmetrics continues from a checkpoint as if nothing had happened."""

import io

import pytest
import torch
from torch import nn
from torchmetrics import MeanSquaredError, MetricCollection, R2Score, aggregation, wrappers
from torchmetrics.classification import BinaryAccuracy, MulticlassAccuracy

from lightning_hpc.values import metric_states

BATCHES = [torch.rand(6, 2, generator=torch.Generator().manual_seed(number)) for number in range(8)]


class Features(MeanSquaredError):
    """A metric with a network that FeatureShare can share."""

    feature_network = "network"

    def __init__(self):
        super().__init__()
        self.network = nn.Identity()


class Transformed(wrappers.MetricInputTransformer):
    def transform_pred(self, pred):
        return 1 - pred


def one(batch):
    return (batch[:, 0],)


def two(batch):
    return batch[:, 0], batch[:, 1]


def classes(batch):
    return batch, (batch[:, 0] > batch[:, 1]).long()


def halves(batch):
    return batch, 1 - batch


def tasks(batch):
    return dict(one=batch[:, 0], two=batch[:, 1]), dict(one=batch[:, 1], two=batch[:, 0])


# What is made, and what a batch becomes for it.
METRICS = {
    "BinaryTargetTransformer": (lambda: wrappers.BinaryTargetTransformer(BinaryAccuracy(), threshold=0.5), two),
    "BootStrapper": (lambda: wrappers.BootStrapper(MeanSquaredError(), num_bootstraps=3), two),
    "ClasswiseWrapper": (lambda: wrappers.ClasswiseWrapper(MulticlassAccuracy(2, average=None)), classes),
    "FeatureShare": (lambda: wrappers.FeatureShare([Features()]), two),
    "LambdaInputTransformer": (lambda: wrappers.LambdaInputTransformer(MeanSquaredError(), lambda pred: 1 - pred), two),
    "MetricInputTransformer": (lambda: Transformed(MeanSquaredError()), two),
    "MetricTracker": (lambda: wrappers.MetricTracker(MeanSquaredError(), maximize=False), two),
    "MinMaxMetric": (lambda: wrappers.MinMaxMetric(MeanSquaredError()), two),
    "MultioutputWrapper": (lambda: wrappers.MultioutputWrapper(R2Score(), 2), halves),
    "MultitaskWrapper": (lambda: wrappers.MultitaskWrapper(dict(one=MeanSquaredError(), two=R2Score())), tasks),
    "Running": (lambda: wrappers.Running(MeanSquaredError(), window=3), two),
    "MetricCollection": (lambda: MetricCollection(MeanSquaredError(), R2Score()), two),
} | {name: (getattr(aggregation, name), one) for name in vars(aggregation) if name.endswith(("Metric", "Mean", "Sum"))}
del METRICS["Metric"]


def model_with(name: str) -> nn.Module:
    model = nn.Module()
    model.metric = METRICS[name][0]()
    return model


def measure(model: nn.Module, name: str, batches: list[torch.Tensor]) -> list:
    """What the metric says after each batch; a tracker begins a new step every third."""
    values = []
    for number, batch in enumerate(batches):
        torch.manual_seed(number % 3)
        if name == "MetricTracker" and number % 3 == 0:
            model.metric.increment()
        model.metric.update(*METRICS[name][1](batch))
        values.append(model.metric.compute())
        if name == "MetricTracker":
            values += [model.metric.compute_all(), model.metric.best_metric()]
    return values


def test_all_wrappers_and_running_metrics_are_here():
    assert set(wrappers.__all__) <= METRICS.keys()
    assert {"RunningMean", "RunningSum", "MeanMetric", "CatMetric"} <= METRICS.keys()


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_continues_from_a_checkpoint(name):
    """Through a file, since what it keeps must be plain data; and twice, since a run is killed more than once."""
    whole = measure(model_with(name), name, BATCHES[:3] + BATCHES[:3] + BATCHES[:2])

    values = []
    saved = None
    for batches in (BATCHES[:3], BATCHES[:3], BATCHES[:2]):
        model = model_with(name)
        at_start = metric_states.attributes_now(model)
        if saved is not None:
            metric_states.restore(model, torch.load(io.BytesIO(saved), weights_only=True))
        values += measure(model, name, batches)
        file = io.BytesIO()
        torch.save(metric_states.save(model, at_start), file)
        saved = file.getvalue()

    assert len(values) == len(whole)
    for value, expected in zip(values, whole, strict=True):
        torch.testing.assert_close(value, expected, rtol=0, atol=0)


def test_what_was_saved_does_not_change_with_the_metric():
    model = model_with("RunningMean")
    at_start = metric_states.attributes_now(model)
    measure(model, "RunningMean", BATCHES[:2])
    saved = metric_states.save(model, at_start)
    seen, sums = saved["metrics"]["metric"]["attributes"], saved["metrics"]["metric"]["states"]
    before = {key: value.clone() for key, value in sums.items()}
    measure(model, "RunningMean", BATCHES)
    assert seen == dict(_num_vals_seen=2)
    assert all(torch.equal(sums[key], before[key]) for key in before)


def test_what_the_code_sets_is_the_codes(tmp_path):
    """A threshold that was changed in the code counts; the saved run has never changed it."""
    before, now = nn.Module(), nn.Module()
    before.metric, now.metric = BinaryAccuracy(threshold=0.5), BinaryAccuracy(threshold=0.7)
    metric_states.restore(now, metric_states.save(before, metric_states.attributes_now(before)))
    assert now.metric.threshold == 0.7
