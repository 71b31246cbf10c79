"""How runs are started on a cluster: batch files, submission, waves. No torch here, so --help answers at once."""
