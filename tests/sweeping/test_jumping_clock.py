"""Nothing that waits, ends or holds a trial looks at the clock of the wall, which may jump."""

import os
import subprocess
import sys
from pathlib import Path

import clocks
import pytest
from conftest import TINY
from runs import command, metrics

from danube_sweep.storage.files import read_json
from danube_sweep.storage.sweep_folder import SweepFolder, attempts

WORDS = [
    "-m", *TINY, "data.rows=40", "trainer.max_steps=4", "trainer.validate_every=2", "tracking=none", "device=cpu",
    "sweep.lock=lease", "sweep.workers=2", "sweep.lease_s=30", "sweep.deadline_h=1", "sweep.timeout_h=1",
    "sweep.stall_s=600", "sweep.baseline=none", "sweep.pack=1", "seed=0,1",
]  # fmt: skip


@pytest.mark.full
@pytest.mark.skipif(clocks.library() is None, reason="there is no libfaketime; make clock installs it")
def test_a_sweep_under_a_clock_that_jumps_by_400_days_is_the_undisturbed_sweep(tmp_path: Path) -> None:
    with clocks.jumping(tmp_path) as clock:
        place = ["hydra.sweep.dir=jumping"]
        words = [sys.executable, "-m", "danube_sweep", *WORDS, *place]
        environment = {**os.environ, **clock}
        ran = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert command(*WORDS, "hydra.sweep.dir=still", cwd=tmp_path).returncode == 0
    jumping, still = (SweepFolder(tmp_path / name).entries() for name in ("jumping", "still"))
    for one, other in zip(jumping, still, strict=True):
        assert metrics(one.path, "train") == metrics(other.path, "train")
        assert read_json(one.folder.result)["validation"] == read_json(other.folder.result)["validation"]
        (attempt,) = attempts(one.folder)
        assert attempt.state == "finished" and 0 < attempt.seconds < 600
