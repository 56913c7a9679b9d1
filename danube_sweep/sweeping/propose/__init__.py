"""Which trials a sweep has: a grid's cells, a search's draws, and which one is next."""
