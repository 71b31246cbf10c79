"""What Python files say, read without importing them: a plan needs no torch, and no file of the user's runs."""
