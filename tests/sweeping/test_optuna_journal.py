"""What samplers see of a search, in a journal that several processes write and any of them may die in."""

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import warm
from conftest import ROOT
from optuna.trial import TrialState

from danube_sweep.config.schema import Sampler
from danube_sweep.errors import ConfigError
from danube_sweep.storage.run_folder import number_at
from danube_sweep.storage.sweep_folder import Entry
from danube_sweep.sweeping.propose.optuna_journal import TRIAL, OptunaJournal
from danube_sweep.sweeping.propose.samplers import build_sampler
from danube_sweep.sweeping.propose.search_space import (
    Beta,
    Choice,
    Distribution,
    Normal,
    Number,
    Rounded,
    Weighted,
    drawn_text,
)

LOSS = [("validation/log_loss", "minimize")]
ACCURACY = [("validation/accuracy", "maximize")]
SPACE: dict[str, Distribution] = {
    "optimizer.lr": Number(1e-5, 1e-2, log=True),
    "lora.rank": Number(8, 64, step=8, whole=True),
    "trainer.epochs": Number(1, 64, log=True, whole=True),
    "lora.alpha": Number(32, 256, log=True, step=8, whole=True),
    "lora.dropout": Normal(0.2, 0.02, step=0.01),
    "head": Choice(["preference", "sequence", "'a b'"]),
    "x": Number(0.1, 0.4, step=0.1),
    "y": Number(3.0, 3.0),
}
OF_WANDB: dict[str, Distribution] = {
    "rounded": Rounded(4.0, 60.0, 8),
    "beta": Beta(2.0, 5.0, step=0.1),
    "weighted": Weighted(["a", "b", "c"], [0.5, 0.0, 0.5]),
}
SWEEPS = ROOT / "docs" / "sweeps.md"
DRAWING = [sampler for sampler in Sampler if sampler is not Sampler.grid]

Open = Callable[..., OptunaJournal]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    def journal(objectives: list[tuple[str, str]] = LOSS) -> OptunaJournal:
        return OptunaJournal(tmp_path / "history.log", objectives)

    return journal


def entry(number: int, draw: int | None = None) -> Entry:
    return Entry(number, f"{number:032x}", [], Path("nowhere"), draw)


def finished(loss: float, state: str = "finished") -> dict[str, Any]:
    return {"state": state, "validation": {"log_loss": loss, "accuracy": 1 - loss}, "measured": {"tokens_per_s": 9.0}}


def drawn(
    journal: OptunaJournal, sampler: Sampler, seed: int, number: int, space: Mapping[str, Distribution] = SPACE
) -> str:
    """Draws a point, runs it to its end with a loss that depends on it, and returns it."""
    draw, values = journal.draw(space, sampler, seed)
    point = json.dumps({key: drawn_text(space[key], values[key]) for key in space})
    journal.name(draw, entry(number).hash or "")
    journal.ended(entry(number, draw), finished(len(point) % 7 / 10))
    return point


# ----------------------------------------------------------------------------------------------------- drawing


@pytest.mark.parametrize("sampler", DRAWING, ids=lambda sampler: sampler.value)
def test_every_sampler_stays_in_the_space_and_does_not_repeat_itself_after_a_break(
    sampler: Sampler, opened: Open
) -> None:
    count = 6  # more than ten, after which gp and tpe begin to learn
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        points = [drawn(opened(), sampler, 0, number) for number in range(1, count + 1)]
        journal = opened()
        points += [drawn(journal, sampler, 0, number) for number in range(count + 1, 2 * count + 1)]
    assert len(set(points)) == len(points)
    for point in map(json.loads, points):
        assert 1e-5 <= float(point["optimizer.lr"]) <= 1e-2
        assert int(point["lora.rank"]) in range(8, 65, 8)
        assert int(point["trainer.epochs"]) in range(1, 65)
        assert int(point["lora.alpha"]) in range(32, 257, 8)
        assert 0 < float(point["lora.dropout"]) < 0.4 and len(point["lora.dropout"]) <= 4
        assert point["head"] in ("preference", "sequence", "'a b'")
        assert point["x"] in ("0.1", "0.2", "0.3", "0.4")
        assert point["y"] == "3.0"
    assert all(len({json.loads(point)[key] for point in points}) > 1 for key in ("optimizer.lr", "lora.rank", "head"))


@pytest.mark.parametrize("sampler", DRAWING, ids=lambda sampler: sampler.value)
def test_every_sampler_draws_from_the_distributions_that_optuna_lacks(sampler: Sampler, opened: Open) -> None:
    journal = opened()
    points = [json.loads(drawn(journal, sampler, 0, number, OF_WANDB)) for number in range(1, 9)]
    assert {int(point["rounded"]) for point in points} <= set(range(8, 57, 8))
    assert {point["weighted"] for point in points} <= {"a", "c"}
    assert all(0 <= float(point["beta"]) <= 1 and len(point["beta"]) <= 3 for point in points)
    assert len({json.dumps(point) for point in points}) > 1


@pytest.mark.parametrize(
    "sampler", [Sampler.random, Sampler.tpe, Sampler.qmc, Sampler.cmaes], ids=lambda one: one.value
)
def test_a_seed_makes_a_search_reproducible(sampler: Sampler, tmp_path: Path) -> None:
    def points(name: str, seed: int) -> list[str]:
        journal = OptunaJournal(tmp_path / name / "history.log", LOSS)
        return [drawn(journal, sampler, seed, number) for number in range(1, 13)]

    assert points("a", 5) == points("b", 5)
    assert not set(points("a", 5)) & set(points("c", 6))


@pytest.mark.parametrize("sampler", [Sampler.random, Sampler.tpe, Sampler.qmc], ids=lambda one: one.value)
def test_several_slots_draw_different_points_before_any_trial_has_ended(sampler: Sampler, opened: Open) -> None:
    journal = opened()
    points = [journal.draw(SPACE, sampler, 0)[1] for _ in range(6)]
    assert len({json.dumps(point) for point in points}) == 6
    assert len({point["head"] for point in points}) > 1


@pytest.mark.parametrize("sampler", [Sampler.random, Sampler.tpe, Sampler.qmc], ids=lambda one: one.value)
def test_a_search_for_several_objectives_takes_them_all(sampler: Sampler, opened: Open) -> None:
    both = [*LOSS, ("measured/tokens_per_s", "maximize")]
    journal = opened(objectives=both)
    for number in range(1, 13):
        draw, _ = journal.draw(SPACE, sampler, 0)
        journal.name(draw, entry(number).hash or "")
        journal.ended(entry(number, draw), finished(0.5))
    assert [trial.values for trial in opened(objectives=both).study.trials] == [[0.5, 9.0]] * 12


def test_a_grid_is_not_drawn() -> None:
    with pytest.raises(ConfigError, match="sampler=grid runs every cell and draws nothing"):
        build_sampler(Sampler.grid, 0, 0)


@pytest.mark.parametrize("objectives", [LOSS, ACCURACY], ids=["least loss", "most accuracy"])
def test_tpe_learns_where_the_good_trials_are(opened: Open, objectives: list[tuple[str, str]]) -> None:
    journal, space = opened(objectives), {"x": Number(0.0, 1.0)}
    found = []
    for number in range(1, 41):
        draw, values = journal.draw(space, Sampler.tpe, 0, startup=8)
        journal.name(draw, entry(number).hash or "")
        journal.ended(entry(number, draw), finished((values["x"] - 0.7) ** 2))
        found.append(abs(values["x"] - 0.7))
    assert sum(found[-8:]) < sum(found[:8]) / 1.5


def test_the_first_draws_are_spread_evenly_and_the_later_ones_say_what_they_learned_from(opened: Open) -> None:
    journal, space = opened(), {"x": Number(0.0, 1.0), "head": Choice(["a", "b"])}
    for number in range(1, 7):
        draw, _ = journal.draw(space, Sampler.tpe, 0, startup=4)
        journal.name(draw, entry(number).hash or "")
        journal.ended(entry(number, draw), finished(0.5))
    trials = journal.study.trials
    assert sorted(int(4 * trial.params["x"]) for trial in trials[:4]) == [0, 1, 2, 3]
    assert sorted(trial.params["head"] for trial in trials[:4]) == ["a", "a", "b", "b"]
    assert journal.informed() == (6, [4, 5])


def test_a_search_learns_from_trials_that_are_paused(opened: Open) -> None:
    journal, space = opened(), {"x": Number(0.0, 1.0)}
    paused: dict[int, dict[int, float]] = {}
    for _ in range(30):
        draw, values = journal.draw(space, Sampler.tpe, 0, startup=8, paused=paused)
        paused[draw] = {250: abs(values["x"] - 0.7)}
    far = [readings[250] for readings in paused.values()]
    assert sum(far[-8:]) < sum(far[:8]) / 2 and journal.informed() == (30, [*range(8, 30)])


def test_a_pruned_trial_keeps_its_validations(opened: Open) -> None:
    journal = opened()
    draw, _ = journal.draw(SPACE, Sampler.random, 0)
    journal.name(draw, entry(1).hash or "")
    journal.ended(entry(1, draw), finished(0.4, "pruned"), {250: 0.5, 500: 0.4})
    assert journal.study.trials[0].intermediate_values == {250: 0.5, 500: 0.4}


# ---------------------------------------------------------------------------------------------------- the journal


def test_a_trial_ends_in_the_journal_as_it_ended(opened: Open) -> None:
    journal = opened()
    results = [finished(0.5), finished(0.4, "pruned"), {"state": "diverged", "error": "…"}, {"state": "finished"}, None]
    for number, result in enumerate(results, start=1):
        draw, _ = journal.draw(SPACE, Sampler.random, 0)
        journal.name(draw, entry(number).hash or "")
        journal.ended(entry(number, draw), result)
    states = [trial.state for trial in opened().study.trials]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL, TrialState.RUNNING]
    assert opened().study.trials[0].values == [0.5]


def test_an_end_that_is_told_twice_counts_once(opened: Open) -> None:
    journal = opened()
    draw, _ = journal.draw(SPACE, Sampler.random, 0)
    for _ in range(2):
        journal.ended(entry(1, draw), finished(0.5))
        journal.ended(entry(2), finished(0.1))  # was never drawn
    assert [trial.values for trial in journal.study.trials] == [[0.5]]


def test_a_failed_trial_that_is_run_again_gets_a_record_of_its_own_with_the_same_values(opened: Open) -> None:
    journal = opened()
    draw, values = journal.draw(SPACE, Sampler.random, 0)
    journal.name(draw, entry(1).hash or "")
    journal.ended(entry(1, draw), {"state": "oom", "error": "…"})
    again = opened()
    again.ended(entry(1, draw), finished(0.6))
    first, second = opened().study.trials
    assert (first.state, second.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert second.params == first.params == values and second.user_attrs[TRIAL] == first.user_attrs[TRIAL]
    assert second.values == [0.6]


def test_the_open_draws_are_known_with_their_trials(opened: Open) -> None:
    journal = opened()
    orphan, named, dropped = (journal.draw(SPACE, Sampler.random, 0)[0] for _ in range(3))
    journal.name(named, "abc")
    journal.drop(dropped)
    journal.drop(dropped)
    assert opened().open_draws() == {orphan: None, named: "abc"}


WRITER = """
import sys
from pathlib import Path
from danube_sweep.config.schema import Sampler
from danube_sweep.sweeping.propose.optuna_journal import OptunaJournal
from danube_sweep.sweeping.propose.search_space import Number
journal = OptunaJournal(Path(sys.argv[1]), [("validation/log_loss", "minimize")])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    draw, _ = journal.draw({"x": Number(0.0, 1.0)}, Sampler.random, int(sys.argv[2]))
    journal.drop(draw)
"""


def process(script: str, *arguments: object) -> subprocess.Popen[str]:
    return warm.popen("-c", script, *arguments, stdin=subprocess.PIPE)


def test_two_processes_write_one_journal(tmp_path: Path, opened: Open) -> None:
    writers = [process(WRITER, tmp_path / "history.log", seed) for seed in (1, 2)]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.communicate()[1] for writer in writers] == ["", ""]
    trials = opened().study.trials
    assert [trial.number for trial in trials] == list(range(40))
    assert {trial.state for trial in trials} == {TrialState.FAIL}


HOLDER = """
import sys
from pathlib import Path
from danube_sweep.sweeping.propose.optuna_journal import _Lock
Path(sys.argv[1]).touch()
_Lock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.readline()
"""


def test_a_killed_holder_of_the_journal_blocks_nobody(tmp_path: Path, opened: Open) -> None:
    opened().draw(SPACE, Sampler.random, 0)
    holder = process(HOLDER, tmp_path / "history.log")
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    opened().draw(SPACE, Sampler.random, 0)
    assert len(opened().study.trials) == 2


def test_half_a_line_at_the_end_of_the_journal_harms_nothing(tmp_path: Path, opened: Open) -> None:
    journal = opened()
    journal.draw(SPACE, Sampler.random, 0)
    with (tmp_path / "history.log").open("ab") as stream:
        stream.write(b'{"op_code":4,"worker')
    journal.draw(SPACE, Sampler.random, 0)
    opened().draw(SPACE, Sampler.random, 0)
    assert [trial.number for trial in opened().study.trials] == [0, 1, 2]


def test_what_was_learned_about_one_metric_is_not_taken_for_another(opened: Open) -> None:
    opened()
    with pytest.raises(ConfigError, match=r"is about validation/log_loss \(minimize\); start a new folder"):
        opened(objectives=ACCURACY)
    with pytest.raises(ConfigError, match=r"sweep\.metric"):
        opened(objectives=[*LOSS, *ACCURACY])


# ----------------------------------------------------------------------------------------------------- results


def test_a_number_is_found_by_its_path() -> None:
    result = {**finished(0.25), "parameters": {"trainable": 7}, "measured": {"seconds": {"train": 3}}}
    assert number_at(result, "validation/log_loss") == 0.25
    assert number_at(result, "measured/seconds/train") == 3.0
    assert number_at(result, "parameters/trainable") == 7.0
    for nowhere in ("validation", "state", "state/x", "nope", "validation/nope", ""):
        assert number_at(result, nowhere) is None


def test_the_documented_statement_opens_the_search_in_optuna_alone(opened: Open, tmp_path: Path) -> None:
    journal, space = opened(), {"lora.rank": Choice(["4", "8"]), "optimizer.lr": Number(1e-4, 1e-2, log=True)}
    said = {}
    for number, loss in enumerate((0.5, 0.25, 0.75)):
        draw, values = journal.draw(space, Sampler.tpe, 0)
        journal.name(draw, entry(number).hash or "")
        state = "pruned" if number == 2 else "finished"
        journal.ended(entry(number, draw), finished(loss, state), {500: loss})
        said[entry(number).hash] = values
    (load,) = [block for block in SWEEPS.read_text().split("```python\n") if block.startswith("study = optuna.load")]
    script = f"""
import json, optuna, sys
optuna.logging.set_verbosity(optuna.logging.WARNING)
{load.partition("```")[0].replace("SWEEP_DIR", str(tmp_path))}
trials = [[one.user_attrs["trial"], one.state.name, one.params, one.intermediate_values] for one in study.trials]
print(json.dumps([study.best_value, study.best_trial.user_attrs["trial"], study.direction.name, trials]))
assert "danube_sweep" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    value, best, direction, trials = json.loads(done.stdout)
    assert (value, best, direction) == (0.25, entry(1).hash, "MINIMIZE")
    assert {identity: params for identity, _, params, _ in trials} == said
    assert [(state, seen) for _, state, _, seen in trials] == [
        ("COMPLETE", {}),
        ("COMPLETE", {}),
        ("PRUNED", {"500": 0.75}),
    ]
