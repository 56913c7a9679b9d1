"""Every door of a sweep, end to end: the same trials, the same numbers, and a ranking whatever happened."""

import io
import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from hydra.core.utils import JobReturn, JobStatus
from runs import command, metrics, start

from danube_sweep.cli import main
from danube_sweep.composer import compose
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import WandbTracking
from danube_sweep.config.stored import load_config
from danube_sweep.errors import DataError, Diverged, Interrupted
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.sweep_folder import Entry, SweepFolder, attempts
from danube_sweep.sweeping.entry.hydra_multirun import _job, _settle
from danube_sweep.sweeping.propose.optuna_journal import OptunaJournal

QUICK = ["data.rows=60", "trainer.max_steps=2", "trainer.validate_every=1"]
SHORT = [*TINY, *QUICK, "sweep.baseline=none", "sweep.pack=1"]
"""One trial at a time: alone, its numbers are the same to the last bit through every door."""


@dataclass
class Ran:
    """A command that was given, and what it said."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> list[str]:
        return self.err.splitlines()


@dataclass
class Place:
    """A working directory for many sweeps."""

    path: Path

    def __call__(self, *arguments: str) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main.main(arguments)
        return Ran(code, out.getvalue(), err.getvalue())

    def sweep(self, name: str, *arguments: str) -> Ran:
        return self("-m", f"hydra.sweep.dir={name}", *SHORT, *arguments)

    def entries(self, name: str) -> list[Entry]:
        return SweepFolder(self.path / name).entries()

    def states(self, name: str) -> list[str]:
        return [(entry.folder.read_result() or {}).get("state", "none") for entry in self.entries(name)]

    def attempted(self, name: str) -> list[int]:
        return [len(attempts(entry.folder)) for entry in self.entries(name)]

    def copy(self, name: str, to: str) -> str:
        shutil.copytree(self.path / name, self.path / to)
        return to

    def files(self, name: str) -> dict[str, tuple[int, int]]:
        found = [path for path in (self.path / name).rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("doors")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("DANUBE_SWEEP_CACHE", str(folder / "cache"))
        patch.setenv("COLUMNS", "200")
        patch.chdir(folder)
        yield Place(folder)


@pytest.fixture(autouse=True)
def same_cache(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(place.path / "cache"))


def outcome(folder: RunFolder) -> dict[str, Any]:
    """What must be the same whoever trained it."""
    result = folder.read_result() or {}
    return {key: value for key, value in result.items() if key not in ("measured", "test")}


# ----------------------------------------------------------------------------------------------------- a grid


@pytest.fixture(scope="module")
def grid(place: Place) -> Ran:
    return place.sweep("grid", "seed=0,1", "lora.rank=2,4,2")


def test_a_grid_trains_each_trial_once_and_ranks_them(place: Place, grid: Ran) -> None:
    assert (grid.code, grid.err) == (0, "")
    assert place.states("grid") == ["finished"] * 4 and place.attempted("grid") == [1] * 4
    names = [entry.path.name for entry in place.entries("grid")]
    assert [name.rpartition("_")[0] for name in names] == [
        "001_seed-0_rank-2", "002_seed-0_rank-4", "003_seed-1_rank-2", "004_seed-1_rank-4"
    ]  # fmt: skip
    assert "6 cells make 4 trials" in grid.out
    assert "4 trials: 4 finished" in grid.out
    # So few steps may have learned nothing: then the row that comes first is no answer.
    assert re.search(r"^(best|no answer, as nothing was learned; first): lora\.rank=", grid.out, re.M)
    told = [line for line in grid.out.splitlines() if line.startswith("data: 48 training rows and 12 validation rows")]
    assert len(told) == 1  # of the four trials; each has it in its log
    assert all(told[0] in entry.folder.log.read_text() for entry in place.entries("grid"))
    rows = Path("grid/ranking.csv").read_text().splitlines()
    assert len(rows) == 3 and all(name in "".join(rows) for name in names)
    assert all(name in Path("grid/ranking.md").read_text() for name in names)


def test_the_same_command_again_trains_nothing_and_one_more_value_only_that(place: Place, grid: Ran) -> None:
    name = place.copy("grid", "again")
    again = place.sweep(name, "seed=0,1", "lora.rank=2,4,2")
    assert again.code == 0 and place.attempted(name) == [1] * 4 and "4 trials: 4 finished" in again.out
    more = place.sweep(name, "seed=0", "lora.rank=2,4,8")
    assert more.code == 0 and place.attempted(name) == [1] * 5
    assert place.entries(name)[4].overrides[-1] == "lora.rank=8" and "5 trials: 5 finished" in more.out


def test_resuming_a_finished_sweep_trains_nothing(place: Place, grid: Ran) -> None:
    resumed = place("resume", "grid")
    assert resumed.code == 0 and place.attempted("grid") == [1] * 4 and "4 trials: 4 finished" in resumed.out


def test_a_result_that_was_cut_short_is_run_again_and_that_is_said(place: Place, grid: Ran) -> None:
    name = place.copy("grid", "cut")
    hurt = place.entries(name)[1]
    before = outcome(hurt.folder)
    hurt.folder.result.write_text(hurt.folder.result.read_text()[:40])
    untouched = place.files(name)
    assert place.sweep(name, "seed=0,1", "lora.rank=2,4", "--dry-run").code == 0
    assert place.files(name) == untouched
    resumed = place("resume", name)
    assert resumed.code == 0 and place.attempted(name) == [1, 2, 1, 1]
    assert f"{hurt.path.name}: its result.json was damaged; the trial is run again (result.json.damaged)" in resumed.out
    assert outcome(hurt.folder) == before


@pytest.mark.parametrize("words", [["hydra.mode=MULTIRUN"], ["--config-dir", "own", "experiment=swept"]])
def test_hydras_mode_makes_a_sweep_without_a_word_for_it(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "swept.yaml").write_text("# @package _global_\nhydra: {mode: MULTIRUN}\n")
    done = command(*words, *TINY, "seed=0,1", "sweep.dry_run=true", cwd=tmp_path)
    assert done.returncode == 0 and "2 trials, 0 done; nothing was started" in done.stdout, done.stderr


def test_a_dry_run_shows_every_cell_and_writes_nothing(place: Place, grid: Ran) -> None:
    before = place.files("grid")
    shown = place.sweep("grid", "seed=0,1", "lora.rank=2,8,0,2", "--dry-run")
    assert shown.code == 2 and "2 of 8 cells cannot train" in shown.err and place.files("grid") == before
    assert shown.out.count("finished") == 2 and shown.out.count("new") == 2 and shown.out.count("same as above") == 2
    assert shown.out.count("lora.rank must be at least 1") == 2
    assert "4 trials, 2 done, 2 invalid; nothing was started" in shown.out
    assert place.sweep("nowhere", "seed=0", "--dry-run").out.endswith("1 trial, 0 done; nothing was started\n")
    searched = place.sweep("nowhere", "hydra/sweeper=optuna", "optimizer.lr=interval(0,1)", "seed=1,2", "--dry-run")
    assert "optimizer.lr" in searched.out and "0 to 1" in searched.out and "nothing was started" in searched.out
    assert not Path("nowhere").exists() and not Path("multirun").exists()


def test_rank_shows_the_table_again_and_writes_its_files(place: Place, grid: Ran) -> None:
    name = place.copy("grid", "by_accuracy")
    for file in ("ranking.csv", "ranking.md"):
        Path(name, file).unlink()
    shown = place("rank", name)
    assert shown.code == 0 and grid.out.endswith(shown.out)
    for file in ("ranking.csv", "ranking.md"):
        assert Path(name, file).read_text() == Path("grid", file).read_text()


# ------------------------------------------------------------------------------------------------- other doors


@pytest.fixture(scope="module")
def basic(place: Place) -> Ran:
    return place.sweep("basic", "seed=0,1", "lora.rank=2,4", "hydra/launcher=basic")


def test_hydras_own_launcher_trains_the_same_trials_to_the_same_numbers(place: Place, grid: Ran, basic: Ran) -> None:
    assert (basic.code, basic.err) == (0, "") and "4 trials: 4 finished" in basic.out
    for ours, theirs in zip(place.entries("grid"), place.entries("basic"), strict=True):
        assert (ours.number, ours.hash, ours.path.name) == (theirs.number, theirs.hash, theirs.path.name)
        assert outcome(ours.folder) == outcome(theirs.folder)
        for part in ("train", "validation"):
            assert metrics(ours.path, part) == metrics(theirs.path, part) != []
    assert Path("basic/ranking.csv").is_file() and Path("basic/ranking.md").is_file()


def test_a_single_run_is_the_same_trial_with_the_same_numbers(place: Place, grid: Ran) -> None:
    assert place("hydra.run.dir=single", *SHORT, "seed=1", "lora.rank=4").code == 0
    cell, single = place.entries("grid")[3], RunFolder(Path("single"))
    assert outcome(single) == outcome(cell.folder) and outcome(single)["trial"] == cell.hash
    for part in ("train", "validation"):
        assert metrics(single.path, part) == metrics(cell.path, part)


def test_packs_are_what_a_sweep_trains_if_nobody_says_otherwise(place: Place, grid: Ran) -> None:
    ran = place("-m", "hydra.sweep.dir=packed", *SHORT[:-1], "seed=0,1", "lora.rank=2,4")
    assert ran.code == 0 and place.states("packed") == ["finished"] * 4
    assert {attempt.pack for entry in place.entries("packed") for attempt in attempts(entry.folder)} == {"p001"}
    for packed, alone in zip(place.entries("packed"), place.entries("grid"), strict=True):
        assert packed.hash == alone.hash  # sweep.pack is no part of a trial
        validations = [(entry.folder.read_result() or {})["validation"]["log_loss"] for entry in (packed, alone)]
        assert validations[0] == pytest.approx(validations[1], abs=0.01)  # in bf16
    assert "p1: 4 trials: " in place("-m", "hydra.sweep.dir=nowhere", *SHORT[:-1], "seed=0,1,2,3", "--dry-run").out


def test_another_launcher_says_that_it_makes_no_packs(place: Place, grid: Ran) -> None:
    name = place.copy("grid", "not_packed")
    words = ["seed=0,1", "lora.rank=2,4", "sweep.pack=8", "hydra/launcher=basic"]
    ran = place("-m", f"hydra.sweep.dir={name}", *SHORT[:-1], *words)
    assert "sweep.pack: only hydra/launcher=local, slurm and ray_actors keep to it; this launcher does not" in ran.out
    assert "p1" not in place("-m", f"hydra.sweep.dir={name}x", *SHORT[:-1], *words, "--dry-run").out


def test_hydras_own_sweeper_gets_its_trials_from_our_launcher(place: Place, grid: Ran) -> None:
    ran = place.sweep("sweeper", "hydra/sweeper=basic", "seed=0,1", "lora.rank=2")
    assert ran.code == 0 and "2 trials: 2 finished" in ran.out
    expected = [entry for entry in place.entries("grid") if "lora.rank=2" in entry.overrides]
    assert [entry.hash for entry in place.entries("sweeper")] == [entry.hash for entry in expected]
    assert [outcome(entry.folder) for entry in place.entries("sweeper")] == [outcome(one.folder) for one in expected]


SHEET = """
program: danube-sweep
method: grid
metric: {name: validation/log_loss, goal: minimize}
parameters:
  lora.rank: {values: [2, 4]}
  seed: {value: 0}
command: ['${env}', danube-sweep, '${args_no_hyphens}']
"""


def test_a_sweep_file_runs_here_as_the_same_trials(place: Place, grid: Ran) -> None:
    Path("sheet.yaml").write_text(SHEET)
    ran = place("sweep", "sheet.yaml", "hydra.sweep.dir=sheet", *SHORT)
    assert (ran.code, ran.err) == (0, "") and place.states("sheet") == ["finished"] * 2
    assert [entry.hash for entry in place.entries("sheet")] == [entry.hash for entry in place.entries("grid")[:2]]
    assert [outcome(one.folder) for one in place.entries("sheet")] == [
        outcome(one.folder) for one in place.entries("grid")[:2]
    ]
    before = place.files("sheet")
    assert "2 trials, 2 done" in place("sweep", "sheet.yaml", "hydra.sweep.dir=sheet", "--dry-run", *SHORT).out
    assert place.files("sheet") == before


def test_a_sweep_file_can_search(place: Place) -> None:
    text = SHEET.replace("grid", "random").replace("{values: [2, 4]}", "{min: 2, max: 64}") + "run_cap: 2\n"
    Path("random.yaml").write_text(text)
    ran = place("sweep", "random.yaml", "hydra.sweep.dir=random", *SHORT)
    assert (ran.code, ran.err) == (0, "") and place.states("random") == ["finished"] * 2
    assert place("resume", "random").code == 0 and place.attempted("random") == [1, 1]


# ---------------------------------------------------------------------------------------------------- failures

FAILING = ["optimizer.lr=1e30,2e30,1e-3", "trainer.clip_norm=null", "lora.rank=2"]


@pytest.fixture(scope="module")
def failing(place: Place) -> Ran:
    return place.sweep("failing", *FAILING)


def test_a_failing_trial_ends_no_other_and_every_failure_is_listed(place: Place, failing: Ran) -> None:
    assert failing.code == 1 and place.states("failing") == ["diverged", "diverged", "finished"]
    assert failing.said == [
        "danube-sweep: error: 2 of 3 trials did not finish; go on with: danube-sweep resume failing --retry all"
    ]
    listed = failing.out.split("3 trials: 2 diverged, 1 finished")[1]
    assert "001_lr-1e+30" in listed and "002_lr-2e+30" in listed and listed.count("is not finite") == 2
    assert Path("failing/ranking.csv").is_file() and Path("failing/ranking.md").is_file()


def test_what_failed_is_run_again_only_when_that_is_asked_for(place: Place, failing: Ran) -> None:
    name = place.copy("failing", "retried")
    assert place("resume", name).code == 1 and place.attempted(name) == [1, 1, 1]
    assert place("resume", name, "--retry", "oom,killed").code == 1 and place.attempted(name) == [1, 1, 1]
    assert place("resume", name, "--retry", "diverged").code == 1 and place.attempted(name) == [2, 2, 1]


@pytest.mark.full
def test_workers_of_another_launcher_fail_and_finish_like_ours(place: Place, failing: Ran) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    ran = place.sweep("joblib", *FAILING, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert ran.code == 1 and place.states("joblib") == ["diverged", "diverged", "finished"]
    assert ran.said[-1].startswith("danube-sweep: error: 2 of 3 trials did not finish")
    assert ran.out.split("3 trials: 2 diverged, 1 finished")[1].count("is not finite") == 2
    for ours, theirs in zip(place.entries("failing"), place.entries("joblib"), strict=True):
        assert (ours.hash, ours.path.name) == (theirs.hash, theirs.path.name)
        assert outcome(ours.folder) == outcome(theirs.folder)
        assert metrics(ours.path, "train") == metrics(theirs.path, "train")
    assert Path("joblib/ranking.csv").is_file()


def test_a_worker_that_could_not_write_its_end_has_it_written_for_it(place: Place, grid: Ran) -> None:
    def returned(error: Exception) -> JobReturn:
        failed = JobReturn(status=JobStatus.FAILED)
        failed.return_value = error
        return failed

    known, lost, broken, stopped = place.entries(place.copy("grid", "settled"))
    before = known.folder.read_result()
    for entry in (lost, broken, stopped):
        entry.folder.result.unlink()
    _settle(known, returned(Diverged("not finite")))
    _settle(lost, returned(DataError("data.path=x: no such file")))
    _settle(broken, returned(RuntimeError("two\nlines")))
    assert known.folder.read_result() == before
    assert place.states("settled") == ["finished", "invalid", "failed", "none"]
    assert broken.folder.read_result() == {"trial": broken.hash, "state": "failed", "error": "RuntimeError: two lines"}
    with pytest.raises(Interrupted):
        _settle(stopped, returned(Interrupted("stopped", signal.SIGTERM)))


def test_another_launcher_is_told_what_the_plan_has_settled(tmp_path: Path) -> None:
    config = compose(["data.rows=60", "seed=3"])
    assert isinstance(config.tracking, WandbTracking)
    config.tracking.group = "tonight's, 2nd"
    folder = SweepFolder(tmp_path / "sweep")
    with folder.locked():
        [(entry, _)] = folder.add([(config, ["data.rows=60", "seed=3"], None)])
    *words, place = _job(entry)
    config.trainer.score_test = False  # the winner alone is scored, at the end
    assert place == f"hydra.sweep.subdir={entry.path.name}" and compose(words) == config
    assert trial_hash(compose(words)) == entry.hash


@pytest.mark.parametrize("launcher", ["local", "basic"])
def test_a_cell_with_a_mistake_refuses_the_sweep_in_one_line(place: Place, launcher: str) -> None:
    refused = place.sweep("refused", "lora.rank=2,0", f"hydra/launcher={launcher}")
    assert (refused.code, refused.out) == (2, "") and len(refused.said) == 1
    assert "1 of 2 cells cannot train: lora.rank=0: lora.rank must be at least 1" in refused.err
    assert "sweep.skip_invalid=true" in refused.err
    assert not Path("refused").exists()


def test_a_mistake_that_all_cells_share_is_said_as_it_is(place: Place) -> None:
    refused = place.sweep("refused", "seed=0,1", "lora.rank=0")
    assert refused.code == 2 and refused.said == [
        "danube-sweep: error: lora.rank must be at least 1, got 0; for no adapter use lora=none"
    ]
    assert not Path("refused").exists()


@pytest.mark.full
def test_fields_that_only_the_swept_options_have_go_into_their_cells(place: Place) -> None:
    Path("arena.csv").write_text(
        "id,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie\n1,p,a,b,1,0,0\n"
    )
    names = "preference_deberta_v3_large_t4,preference_danube2_1_8b_t4,preference_danube3_500m_t4"
    for swept, cells in ((f"experiment={names}", 3), ("data=arena,pairs", 2)):
        for sweeper in ([], ["hydra/sweeper=optuna", "sweep.sampler=grid"]):
            ran = place("-m", swept, "data.path=arena.csv", *sweeper, "device.memory_gib=16", "--dry-run")
            assert (ran.code, ran.err) == (0, "") and f"{cells} trials, 0 done" in ran.out
    ran = place("-m", "data=arena,pairs", "data.pth=arena.csv", "--dry-run")
    assert ran.code == 2 and "data.pth: no such field; did you mean data.path?" in ran.err
    ran = place.sweep("heads", "head=preference,bradley_terry_ties", "head.hidden=8", "trainer.max_steps=1")
    assert (ran.code, ran.err) == (0, "") and place.states("heads") == ["finished"] * 2
    assert [load_config(entry.folder.config).head.hidden for entry in place.entries("heads")] == [8, 8]


def test_a_mistake_that_may_be_skipped_is_on_record(place: Place, grid: Ran) -> None:
    name = place.copy("grid", "skipped")
    ran = place.sweep(name, "seed=0", "lora.rank=2,0", "sweep.skip_invalid=true")
    assert ran.code == 1 and place.states(name) == ["finished"] * 4 + ["invalid"]
    assert "005_rank-0_invalid: invalid: lora.rank must be at least 1" in ran.out
    assert place.attempted(name) == [1] * 4 + [0]


def test_a_mistake_that_only_training_finds_ends_its_trial_alone(place: Place, grid: Ran) -> None:
    name = place.copy("grid", "late")
    ran = place.sweep(name, "seed=0", "lora.rank=2", "lora.targets=all_linear,[nowhere]")
    assert ran.code == 1 and place.states(name) == ["finished"] * 4 + ["invalid"]
    assert "lora.targets=nowhere: the model has no such module" in ran.out


def test_a_skipped_cell_is_trained_once_its_mistake_is_mended(place: Place) -> None:
    task = ["data=table", "head=sequence", "model.shape.vocab_size=300", "trainer.max_steps=1", "tracking=none"]
    rows = "text,label\n" + "".join(f"row {number} of many,{'ab'[number % 2]}\n" for number in range(40))
    Path("early.csv").write_text(rows)
    cells = ["data.path=early.csv,late.csv", "sweep.skip_invalid=true"]
    ran = place("-m", "hydra.sweep.dir=mended", *task, *cells)
    assert ran.code == 1 and place.states("mended") == ["invalid", "finished"]
    assert "danube-sweep resume mended --retry all" in ran.err
    Path("late.csv").write_text(rows.replace("many", "more"))
    assert place("resume", "mended", "--retry", "invalid").code == 0
    assert place.states("mended") == ["finished", "finished"]


def test_a_dry_run_of_a_mistake_is_a_mistake(place: Place) -> None:
    shown = place.sweep("refused", "lora.rank=2,0", "--dry-run")
    assert shown.code == 2 and "lora.rank must be at least 1" in shown.err
    assert place("-m", *TINY, "data=arena", "data.path=no.csv", *SEARCH, "--dry-run").code == 2
    assert not Path("refused").exists()


# ---------------------------------------------------------------------------------------------------- searches

SEARCH = ["hydra/sweeper=optuna", "lora.rank=range(2,65,2)", "optimizer.lr=tag(log,interval(1e-5,1e-2))"]


def test_a_search_whose_every_trial_would_fail_is_refused_in_one_line(place: Place) -> None:
    refused = place("-m", *TINY, "data=arena", "data.path=no.csv", "hydra.sweep.dir=refused", *SEARCH)
    assert refused.code == 2 and len(refused.said) == 1 and "no.csv: no such file" in refused.err
    assert not Path("refused").exists()


def test_a_search_goes_on_with_the_config_that_it_began_with(place: Place) -> None:
    Path("own").mkdir()
    Path("own/mine.yaml").write_text("defaults: [config, _self_]\noptimizer: {lr: 0.0123}\n")
    own = ["-m", "--config-dir", "own", "-cn", "mine", "hydra/sweeper=optuna", "hydra.sweep.dir=mine"]
    assert place(*own, *SHORT, "lora.rank=choice(2,4)", "sweep.trials=1").code == 0
    assert place("resume", "mine", "sweep.trials=2").code == 0
    rates = [load_config(entry.folder.config).optimizer.lr for entry in place.entries("mine")]
    assert rates == [0.0123, 0.0123]


def test_what_ranks_a_grid_can_be_changed_for_good(place: Place, grid: Ran) -> None:
    name = place.copy("grid", "reranked")
    assert place("resume", name, "sweep.metric=validation/accuracy").code == 0
    assert "ranked by validation/accuracy (maximize)" in place("rank", name).out


def test_a_search_is_cut_off_goes_on_and_prunes(place: Place) -> None:
    pruned = ["pruner=asha", "pruner.reduction=2", "trainer.max_steps=4", "sweep.trials=6", "sweep.sampler=random"]
    sweep = start("-m", "hydra.sweep.dir=search", *SHORT, *SEARCH, *pruned, cwd=place.path)
    assert sweep.stdout is not None
    seen = next(line for line in sweep.stdout if "finished" in line)
    sweep.send_signal(signal.SIGINT)
    _, err = sweep.communicate()
    assert sweep.returncode == 130 and "danube-sweep: stopped: go on with: danube-sweep resume search" in err
    assert "001_" in seen and "none" not in place.states("search")[:1] and Path("search/ranking.csv").is_file()
    before = [entry.overrides for entry in place.entries("search")]
    resumed = place("resume", "search")
    entries = place.entries("search")
    assert (resumed.code, len(entries)) == (0, 6) and [entry.overrides for entry in entries][: len(before)] == before
    assert set(place.states("search")) == {"finished", "pruned"}
    assert len({tuple(entry.overrides) for entry in entries}) == 6
    assert all(2 <= int(entry.overrides[-2].removeprefix("lora.rank=")) <= 64 for entry in entries)
    assert place("resume", "search", "sweep.trials=7").code == 0 and len(place.entries("search")) == 7
    refused = place("resume", "search", "sweep.metric=validation/accuracy", "sweep.goal=maximize")
    assert refused.code == 2 and "is about validation/log_loss (minimize); start a new folder" in refused.err


@pytest.mark.full
def test_another_launcher_gets_a_search_in_batches(place: Place) -> None:
    ran = place.sweep("batches", *SEARCH, "sweep.trials=3", "sweep.slots=2", "hydra/launcher=basic")
    assert (ran.code, ran.err) == (0, "") and place.states("batches") == ["finished"] * 3
    history = OptunaJournal(Path("batches/history.log"), [("validation/log_loss", "minimize")])
    losses = [(entry.folder.read_result() or {})["validation"]["log_loss"] for entry in place.entries("batches")]
    assert [trial.values for trial in history.study.trials] == [[loss] for loss in losses]


def test_a_search_takes_several_objectives_and_says_when_the_space_is_exhausted(place: Place) -> None:
    several = "sweep.metric=[validation/log_loss,parameters/trainable]"
    ran = place.sweep("several", "hydra/sweeper=optuna", "lora.rank=choice(2,4)", several)
    assert ran.code == 0 and place.states("several") == ["finished"] * 2
    assert "every point of the space is on record already: the search ends here" in ran.out


def test_the_grid_sampler_runs_every_cell(place: Place, grid: Ran) -> None:
    name = place.copy("grid", "sampled")
    ran = place.sweep(name, "hydra/sweeper=optuna", "sweep.sampler=grid", "seed=0,1", "lora.rank=2,4")
    assert ran.code == 0 and place.attempted(name) == [1] * 4


# ---------------------------------------------------------------------------------------------------- mistakes

Refused = Callable[..., str]


@pytest.fixture
def refused(place: Place) -> Refused:
    """Gives the command, checks that it was refused in one line with no file changed, and returns the line."""

    def run(*arguments: str) -> str:
        before = {path: path.stat().st_mtime_ns for path in place.path.rglob("*") if path.is_file()}
        ran = place(*arguments)
        assert (ran.code, ran.out) == (2, "") and len(ran.said) == 1, ran
        assert {path: path.stat().st_mtime_ns for path in place.path.rglob("*") if path.is_file()} == before
        assert not Path("multirun").exists()
        return ran.err.removeprefix("danube-sweep: error: ").rstrip("\n")

    return run


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed=range(1,3e7)"], "the grid has 29,999,999 cells, more than sweep.max_trials=1,000"),
        (["seed=range(1,inf)"], "seed=range(1,inf): the range has no end"),
        (["seed=range(5,1)"], "seed=range(5,1): there is nothing to sweep over"),
        (["lora=glob(x*)"], "lora=glob(x*): there is nothing to sweep over"),
        (["seed=choice()"], "seed=choice(): not an override"),
        (["seed=0,1", "lora.rank=interval(1,8)"], "lora.rank: a grid cannot take an interval"),
        (["seed=0,1", "sweep.slots=1,2"], "sweep.slots belongs to the sweep, not to a trial; give it one value"),
        (["seed=0,1", "sweep.slots=0"], "sweep.slots must be at least 1, got 0"),
        (["seed=0,1", "sweep.metric=validation/perplexity"], "sweep.metric=validation/perplexity: no trial with this"),
        (["seed=0,1", "sweep.nope=3"], "sweep.nope: no such field"),
        (["seed=0,1", "pruner=nope"], "pruner=nope: no such option"),
        (["seed=0,1", "nonsense"], "nonsense: not an override"),
        (["seed=0,1", "lora.rnak=2"], "lora.rnak: no such field; did you mean lora.rank?"),
        (["hydra/sweeper=optuna", "seed=3"], "there is nothing to search"),
        (["hydra/sweeper=optuna", "lora.rank=interval(8,1)"], "lora.rank: the interval from 8 to 1 is empty"),
        (["hydra/sweeper=optuna", "seed=0,1", "sweep.slots=1,2"], "sweep.slots belongs to the sweep"),
        (["hydra/sweeper=optuna", "seed=0,1", "sweep.metric=nope"], "sweep.metric=nope: no trial with this head"),
        (["hydra/sweeper=optuna", "lora.rank=0,-1"], "lora.rank must be at least 1, got 0"),
        (["hydra/sweeper=optuna", "seed=0,1", "sweep.sampler=cmaes",
          "sweep.metric=[validation/ece,validation/accuracy]"],
         "sweep.sampler=cmaes takes one metric"),
    ],
    ids=lambda one: " ".join(one[:2]) if isinstance(one, list) else "",
)  # fmt: skip
def test_a_mistake_in_a_sweeps_words_is_one_line(refused: Refused, words: list[str], said: str) -> None:
    assert said in refused("-m", *words, *SHORT)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rank", "nowhere"], "nowhere is no sweep: there is no such folder"),
        (["rank", "empty"], "empty is no sweep"),
        (["resume", "nowhere"], "nowhere is not a run folder"),
        (["resume", "empty"], "empty is not a run folder"),
        (["resume", "empty", "--retry", "all"], "empty is no sweep: it has no sweep.json; --retry is for sweeps"),
        (["resume", "nowhere", "sweep.slots=2"], "nowhere is no sweep: there is no such folder"),
        (["resume", "empty", "sweep.slots=2"], "empty is no sweep: it has no sweep.json; sweep.slots=2 is for sweeps"),
        (["resume", "other"], "sweep.json is from another version of danube_sweep; start the sweep in a new folder"),
        (["rank", "other"], "sweep.json is from another version"),
        (["resume", "torn"], "sweep.json is cut short or damaged"),
        (
            ["resume", "grid", "--retry", "nonsense"],
            "sweep.retry=nonsense: this state cannot be run again; there are failed",
        ),
        (["resume", "grid", "sweep.slots=0"], "sweep.slots must be at least 1, got 0"),
        (["resume", "grid", "sweep.nope=1"], "sweep.nope: no such field"),
        (["resume", "grid", "lora.rank=3"], "lora.rank=3: a sweep's trials are fixed"),
        (["resume", "grid", "device.count=0"], "device.count must be a number from 1 on, all or auto, got 0"),
        (["--dry-run", "seed=0"], "--dry-run shows the trials of a sweep; give -m too"),
        (["sweep", "nowhere.yaml"], "nowhere.yaml"),
        (["sweep", "unknown.yaml"], "did you mean early_terminate?"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, list) else "",
)
def test_a_folder_or_file_that_does_not_fit_is_one_line(
    place: Place, grid: Ran, refused: Refused, arguments: list[str], said: str
) -> None:
    for name, text in {"empty": None, "other": '{"format": 99}', "torn": '{"format": 1, "sett'}.items():
        Path(name).mkdir(exist_ok=True)
        if text is not None:
            Path(name, "sweep.json").write_text(text)
            shutil.copytree("grid/" + place.entries("grid")[0].path.name, Path(name, "001"), dirs_exist_ok=True)
    Path("unknown.yaml").write_text(SHEET + "earlyterminate: {type: hyperband}\n")
    assert said in refused(*arguments)


def test_another_sweep_in_the_same_folder_is_refused(place: Place, grid: Ran, refused: Refused) -> None:
    assert "grid holds another sweep; give another hydra.sweep.dir" in refused(
        "-m", *SEARCH, *SHORT, "hydra.sweep.dir=grid"
    )


def test_a_sweep_from_another_version_is_not_added_to(place: Place, grid: Ran) -> None:
    name = place.copy("grid", "newer")
    Path(name, "sweep.json").write_text(json.dumps({"format": 99}))
    ran = place.sweep(name, "seed=7")
    assert ran.code == 2 and "sweep.json is from another version" in ran.err and len(place.entries(name)) == 4
