"""Settings with their types: what the parser knows, what it says, and what it is given. It imports torch."""
