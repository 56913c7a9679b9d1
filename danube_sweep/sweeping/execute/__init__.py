"""How a sweep's trials are run: slots, processes, packs, and how each attempt ended."""
