"""Which code runs: what belongs to it, its fingerprint, copies of it, and whether it has changed since a run began."""
