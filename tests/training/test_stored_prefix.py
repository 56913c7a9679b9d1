"""Kept states of a block are those that the blocks below it give, in one cache for all depths."""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from runs import CPU, train
from workbench import Staying, build, packed

from danube_sweep.config.schema import Config
from danube_sweep.data.kinds.generated import generate, write_csv
from danube_sweep.errors import DiskError
from danube_sweep.inference import divided
from danube_sweep.inference.divided import ThisDevice, Work
from danube_sweep.inference.predict import (
    FinishedRun,
    Form,
    Place,
    Request,
    Trained,
    checked_request,
    load_run,
    open_run,
    predicted,
)
from danube_sweep.inference.prediction_table import Predictions
from danube_sweep.inference.runs_in_packs import Pack, load_pack
from danube_sweep.inference.score_test import score_test
from danube_sweep.storage import checkpoint
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.training import finish, resume
from danube_sweep.training.evaluate import evaluating
from danube_sweep.training.lightning_loop import PackModule, fit
from danube_sweep.training.pack.shared_prefix import SharedPrefix
from danube_sweep.training.pack.stored_prefix import StoredStates, mapped


def test_each_block_has_its_own_states(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(tmp_path))
    parts = build(tiny("lora=none", "precision=fp32", "data.rows=20"))
    prefix = SharedPrefix(parts.backbone)
    stored, rows, batch = StoredStates(parts.backbone, prefix), parts.prepared.parts["train"], parts.batch([0, 1, 2])
    found = []
    for block in (0, 1):
        with evaluating(parts.backbone):
            wanted_BTH = prefix.states_before(batch.input_ids_BT, batch.mask_BT, block)
        found.append(stored.batch(rows, batch, block)[batch.mask_BT])
        torch.testing.assert_close(found[block], wanted_BTH[batch.mask_BT], rtol=1e-5, atol=1e-5)
    assert len(list((tmp_path / "prefix").glob("*.states"))) == 2
    assert not torch.allclose(*found, atol=1e-2)


def test_filling_counts_as_itself_and_not_as_training(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(tmp_path / "cache"))
    own = ["lora.last_k=1", "lora.rank=2", "precision=fp32", "data.cache_prefix=true", "trainer.max_steps=2"]
    pack, trials = packed([tiny(*own), tiny(*own, "seed=1")], tmp_path)
    late, clock = [0.0], time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + late[0])

    def slow(*_: object) -> None:  # the block below the adapted one takes 100 seconds
        late[0] += 100

    pack.backbone.body.layers[0].mlp.register_forward_hook(slow)
    fit(PackModule(pack, trials, Staying()), accelerator="cpu")
    assert late[0] >= 200
    for trial in trials:
        seconds = finish.measured(trial, {})["seconds"]
        assert seconds["prefix"] == pytest.approx(late[0] / 2, abs=50)
        assert seconds["train"] + seconds["validation"] < 50
        manifest = checkpoint.read_manifest(resume.best_checkpoint(trial))
        state = checkpoint.unpack_state(dict(manifest["state"]["dict"])["done"], {})
        assert state["prefix_seconds"] == trial.done.prefix_seconds  # a pause and a resume keep it


def whole(trained: Trained, request: Request) -> Predictions:
    """The answers to every row of the file."""
    found = list(predicted(trained, request, 16, lambda _rows: None))
    return Predictions([name for one in found for name in one.examples], torch.cat([one.answers_NA for one in found]))


def test_a_run_tells_what_it_keeps_and_its_answers_read_it(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(tmp_path / "cache"))
    write_csv(generate(24, seed=3, noise=0.0), tmp_path / "test.csv")
    write_csv(generate(30, seed=3, noise=0.0), tmp_path / "new.csv")
    own = ["lora.last_k=1", "lora.rank=2", "precision=fp32", "data.cache_prefix=true", "trainer.max_steps=2"]
    files = ["data=arena", f"data.path={tmp_path / 'new.csv'}", f"data.test_path={tmp_path / 'test.csv'}"]
    run = tmp_path / "run"
    result = train(tiny(*own, *files), run)
    assert result["measured"]["seconds"]["prefix"] > 0
    log = RunFolder(run).log.read_text()
    assert log.count("rows are computed once") == log.count("rows are kept, after") == 2
    assert log.index("are kept, after") < log.index("step 1/2")

    scored = score_test(run, CPU)
    below: list[int] = []
    trained = load_run(run, CPU)
    trained.backbone.body.layers[0].mlp.register_forward_hook(lambda _block, given, _out: below.append(len(given[0])))
    asked = checked_request(trained, tmp_path / "new.csv", tmp_path / "out.csv", Form())
    read = whole(trained, asked)

    def watched(runs: Sequence[FinishedRun], place: Place) -> Pack:
        pack = load_pack(runs, place)
        pack.members[0].backbone.body.layers[0].mlp.register_forward_hook(lambda *_: below.append(0))
        return pack

    monkeypatch.setattr(divided, "load_pack", watched)
    work = Work([open_run(run), open_run(run)], asked.input, Place(CPU), asked.swap, 16)
    (both,) = ThisDevice().answers(work, lambda _rows: None)
    assert below == []

    shutil.rmtree(tmp_path / "cache" / "prefix")
    computed = whole(trained, asked)
    assert sum(below) >= 30 and read.examples == computed.examples
    for one in (read, *both):
        torch.testing.assert_close(one.answers_NA, computed.answers_NA, rtol=0, atol=1e-6)
    assert score_test(run, CPU) == pytest.approx(scored, abs=1e-6)
    assert len(list((tmp_path / "cache" / "prefix").glob("*.states"))) == 1


def test_a_file_that_has_gone_is_a_cache_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="was removed while it was read"):
        mapped(tmp_path / "gone.states", 8, torch.float32)
