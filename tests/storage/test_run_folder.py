"""The folder of a run."""

from pathlib import Path

import pytest

from danube_sweep.errors import CheckpointError
from danube_sweep.storage.files import write_json
from danube_sweep.storage.run_folder import RunFolder


def test_an_interrupted_run_has_no_result_and_an_ended_one_has(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.read_result() is None
    write_json(folder.result, {"state": "finished", "name": "Donau, größte"})
    assert folder.read_result() == {"state": "finished", "name": "Donau, größte"}
    folder.result.write_text('{"state": "fin')
    with pytest.raises(CheckpointError, match=r"result\.json is cut short or damaged"):
        folder.read_result()
