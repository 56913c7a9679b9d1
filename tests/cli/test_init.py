"""`danube-sweep init`: guesses with reasons, rows as the model reads them, and a command and a file that work."""

import json
import shlex
from pathlib import Path

import pytest
from conftest import COMPOSER, TINY, compose

from danube_sweep.cli import main
from danube_sweep.cli.help import help_text
from danube_sweep.composer import Composer
from danube_sweep.data.recognise.recognise_file import recognise
from danube_sweep.sweeping.starting_point import starting_point

SMALL = ["model=danube_tiny", *(word for word in TINY if "max_length" not in word and "trainer" not in word)]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"the text": f"query {n} on cards", "topic": "ab"[n % 2]} for n in range(24)]
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("test.jsonl").write_text("".join(json.dumps({"the text": row["the text"]}) + "\n" for row in rows))
    return tmp_path


def command(line: str) -> list[str]:
    words = shlex.split(line)
    assert words[0] == "danube-sweep"
    return words[1:]


def test_guesses_rows_and_a_command_that_can_be_planned(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["init", "train.jsonl", "--test", "test.jsonl", *SMALL]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "train.jsonl: 24 rows, columns the text, topic"
    assert "data.label_column=topic" in out and "the only column that the test file lacks" in out
    assert len([line for line in out.splitlines() if line.startswith("row ")]) == 3
    lines = [line.strip() for line in out.splitlines()]
    start = command(lines[lines.index("start from:") + 1])
    assert "data.text_column='the text'" in start and "trainer.micro_batch=16" in start
    assert lines[-1] == "danube-sweep predict RUN_DIR test.jsonl -o predictions.csv"
    assert main.main(["-m", *start, "seed=0,1", "--dry-run"]) == 0
    assert "2 trials" in capsys.readouterr().out


def test_the_experiment_is_the_same_trial(own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    assert main.main(["init", "train.jsonl", *SMALL, "head.pooling=mean", "-o", "mine/experiment/a.yaml"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    start, used = (command(lines[lines.index(title) + 1]) for title in ("start from:", "the same as an experiment:"))
    assert used == ["--config-dir", "mine", "experiment=a"]
    text = Path("mine/experiment/a.yaml").read_text()
    assert f'path: "{own_folder}/train.jsonl" # the file' in text
    assert Composer(config_dir=Path("mine").absolute()).trial(used[2:]) == compose(start)
    assert main.main(["init", "train.jsonl", *SMALL, "-o", "mine/experiment/a.yaml"]) == 2
    assert "give --overwrite to replace it" in capsys.readouterr().err
    assert Path("mine/experiment/a.yaml").read_text() == text


def test_a_bare_name_in_a_folder_of_experiments_is_found_by_the_command(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_folder / "experiment").mkdir()
    monkeypatch.chdir(own_folder / "experiment")
    assert main.main(["init", "../train.jsonl", *SMALL, "-o", "mine.yaml"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    used = command(lines[lines.index("the same as an experiment:") + 1])
    trial = Composer(config_dir=Path(used[1]).absolute()).trial(used[2:])
    assert Path(trial.data.path).samefile(own_folder / "train.jsonl")


def test_a_model_that_is_not_here_is_told_and_stood_in_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["init", "train.jsonl"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "the rows are shown with the tokenizer of model=danube_tiny" in out
    assert "model=smollm2_135m small enough for a CPU" in out


def test_a_gpu_gets_a_larger_model_and_the_changes_that_fit_it() -> None:
    found = recognise("train.jsonl", ["device=kaggle_t4"])
    words = starting_point(found, ["device=kaggle_t4"], COMPOSER).overrides
    assert {"model=danube3_500m", "precision=fp16", "device=kaggle_t4"} <= set(words)
    given = ["model=danube3_4b", "device=kaggle_t4", "precision=fp32"]
    start = starting_point(recognise("train.jsonl", given), given, COMPOSER)
    changes = [guess.word for guess in start.guesses if guess.reason == "without it not even one row fits"]
    assert changes and set(changes) < set(start.overrides)
    assert start.plan.fit.fits and compose(start.overrides) == start.config


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: FILE"),
        (["none.csv"], "data.path=none.csv: no such file"),
        (["train.jsonl", "--rows", "-1"], "--rows must be at least 0, got -1"),
        (["train.jsonl", "--overwrite"], "--overwrite replaces the experiment of -o"),
        (["train.jsonl", "-o", "mine.yaml"], "give -o experiment/mine.yaml"),
        (["train.jsonl", "-o", "experiment/wnut17.yaml"], "experiment=wnut17 is one of danube-sweep's own"),
        (["train.jsonl", "-o", "mine/experiment/a.yaml"], "-o mine/experiment/a.yaml: mine is no folder"),
        (["train.jsonl", "hydra.run.dir=x"], "init takes settings of a trial"),
        (["train.jsonl", "data.path=x"], "data.path=x: give the file by itself"),
        (["train.jsonl", "data.label=topic"], "data.label: no such field; write data.label_column=topic"),
        (["train.jsonl", "--test", "none.csv"], "--test=none.csv: no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    own_folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main.main(["init", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and said in err
    assert sorted(file.name for file in own_folder.iterdir()) == ["test.jsonl", "train.jsonl"]


def test_help_leads_to_init() -> None:
    assert "danube-sweep init FILE" in help_text()
