"""SLURM's own commands: how they are called, what they answer, and what it means when they do not."""
