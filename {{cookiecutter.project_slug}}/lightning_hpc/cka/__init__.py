"""Centred kernel alignment (CKA): which layers of two networks, or of one network over time, say the same?

- ``cka(features_a, features_b)``: for features in memory.
- ``CKA``: the same as a torchmetrics.Metric, streamed over minibatches and ranks, from Gram matrices.
- ``GramRecorder``: a context manager that takes the Gram matrices of a model's layers while it runs.
- ``compare(model_a, model_b, batches)``: all of it in one call; ``plot_cka`` draws the map.
- ``CKACallback``: during validation in Lightning.
- ``rbf``: another kernel from the same Gram matrices.
"""

from .callback import CKACallback
from .compare import compare
from .functional import cka, rbf
from .gram import CKAError
from .maps.map import CKAMap
from .maps.plot import plot_cka
from .metric import CKA
from .recorder import GramRecorder

__all__ = [
    "CKA",
    "CKACallback",
    "CKAError",
    "CKAMap",
    "GramRecorder",
    "cka",
    "compare",
    "plot_cka",
    "rbf",
]
