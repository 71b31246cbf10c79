"""Stand-ins for modules that other packages import in any case and a run seldom uses: a run starts seconds sooner.

Where matplotlib, scipy and transformers are installed, torchmetrics imports them when it is imported itself, for its
plots, for an old name of scipy's, and for metrics of texts. Where they are not, it does without: at import it needs
their classes only to annotate functions. So while torchmetrics is imported, a stand-in answers by each of these names.
When it is used later, as by `metric.plot()`, it imports the package and hands on what it is asked. W&B, when a run
begins, imports the client of its job queues, to ask whether inputs of a job have been declared through it; and pandas,
when a picture is logged, to ask whether it is a table.

Nothing of these packages is changed, and all others import the modules themselves. One thing is not done: torchmetrics
adds `scipy.signal.hamming`, a name that scipy has removed, for a package that asks for it.
"""

from .packages import import_torchmetrics, without_job_queues, without_pandas

__all__ = ["import_torchmetrics", "without_job_queues", "without_pandas"]
