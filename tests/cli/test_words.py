"""Flags and first words of other tools are answered in one line, before anything is composed."""

from pathlib import Path

import pytest

from danube_sweep import __version__
from danube_sweep.cli import main
from danube_sweep.cli.commands import COMMANDS
from danube_sweep.cli.words import sweep_first
from danube_sweep.config.facts.other_names import COMMAND_NAMES


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "danube3_500m"], "--model: no such flag; options have no dashes: write model=danube3_500m"),
        (["--model=danube3_500m"], "--model: no such flag; options have no dashes: write model=danube3_500m"),
        (["--lr", "3e-4"], "write optimizer.lr=3e-4"),
        (["--learning-rate=3e-4"], "write optimizer.lr=3e-4"),
        (["--lora.rank", "8"], "write lora.rank=8"),
        (["--load-in-4bit", "seed=1"], "write precision=nf4"),
        (["--dryrun", "-m", "seed=0,1"], "--dryrun: no such flag; did you mean --dry-run?"),
        (["-m", "seed=0,1", "--dry_run"], "--dry_run: no such flag; did you mean --dry-run?"),
        (["--foo"], "--foo: no such flag; options have no dashes: GROUP=OPTION or FIELD=VALUE; flags are -m"),
        (["train"], "train: no such command; training needs none; give danube-sweep GROUP=OPTION"),
        (["train", "model=danube3_500m"], "train: no such command"),
        (["eval", "outputs/x"], "eval: no such command; a run validates as it trains; trainer.score_test=true"),
        (["models"], "models: no such command; danube-sweep --help lists the options"),
        (["predct", "a", "b"], "predct: no such command; did you mean danube-sweep predict? there are init, predict"),
        (["data.path=a,b.csv"], """or quote a value that contains a comma: 'data.path="a,b.csv"'"""),
        (["--cfg", "job", "+lora.rnk=3"], "lora.rnk: no such field; did you mean lora.rank?"),
        (["lora.rnk=3", "--cfg=job", "--resolve"], "lora.rnk: no such field; did you mean lora.rank?"),
        (["++hydra.run.dri=x"], "hydra.run.dri: no such field; did you mean hydra.run.dir?"),
        (["-m", "+lora.rnk=8,32"], "lora.rnk: no such field; did you mean lora.rank?"),
        (["-m", "hydra/sweeper=optuna", "+lora.rnk=interval(8,32)"], "lora.rnk: no such field; did you mean"),
        (["-m", "seed=0,1", "+hydra.swep.dir=x"], "hydra.swep.dir: no such field; did you mean hydra.sweep?"),
        (["plan", "-m", "+lora.rnk=8,32"], "lora.rnk: no such field; did you mean lora.rank?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_word_that_there_is_not_is_one_line_and_leaves_nothing(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("danube-sweep: error: ")
    assert said in err
    assert list(tmp_path.rglob("*")) == []


def test_a_file_with_a_comma_in_its_name_is_no_sweep_by_accident(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a,b.csv").write_text("text,label\n")
    assert main.main(["-m", "data=table", "data.path=a,b.csv", "head=sequence"]) == 2
    assert """data.path=a,b.csv is a file with a comma in its name; quote it: 'data.path="a,b.csv"'""" in (
        capfd.readouterr().err
    )
    assert [file.name for file in tmp_path.iterdir()] == ["a,b.csv"]


def test_the_flag_of_a_sweep_may_stand_anywhere() -> None:
    wanted = ["-m", "seed=0,1", "lora=dora"]
    assert sweep_first(["seed=0,1", "-m", "lora=dora"]) == sweep_first(["seed=0,1", "lora=dora", "-m"]) == wanted
    assert sweep_first(["seed=0"]) == ["seed=0"]


def test_version_is_a_command_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["version"]) == 0
    assert capsys.readouterr().out == f"danube-sweep {__version__}\n"


def test_no_command_of_ours_is_taken_for_another_tools() -> None:
    assert not {*COMMANDS, "help", "version"} & set(COMMAND_NAMES)
