"""Kept states of a block are those that the blocks below it give, in one cache for all depths."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from workbench import build

from danube_sweep.config.schema import Config
from danube_sweep.training.evaluate import evaluating
from danube_sweep.training.pack.shared_prefix import SharedPrefix
from danube_sweep.training.pack.stored_prefix import StoredStates


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
