"""An experiment: the folder of what was planned, how its runs stand, and what was submitted of it."""
