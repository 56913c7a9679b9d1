"""The trials that train together over one backbone: their shared parts, and their way through it.

forward_pass.py    the trials in training, their forward pass, their evaluation
shared_prefix.py   blocks below the first adapted one run once for trials that read the same rows
stored_prefix.py   their output kept on disk (data.cache_prefix)
kept_rows.py       the same, found row by row, for predictions
"""

from danube_sweep.training.pack.forward_pass import TrainingPack

__all__ = ["TrainingPack"]
