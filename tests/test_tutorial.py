"""docs/tutorial.md: its commands compose, and its script runs the first two over a tiny model."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import COMPOSER, ROOT, TINY, tiny_config
from workbench import save_base

sys.path.insert(0, str(ROOT / "benchmarks"))

import smollm2_folder
import tutorial

SMALL = [*(word for word in TINY if not word.startswith("model.")), "trainer.max_steps=2"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with two files like banking77's, and a tiny model."""
    (tmp_path / "data").mkdir()
    for part in ("train", "test"):
        rows = [(n, f"query {n} on {name}", name) for n in range(12) for name in (*tutorial.INTENTS, "another")]
        with (tmp_path / "data" / f"banking77_{part}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([("id", "text", "label"), *rows])
    save_base(tiny_config(), tmp_path / "tiny")
    return tmp_path


def test_its_first_commands_run(data: Path) -> None:
    words = ["--model", data / "tiny", "--data", data / "data", "--out", data / "out", "--rows", "40", "--first", "2"]
    command = [sys.executable, str(ROOT / "benchmarks" / "tutorial.py"), *map(str, words), *SMALL]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.count("CPU-s") == 3 and "2 commands, " in done.stdout and "verdict" in done.stdout
    with (data / "out" / "train.csv").open(newline="") as stream:
        labels = [row["label"] for row in csv.DictReader(stream)]
    assert {label: labels.count(label) for label in labels} == dict.fromkeys(tutorial.INTENTS, 10)
    assert (data / "out" / "first" / "result.json").is_file()


def test_its_trials_compose(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data)
    (data / "smollm2").symlink_to(data / "tiny")
    (data / "train.csv").write_bytes((data / "data" / "banking77_train.csv").read_bytes())
    trained = [words for words in tutorial.commands() if words[0] == "-m" or "=" in words[0]]
    assert len(trained) == 2
    for words in trained:
        first = [word.partition(",")[0] for word in words if word != "-m" and not word.startswith("hydra.")]
        assert COMPOSER.trial(first).trainer.max_steps == 12


def test_the_model_is_not_written_over_a_folder_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["smollm2_folder.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="is not empty; give a new folder"):
        smollm2_folder.main()
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
