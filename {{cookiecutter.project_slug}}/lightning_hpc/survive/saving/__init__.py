"""One checkpoint on its way to disk: a copy in memory, the thread that writes it, and what is told of it."""
