"""Searches over settings: a sweep's file, W&B's sweeps and local ones, and the agents that run them."""
