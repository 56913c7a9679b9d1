"""A sweep on a GPU: the warm parent leaves it alone, each slot sees its own, and memory comes back with the process."""

import io
import json
import os
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from conftest import TINY
from rich.console import Console

from danube_sweep.composer import Composer
from danube_sweep.sweeping.execute import child_process
from danube_sweep.sweeping.execute.messages import Job
from danube_sweep.sweeping.execute.process_pool import Pool
from danube_sweep.sweeping.start_sweep import plan_grid, run_sweep
from danube_sweep.terminal.screen import Terminal

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

ON_GPU = [one for one in TINY if not one.startswith("device")]


def was_initialised(job: Job, link: Connection) -> None:
    link.send(torch.cuda.is_initialized())


def test_the_warm_parent_has_not_touched_the_gpu(tmp_path: Path) -> None:
    asked = Pool(on_cpu=False).start(was_initialised, Job(tmp_path, tmp_path, dict(os.environ)))
    assert asked.link.recv() is False
    assert asked.reap() == 0


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_trials_of_a_sweep_train_on_the_gpu(tmp_path: Path, precision: str) -> None:
    terminal = Terminal(Console(file=io.StringIO()), plain=True)
    common = [f"precision={precision}", "device=auto", "data.rows=60", "trainer.max_steps=4", "sweep.slots=2", *ON_GPU]
    planned = plan_grid(tmp_path / "sweep", [["seed=0", *common], ["seed=1", *common]], Composer(), terminal)
    assert planned is not None
    run_sweep(planned[0], terminal, task=child_process.train_task)
    for entry in planned[1]:
        result = json.loads(entry.folder.result.read_text())
        assert result["state"] == "finished"
        assert result["measured"]["device"]["kind"] == "cuda"
