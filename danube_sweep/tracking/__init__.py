"""What is written while a trial trains: files first, W&B second.

metrics_file   metrics.csv · prediction_charts  what a run's predictions show · wandb_sending  a run's way to W&B
open_tracker   a tracker from a config: online, offline or not at all
"""

from danube_sweep.tracking.metrics_file import MetricsFile
from danube_sweep.tracking.open_tracker import given_out, open_tracker
from danube_sweep.tracking.wandb_sending import Tracker

__all__ = ["MetricsFile", "Tracker", "given_out", "open_tracker"]
