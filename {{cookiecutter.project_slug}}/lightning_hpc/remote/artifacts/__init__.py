"""wandb://ENTITY/PROJECT: artifacts of Weights & Biases as a place for files."""

from .store import Artifacts

__all__ = ["Artifacts"]
