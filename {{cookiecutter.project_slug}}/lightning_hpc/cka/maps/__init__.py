"""A finished comparison: its numbers, its pictures, and how they get to files and trackers."""
