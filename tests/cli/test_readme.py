"""The commands of the README and of the task pages, as a newcomer types them."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT, TINY, compose
from hydra.core.override_parser.overrides_parser import OverridesParser

from danube_sweep.cli import main
from danube_sweep.cli.init import options_of
from danube_sweep.data.kinds.generated import generate, write_csv
from danube_sweep.data.recognise.recognise_file import recognise
from danube_sweep.sweeping.propose.grid_cells import search_of
from danube_sweep.sweeping.propose.search_space import examples

TASKS = ["train-on-my-csv", "compare-four-models", "several-gpus", "what-fits-my-gpu", "options", "runs"]
FOLDER_FIRST = {"export", "label", "oof", "predict", "rank", "report", "resume", "watch"}
"""Commands on the folder of a run or a sweep."""
COMPOSES = {"plan", "show"}
"""Commands on a trial, by its overrides."""


def commands_of(page: Path) -> list[str]:
    """The lines of a page's bash blocks, without comments and environment variables."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [re.sub(r"^(\w+=\S* )+", "", re.split(r"\s+# ", line)[0]).strip() for line in lines]


def subcommand(command: str) -> str:
    return next(iter(command.split()[1:]), "")


def trains(command: str) -> bool:
    return subcommand(command) not in {*FOLDER_FIRST, *COMPOSES, "init", "sweep", "tonight"} and not subcommand(
        command
    ).startswith("--")


README = commands_of(ROOT / "README.md")
RUNS = [command for command in README if command.startswith("danube-sweep")]
PAGES = list(dict.fromkeys(line for task in TASKS for line in commands_of(ROOT / "docs" / f"{task}.md")))
BOTH = list(dict.fromkeys([*RUNS, *(line for line in PAGES if line.startswith("danube-sweep"))]))


def overrides(command: str) -> list[str]:
    """The overrides of a trial, or of a sweep's first trial."""
    words = [word for word in shlex.split(command, comments=True)[1:] if not word.startswith(("-", "hydra"))]
    words = [word.replace("glob(danube3*)", "danube3_4b") for word in words if word not in COMPOSES]
    parsed = OverridesParser.create().parse_overrides(words)
    if not any(override.is_sweep_override() for override in parsed):
        return words
    search = search_of(parsed)
    return [*search.fixed, *examples(search)[0]]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, except for the data that the commands name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DANUBE_SWEEP_DATA", str(tmp_path))
    write_csv(generate(40, seed=1, noise=0.0), tmp_path / "train.csv")
    (tmp_path / "intents.csv").write_text("text,label\n" + "".join(f"row {n},{'ab'[n % 2]}\n" for n in range(20)))
    return tmp_path


def test_the_readme_is_short_and_shows_commands() -> None:
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") <= 150
    assert "make run" in README and "make test" in README
    assert sum(trains(command) for command in RUNS) >= 6


@pytest.mark.parametrize("command", [command for command in BOTH if trains(command) or subcommand(command) in COMPOSES])
def test_a_command_on_a_trial_composes(command: str, files: Path) -> None:
    assert compose(overrides(command)).seed >= 0


@pytest.mark.parametrize("command", [command for command in BOTH if subcommand(command) == "init"])
def test_a_file_of_the_pages_is_recognised(command: str, files: Path) -> None:
    (files / "new.csv").write_text("text\nrow 40\n")
    options = options_of(shlex.split(command)[2:])
    found = recognise(options.file, options.overrides, options.test)
    assert {"data=table", "head=sequence", f"data.path={options.file}"} <= set(found.overrides)
    assert found.to_predict == (options.test and str(options.test))


@pytest.mark.parametrize("command", [command for command in RUNS if "-m" in command.split() and trains(command)])
def test_a_sweep_of_the_readme_can_be_looked_at_first(
    command: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in shlex.split(command)[1:] if word != "--dry-run"]
    assert main.main([*words, "device.memory_gib=140", "--dry-run"]) == 0  # whatever this machine has
    assert "nothing was started" in capsys.readouterr().out
    assert not (files / "multirun").exists()


@pytest.mark.parametrize("command", [command for command in BOTH if subcommand(command) in FOLDER_FIRST])
def test_a_command_on_a_folder_is_refused_only_because_the_folder_is_missing(
    command: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command)[1:]
    assert main.main(words) == 2
    assert capsys.readouterr().err.startswith(f"danube-sweep: error: {words[1]} is no")


def test_the_sweep_file_of_the_readme_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (command,) = (command for command in RUNS if subcommand(command) == "sweep")
    assert main.main(["sweep", str(ROOT / command.split()[-1]), "--dry-run"]) == 0
    assert "optimizer.lr" in capsys.readouterr().out


def test_the_first_run_and_its_predictions_work_as_printed(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [*TINY, "trainer.max_steps=2", "hydra.run.dir=run"]
    assert main.main(["data=arena", "data.path=train.csv", *small]) == 0
    assert main.main(["predict", "run", "train.csv", "-o", "submission.csv"]) == 0
    assert "submission.csv: 40 rows" in capsys.readouterr().out
    assert main.main(["resume", "run"]) == 0


@pytest.mark.parametrize("page", [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")], ids=lambda page: page.name)
def test_a_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for link, anchor in re.findall(r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)", text):
        target = page.parent / link if link else page
        assert target.exists(), link
        titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
