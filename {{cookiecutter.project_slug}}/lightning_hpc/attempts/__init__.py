"""How an attempt of a run begins and ends."""
