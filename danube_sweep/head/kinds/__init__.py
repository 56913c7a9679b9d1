"""One file a head: its fields, what its weights are, and how it is built. No torch at the top."""
