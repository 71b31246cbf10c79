"""Your research: the LightningModule, the networks and the data."""
