"""The trials that train together over one backbone: what they share, and how they pass through it.

forward_pass.py    who trains, their forward pass, their evaluation
shared_prefix.py   blocks below the first adapted one run once for trials that read the same rows
stored_prefix.py   what comes out of them kept on disk (data.cache_prefix)
kept_rows.py       the same, found row by row, for predictions
"""

from danube_sweep.training.pack.forward_pass import TrainingPack

__all__ = ["TrainingPack"]
