"""What lets a run be killed at any moment: exact resume, checkpoints, counted randomness, metrics.csv."""
