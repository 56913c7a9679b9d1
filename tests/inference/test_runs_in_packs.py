"""Runs over one backbone answer in one pass, with the probabilities that each gives alone."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_config
from runs import CPU, train

from danube_sweep.data.batches import LEAST_FILLED, budget_batches
from danube_sweep.data.kinds.generated import generate, write_csv
from danube_sweep.data.parts import read_unlabelled
from danube_sweep.inference import divided
from danube_sweep.inference.divided import ThisDevice, Work
from danube_sweep.inference.predict import FinishedRun, Form, Place, checked_request, load_run, open_run, predictions
from danube_sweep.inference.runs_in_packs import Pack, load_pack, read_alike

pytestmark = pytest.mark.usefixtures("cache_of_the_file")

MEMBERS = {
    "two": ["lora.rank=4", "lora.last_k=1"],
    "one": ["lora.rank=2", "lora.last_k=1", "seed=1"],
    "none": ["lora=none", "seed=2"],
    "peft": ["lora=dora", "lora.rank=2"],
    "longer": ["lora.rank=2", "data.max_length=128"],
    "other": ["lora.rank=2", "model.init_seed=5"],
}
TOGETHER = ["two", "one", "none"]


def trained(folder: Path, layout: str, names: Iterable[str]) -> Path:
    """A folder with a file to predict and a run of each member, whose rows lie flat or padded."""
    write_csv(generate(24, seed=3, noise=0.0), folder / "new.csv")
    for name in names:
        options = [*MEMBERS[name], f"data.layout={layout}", "precision=fp32", "optimizer.lr=0.02"]
        train(tiny_config(*options, "trainer.max_steps=2"), folder / name)
    return folder


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("flat"), "flat", MEMBERS)


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("padded"), "padded", TOGETHER)


@pytest.mark.parametrize("layout", ["flat", "padded"])
def test_a_pack_answers_as_its_runs_do_one_by_one_and_runs_the_frozen_blocks_once(
    layout: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    place: Path = request.getfixturevalue(layout)
    runs = [open_run(place / name) for name in TOGETHER]
    asked = checked_request(runs[0], place / "new.csv", place / "out.csv", Form(swap=True))
    tokens: list[list[int]] = [[], []]

    def watched(some: Sequence[FinishedRun], where: Place) -> Pack:
        pack = load_pack(some, where)
        for block, seen in zip(pack.members[0].backbone.body.layers, tokens, strict=True):
            block.register_forward_pre_hook(lambda _block, given, seen=seen: seen.append(given[0][..., 0].numel()))
        return pack

    monkeypatch.setattr(divided, "load_pack", watched)
    told: list[int] = []
    (found,) = ThisDevice().answers(Work(runs, asked.input, Place(CPU), asked.swap, 4), told.append)
    assert sum(told) == 24 * 2 * len(runs)
    assert len(tokens[0]) > 2 and tokens[1] == [count * len(runs) for count in tokens[0]]
    records = list(read_unlabelled(runs[0].config.data, place / "new.csv"))
    for name, one in zip(TOGETHER, found, strict=True):
        alone = predictions(load_run(place / name, CPU), records, swap=True, batch_rows=16)
        assert one.examples == alone.examples
        torch.testing.assert_close(one.answers_NA, alone.answers_NA, rtol=0, atol=1e-6)
    assert not torch.allclose(found[0].answers_NA, found[1].answers_NA, atol=1e-3)


def test_only_runs_with_the_same_backbone_and_the_same_tokens_share_a_pass(flat: Path, padded: Path) -> None:
    runs = [*(open_run(flat / name) for name in MEMBERS), open_run(padded / "one")]
    assert read_alike(runs, Place(CPU)) == [[0, 1, 2], [3], [4], [5], [6]]


@pytest.mark.parametrize("tokens", [1, 40, 200, 10_000])
def test_batches_hold_every_row_once_within_their_tokens(tokens: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 60, size=97)
    batches = budget_batches(lengths, tokens)
    assert sorted(np.concatenate(batches).tolist()) == list(range(97))
    assert all(len(rows) == 1 or len(rows) * lengths[rows].max() <= tokens for rows in batches)
    assert np.all(np.diff(lengths[np.concatenate(batches)]) <= 0)
    assert all(lengths[rows].min() >= LEAST_FILLED * lengths[rows].max() for rows in batches)
    for rows, after in pairwise(batches):  # none could have taken one more row
        longest, following = lengths[rows].max(), lengths[after].max()
        assert (len(rows) + 1) * longest > tokens or following < LEAST_FILLED * longest
