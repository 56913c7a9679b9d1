"""The README's commands, as a newcomer types them."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT, TINY
from hydra.core.override_parser.overrides_parser import OverridesParser

from danube_sweep.cli import main
from danube_sweep.composer import compose
from danube_sweep.data.kinds.generated import generate, write_csv
from danube_sweep.sweeping.propose.grid_cells import search_of
from danube_sweep.sweeping.propose.search_space import examples

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.S)
COMMANDS = [line.split("  #")[0].strip() for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
RUNS = [line for line in COMMANDS if line.startswith("danube-sweep")]
SUBCOMMANDS = {"export", "oof", "plan", "predict", "rank", "report", "resume", "sweep", "watch"}


def overrides(command: str) -> list[str]:
    """The overrides of a run, or of a sweep's first trial."""
    words = [word for word in shlex.split(command)[1:] if not word.startswith(("-", "hydra"))]
    parsed = OverridesParser.create().parse_overrides(words)
    if not any(override.is_sweep_override() for override in parsed):
        return words
    search = search_of(parsed)
    return [*search.fixed, *examples(search)[0]]


def trains(command: str) -> bool:
    words = shlex.split(command)[1:]
    return not words or (words[0] not in SUBCOMMANDS and not words[0].startswith("--"))


def test_the_readme_shows_commands() -> None:
    assert "make run" in COMMANDS and "make test" in COMMANDS
    assert sum(trains(command) for command in RUNS) >= 6


@pytest.mark.parametrize("command", [command for command in RUNS if trains(command)])
def test_a_training_command_composes(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANUBE_SWEEP_DATA", str(tmp_path))
    assert compose(overrides(command)).seed >= 0


@pytest.mark.parametrize("command", [command for command in RUNS if "-m" in command.split() and trains(command)])
def test_a_sweep_of_the_readme_can_be_looked_at_first(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DANUBE_SWEEP_DATA", str(tmp_path))
    write_csv(generate(40, seed=1, noise=0.0), tmp_path / "train.csv")
    for name in ("banking77_train.csv", "banking77_test.csv"):
        (tmp_path / name).write_text("text,label\na,x\nb,y\n")
    words = [word for word in shlex.split(command)[1:] if word != "--dry-run" and not word.startswith("model.path")]
    assert main.main([*words, "device.memory_gib=140", "--dry-run"]) == 0  # whatever this machine has
    assert "nothing was started" in capsys.readouterr().out
    assert not (tmp_path / "multirun").exists()


def test_the_sweep_file_of_the_readme_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (command,) = (command for command in RUNS if command.startswith("danube-sweep sweep"))
    assert main.main(["sweep", str(ROOT / command.split()[-1]), "--dry-run"]) == 0
    assert "optimizer.lr" in capsys.readouterr().out


def test_the_first_run_and_its_predictions_work_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(generate(40, seed=1, noise=0.0), tmp_path / "train.csv")
    small = [*TINY, "trainer.max_steps=2", "hydra.run.dir=run"]
    assert main.main(["data=arena", "data.path=train.csv", *small]) == 0
    assert main.main(["predict", "run", "train.csv", "-o", "submission.csv"]) == 0
    assert "submission.csv: 40 rows" in capsys.readouterr().out
    assert main.main(["resume", "run"]) == 0


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?://)([^)#]+)", README))
def test_a_link_of_the_readme_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
