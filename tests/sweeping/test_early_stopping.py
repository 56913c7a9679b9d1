"""Which trials of a folder pause, which go on, and what may be spent: decided from the folder, by any process."""

import io
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import tiny_config
from rich.console import Console

from danube_sweep.config.schema import Asha, Patient, Pruner, Sweep, TensorboardTracking, WandbHyperband
from danube_sweep.config.schema.states import Verdict
from danube_sweep.config.stored import load_config
from danube_sweep.results.courses import Course, Reading
from danube_sweep.storage.files import write_json
from danube_sweep.storage.sweep_folder import Attempt, Entry, SweepFolder, append_attempt
from danube_sweep.sweeping.execute import close_paused as close_paused_file
from danube_sweep.sweeping.execute.close_paused import close_paused
from danube_sweep.sweeping.propose.early_stopping import EarlyStopping
from danube_sweep.sweeping.propose.next_trial import FolderSource
from danube_sweep.sweeping.propose.pause_policy import Known
from danube_sweep.sweeping.propose.standings import Standings
from danube_sweep.terminal.screen import Terminal

STEPS = 40
ASHA = Asha(min_validations=1, reduction=2)
"""With four validations a trial is judged after each but the last."""


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """Six trials that have not begun."""
    found, config = SweepFolder(tmp_path), tiny_config()
    with found.locked():
        found.add([(replace(config, seed=number), [f"seed={number}"], None) for number in range(1, 7)])
    return found


Opened = Callable[..., EarlyStopping]


@pytest.fixture
def opened(folder: SweepFolder) -> Opened:
    def early(pruner: Pruner = ASHA, **settings: float) -> EarlyStopping:
        return EarlyStopping(folder, pruner, Sweep(**settings))

    return early


def validate(entry: Entry, *losses: float) -> int:
    """Writes what a trial with these validations leaves on the disk; returns how many they are."""
    write_json(entry.folder.environment, {"trial": entry.hash, "total_steps": STEPS})
    rows = [f"{number * STEPS // 4},validation,{loss!r}" for number, loss in enumerate(losses, start=1)]
    entry.folder.metrics.write_text("\n".join(["step,part,log_loss", *rows]) + "\n")
    return len(losses)


def pause(entry: Entry, *losses: float) -> None:
    validate(entry, *losses)
    write_json(entry.folder.paused, {"state": "paused", "validation": {"log_loss": min(losses)}})


def finish(entry: Entry, *losses: float) -> None:
    validate(entry, *losses)
    write_json(entry.folder.result, {"state": "finished", "validation": {"log_loss": min(losses)}})


def numbers(entries: list[Entry]) -> list[int]:
    return [entry.number for entry in entries]


def test_of_trials_that_validated_together_the_better_ones_go_on(folder: SweepFolder, opened: Opened) -> None:
    entries = folder.entries()
    for entry, loss in zip(entries, (0.5, 0.3, 0.6, 0.4), strict=False):
        validate(entry, loss)
    early = opened()
    verdicts = [early.verdict(entry, 1) for entry in entries[:4]]
    assert verdicts == [Verdict.pause, Verdict.go_on, Verdict.pause, Verdict.go_on]


def test_what_was_told_to_go_on_is_told_so_again_after_a_kill(folder: SweepFolder, opened: Opened) -> None:
    first, second, *_ = folder.entries()
    validate(first, 0.3)
    validate(second, 0.5)
    early = opened()
    assert early.verdict(first, 1) is Verdict.go_on
    validate(second, 0.1)
    assert early.verdict(first, 1) is Verdict.go_on and opened().verdict(first, 1) is Verdict.pause


def test_a_paused_trial_is_promoted_once_it_ranks_high_enough(folder: SweepFolder, opened: Opened) -> None:
    entries = folder.entries()
    for entry, loss in zip(entries, (0.5, 0.3, 0.6), strict=False):
        pause(entry, loss)
    assert numbers(opened().promotions(folder.entries())) == [2]
    pause(entries[3], 0.7)
    assert numbers(opened().promotions(folder.entries())) == [2, 1]


def test_a_trial_that_failed_blocks_nobody(folder: SweepFolder, opened: Opened) -> None:
    entries = folder.entries()
    for entry, loss in zip(entries, (0.5, 0.9, 0.1), strict=False):
        pause(entry, loss)
    assert numbers(opened().promotions(folder.entries())) == [3]
    write_json(entries[2].folder.result, {"state": "diverged", "error": "…"})
    assert numbers(opened().promotions(folder.entries())) == [1]


def test_only_when_nothing_new_is_left_those_that_may_still_win_are_revived(
    folder: SweepFolder, opened: Opened
) -> None:
    entries = folder.entries()
    finish(entries[0], 0.9, 0.7, 0.52, 0.5)
    finish(entries[1], 0.9, 0.65, 0.6, 0.53)
    pause(entries[2], 0.95)
    pause(entries[3], 4.0)
    pause(entries[4], 0.96, 0.75)
    assert opened().revivals(folder.entries()) == []
    pause(entries[5], 5.0)
    early = opened()
    assert set(numbers(early.revivals(folder.entries()))) == {3, 5}
    early.to_draw = lambda: 1
    assert early.revivals(folder.entries()) == []


def test_one_trial_at_least_comes_to_its_end(folder: SweepFolder, opened: Opened) -> None:
    for number, entry in enumerate(folder.entries()):
        pause(entry, 0.5 + number)
    early = opened(budget=0.1)
    assert numbers(early.revivals(folder.entries())) == [1]


def test_a_trial_that_finished_by_patience_has_come_to_its_end(folder: SweepFolder, opened: Opened) -> None:
    first, *others = folder.entries()
    finish(first, 0.9, 0.2, 0.25)
    for number, entry in enumerate(others):
        pause(entry, 9.0 + number, 8.9 + number, 8.8 + number)
    assert opened().revivals(folder.entries()) == []  # none has a chance
    finish(first, 0.9, 0.7, 0.72)
    finish(others[0], 0.9, 0.65, 0.75)
    for entry in others[1:]:
        pause(entry, 0.92, 0.69)
    found = numbers(opened().revivals(folder.entries()))
    assert found != [] and opened(budget=0.3).revivals(folder.entries()) == []
    for entry in (first, others[0]):
        write_json(entry.folder.result, {"state": "pruned", "validation": {"log_loss": 0.65}})
    assert opened(budget=0.3).revivals(folder.entries()) != []  # none has come to its end


def test_a_budget_keeps_the_first_rung_for_all_and_limits_the_rest(folder: SweepFolder, opened: Opened) -> None:
    entries = folder.entries()
    finish(entries[0], 0.9, 0.7, 0.52, 0.5)
    for entry, loss in zip(entries[1:4], (0.5, 0.6, 0.9), strict=True):
        pause(entry, loss)
    # 1 + 3/4 of six trials are trained, 2/4 are to come for the two that wait; the next rung costs 1/4.
    assert numbers(opened(budget=0.41).promotions(folder.entries())) == []
    early = opened(budget=0.42)
    assert numbers(early.promotions(folder.entries())) == [2, 3]
    early.promoted(entries[1])
    assert early.promotions(folder.entries()) == []
    assert numbers(opened().promotions(folder.entries())) == [2, 3]


def test_a_budget_in_hours_follows_the_steps_that_an_hour_makes(folder: SweepFolder) -> None:
    clock = iter([0.0, 1800.0, 3000.0])
    early = EarlyStopping(folder, ASHA, Sweep(budget_h=1.0), clock=lambda: next(clock))
    known = Known({1: Course((Reading(1, 1.0, 0.5),), 100)}, set(), set())
    assert early.most_steps(known) == float("inf")  # nothing was made since the start
    more = Known({**known.courses, 2: Course((Reading(1, 1.0, 0.5),), 100)}, set(), set())
    assert early.most_steps(more) == pytest.approx(200 + 600 * 100 / 3000)


def test_a_budget_in_hours_counts_the_training_before_a_resume(folder: SweepFolder) -> None:
    """Two trials in a pack for half an hour, then another one: 3,000 of 3,600 s are spent."""
    for entry, start in zip(folder.entries(), ("10:00", "10:00", "18:00"), strict=False):
        seconds = 1800.0 if start == "10:00" else 1200.0
        append_attempt(entry.folder, Attempt("finished", seconds, f"2026-11-23T{start}:00+00:00", "here"))
    known = Known({number: Course((Reading(1, 1.0, 0.5),), 100) for number in (1, 2, 3)}, set(), set())
    clock = iter([0.0, 0.0, 500.0, 600.0])
    early = EarlyStopping(folder, ASHA, Sweep(budget_h=1.0), clock=lambda: next(clock))
    assert early.most_steps(known) == pytest.approx(300 + 600 * 300 / 3000)
    assert early.most_steps(known) == pytest.approx(300 + 100 * 300 / 3500)
    assert early.most_steps(known) == pytest.approx(300)


def test_patience_finishes_a_trial(folder: SweepFolder, opened: Opened) -> None:
    (first, *_) = folder.entries()
    early = opened(Patient(patience=0))
    assert early.verdict(first, validate(first, 0.5)) is Verdict.go_on
    assert early.verdict(first, validate(first, 0.5, 0.6)) is Verdict.finish


def test_a_trial_that_failed_counts_where_wandb_counts_it(folder: SweepFolder, opened: Opened) -> None:
    """hyperband_stop_runs of W&B's sweeps 0.3.0 reads the histories of all runs: of three, the second is the limit."""
    failed, best, judged, *_ = folder.entries()
    for entry, loss in ((failed, 0.9), (best, 0.5), (judged, 0.8)):
        validate(entry, loss)
    rule = WandbHyperband(min_iter=1, eta=3.0)
    assert opened(rule).verdict(judged, 1) is Verdict.go_on
    write_json(failed.folder.result, {"state": "diverged", "error": "…"})
    assert opened(rule).verdict(judged, 1) is Verdict.go_on
    failed.folder.metrics.unlink()
    assert opened(rule).verdict(judged, 1) is Verdict.prune


def test_a_metric_that_should_rise_is_turned_around(folder: SweepFolder) -> None:
    entries = folder.entries()
    for entry, loss in zip(entries, (0.5, 0.3), strict=False):
        validate(entry, loss)
        entry.folder.metrics.write_text(entry.folder.metrics.read_text().replace("log_loss", "accuracy"))
    early = EarlyStopping(folder, ASHA, Sweep(metric="validation/accuracy"))
    assert [early.verdict(entry, 1) for entry in entries[:2]] == [Verdict.go_on, Verdict.pause]


# ------------------------------------------------------------------------------------------------- who is claimed


def test_begun_trials_come_first_then_promoted_ones_then_new_ones_then_revived_ones(
    folder: SweepFolder, opened: Opened
) -> None:
    entries = folder.entries()
    pause(entries[0], 0.5)
    pause(entries[1], 0.52)
    pause(entries[2], 0.9)
    validate(entries[4], 0.7)
    entries[4].folder.checkpoints.mkdir()
    source = FolderSource(folder, early=opened())
    claims = []
    while (claim := source.claim()) is not None:
        claims.append(claim)
    assert [claim.entry.number for claim in claims] == [5, 1, 2, 4, 6]
    other = FolderSource(folder, early=opened())
    assert other.claim() is None and other.pending()  # no process takes what another has
    for claim in claims:
        claim.release()


def test_a_paused_trial_is_claimed_by_one_process_and_again_after_it_was_killed(
    folder: SweepFolder, opened: Opened
) -> None:
    entries = folder.entries()
    for entry, loss in zip(entries, (0.5, 0.6, 0.9, 0.9, 0.9, 0.9), strict=True):
        pause(entry, loss)
    both = [FolderSource(folder, early=opened()) for _ in range(2)]
    first, second = (source.claim() for source in both)
    assert first is not None and second is not None and (first.entry.number, second.entry.number) == (1, 2)
    first.release()  # its process was killed before it trained: it is paused still
    again = both[1].claim()
    assert again is not None and again.entry.number == 1
    again.release()
    second.release()


@pytest.mark.parametrize("text", ["", "[]", '{"state": "pau'])
def test_a_trial_with_a_damaged_pause_continues_and_does_not_hold_up_the_sweep(
    folder: SweepFolder, opened: Opened, text: str
) -> None:
    entries = folder.entries()
    for entry in entries[1:]:
        finish(entry, 0.5, 0.4, 0.3, 0.2)
    pause(entries[0], 9.0)
    assert FolderSource(folder, early=opened()).claim() is None
    entries[0].folder.paused.write_text(text)
    source = FolderSource(folder, early=opened())
    claim = source.claim()
    assert claim is not None and claim.entry.number == 1 and not entries[0].folder.paused.exists()
    (note,) = source.notes
    assert "paused.json was damaged; it continues from its checkpoint (paused.json.damaged)" in note
    claim.release()


def test_a_pause_that_is_damaged_when_the_sweep_closes_is_set_aside_too(folder: SweepFolder, opened: Opened) -> None:
    for entry in folder.entries():
        pause(entry, 0.5)
    first = folder.entries()[0].folder
    first.paused.write_text("{")
    said, heard = io.StringIO(), list[Entry]()
    close_paused(folder, Terminal(Console(file=said, width=500)), heard.append)
    assert numbers(heard) == [2, 3, 4, 5, 6] and "(paused.json.damaged)" in said.getvalue()
    assert not first.paused.exists() and not first.result.exists()


def test_a_tracker_that_cannot_be_told_of_a_pruned_trial_is_named(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, said = folder.entries()[0], io.StringIO()
    config = replace(load_config(entry.folder.config), tracking=TensorboardTracking())
    monkeypatch.setattr(close_paused_file, "load_config", lambda _: config)
    entry.folder.result.write_text("{")
    close_paused_file._tell_tracker(entry, Terminal(Console(file=said, width=500)))
    assert f"{entry.path.name}: its tracking was not told that it is pruned: " in said.getvalue()
    assert "result.json is cut short or damaged" in said.getvalue()


# ------------------------------------------------------------------------------------------- where the trials stand


def test_what_becomes_of_a_trial_is_seen_at_once_though_quiet_folders_are_not_read_again(folder: SweepFolder) -> None:
    entry, kept = folder.entries()[0], Standings("validation/log_loss", "minimize")
    changes: list[Callable[[], object]] = [
        lambda: None,
        lambda: validate(entry, 0.5),
        lambda: add_validation(entry, 0.4),  # a line more, which does not change the folder
        lambda: write_json(entry.folder.paused, {"state": "paused"}),
        lambda: entry.folder.checkpoints.mkdir(),
        lambda: entry.folder.paused.unlink(),
        lambda: add_validation(entry, 0.3),
        lambda: entry.folder.result.write_text("{"),
        lambda: write_json(entry.folder.result, {"state": "failed"}),
        lambda: entry.folder.result.unlink(),
        lambda: finish(entry, 0.5, 0.4, 0.3, 0.2),
    ]
    seen = []
    for age_s, change in zip(range(100, 0, -5), changes, strict=False):
        before_ns = entry.path.stat().st_mtime_ns
        change()
        if entry.path.stat().st_mtime_ns != before_ns:
            settle(entry, age_s)
        seen.append(kept.of(entry))
        assert kept.of(entry) == seen[-1] == Standings("validation/log_loss", "minimize").of(entry)
    assert [one.state for one in seen] == [None] * 8 + ["failed", None, "finished"]
    assert [len(one.course.readings) for one in seen] == [0, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4]
    assert [one.is_paused for one in seen] == [False] * 3 + [True] * 2 + [False] * 6
    assert [one.has_checkpoints for one in seen] == [False] * 4 + [True] * 7


def test_a_quiet_trial_costs_one_look_at_its_folder(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    entries, kept = folder.entries(), Standings("validation/log_loss", "minimize")
    finish(entries[0], 0.5)
    pause(entries[1], 0.5)
    for entry in entries:
        settle(entry, age_s=10)
    before = [kept.of(entry) for entry in entries]
    monkeypatch.setattr(Standings, "_look", None)
    monkeypatch.setattr(Standings, "course", None)
    assert [kept.of(entry) for entry in entries] == before


def add_validation(entry: Entry, loss: float) -> None:
    with entry.folder.metrics.open("a") as stream:
        rows = entry.folder.metrics.read_text().count(",validation,")
        stream.write(f"{(rows + 1) * STEPS // 4},validation,{loss!r}\n")


def settle(entry: Entry, age_s: float) -> None:
    """Makes the last change of a folder so old."""
    then = time.time() - age_s
    os.utime(entry.path, (then, then))
