"""What a run is: its settings, its identity and its folder. No torch here, so planning and --help answer at once."""
