"""`import danube_sweep as ds`: the command line's trials, asked for by a process with threads, a loop and torch."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import hostile
import pandas
import pytest
import runs
import torch
from conftest import TINY, compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import danube_sweep as ds
from danube_sweep import errors, paths
from danube_sweep.api.data_argument import file_of
from danube_sweep.cli import main
from danube_sweep.config.identity import trial_hash
from danube_sweep.data.kinds.generated import generate, write_csv
from danube_sweep.storage.files import read_json, write_json
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.sweeping.execute.messages import Job
from danube_sweep.sweeping.execute.process_pool import Pool
from danube_sweep.sweeping.execute.shown_child import run_in_child

WORDS = ["data=arena", *TINY, "trainer.max_steps=24", "trainer.validate_every=12", "trainer.log_every=1"]
SWEPT = [*WORDS, "seed=0,1", "sweep.baseline=none"]

FORKS: list[int] = []
os.register_at_fork(before=lambda: FORKS.append(os.getpid()))
"""Every fork of this process, which has torch, its threads and an event loop: a child of it could use no GPU."""


class Interrupting(io.StringIO):
    """A notebook's stdout; the kernel is interrupted as soon as it shows a text."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self._at = at

    def write(self, text: str) -> int:
        written = super().write(text)
        if self._at and self._at in self.getvalue():
            self._at = ""
            os.kill(os.getpid(), signal.SIGINT)
        return written


@dataclass
class Cell:
    """A cell of a notebook that was run twice: interrupted, then to its end."""

    value: Any
    error: BaseException
    first: str
    second: str
    stopped: list[str]
    """The files of the interrupted run or sweep."""


def cell(place: Path, call: Callable[[], Any], at: str) -> Cell:
    """Runs a call twice, each time inside a running event loop, with an interrupt when the first prints `at`."""

    async def run(out: io.StringIO) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            return call()

    torch.randn(64, 64) @ torch.randn(64, 64)
    first, second = Interrupting(at), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("DANUBE_SWEEP_CACHE", str(place.parent / "cache"))  # that of the tests
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        with pytest.raises(errors.Interrupted) as stopped:
            asyncio.run(run(first))
        files = [str(file.relative_to(place)) for file in place.rglob("*")]
        value = asyncio.run(run(second))
    return Cell(value, stopped.value, first.getvalue(), second.getvalue(), files)


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pandas.DataFrame:
    file = tmp_path_factory.mktemp("rows") / "train.csv"
    write_csv(generate(60, seed=1, noise=0.0), file)
    return pandas.read_csv(file, keep_default_na=False)


@pytest.fixture(scope="module")
def trained(frame: pandas.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Cell:
    return cell(tmp_path_factory.mktemp("run"), lambda: ds.train(*WORDS, data=frame), at="step 1/24")


@pytest.fixture(scope="module")
def swept(frame: pandas.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Cell:
    return cell(tmp_path_factory.mktemp("sweep"), lambda: ds.sweep(*SWEPT, data=frame), at="step 1/24")


@pytest.fixture(scope="module")
def by_command(trained: Cell, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same trial from the command line, over the file of the frame."""
    run = trained.value
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("command"))
        assert main.main([*WORDS, f"data.path={run.config.data.path}", "hydra.run.dir=run"]) == 0
        yield Path.cwd() / "run"


def test_the_package_offers_these_names_and_imports_nothing() -> None:
    assert ds.__all__ == [
        *("Ensemble", "Run", "Sweep", "__version__", "compose", "errors", "load", "plan", "sweep", "train")
    ]
    assert all(getattr(ds, name) is not None and name in dir(ds) for name in ds.__all__)
    with pytest.raises(AttributeError, match="no attribute 'fit'; there are Ensemble, Run, Sweep"):
        _ = ds.fit
    script = "import sys, importlib, typing; old = {*sys.modules}; import danube_sweep; print(*{*sys.modules}-old)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["danube_sweep"]


def test_an_interrupt_is_a_checkpoint_and_the_same_call_goes_on(trained: Cell) -> None:
    assert isinstance(trained.error, errors.Interrupted)
    assert trained.error.exit_code == 130
    assert "of 24; go on with: danube-sweep resume" in str(trained.error)
    assert any("/checkpoints/step-" in file for file in trained.stopped)
    assert not any(file.endswith("result.json") for file in trained.stopped)
    run = trained.value
    assert f"{paths.Path('outputs')}" in trained.second.splitlines()[0]
    assert "was interrupted in the same trial: it goes on" in trained.second.splitlines()[0]
    assert run.state == "finished"
    assert run.result["steps"] == 24
    assert len(list(run.path.parent.iterdir())) == 1


def test_what_a_run_prints_comes_to_the_notebooks_own_stdout(trained: Cell) -> None:
    assert "data: 48 training rows" in trained.first
    assert "step 1/24  loss" in trained.first
    assert "stopping after this step" in trained.first
    assert "step 24 validation  log_loss" in trained.second
    assert "validation log_loss" in trained.second  # the summary


def test_python_and_the_command_line_have_one_hash_and_the_same_losses_bit_for_bit(
    trained: Cell, by_command: Path
) -> None:
    run = trained.value
    result, other = run.result, read_json(by_command / "result.json")
    assert result["trial"] == other["trial"] == trial_hash(run.config)
    for part in ("train", "validation"):
        assert runs.metrics(run.path, part) == runs.metrics(by_command, part)
    assert {**result, "measured": 0} == {**other, "measured": 0}
    assert run.metrics["validation/log_loss"] == other["validation"]["log_loss"]
    assert list(run.history()["part"].unique()) == ["train", "validation"]


def test_the_process_that_asks_is_never_forked(trained: Cell, swept: Cell) -> None:
    assert trained.value.state == "finished"
    assert swept.value.best.state == "finished"
    assert os.getpid() not in FORKS


def test_a_run_predicts_a_frame_as_the_command_predicts_its_file(
    trained: Cell, frame: pandas.DataFrame, tmp_path: Path
) -> None:
    run, few = trained.value, frame.head(7)
    few.to_csv(tmp_path / "few.csv", index=False)
    assert main.main(["predict", str(run.path), str(tmp_path / "few.csv"), "-o", str(tmp_path / "out.csv")]) == 0
    found = run.predict(few)
    pandas.testing.assert_frame_equal(found, pandas.read_csv(tmp_path / "out.csv"), check_exact=True)
    assert found["id"].tolist() == few["id"].tolist()
    with pytest.raises(errors.DataError, match="no column 'prompt'"):
        run.predict(few.drop(columns="prompt"))


@pytest.mark.full
def test_two_devices_predict_a_frame_as_one_does(trained: Cell, frame: pandas.DataFrame) -> None:
    run, few = trained.value, frame.head(7)  # a child's own children come from a parent that imports the stack anew
    found = run.predict(few, devices=2, accelerator="cpu")
    pandas.testing.assert_frame_equal(found, run.predict(few, accelerator="cpu"), check_exact=True)


def test_a_sweep_that_was_interrupted_goes_on_with_the_same_call(swept: Cell) -> None:
    sweep = swept.value
    assert isinstance(swept.error, errors.Interrupted)
    assert "was not finished by the same call: it goes on" in swept.second.splitlines()[0]
    assert "ranked by validation/log_loss (minimize)" in swept.second
    assert [run.state for run in sweep.runs] == ["finished", "finished"]
    assert len(list(sweep.path.parent.iterdir())) == 1


def test_the_trials_of_a_sweep_have_the_hashes_that_the_command_line_gives_them(swept: Cell) -> None:
    file = swept.value.runs[0].config.data.path
    expected = [trial_hash(compose([*WORDS, f"data.path={file}", f"seed={seed}"])) for seed in (0, 1)]
    assert [entry.hash for entry in SweepFolder(swept.value.path).entries()] == expected


def test_a_sweep_ranks_and_has_a_best_run(swept: Cell) -> None:
    sweep = swept.value
    ranking = sweep.ranking()
    assert ranking["count"].tolist() == [2]
    numbers = {run.path.name: run.metrics["validation/log_loss"] for run in sweep.runs}
    assert ranking.loc[0, "validation/log_loss"] == pytest.approx(sum(numbers.values()) / 2)
    assert sweep.best.path.name == min(numbers, key=lambda name: numbers[name])
    assert sweep.report().read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_folder_is_loaded_as_what_it_is(trained: Cell, swept: Cell, tmp_path: Path) -> None:
    assert repr(ds.load(trained.value.path)) == repr(trained.value)
    assert repr(ds.load(swept.value.path)) == repr(swept.value)
    with pytest.raises(errors.CheckpointError, match="is no run, no sweep and no ensemble: it has no"):
        ds.load(tmp_path)
    gone = ds.Run(tmp_path / "nowhere")
    for call in (lambda: ds.load(gone.path), lambda: gone.state, lambda: gone.metrics, gone.history):
        with pytest.raises(errors.CheckpointError, match="nowhere: there is no such folder; give that of a run"):
            call()
    assert "no such folder" in repr(gone)
    night = tmp_path / "night"
    (night / "sweep").mkdir(parents=True)
    (night / "refit").symlink_to(trained.value.path)
    (night / "night.json").write_text("{}")
    with pytest.raises(errors.CheckpointError, match=r"is a night; load one of its folders \(.*sweep, .*refit\)"):
        ds.load(night)
    with pytest.raises(errors.CheckpointError, match="has not begun to train"):
        ds.Run(tmp_path).history()
    with pytest.raises(errors.CheckpointError, match=r"is no run: it has no config\.yaml"):
        _ = ds.Run(tmp_path).result
    (tmp_path / "config.yaml").write_bytes((trained.value.path / "config.yaml").read_bytes())
    with pytest.raises(errors.CheckpointError, match="is waiting; go on with"):
        _ = ds.Run(tmp_path).result
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(errors.CheckpointError, match="no folder in it holds a trial"):
        _ = ds.Sweep(tmp_path).best


def test_tables_escape_what_they_show(trained: Cell, swept: Cell, tmp_path: Path) -> None:
    evil = tmp_path / "<img src=x onerror=alert(1)>"
    for made in (trained.value, swept.value):
        place = evil / made.path.name
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(made.path)
        table = ds.load(place)._repr_html_()
        assert "&lt;img src=x" in table
        assert "<img" not in table
        assert table.count("<tr>") >= 2


# ------------------------------------------------------------------------------------------------------------ frames


def test_an_equal_frame_is_the_same_file_and_the_same_trial(frame: pandas.DataFrame) -> None:
    file = file_of(frame)
    others = [frame.copy(), frame.astype(object), frame[frame.index >= 0], frame.astype({"winner_tie": "category"})]
    assert {file_of(one) for one in others} == {file}
    assert file.parent == paths.cache_dir() / "frames"
    changed = frame.copy()
    changed.loc[3, "prompt"] = "else"
    words = ["data=arena", *TINY]
    first, other = ds.compose(*words, data=frame), ds.compose(*words, data=changed)
    assert trial_hash(first) == trial_hash(compose([*words, f"data.path={file}"])) != trial_hash(other)


def test_a_named_index_is_a_column_and_one_without_a_name_is_none(frame: pandas.DataFrame) -> None:
    for indexed in (frame.set_index("id"), frame.sample(frac=1, random_state=0)):
        assert pandas.read_parquet(file_of(indexed)).columns.tolist() == frame.columns.tolist()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (pandas.DataFrame([[1, 2]], columns=["a", "a"]), "several columns 'a'; rename or drop one"),
        (pandas.DataFrame([[1]], columns=[7]), "the column 7 has a name that is no string"),
        (pandas.DataFrame({"text": ["a", b"b", 3]}), "cannot be written"),
        ([{"text": "a"}], "takes a path or a pandas DataFrame, got builtins.list"),
        (
            pandas.DataFrame({"text": ["a"], "label": [1]}),
            "for its columns .text, label. write data=table head=sequence",
        ),
        ("none.csv", "data=generated reads no file; choose a kind of data"),
    ],
)
def test_data_that_cannot_be_taken_are_refused_in_one_line(data: Any, said: str) -> None:
    with pytest.raises(errors.UserError, match=said) as refused:
        ds.compose(data=data)
    assert "\n" not in str(refused.value)


# ---------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ds.train("lora.rank=4,8"), "lora.rank=4,8 names several values: ds.sweep trains each of them"),
        (lambda: ds.train("lora.rnk=4"), "did you mean lora.rank"),
        (lambda: ds.train(["lora.rank=4"]), "overrides are strings, each its own argument"),
        (lambda: ds.sweep("-m", "seed=0,1"), "-m: flags belong to the command line"),
        (lambda: ds.train("hydra.run.dir=a", folder="b"), "folder=b: hydra.run.dir=a names one too"),
        (lambda: ds.train("hydra/launcher=joblib"), "belongs to Hydra's application"),
        (lambda: ds.sweep("hydra/sweeper=ax", "seed=0,1"), "ds.sweep has grid and optuna"),
        (lambda: ds.sweep("sweep.dry_run=true", "seed=0,1"), "use ds.plan"),
        (lambda: ds.sweep("optimizer.lr=interval(1e-4,1e-2)"), "hydra/sweeper=optuna"),
        (lambda: ds.compose("data=table", "data.path=a.csv", data="b.csv"), "data.path=a.csv names the data too"),
        (lambda: ds.train("data=table", "head=sequence", data="none.csv"), "none.csv: no such file (looked in"),
        (lambda: ds.plan("hydra.run.dir=a"), "leave it out here"),
        (lambda: ds.train(*TINY, folder="/dev/null/run"), "/dev/null/run: Not a directory"),
        (lambda: ds.Run(".").predict("a.csv", batch_rows=0), "batch_rows must be at least 1, got 0"),
        (lambda: ds.Run(".").predict("a.csv", batch_rows="a"), "batch_rows must be a whole number, got 'a'"),
        (lambda: ds.train(folder=5), "folder= takes a path, got 5; give a string or a pathlib.Path"),
        (lambda: ds.sweep("seed=0,1", folder=5), "folder= takes a path, got 5"),
        (lambda: ds.load(5), "path= takes a path, got 5"),
        (lambda: ds.Ensemble(None), "path= takes a path, got None"),
        (lambda: ds.Sweep(".").report(5), "output= takes a path, got 5"),
        (lambda: ds.Run(".").predict("a.csv", accelerator="tpu"), "accelerator=tpu: no such option"),
        (lambda: ds.Run(".").predict("a.csv", devices=0), "--devices must be a number from 1 on or all, got 0"),
        (lambda: ds.Run(".").predict("a.csv", devices="2"), "--devices must be a number from 1 on or all, got 2"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    call: Callable[[], Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.UserError) as refused:
        call()
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_that_the_child_finds_is_the_same_error_and_leaves_nothing(
    trained: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("text,label\n" + "a,x\n" * 20)
    with pytest.raises(errors.DataError, match="its only class is"):
        ds.train("data=table", "head=sequence", *TINY, data="rows.csv")
    assert [file.name for file in tmp_path.iterdir()] == ["rows.csv"]
    with pytest.raises(errors.CheckpointError, match="holds another trial"):
        ds.train(*TINY, folder=trained.value.path)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (hostile.kills_itself, "killed: killed by SIGKILL"),
        (hostile.raises, "failed: "),
        (hostile.segfaults, "failed: ended by SIGSEGV"),
        (hostile.tells_and_then_fails, "^the reason$"),
    ],
)
def test_a_child_that_dies_is_a_failed_trial(task: Any, said: str, tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", {"trial": "a", "state": "finished"})  # of the run whose child predicts
    with pytest.raises(errors.TrialFailed, match=said):
        run_in_child(task, Job(tmp_path, Path.cwd(), dict(os.environ)), on_cpu=True)


def test_a_run_whose_child_dies_behind_its_result_has_finished(tmp_path: Path) -> None:
    job = Job(tmp_path, Path.cwd(), dict(os.environ))
    assert run_in_child(hostile.dies_with_its_result, job, on_cpu=True) is None
    assert json.loads((tmp_path / "result.json").read_text())["state"] == "finished"


def test_the_script_that_asks_is_not_run_again_in_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()")
    main_module = ModuleType("__main__")
    main_module.__file__ = str(script)
    monkeypatch.setitem(sys.modules, "__main__", main_module)
    child = Pool(on_cpu=True).start(hostile.instant, Job(tmp_path, Path.cwd(), dict(os.environ)))
    assert child.reap() == 0
    assert not (tmp_path / "ran").exists()
    assert sys.modules["__main__"] is main_module


def test_a_caller_that_uses_hydra_itself_keeps_its_own() -> None:
    with initialize_config_dir(str(paths.conf_dir()), version_base="1.3"):
        own = GlobalHydra.instance().hydra
        ds.compose(*TINY)
        assert GlobalHydra.instance().hydra is own
    assert not GlobalHydra.instance().is_initialized()


def test_a_plan_has_the_figures_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["lora.rank=4,0", *TINY]
    found = ds.plan(*words)
    assert main.main(["plan", "-m", "--json", *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert found["lora.rank"].tolist() == ["4", "0"]
    assert found["memory_bytes/total"].dropna().tolist() == [
        one["memory_bytes"]["total"] for one in told if "memory_bytes" in one
    ]
    assert "lora.rank must be at least 1" in found["error"][1]
    assert found["fits"][0]
    assert len(ds.plan(*TINY)) == 1
