"""The machine room of one run: command line, resume, checkpoints, trackers. Nothing is imported here: --help is quick."""
