"""Values of a run, and what becomes of them: as plain data in a checkpoint, of metrics, of all ranks together, and
predictions."""
