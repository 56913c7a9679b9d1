"""The README's commands, as a newcomer types them."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT, TINY

from danube_sweep import cli
from danube_sweep.compose import compose
from danube_sweep.data.generated import generate, write_csv

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.S)
COMMANDS = [line.split("  #")[0].strip() for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
RUNS = [line for line in COMMANDS if line.startswith("danube-sweep")]
SUBCOMMANDS = {"predict", "resume"}


def overrides(command: str) -> list[str]:
    return [word for word in shlex.split(command)[1:] if word not in ("-m",)]


def trains(command: str) -> bool:
    words = shlex.split(command)[1:]
    return not words or (words[0] not in SUBCOMMANDS and not words[0].startswith("--"))


def test_the_readme_shows_commands() -> None:
    assert "make run" in COMMANDS and "make test" in COMMANDS
    assert sum(trains(command) for command in RUNS) >= 6


@pytest.mark.parametrize("command", [command for command in RUNS if trains(command)])
def test_a_training_command_composes(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANUBE_SWEEP_DATA", str(tmp_path))
    first = [word.split(",")[0] for word in overrides(command)]  # of a sweep, the first trial
    assert compose(first).seed >= 0


def test_the_first_run_and_its_predictions_work_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(generate(40, seed=1, noise=0.0), tmp_path / "train.csv")
    small = [*TINY, "trainer.max_steps=2", "hydra.run.dir=run"]
    assert cli.main(["data=arena", "data.path=train.csv", *small]) == 0
    assert cli.main(["predict", "run", "train.csv", "-o", "submission.csv"]) == 0
    assert "submission.csv: 40 rows" in capsys.readouterr().out
    assert cli.main(["resume", "run"]) == 0


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?://)([^)#]+)", README))
def test_a_link_of_the_readme_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
