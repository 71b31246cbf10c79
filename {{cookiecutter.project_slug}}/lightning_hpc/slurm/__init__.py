"""How runs are started on a cluster: presets, batch files, submission. No torch here, so --help answers at once."""
