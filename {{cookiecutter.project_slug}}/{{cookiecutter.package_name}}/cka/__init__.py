"""Centred kernel alignment (CKA): which layers of two networks, or of one network over time, say the same?

- ``cka(features_a, features_b)``: for features in memory.
- ``CKA``: the same as a torchmetrics.Metric, streamed over minibatches and ranks, from Gram matrices.
- ``GramRecorder``: a context manager that takes the Gram matrices of a model's layers while it runs.
- ``compare(model_a, model_b, batches)``: all of it in one call; ``plot_cka`` draws the map.
- ``CKACallback``: during validation in Lightning.
- ``rbf`` and ``mutual_knn``: another kernel and another measure from the same Gram matrices.
"""

from .callback import CKACallback
from .compare import CKAMap, compare
from .functional import cka, mutual_knn, rbf
from .metric import CKA, CKAError
from .plot import plot_cka
from .recorder import GramRecorder

__all__ = [
    "CKA",
    "CKACallback",
    "CKAError",
    "CKAMap",
    "GramRecorder",
    "cka",
    "compare",
    "mutual_knn",
    "plot_cka",
    "rbf",
]
