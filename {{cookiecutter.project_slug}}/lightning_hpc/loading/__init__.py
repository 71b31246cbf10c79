"""What feeds a run: counted randomness, and DataLoaders and streams that can start at any batch of any epoch."""
