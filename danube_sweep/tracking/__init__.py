"""The metrics of a trial while it trains: files first, W&B or TensorBoard second.

metrics_file  metrics.csv · prediction_charts  charts of a run's predictions · wandb_sending  a run's way to W&B
tensorboard_sending  a run's TensorBoard events · open_tracker  from a config to one of them, or none
wandb_server  its key, its address · under_agent  a W&B agent's trial: its run, its sweep's name
"""

from danube_sweep.tracking.metrics_file import MetricsFile
from danube_sweep.tracking.open_tracker import open_tracker, report_unbegun
from danube_sweep.tracking.under_agent import SHARED, given_out, is_reported, sweep_name
from danube_sweep.tracking.wandb_sending import Tracker
from danube_sweep.tracking.wandb_server import server_problem

__all__ = [
    "SHARED",
    "MetricsFile",
    "Tracker",
    "given_out",
    "is_reported",
    "open_tracker",
    "report_unbegun",
    "server_problem",
    "sweep_name",
]
