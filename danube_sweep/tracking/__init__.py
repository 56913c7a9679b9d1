"""The metrics of a trial while it trains: files first, W&B or TensorBoard second.

metrics_file  metrics.csv · prediction_charts  charts of a run's predictions · wandb_sending  a run's way to W&B
tensorboard_sending  a run's TensorBoard events · open_tracker  from a config to one of them, or none
"""

from danube_sweep.tracking.metrics_file import MetricsFile
from danube_sweep.tracking.open_tracker import given_out, open_tracker
from danube_sweep.tracking.tensorboard_sending import check_package
from danube_sweep.tracking.wandb_sending import Tracker

__all__ = ["MetricsFile", "Tracker", "check_package", "given_out", "open_tracker"]
