"""What is written while a trial trains: files first, W&B second.

files    metrics.csv · charts  what a run's predictions show, computed here · sending  a run's way to W&B
opening  a tracker from a config: online, offline or not at all
"""

from danube_sweep.tracking.files import MetricsFile
from danube_sweep.tracking.opening import given_out, open_tracker
from danube_sweep.tracking.sending import Tracker

__all__ = ["MetricsFile", "Tracker", "given_out", "open_tracker"]
