"""The tasks of a child for Python's own functions: train one trial or predict with it, like the command line."""

from multiprocessing.connection import Connection

from danube_sweep.inference.predict_run import PredictWords, predict_run
from danube_sweep.sweeping.execute.divided_prediction import devices_for, telling
from danube_sweep.sweeping.execute.messages import Job
from danube_sweep.training.ranks import joined
from danube_sweep.training.signals import StopRequest
from danube_sweep.training.train_one_trial import train_one_trial


def run_task(job: Job, link: Connection) -> None:
    """Trains the job's trial in its folder. Sends its objective, or the error as it is."""
    config = job.config
    assert config is not None
    with StopRequest(patient=True) as stop, joined(job.meeting) as ranks:
        telling(link, lambda: [train_one_trial(config, job.path, stop, ranks)])


def predict_task(words: PredictWords, _job: Job, link: Connection) -> None:
    """Predicts with a finished run. Sends the number of rows, or the error as it is."""
    telling(link, lambda: [predict_run(words, devices=devices_for(words))])
