"""Many runs at once: what a specification or a space means, and the plan made of it. It writes nothing."""
