"""A trial or a pack from its config to its result."""
