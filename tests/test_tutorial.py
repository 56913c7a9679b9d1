"""docs/tutorial.md: its commands compose, and its script runs the first two over a tiny model."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import COMPOSER, ROOT, TINY, tiny_config
from workbench import save_base

from danube_sweep.data.kinds.generated import generate, write_csv
from danube_sweep.planner.memory import GIB
from danube_sweep.planner.trial_plan import plan_of

sys.path.insert(0, str(ROOT / "benchmarks"))

import smollm2_folder
import tutorial

PAGE = tutorial.PAGE.read_text(encoding="utf-8")
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


def test_the_commands_for_a_t4_compose_and_fit_as_the_page_says(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data)
    (data / "train.csv").write_bytes((data / "data" / "banking77_train.csv").read_bytes())
    write_csv(generate(40, seed=1, noise=0.0), data / "arena_train.csv")
    lines = re.findall(r"^danube-sweep (.*)$", "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.S)), re.M)
    trained = [line.split() for line in lines if "=" in line]
    assert len(lines) == 11 and len(trained) == 4
    for words in trained:
        first = [one.partition(",")[0] for one in words if "=" in one and not one.startswith(("hydra.", "pruner"))]
        planned = plan_of(COMPOSER.trial(first))
        assert planned.fit.fits and planned.device.name == "a T4"
        peak = f"{planned.fit.memory.total / GIB:.2f}"
        assert f"{peak} GiB with margins" in PAGE or f"62%   {peak} " in PAGE


def test_the_model_is_not_written_over_a_folder_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["smollm2_folder.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="is not empty; give a new folder"):
        smollm2_folder.main()
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
