"""The machine room of one run: command line, resume, checkpoints, trackers. It imports nothing: --help is quick."""
