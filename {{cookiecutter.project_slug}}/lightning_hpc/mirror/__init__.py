"""A second place for runs, from which another machine can continue them: what goes up, and what comes down."""
