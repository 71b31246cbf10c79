"""Results of many runs as tables: `from lightning_hpc.results import read`.

Reading is quick because it goes by what runs of one project have in common: their configs differ in a few lines, and
their metrics.csv begin with the same header. What is different is read in the plain way.
"""

from .reading import Results, read

__all__ = ["Results", "read"]
