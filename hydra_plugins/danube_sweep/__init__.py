"""What Hydra finds of danube_sweep: a launcher and two sweepers. Loaded at every start, so the work is elsewhere."""
