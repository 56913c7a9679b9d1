"""One file per head: its fields, its weights, and how it is built. No torch at the top."""
