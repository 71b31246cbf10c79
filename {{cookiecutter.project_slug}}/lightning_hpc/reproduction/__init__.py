"""Runs side by side: what differs between several, and whether one that is trained again gives the same."""
