"""A search adds its trials to the folder one by one, never the same point twice, and goes on where it was cut off."""

import io
import json
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from optuna.trial import TrialState
from rich.console import Console

from danube_sweep.composer import Composer
from danube_sweep.config.schema import Config, NoPruner, OnMisfit, Pruner, Sampler, Sweep
from danube_sweep.config.validate.check_sweep import objectives
from danube_sweep.errors import ConfigError, DiskError
from danube_sweep.storage.files import write_json
from danube_sweep.storage.sweep_folder import Entry, SweepFolder
from danube_sweep.sweeping.dry_run import search_table
from danube_sweep.sweeping.other_launchers import say_ignored
from danube_sweep.sweeping.plan_cells import plan_cells
from danube_sweep.sweeping.propose.draws_ahead import draws_ahead
from danube_sweep.sweeping.propose.early_stopping import EarlyStopping
from danube_sweep.sweeping.propose.grid_cells import check_search
from danube_sweep.sweeping.propose.next_trial import state_of
from danube_sweep.sweeping.propose.optuna_journal import OptunaJournal
from danube_sweep.sweeping.propose.search import SearchSource
from danube_sweep.sweeping.propose.search_space import Choice, Distribution, Number, Search
from danube_sweep.sweeping.resume_sweep import resume_sweep
from danube_sweep.sweeping.start_sweep import PlannedSweep, describe
from danube_sweep.terminal.screen import Terminal

FIXED = [*TINY, "data.rows=60"]
COMPOSER = Composer()
RANKS: dict[str, Distribution] = {"lora.rank": Number(1, 64, whole=True), "optimizer.lr": Number(1e-5, 1e-2, log=True)}

Opened = Callable[..., SearchSource]


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path / "sweep")


@pytest.fixture
def opened(folder: SweepFolder) -> Opened:
    """The source of a search in `folder`, as a new process would open it."""

    def source(
        sweep: Sweep,
        space: dict[str, Distribution] | None = None,
        pruner: Pruner | None = None,
        compose: Callable[[Sequence[str]], Config] = COMPOSER.trial,
    ) -> SearchSource:
        history = OptunaJournal(folder.history, objectives(sweep))
        early = None if pruner is None else EarlyStopping(folder, pruner, sweep)
        return SearchSource(folder, Search(FIXED, space or RANKS), sweep, history, compose, early)

    return source


def finish(entry: Entry, loss: float = 0.5, state: str = "finished") -> None:
    write_json(entry.folder.result, {"trial": entry.hash, "state": state, "validation": {"log_loss": loss}})


def run_all(source: SearchSource, most: int = 1000) -> list[Entry]:
    """Runs what the source gives until it is dry, and returns it in its order."""
    ran: list[Entry] = []
    while len(ran) < most and (claim := source.claim()) is not None:
        finish(claim.entry, 1 / claim.config.lora.rank if hasattr(claim.config.lora, "rank") else 1.0)
        source.ended(claim, "finished")
        claim.release()
        ran.append(claim.entry)
    return ran


def varied(entries: list[Entry]) -> list[tuple[str, ...]]:
    return [tuple(entry.overrides[len(FIXED) :]) for entry in entries]


# ------------------------------------------------------------------------------------------------------ drawing


@pytest.mark.parametrize("sampler", [Sampler.random, Sampler.tpe, Sampler.qmc], ids=lambda one: one.value)
def test_a_search_has_exactly_its_trials_each_once(sampler: Sampler, opened: Opened, folder: SweepFolder) -> None:
    source = opened(Sweep(trials=12, sampler=sampler))
    ran = run_all(source)
    assert [entry.number for entry in ran] == list(range(1, 13))
    assert len(set(varied(ran))) == len({entry.hash for entry in ran}) == 12
    assert source.claim() is None and not source.pending()
    assert folder.entries() == ran


def test_a_search_that_goes_on_repeats_nothing_and_ends_at_its_number(opened: Opened, folder: SweepFolder) -> None:
    sweep = Sweep(trials=9, sampler=Sampler.tpe)
    ran = [*run_all(opened(sweep), most=4), *run_all(opened(sweep))]
    assert [entry.number for entry in ran] == list(range(1, 10)) and len(set(varied(ran))) == 9
    assert run_all(opened(sweep)) == []
    assert [entry.number for entry in run_all(opened(Sweep(trials=11)))] == [10, 11]


def test_a_seed_draws_the_same_trials_with_or_without_a_break(
    opened: Opened, folder: SweepFolder, tmp_path: Path
) -> None:
    sweep = Sweep(trials=6, sampler_seed=3)
    broken = [*run_all(opened(sweep), most=2), *run_all(opened(sweep))]
    other = SweepFolder(tmp_path / "other")
    history = OptunaJournal(other.history, objectives(sweep))
    assert varied(run_all(SearchSource(other, Search(FIXED, RANKS), sweep, history, COMPOSER.trial))) == varied(broken)


def test_without_a_number_the_largest_sweep_is_the_end(opened: Opened) -> None:
    assert len(run_all(opened(Sweep(trials=None, max_trials=3, sampler=Sampler.random)))) == 3
    assert len(run_all(opened(Sweep(trials=9, max_trials=4, sampler=Sampler.random)))) == 1


@pytest.mark.parametrize("sampler", [Sampler.random, Sampler.tpe, Sampler.qmc], ids=lambda one: one.value)
def test_a_finite_space_is_run_through_and_the_end_is_said(sampler: Sampler, opened: Opened) -> None:
    space: dict[str, Distribution] = {"lora.rank": Choice(["2", "4"]), "seed": Number(0, 1, whole=True)}
    source = opened(Sweep(trials=20, sampler=sampler), space)
    assert len(set(varied(run_all(source)))) == 4
    assert source.notes == ["every point of the space is on record already: the search ends here"]


def test_two_texts_of_one_trial_are_one_trial(opened: Opened) -> None:
    source = opened(Sweep(trials=20), {"lora.alpha": Choice(["16", "16.0", "1.6e1"])})
    assert len(run_all(source)) == 1


def test_a_trial_remembers_its_draw(opened: Opened, folder: SweepFolder) -> None:
    claim = opened(Sweep(trials=2)).claim()
    assert claim is not None and claim.entry.draw == 0
    claim.release()
    assert OptunaJournal(folder.history, objectives(Sweep())).open_draws() == {0: claim.entry.hash}


@pytest.mark.parametrize(
    ("settings", "drawn", "known", "ahead"),
    [
        ({"trials": 12}, 0, 0, 3),
        ({"trials": 12}, 3, 3, 2),
        ({"trials": 12}, 9, 8, 4),
        ({"trials": None}, 0, 0, 10),
        ({"trials": 40, "draws_ahead": 6}, 0, 0, 6),
        ({"trials": 40, "sampler": Sampler.random}, 0, 0, None),
    ],
)
def test_a_pack_of_a_search_that_learns_begins_small_and_grows(
    settings: dict[str, Any], drawn: int, known: int, ahead: int | None
) -> None:
    assert draws_ahead(Sweep(**settings), drawn, known) == ahead


def test_a_search_tells_how_many_of_its_draws_were_informed(opened: Opened) -> None:
    source = opened(Sweep(trials=8))
    assert source.drawable() == 2
    first = source.claim()
    assert first is not None and source.drawable() == 1  # one is drawn ahead of its result
    first.release()
    run_all(opened(Sweep(trials=8)))
    assert source.told() == ["8 draws: 2 spread evenly at the start, 6 informed by 2 to 7 results"]
    assert opened(Sweep(trials=8, sampler=Sampler.random)).told() == []


def test_a_dry_run_and_another_launcher_tell_what_becomes_of_draws_ahead(opened: Opened, folder: SweepFolder) -> None:
    said, sweep = io.StringIO(), Sweep(trials=8)
    run_all(opened(sweep), most=6)
    terminal = Terminal(Console(file=said, width=500))
    terminal.show(search_table(Search(FIXED, RANKS), sweep, folder.entries(), COMPOSER.trial(FIXED)))
    assert "6 drawn so far" in said.getvalue() and "drawn ahead of results: at most 3, then half" in said.getvalue()
    say_ignored(Sweep(draws_ahead=3), NoPruner(), terminal)
    assert "sweep.draws_ahead: only hydra/launcher=local" in said.getvalue()


# ----------------------------------------------------------------------------------------------------- mistakes


def test_a_draw_with_a_mistake_is_on_record_and_the_search_goes_on(opened: Opened, folder: SweepFolder) -> None:
    source = opened(Sweep(trials=6, sampler=Sampler.random), {"lora.rank": Number(0, 3, whole=True)})
    ran = run_all(source)
    [invalid] = [entry for entry in folder.entries() if entry.hash is None]
    assert sorted(varied(ran)) == [("lora.rank=1",), ("lora.rank=2",), ("lora.rank=3",)]
    assert state_of(invalid) == "invalid" and "lora.rank must be at least 1, got 0" in json.dumps(
        invalid.folder.read_result()
    )
    assert any("lora.rank must be at least 1" in note for note in source.notes)
    assert source.notes[-1] == "every point of the space is on record already: the search ends here"


def test_a_file_that_is_not_there_is_a_mistake_of_its_trial_alone(
    opened: Opened, folder: SweepFolder, tmp_path: Path
) -> None:
    (tmp_path / "there.txt").write_text("a line\n" * 9)
    files = [f"[{tmp_path / name}.txt]" for name in ("there", "nowhere")]
    fixed = ["head=lm", "data=text", "tracking=none"]
    sweep = Sweep(trials=5)
    history = OptunaJournal(folder.history, objectives(sweep))
    source = SearchSource(folder, Search(fixed, {"data.path": Choice(files)}), sweep, history, COMPOSER.trial)
    assert len(run_all(source)) == 1
    assert sorted(str(state_of(entry)) for entry in folder.entries()) == ["finished", "invalid"]


# ------------------------------------------------------------------------------------------------- being cut off


def test_a_trial_that_was_cut_off_comes_first_when_the_search_goes_on(opened: Opened) -> None:
    sweep = Sweep(trials=3)
    first = opened(sweep).claim()
    assert first is not None
    first.release()  # its process is gone
    ran = run_all(opened(sweep))
    assert [entry.number for entry in ran] == [1, 2, 3] and ran[0] == first.entry


def test_a_trial_that_another_process_runs_is_not_taken(opened: Opened) -> None:
    sweep = Sweep(trials=2)
    theirs, ours = opened(sweep), opened(sweep)
    first, second = theirs.claim(), ours.claim()
    assert first is not None and second is not None and first.entry != second.entry
    assert ours.claim() is None and ours.pending()
    first.release()
    second.release()


def test_a_draw_that_became_no_trial_becomes_one(opened: Opened, folder: SweepFolder) -> None:
    sweep = Sweep(trials=2)
    draw, values = OptunaJournal(folder.history, objectives(sweep)).draw(RANKS, Sampler.random, 0)
    first, _ = run_all(opened(sweep))
    assert first.draw == draw and f"lora.rank={values['lora.rank']}" in first.overrides
    states = [trial.state for trial in OptunaJournal(folder.history, objectives(sweep)).study.trials]
    assert states == [TrialState.COMPLETE, TrialState.COMPLETE]


@pytest.mark.parametrize("sampler", [Sampler.random, Sampler.tpe, Sampler.qmc], ids=lambda one: one.value)
def test_a_search_that_a_full_disk_interrupted_draws_the_points_of_an_undisturbed_one(
    sampler: Sampler, opened: Opened, tmp_path: Path
) -> None:
    sweep = Sweep(trials=5, sampler=sampler)
    undisturbed = SweepFolder(tmp_path / "undisturbed")
    history = OptunaJournal(undisturbed.history, objectives(sweep))
    whole = run_all(SearchSource(undisturbed, Search(FIXED, RANKS), sweep, history, COMPOSER.trial))
    source = opened(sweep)
    ran = run_all(source, most=2)
    in_the_way = ran[0].path.with_name(whole[2].path.name)
    in_the_way.write_text("no room")
    for again in (source, opened(sweep)):  # the same process tries again, and another
        with pytest.raises(DiskError, match=f"{in_the_way.name} cannot be written"):
            again.claim()
    in_the_way.unlink()
    assert varied([*ran, *run_all(source)]) == varied(whole)


def test_a_draw_that_was_cut_short_does_not_count(opened: Opened, folder: SweepFolder, tmp_path: Path) -> None:
    sweep = Sweep(trials=3, sampler=Sampler.random)
    undisturbed = OptunaJournal(tmp_path / "other" / "history.log", objectives(sweep))
    expected = [undisturbed.draw(RANKS, Sampler.random, 0)[1]["lora.rank"] for _ in range(3)]
    cut = OptunaJournal(folder.history, objectives(sweep)).study.ask()
    cut.suggest_int("lora.rank", 1, 64)
    assert [entry.overrides[-2] for entry in run_all(opened(sweep))] == [f"lora.rank={rank}" for rank in expected]


def test_a_draw_whose_trial_is_in_the_folder_is_kept_even_without_its_name(opened: Opened, folder: SweepFolder) -> None:
    sweep = Sweep(trials=2)
    history = OptunaJournal(folder.history, objectives(sweep))
    draw, values = history.draw(RANKS, Sampler.random, 0)
    overrides = [*FIXED, f"lora.rank={values['lora.rank']}"]
    with folder.locked():
        [(entry, _)] = folder.add([(COMPOSER.trial(overrides), overrides, draw)])
    # here its process died
    run_all(opened(sweep))
    first = OptunaJournal(folder.history, objectives(sweep)).study.trials[0]
    assert first.state is TrialState.COMPLETE and entry.draw == first.number


def test_a_result_that_the_history_has_not_heard_of_is_told_when_the_search_goes_on(
    opened: Opened, folder: SweepFolder
) -> None:
    sweep = Sweep(trials=2)
    claim = opened(sweep).claim()
    assert claim is not None
    finish(claim.entry, 0.25)  # and here the sweep was killed
    claim.release()
    run_all(opened(sweep))
    trials = OptunaJournal(folder.history, objectives(sweep)).study.trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2 and trials[0].values == [0.25]


def test_a_result_that_was_cut_short_is_run_again(opened: Opened, folder: SweepFolder) -> None:
    sweep = Sweep(trials=2)
    ran = run_all(opened(sweep))
    ran[0].folder.result.write_text('{"state": "fin')
    source = opened(sweep)
    assert run_all(source) == ran[:1]
    assert source.notes == [
        f"{ran[0].path.name}: its result.json was damaged; the trial is run again (result.json.damaged)"
    ]


def test_a_failed_trial_is_run_again_when_that_is_asked_for(opened: Opened, folder: SweepFolder) -> None:
    claim = opened(Sweep(trials=1)).claim()
    assert claim is not None
    finish(claim.entry, state="oom")
    claim.release()
    assert run_all(opened(Sweep(trials=1))) == []
    assert run_all(opened(Sweep(trials=1, retry=["failed"]))) == []
    assert run_all(opened(Sweep(trials=1, retry=["oom"]))) == [claim.entry]
    assert state_of(claim.entry) == "finished"


# ------------------------------------------------------------------------------------------- other launchers


def batches(source: SearchSource, most: int) -> list[list[int]]:
    found = []
    while batch := source.batch(most):
        for entry in batch:
            if state_of(entry) is None:
                finish(entry)
            source.heard(entry)
        found.append([entry.number for entry in batch])
    return found


def test_other_launchers_get_the_search_in_batches(opened: Opened, folder: SweepFolder) -> None:
    assert batches(opened(Sweep(trials=5)), 2) == [[1, 2], [3, 4], [5]]
    trials = OptunaJournal(folder.history, objectives(Sweep())).study.trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 5


def test_a_batch_begins_with_what_was_cut_off(opened: Opened) -> None:
    sweep = Sweep(trials=4)
    opened(sweep).batch(2)
    assert batches(opened(sweep), 3) == [[1, 2, 3], [4]]


def test_a_mistake_in_a_batch_is_on_record_and_makes_room(opened: Opened, folder: SweepFolder) -> None:
    found = batches(opened(Sweep(trials=4), {"lora.rank": Number(0, 3, whole=True)}), 2)
    invalid = [entry.number for entry in folder.entries() if entry.hash is None]
    assert len(invalid) == 1 and sorted([*chain(*found), *invalid]) == [1, 2, 3, 4]


# ----------------------------------------------------------------------------------------- what is no draw of its own


def test_trials_that_confirm_are_no_points_and_no_results_of_the_search(folder: SweepFolder, opened: Opened) -> None:
    space: dict[str, Distribution] = {"lora.rank": Choice(["2", "4", "8"])}
    source = opened(Sweep(trials=2), space)
    for _ in range(2):
        claim = source.claim()
        assert claim is not None
        finish(claim.entry)
        source.ended(claim, "finished")
        claim.release()
    drawn = folder.entries()
    again = [[*entry.overrides, "seed=7"] for entry in drawn]
    records = len(OptunaJournal(folder.history, objectives(Sweep())).study.trials)
    with folder.locked():
        added = folder.add([(COMPOSER.trial(one), one, None) for one in again], confirms=True)
    history = OptunaJournal(folder.history, objectives(Sweep()))
    for entry, _ in added:
        finish(entry)
        history.ended(entry, entry.folder.read_result())
    assert len(history.study.trials) == records
    source = opened(Sweep(trials=3), space)
    claim = source.claim()
    assert claim is not None and source.notes == []  # the third point was never tried
    assert not {tuple(claim.entry.overrides)} & {tuple(entry.overrides) for entry in drawn}


@pytest.mark.parametrize(("on_misfit", "left_out"), [(OnMisfit.skip, True), (OnMisfit.error, False)])
def test_a_draw_that_does_not_fit_is_left_out_if_that_is_asked(
    folder: SweepFolder, opened: Opened, on_misfit: OnMisfit, left_out: bool
) -> None:
    source = opened(Sweep(trials=2, on_misfit=on_misfit), {"device.memory_limit_gib": Choice(["0.001"])})
    assert source.claim() is None
    (entry,) = folder.entries()
    result = entry.folder.read_result()
    assert result is not None and result["state"] == "invalid" and result["left_out"] is left_out
    assert (" left out: " in source.notes[0]) is left_out


def test_a_key_is_drawn_or_given_whatever_sign_it_has() -> None:
    search = Search([*FIXED, "optimizer.lr=7e-4"], {"++optimizer.lr": Number(1e-5, 1e-3, log=True)})
    with pytest.raises(ConfigError, match=r"optimizer\.lr is drawn by the search; leave out the fixed value"):
        check_search(search, COMPOSER.trial, Sweep(trials=2))


def test_cmaes_needs_numbers_to_learn_from() -> None:
    space: dict[str, Distribution] = {"lora.rank": Choice(["2", "4"]), "optimizer.lr": Number(1e-5, 1e-3)}
    with pytest.raises(ConfigError, match="cmaes draws two numbers or more, and this space has 1; use tpe or gp"):
        check_search(Search(FIXED, space), COMPOSER.trial, Sweep(trials=2, sampler=Sampler.cmaes))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "sweep.metric=validation/accuracy",
            r"the search in .* is about validation/log_loss \(minimize\); start a new folder",
        ),
        ("sweep.sampler=grid", "sweep.sampler=grid runs every cell, and this sweep is a search"),
    ],
)
def test_a_change_that_a_search_cannot_take_leaves_it_as_it_is(folder: SweepFolder, change: str, said: str) -> None:
    plan = PlannedSweep(folder, Sweep(trials=1), NoPruner(), Search(FIXED, RANKS))
    with folder.locked():
        describe(plan)
    before = folder.file.read_text()
    with pytest.raises(ConfigError, match=said):
        resume_sweep(folder.path, [change], Terminal(Console(quiet=True)))
    assert folder.file.read_text() == before


def test_a_metric_that_no_trial_reports_is_refused_on_resume(folder: SweepFolder) -> None:
    with folder.locked():
        folder.add([(COMPOSER.trial(FIXED), FIXED, None)])
        describe(PlannedSweep(folder, Sweep(), NoPruner()))
    with pytest.raises(ConfigError, match=r"sweep\.metric=validation/acuracy: no trial with this head reports it"):
        resume_sweep(folder.path, ["sweep.metric=validation/acuracy"], Terminal(Console(quiet=True)))


def test_a_plan_refuses_a_sweep_setting_that_is_swept() -> None:
    with pytest.raises(ConfigError, match=r"sweep\.slots belongs to the sweep, not to a trial; give it one value"):
        plan_cells(["sweep.slots=1,2", "device=cpu"], multirun=True)
