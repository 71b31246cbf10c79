"""A model that has been trained, as a file for other programs: `Train.py export`."""
