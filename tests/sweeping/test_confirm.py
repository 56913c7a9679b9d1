"""Tied rows that are trained again, on folders of results and in a real sweep."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import tiny_config
from pyarrow import parquet
from sweeps import Ran, planned, quiet, run

from danube_sweep.config.schema import Config, Confirm, Sweep
from danube_sweep.config.stored import load_config
from danube_sweep.results.rank import rank_sweep
from danube_sweep.storage.sweep_folder import Entry, SweepFolder
from danube_sweep.sweeping.confirm import confirm, next_round, offer, tied

IDS = [f"row {number}" for number in range(100)]


def finished(
    folder: SweepFolder, overrides: list[str], losses_N: Any, *, steps: int = 10, confirms: bool = False
) -> None:
    """A trial with these losses on the validation rows, of so many steps, which took a minute."""
    config: Config = tiny_config(*overrides)
    ((entry, _),) = folder.add([(config, overrides, None)], confirms=confirms)
    parquet.write_table(pa.table({"id": IDS, "loss": pa.array(losses_N, pa.float64())}), entry.folder.predictions)
    seconds = {"train": 50.0, "validation": 10.0}
    entry.folder.result.write_text(
        json.dumps(
            {
                "trial": entry.hash,
                "state": "finished",
                "steps": 10,
                "validation": {"log_loss": float(np.mean(losses_N))},
                "measured": {"seconds": seconds},
            }
        )
    )


@pytest.fixture
def three(tmp_path: Path) -> SweepFolder:
    """Two rows that nobody can tell apart and one that is clearly worse by two seeds, trials of ten steps each."""
    folder = SweepFolder(tmp_path / "sweep")
    folder.path.mkdir()
    noise = np.random.default_rng(0).normal(size=(3, 2, len(IDS)))
    for row, (rank, mean) in enumerate([(2, 0.50), (4, 0.51), (8, 2.0)]):
        for seed in (2, 3):
            finished(folder, [f"lora.rank={rank}", f"seed={seed}"], mean + 0.2 * noise[row, seed - 2])
    return folder


def ranks(rows: list[Any]) -> set[Any]:
    return {row.values["lora.rank"] for row in rows}


def test_only_tied_rows_are_trained_again_with_a_seed_that_nobody_had(three: SweepFolder) -> None:
    ranking = rank_sweep(three.path)
    assert ranks(tied(ranking)) == {2, 4}
    coming = next_round(ranking, three, Sweep(confirm_share=1.0))
    assert coming is not None
    assert (ranks(coming.rows), coming.seed, coming.steps, coming.seconds) == ({2, 4}, 4, 20, 120.0)
    assert coming.room_steps == 60 and coming.rounds == 3


def test_the_share_bounds_what_is_spent(three: SweepFolder) -> None:
    ranking = rank_sweep(three.path)
    assert next_round(ranking, three, Sweep(confirm_share=0.3)) is None  # 18 of 60 steps: a round takes 20
    assert next_round(ranking, three, Sweep(confirm_share=0.34)) is not None
    noise = np.random.default_rng(1).normal(size=(2, len(IDS)))
    for row, rank in enumerate((2, 4)):
        finished(three, [f"lora.rank={rank}", "seed=4"], 0.5 + 0.2 * noise[row], confirms=True)
    assert next_round(rank_sweep(three.path), three, Sweep(confirm_share=0.6)) is None  # 20 of 36 are spent
    assert next_round(rank_sweep(three.path), three, Sweep(confirm_share=0.67)) is not None


def test_a_tie_is_offered_to_be_confirmed_with_its_cost(three: SweepFolder) -> None:
    said = offer(rank_sweep(three.path), three, Sweep(confirm_share=0.5))
    assert said is not None and "sweep.confirm=auto (at most 2 trials, about 2 min)" in said
    assert f"danube-sweep resume {three.path}" in said


def test_nothing_is_offered_while_trials_are_open_or_nothing_is_tied(three: SweepFolder, tmp_path: Path) -> None:
    three.add([(tiny_config("lora.rank=16"), ["lora.rank=16"], None)])
    assert offer(rank_sweep(three.path), three, Sweep(confirm_share=1.0)) is None
    clear = SweepFolder(tmp_path / "clear")
    clear.path.mkdir()
    noise = np.random.default_rng(0).normal(size=(4, len(IDS)))
    for row, (rank, seed, mean) in enumerate([(2, 0, 0.5), (2, 1, 0.51), (4, 0, 2.0), (4, 1, 2.01)]):
        finished(clear, [f"lora.rank={rank}", f"seed={seed}"], mean + 0.2 * noise[row])
    assert tied(rank_sweep(clear.path)) == [] and offer(rank_sweep(clear.path), clear, Sweep()) is None


def test_trials_that_are_open_are_why_tied_rows_are_not_confirmed(three: SweepFolder) -> None:
    for overrides, why in ((["lora.rank=16"], "1 trial has not ended"), (None, "what it may spend is spent")):
        if overrides is None:
            three.entries()[-1].folder.result.write_text('{"trial": "a", "state": "failed"}')
        else:
            three.add([(tiny_config(*overrides), overrides, None)])
        terminal, said = quiet()
        confirm(three, Sweep(confirm_share=0.01), terminal, lambda: False)
        assert f"sweep.confirm: {why}; the rows are tied" in said.getvalue()


def test_with_one_seed_only_a_row_that_stands_out_is_told_apart(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    folder.path.mkdir()
    noise = np.random.default_rng(0).normal(size=(8, len(IDS)))
    for row in range(8):
        finished(folder, [f"lora.rank={2 + row}"], (2.0 if row == 7 else 0.5) + 0.2 * noise[row])
    assert ranks(tied(rank_sweep(folder.path))) == {2, 3, 4, 5, 6, 7, 8}


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Two configurations that hardly differ, confirmed with a trial each."""
    place = tmp_path_factory.mktemp("confirmed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DANUBE_SWEEP_CACHE", str(place / "cache"))
        plan = planned(place / "sweep", [["lora.alpha=32"], ["lora.alpha=33"]])
        return run(plan, confirm=Confirm.auto, confirm_share=1.0)


def added(ran: Ran) -> list[Entry]:
    return [entry for entry in ran.plan.folder.entries() if entry.confirms]


def test_a_sweep_confirms_its_winner_and_stops_when_the_share_is_spent(confirmed: Ran) -> None:
    assert confirmed.error is None
    assert [entry.number for entry in added(confirmed)] == [3, 4]
    assert confirmed.states() == ["finished"] * 4
    assert "confirming: 2 trials of 2 tied rows with seed 1" in confirmed.said
    assert "what it may spend is spent; the rows are tied" in confirmed.said


def test_a_trial_that_confirms_differs_from_its_row_in_the_seed_alone(confirmed: Ran) -> None:
    first, second, *again = [load_config(entry.folder.config) for entry in confirmed.plan.folder.entries()]
    by_alpha = {config.lora.alpha: config for config in again}
    assert by_alpha == {config.lora.alpha: replace(config, seed=1) for config in (first, second)}


def test_the_ranking_keeps_what_it_was_before(confirmed: Ran) -> None:
    kept = json.loads(confirmed.plan.folder.confirmed.read_text())
    assert ": lora.alpha=" in kept["before"] and "tied with 1 other" in kept["before"]
    assert kept["trials"] == [entry.path.name for entry in added(confirmed)]
    assert all(row.seeds == [0, 1] for row in rank_sweep(confirmed.plan.folder.path).rows)


def test_confirming_again_adds_nothing(confirmed: Ran) -> None:
    again = run(confirmed.plan, confirm=Confirm.auto, confirm_share=1.0)
    assert again.error is None and len(again.plan.folder.entries()) == 4
