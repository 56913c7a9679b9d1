"""The trials that train together over one backbone: what they share, and how they pass through it.

pack.py     who trains, their forward pass, their evaluation
prefix.py   blocks below the first adapted one run once for trials that read the same rows
stored.py   what comes out of them kept on disk (data.cache_prefix)
"""

from danube_sweep.training.pack.forward_pass import Pack

__all__ = ["Pack"]
