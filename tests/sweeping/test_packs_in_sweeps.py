"""A sweep trains packs: the same trials with the same results, and what ends one of them ends no other."""

import re
import signal
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path

import hostile
import pyarrow.parquet as parquet
import pytest
from conftest import TINY, tiny_config
from runs import metrics
from sweeps import SHORT, Ran, left_over, planned, quiet, run, seeds, warm_parent
from test_executor import grid, own_process

from danube_sweep.composer import Composer
from danube_sweep.config.schema import NoPruner, Sweep
from danube_sweep.config.schema.states import Verdict
from danube_sweep.errors import Dismissed, Interrupted, SweepFailed
from danube_sweep.results.rank import rank_sweep
from danube_sweep.results.rows import winner
from danube_sweep.storage.sweep_folder import Entry, SweepFolder, attempts
from danube_sweep.sweeping.execute.child_process import Line
from danube_sweep.sweeping.execute.form_packs import Packer
from danube_sweep.sweeping.execute.messages import Dismissal, Left, PackTrial, Validated
from danube_sweep.sweeping.propose.next_trial import Claim, FolderSource
from danube_sweep.sweeping.propose.search_space import Choice, Number, Search
from danube_sweep.sweeping.start_sweep import PlannedSweep, plan_grid, run_search, run_sweep

NEAR = 1e-5
"""How far a trial of a pack may be from the same trial alone, in fp32."""


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with warm_parent(tmp_path_factory.mktemp("warm")):
        yield


def packs(path: Path) -> list[list[str]]:
    """The seeds of each pack in the order of their starts."""
    return [line.split() for line in hostile.lines(path, hostile.PACKS)]


def states(ran: Ran, number: int) -> list[str]:
    return [attempt.state for attempt in ran.attempts(number)]


# ------------------------------------------------------------------------------------------------- the same trials

CELLS = [
    ["lora.rank=2", "seed=1"],
    ["lora.rank=8", "seed=2", "optimizer=sgd"],
    ["lora.rank=4", "seed=1", "trainer.max_steps=2"],
    ["lora.rank=4", "seed=3", "lora.dropout=0.1", "schedule=constant"],
    ["lora.rank=2", "seed=1", "optimizer.lr=1e30", "trainer.clip_norm=null"],
    ["lora.rank=16", "seed=5", "lora.alpha=4"],
]
"""The third has fewer steps, the fifth diverges."""
TRIALS = ["precision=fp32", "trainer.max_steps=4", "trainer.log_every=1"]


@pytest.fixture(scope="module")
def alone(warm: None, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run(planned(tmp_path_factory.mktemp("alone"), CELLS, *TRIALS, "sweep.pack=1"))


@pytest.fixture(scope="module")
def packed(warm: None, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run(planned(tmp_path_factory.mktemp("packed"), CELLS, *TRIALS, "sweep.pack=4"))


def check_the_same(entry: Entry, other: Entry) -> None:
    first, second = entry.folder.read_result() or {}, other.folder.read_result() or {}
    for name in ("state", "trial", "steps", "best_step"):
        assert first.get(name) == second.get(name), name
    assert first.get("validation") == pytest.approx(second.get("validation"), abs=NEAR)
    for part in ("train", "validation"):
        rows, others = metrics(entry.path, part), metrics(other.path, part)
        assert [row["step"] for row in rows] == [row["step"] for row in others]
        losses = [[float(row["loss" if part == "train" else "log_loss"]) for row in some] for some in (rows, others)]
        assert losses[0] == pytest.approx(losses[1], abs=NEAR, nan_ok=True)
    if first["state"] == "finished":
        tables = [parquet.read_table(one.folder.predictions) for one in (entry, other)]
        assert tables[0]["loss"].to_pylist() == pytest.approx(tables[1]["loss"].to_pylist(), abs=NEAR)


@pytest.mark.parametrize("number", range(1, 7))
def test_a_trial_of_a_pack_has_the_results_it_has_alone(alone: Ran, packed: Ran, number: int) -> None:
    check_the_same(packed[number], alone[number])


def test_one_process_trains_them_and_fills_the_places_that_come_free(packed: Ran) -> None:
    assert packed.states() == [*["finished"] * 4, "diverged", "finished"]
    ended = [attempt for number in range(1, 7) for attempt in packed.attempts(number)]
    assert [(attempt.pack, attempt.slot) for attempt in ended] == [("p001", 0)] * 6
    assert [attempt.exit for attempt in ended] == [0, 0, 0, 0, 1, 0]
    assert [(packed.result(number) or {})["measured"]["packed"] for number in (1, 6)] == [4, 4]
    assert [path.name for path in packed.plan.folder.path.glob("p*.log")] == ["p001.log"]


def test_a_trial_says_in_its_log_that_it_was_packed_and_the_rest_of_its_log_is_its_own(packed: Ran) -> None:
    for number in (1, 5):
        first, *others = packed[number].folder.log.read_text().splitlines()
        assert first.startswith("trains in pack p001, at first with 3 others; what its process prints is in ../p001")
        assert any("step 1/4" in line or "not finite" in line for line in others)
    assert packed.said.count("finished  validation/log_loss") == 5 and "diverged: the loss is not finite" in packed.said


def test_a_pack_that_is_killed_goes_on_in_halves_from_its_checkpoints(alone: Ran, tmp_path: Path) -> None:
    ran = run(planned(tmp_path, CELLS[:4], *TRIALS, "sweep.pack=4", "trainer.validate_every=1"), hostile.killed_once)
    assert ran.error is None and ran.states() == ["finished"] * 4
    assert [states(ran, number) for number in (1, 2, 3, 4)] == [["interrupted", "finished"]] * 4
    assert "p001  killed by SIGKILL: 4 go on from their checkpoints, 2 at a time" in ran.said
    assert packs(tmp_path) == [["4"], ["2"], ["2"]]
    for number in (1, 2, 3, 4):
        assert re.search(r"resumed at step [12] of", ran[number].folder.log.read_text())
        first, second = ran.result(number) or {}, alone.result(number) or {}
        assert first["train_loss"] == pytest.approx(second["train_loss"], abs=NEAR)


def test_a_stopped_pack_checkpoints_every_trial_and_goes_on(alone: Ran, tmp_path: Path) -> None:
    plan = planned(tmp_path, CELLS[:2], *TRIALS, "sweep.pack=2")
    ran = run(plan, hostile.interrupting)
    assert isinstance(ran.error, Interrupted) and ran.error.exit_code == 130
    assert [states(ran, number) for number in (1, 2)] == [["interrupted"]] * 2
    again = run(plan)
    for number in (1, 2):
        assert "resumed at step 2 of 4" in again[number].folder.log.read_text()
        check_the_same(again[number], alone[number])


def test_a_second_ctrl_c_ends_a_pack_at_once_and_on_record(tmp_path: Path) -> None:
    ran = run(planned(tmp_path, seeds(1, 2, 3), "sweep.pack=2"), hostile.interrupting_twice)
    assert isinstance(ran.error, Interrupted) and "at once" in str(ran.error)
    assert [states(ran, number) for number in (1, 2, 3)] == [["interrupted"], ["interrupted"], []]
    assert {ran.attempts(number)[0].exit for number in (1, 2)} == {-signal.SIGKILL}
    assert not left_over(hostile.lines(tmp_path, hostile.PIDS))


# ---------------------------------------------------------------------------------------- what ends one of them


@pytest.fixture(scope="module")
def guilty(warm: None, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Fourteen trials, of which one ends the process that it is in."""
    return run(planned(tmp_path_factory.mktemp("guilty"), seeds(*range(1, 15)), "sweep.pack=7"), hostile.guilty_pack)


def test_a_trial_that_ends_its_process_is_found_by_halves_and_ends_alone(guilty: Ran) -> None:
    assert isinstance(guilty.error, SweepFailed)
    assert guilty.states() == [*["finished"] * 4, "failed", *["finished"] * 9]
    assert states(guilty, 5)[:-1] == ["interrupted"] * (len(states(guilty, 5)) - 1)
    assert guilty.attempts(5)[-1].pack is None and guilty.attempts(1)[0].pack == "p001"
    assert "Segmentation fault" in "\n".join((guilty.result(5) or {})["last_lines"])
    lines = hostile.lines(guilty.plan.folder.path, hostile.COUNT)
    assert len(lines) == len(set(lines)) == 13


def test_a_death_that_one_trial_explains_makes_later_packs_no_smaller(guilty: Ran) -> None:
    assert guilty.said.count("go on from their checkpoints") == 3  # seven, four, two
    assert [len(pack) for pack in packs(guilty.plan.folder.path) if pack != ["died"]][-1] == 7


def test_what_the_last_trial_of_a_pack_died_of_is_found_in_the_packs_log(tmp_path: Path) -> None:
    ran = run(planned(tmp_path, seeds(1, 2, 21), "sweep.pack=3"), hostile.guilty_pack)
    result = ran.result(3) or {}
    assert ran.states() == ["finished", "finished", "failed"] and result["error"] == "ended by SIGSEGV"
    assert "Segmentation fault" in "\n".join(result["last_lines"])
    assert "Segmentation fault" in (tmp_path / "p001.log").read_text()


def test_a_pack_that_is_too_large_is_split_and_later_ones_are_no_larger_than_what_survives(tmp_path: Path) -> None:
    ran = run(planned(tmp_path, seeds(*range(11, 21)), "sweep.pack=4"), hostile.crowded_pack)
    assert ran.error is None and ran.states() == ["finished"] * 10
    assert ran.said.count("out of memory with 4 trials together: 4 go on from their checkpoints, 2 at a time") == 1
    assert {len(pack) for pack in packs(tmp_path)} == {2}
    assert [attempt.state for attempt in ran.attempts(1)] == ["interrupted", "finished"]


def test_a_trial_that_does_not_fit_beside_others_waits_until_they_have_left(tmp_path: Path) -> None:
    ran = run(planned(tmp_path, seeds(3, 4, 5, 6), "sweep.pack=3"), hostile.crowded_pack)
    assert ran.error is None and ran.states() == ["finished"] * 4
    assert states(ran, 1) == ["interrupted", "finished"] and ran.attempts(1)[-1].pack is None
    assert f"{ran[1].path.name} waits until the others have left" in ran.said


def test_of_a_pack_only_those_that_take_too_long_are_ended(tmp_path: Path) -> None:
    ran = run(planned(tmp_path, seeds(1, 2, 3), "sweep.pack=3"), hostile.late_pack, timeout_h=3 / 3600, grace_s=0.5)
    assert ran.states()[:2] == ["timeout", "timeout"]
    assert "longer than sweep.timeout_h=" in str(ran.attempts(1)[-1].reason)
    assert ran.states()[2] in ("finished", "timeout")  # it waited for its turn as long as they


def test_a_pack_that_hangs_is_split_until_the_one_is_alone(tmp_path: Path) -> None:
    ran = run(planned(tmp_path, seeds(2, 3, 4), "sweep.pack=3"), hostile.late_pack, stall_s=2.0)
    assert ran.states() == ["timeout", "finished", "finished"]
    assert ran.attempts(1)[-1].reason == "no step for sweep.stall_s=2 seconds"
    assert not left_over(hostile.lines(tmp_path, hostile.PIDS))


def test_a_trial_whose_patience_is_out_has_finished_and_ends_no_other(tmp_path: Path) -> None:
    cells = [["optimizer.lr=1e-20", "seed=1"], ["optimizer.lr=1e-3", "seed=2"], ["optimizer.lr=1e-3", "seed=3"]]
    pruner = ["pruner=patient", "pruner.patience=0", "pruner.min_delta=1e-6"]
    ran = run(planned(tmp_path, cells, "sweep.pack=3", "trainer.validate_every=1", *pruner))
    assert ran.error is None and ran.states() == ["finished"] * 3
    assert (ran.result(1) or {})["steps"] == 2 and "pruner=patient ends the trial here" in ran[1].folder.log.read_text()
    assert [(ran.result(number) or {})["measured"]["packed"] for number in (1, 2, 3)] == [3, 3, 3]


# ---------------------------------------------------------------------------------------------- who trains together


def test_processes_that_share_a_sweep_run_no_trial_twice(tmp_path: Path) -> None:
    grid(tmp_path, range(60))
    shares = [own_process("share(path, instant_pack, pack=4)", tmp_path) for _ in range(2)]
    assert [one.wait() for one in shares] == [0, 0]
    ran = hostile.lines(tmp_path, hostile.COUNT)
    entries = SweepFolder(tmp_path).entries()
    assert sorted(ran) == sorted(entry.path.name for entry in entries) and len(ran) == 60
    assert all(len(attempts(entry.folder)) == 1 for entry in entries)
    names = {attempt.pack for entry in entries for attempt in attempts(entry.folder)}
    assert {f"{name}.log" for name in names if name is not None} == {file.name for file in tmp_path.glob("p*.log")}


def test_trials_with_another_backbone_or_adapter_are_in_packs_of_their_own(tmp_path: Path) -> None:
    kinds = (["trainer.micro_batch=2"], ["trainer.micro_batch=4"], ["lora=dora"])
    cells = [[f"seed={10 * kind + seed}", *words] for seed in (1, 2, 3) for kind, words in enumerate(kinds)]
    ran = run(planned(tmp_path, cells, "sweep.pack=2"), hostile.instant_pack)
    assert ran.error is None
    assert packs(tmp_path) == [["1", "2"], ["11", "12"], ["21"], ["22"], ["23"]]  # the thirds took free places


def test_slots_share_what_waits(tmp_path: Path) -> None:
    plan = planned(tmp_path, seeds(1, 2, 3, 4), "sweep.slots=2", *["model.shape.hidden_size=64"])
    run(plan, hostile.instant_pack)
    assert sorted(packs(tmp_path)) in ([["1", "2"], ["3", "4"]], [["1"], ["2"], ["3"], ["4"]])


def test_a_search_draws_its_trials_for_the_places_of_a_pack(tmp_path: Path) -> None:
    space = {"trainer.eval_batch": Choice(["2", "4"]), "seed": Number(1, 1000, whole=True)}
    sweep = Sweep(trials=12, pack=4, stagger_s=0)
    plan = PlannedSweep(SweepFolder(tmp_path), sweep, NoPruner(), Search([*TINY, *SHORT], space))
    terminal, _ = quiet()
    with plan.folder.locked():
        plan.folder.write({})
    run_sweep(plan, terminal, Composer(), hostile.instant_pack)
    entries = plan.folder.entries()
    ran = hostile.lines(tmp_path, hostile.COUNT)
    assert sorted(ran) == sorted(entry.path.name for entry in entries) and len(ran) == len(set(ran)) == 12
    rows = {
        attempt.pack: {word for word in entry.overrides if "eval_batch" in word}
        for entry in entries
        for attempt in attempts(entry.folder)
    }
    assert len(rows) > 1 and all(len(one) == 1 for one in rows.values())


def test_a_dry_run_shows_the_packs_and_why(tmp_path: Path) -> None:
    terminal, said = quiet()
    common = [*TINY, *SHORT, "sweep.dry_run=true", "sweep.pack=2"]
    cells = [[*common, f"seed={seed}", f"lora={lora}"] for seed in (1, 2) for lora in ("lora", "dora")]
    assert plan_grid(tmp_path / "dry", cells, Composer(), terminal) is None
    assert "p1: 2 trials, as sweep.pack=2 asks: " in said.getvalue() and "GiB" in said.getvalue()
    assert "-: 2 alone: dora trains over PEFT's own layers" in said.getvalue()
    search = Search([*TINY, *SHORT], {"seed": Number(1, 9, whole=True)})
    run_search(
        PlannedSweep(SweepFolder(tmp_path / "dry"), Sweep(dry_run=True), NoPruner(), search), Composer(), terminal
    )
    assert "packs, if all were like the first point of the space: " in said.getvalue()
    assert not (tmp_path / "dry").exists()


# --------------------------------------------------------------------------------------------- the child's side


def test_a_dismissal_between_a_question_and_its_answer_is_kept(tmp_path: Path) -> None:
    ours, theirs = Pipe()
    line = Line(theirs)
    entrant = line.entrant(PackTrial(tmp_path, tiny_config(), "a word"))
    assert line.dismisses(entrant) is None and (tmp_path / "log.txt").read_text() == "a word\n"
    for said in (Dismissal(tmp_path.name, "too long"), Verdict.prune):
        ours.send(said)
    assert entrant.judge is not None and entrant.judge(2) is Verdict.prune
    assert ours.recv() == Validated(tmp_path.name, 2)
    assert line.dismisses(entrant) == "too long"
    line.left(entrant, Dismissed("too long"))
    assert ours.recv() == Left(tmp_path.name, 1, None)


# ------------------------------------------------------------------------------------------ what was measured


def test_measured_steps_correct_the_size_of_later_packs(tmp_path: Path) -> None:
    plan = planned(tmp_path, seeds(*range(1, 25)))
    source = FolderSource(plan.folder)
    packer = Packer(plan.sweep, source, source.claim)

    def started() -> list[Claim]:
        first = source.claim()
        assert first is not None
        return packer.gathered(first, str(packer.key(first)), None)

    pack = started()
    assert len(pack) > 2
    for present, share_s in ((1, 1.0), (2, 1.5), (len(pack), 3.0)):  # of a step, and no less for being shared
        packer.learn(pack[0], pack[:present], {"measured": {"seconds_per_step": share_s, "packed": present}})
        others = {"measured": {"seconds_per_step": 1e-9, "packed": present + 1}}  # there were more for a while
        packer.learn(pack[0], pack[:present], others)
    assert len(started()) == 1


# ------------------------------------------------------------------------------------------------- paused trials


ASHA = ["trainer.max_steps=4", "trainer.validate_every=1", "pruner=asha", "pruner.reduction=2"]
EARLY = [*ASHA, "pruner.min_validations=1"]


@pytest.fixture(scope="module")
def halved(warm: None, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Four trials in a pack, judged after each of four steps, with a budget of half of the steps."""
    cells = [[f"lora.rank={rank}"] for rank in (2, 4, 8, 16)]
    settings = [*EARLY, "sweep.pack=4", "sweep.budget=0.5"]
    return run(planned(tmp_path_factory.mktemp("halved"), cells, *settings))


def test_of_a_pack_the_better_half_goes_on_at_each_rung_and_the_budget_is_kept(halved: Ran) -> None:
    assert halved.error is None
    steps = {number: (halved.result(number) or {})["steps"] for number in (1, 2, 3, 4)}
    first = {number: float(metrics(halved[number].path, "validation")[0]["log_loss"]) for number in steps}
    better = sorted(first, key=lambda number: first[number])[:2]
    assert all(steps[number] > 1 for number in better) and 4 in steps.values() and sum(steps.values()) < 16
    for number, made in steps.items():
        assert (halved.result(number) or {})["state"] == ("finished" if made == 4 else "pruned")
        assert (states(halved, number)[0] == "paused") == (number not in better or made < 4)


def test_what_stays_paused_is_pruned_at_the_end_with_what_it_has_learned(halved: Ran) -> None:
    assert "pruned: the sweep ends here" in halved.said
    for entry in halved.plan.folder.entries():
        assert (entry.path / "adapter").is_dir() and entry.folder.predictions.is_file()
        assert not entry.folder.paused.exists() and not entry.folder.checkpoints.exists()
    ranking = rank_sweep(halved.plan.folder.path)
    best = winner(ranking)
    assert best is not None and best.rank == 1 and ranking.regret is not None
    assert [row.readings for row in ranking.rows if row.pruned] != [] and "regret: " in halved.said


def test_a_sweep_that_is_stopped_keeps_its_paused_trials_and_shows_them(tmp_path: Path) -> None:
    plan = planned(tmp_path, [["lora.rank=2"], ["lora.rank=4"], ["lora.rank=8"]], *EARLY, "sweep.pack=2")
    ran = run(plan, hostile.stopped_once_one_is_paused)
    rests, *_ = [entry for entry in plan.folder.entries() if entry.folder.paused.is_file()]
    assert isinstance(ran.error, Interrupted) and states(ran, rests.number) == ["paused"]
    assert ran.result(rests.number) is None
    (shown,) = [row for row in rank_sweep(tmp_path).rows if rests.path.name in row.trials]
    assert shown.state == "paused" and shown.mean is not None
    later = run(plan)
    assert later.error is None and "finished" in later.states() and None not in later.states()
