"""Data: downloads that arrive whole, splits that are right, and a DataModule that makes a new data set twenty lines."""
