"""What any LightningModule expects of its Trainer, whoever wrote it and for which project."""
