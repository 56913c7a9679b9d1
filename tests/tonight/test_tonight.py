"""`danube-sweep tonight`: a whole night on tiny rows, its commands again one by one, and nights that cannot be."""

import csv
import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import runs
from conftest import TINY

from danube_sweep.cli import main
from danube_sweep.cli.help import help_text
from danube_sweep.errors import TrialFailed
from danube_sweep.storage.files import write_json
from danube_sweep.storage.ownership import Kind, is_ours
from danube_sweep.terminal.screen import Terminal
from danube_sweep.tonight import run_night, stages
from danube_sweep.tonight.asked import Asked
from danube_sweep.tonight.night_folder import NightFolder, Ran

SMALL = [*(word for word in TINY if "max_length" not in word), "data.max_length=48"]
FIXED = ["trainer.max_steps=4", "lora.rank=4", "lora.last_k=null", "head.pooling=mean", "model.lr=3.2e-2"]
FIXED += ["optimizer=adamw", "precision=fp32", "sweep.baseline=none"]
NIGHT = ["--test", "test.csv", "--models", "danube_tiny", *SMALL, *FIXED]
LADDER = [3.2e-2 * times for times in (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)]
"""Of rates around the usual one."""


def write_rows(folder: Path) -> None:
    """40 queries that tell their label, so that one model is as good as several."""
    kinds = [("pay with card", "card"), ("send money home", "cash")]
    rows = [(n, f"{kinds[n % 2][0]} number {n}", kinds[n % 2][1]) for n in range(40)]
    for name, columns in (("train", 3), ("test", 2)):
        with (folder / f"{name}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([("id", "text", "label")[:columns], *(row[:columns] for row in rows)])


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that a night was started in, and what it printed."""
    place = tmp_path_factory.mktemp("night")
    write_rows(place)
    cache = {"DANUBE_SWEEP_CACHE": str(tmp_path_factory.getbasetemp() / "cache")}
    words = ["tonight", "train.csv", "--hours", "0.5", *NIGHT, "-o", "night"]
    done = runs.command(*words, cwd=place, env={**os.environ, **cache, "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr
    return place, done.stdout


@pytest.fixture
def place(night: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, which is the current one."""
    shutil.copytree(night[0], tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def commands_of(place: Path) -> list[list[str]]:
    lines = (place / "night" / "commands.sh").read_text().splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("danube-sweep ")]


def trials_of(place: Path) -> dict[str, dict[str, Any]]:
    files = (place / "night" / "sweep").glob("*/result.json")
    return {file.parent.name: json.loads(file.read_text()) for file in files}


def test_a_night_ends_in_a_submission_a_report_and_its_commands(night: tuple[Path, str]) -> None:
    place, said = night
    with (place / "night" / "submission.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == [str(n) for n in range(40)]
    assert all(abs(float(row["card"]) + float(row["cash"]) - 1) < 1e-4 for row in rows)
    assert "<title>" in (place / "night" / "report.html").read_text()
    assert "nothing is left to gain: all neighbours of the best trial were tried" in said
    assert said.index("first look") < said.index("$ danube-sweep -m")  # the plan comes first
    assert "refit" in [command[0] for command in commands_of(place)]
    assert json.loads((place / "night" / "refit" / "result.json").read_text())["rows"]["train"] == 40
    assert is_ours(place / "night", Kind.night)


def test_neighbours_of_the_best_rate_were_all_tried(night: tuple[Path, str]) -> None:
    place, _ = night
    tried: dict[float, float] = {}
    for name, result in trials_of(place).items():
        told = json.loads((place / "night" / "sweep" / name / "trial.json").read_text())["overrides"]
        words = dict(word.partition("=")[::2] for word in told)
        if "seed" not in words:
            tried[float(words["optimizer.lr"])] = result["validation"]["log_loss"]
    best = min(tried, key=lambda rate: tried[rate])
    middle = min(range(len(LADDER)), key=lambda one: abs(LADDER[one] - best))
    for near in LADDER[max(middle - 1, 0) : middle + 2]:
        assert any(abs(rate / near - 1) < 0.01 for rate in tried), (near, tried)


def test_the_first_command_makes_the_same_trials(night: tuple[Path, str], tmp_path: Path) -> None:
    place, _ = night
    (tmp_path / "night").mkdir()
    shutil.copy(place / "train.csv", tmp_path)
    first, *_, predict, report = commands_of(place)
    assert (first[0], predict[0], report[0]) == ("-m", "predict", "report")
    done = runs.command(*first, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    again, known = trials_of(tmp_path), trials_of(place)
    assert len(again) == 3
    assert all(known[name]["trial"] == result["trial"] for name, result in again.items())


@pytest.mark.usefixtures("place")
def test_a_night_of_others_is_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(tmp_path / "of another user"))
    assert main.main(["tonight", "night"]) == 2
    assert "goes outside itself: data.path=train.csv, data.path=test.csv" in capsys.readouterr().err


def test_a_night_that_was_killed_before_its_predictions_goes_on_there(place: Path) -> None:
    stored = json.loads((place / "night" / "night.json").read_text())
    searched = [one for one in stored["ran"] if one["stage"] not in ("predict", "report")]
    write_json(place / "night" / "night.json", {**stored, "ran": searched})  # as the night itself does
    (place / "night" / "submission.csv").rename(place / "before.csv")
    trials = trials_of(place)
    assert main.main(["tonight", "train.csv", "--hours", "0.5", *NIGHT, "-o", "night"]) == 0
    assert (place / "night" / "submission.csv").read_bytes() == (place / "before.csv").read_bytes()
    assert trials_of(place) == trials  # nothing is trained again
    assert [one[0] for one in commands_of(place)].count("refit") == 1
    assert main.main(["tonight", "night"]) == 0  # and a night that has ended only draws its page again
    assert [one[0] for one in commands_of(place)][-3:] == ["predict", "report", "report"]


def test_a_plan_of_two_backbones_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")  # each row on one line
    write_rows(tmp_path)
    words = ["tonight", "train.csv", "--test", "test.csv", "--hours", "8", "--device", "kaggle_t4", "--dry-run"]
    assert main.main(words) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "danube3_500m:" in out and "danube3_4b:" in out and "a T4" in out
    assert "precision=fp16 (int8, nf4)" in out and "lora.targets=all_linear (attention)" in out
    assert "if danube3_4b leads: " in out
    assert sorted(file.name for file in tmp_path.iterdir()) == ["test.csv", "train.csv"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train.csv", "--hours", "1"], "tonight train.csv: --test FILE is missing"),
        (["train.csv", "--test", "none.csv", "--hours", "1"], "--test none.csv: no such file"),
        (["train.csv", "--test", "test.csv"], "--hours H is missing"),
        (["train.csv", "--test", "test.csv", "--hours", "0"], "--hours must be above 0, got 0"),
        (
            ["train.csv", "--test", "test.csv", "--hours", "1", "--models", "danube9"],
            "--models danube9: no such option",
        ),
        (["train.csv", "--hours", "1e-4", *NIGHT], "one trial of danube_tiny and the predictions take about"),
        (["test.csv", "--hours", "1", *NIGHT], "test.csv"),
        (
            ["train.csv", "--hours", "1", *NIGHT, "-o", "mine"],
            "mine holds files that danube-sweep did not write (notes.txt)",
        ),
        (["train.csv", "--hours", "1", *NIGHT, "seed=3"], "seed=3: tonight compares settings on one split and seed"),
        (["train.csv", "--hours", "1", *NIGHT, "sweep.deadline_h=2"], "tonight sets it from --hours"),
        (["train.csv", "--hours", "1", *NIGHT, "trainer.benchmark_test=true"], "tonight sets it from --hours and the"),
        (["mine"], "mine is no night: it has no night.json"),
        (["train.csv", "--hours", "1", *NIGHT, "--like", "form.csv"], "--like=form.csv: no class for its column cat"),
        (["train.csv", "--hours", "1", *NIGHT, "--like", "ids.csv"], "--test=test.csv: 39 ids (1, 2, 3, …) are not in"),
        (["hole.csv", "--hours", "1", *NIGHT], "hole.csv: 1 row (line 19) without a value in 'label'; fill it in"),
        (["train.csv", "--hours", "1", *NIGHT, "head=regression"], "without a finite number in 'label'; correct them"),
        (["train.csv", "--hours", "1", *NIGHT, "--test", "noid.csv"], "give data.id_column=null, then its rows are"),
        (["train.csv", "--hours", "1", *NIGHT, "--test", "empty.csv"], "--test=empty.csv: 1 row (line 3) without"),
    ],
    ids=lambda value: " ".join(value[:6]) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "form.csv").write_text("id,card,cat\n" + "".join(f"{n},0,1\n" for n in range(40)))
    (tmp_path / "ids.csv").write_text("id,card,cash\n0,0,1\n")
    rows = (tmp_path / "train.csv").read_text().splitlines()
    (tmp_path / "hole.csv").write_text("\n".join([*rows[:18], rows[18].rpartition(",")[0] + ",", *rows[19:], ""]))
    (tmp_path / "noid.csv").write_text("text\npay\n")
    (tmp_path / "empty.csv").write_text("id,text\n0,pay\n,send\n")
    before = sorted(tmp_path.rglob("*"))
    assert main.main(["tonight", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and said in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_holds_one_night(
    night: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(night[0])
    assert main.main(["tonight", "train.csv", "--hours", "1", *NIGHT, "schedule=linear", "-o", "night"]) == 2
    assert "night holds another night; give another folder by -o" in capsys.readouterr().err


def test_a_night_that_was_killed_before_its_first_trials_begins_again(tmp_path: Path) -> None:
    asked = Asked("train.csv", "test.csv", 1.0, [], None, [])
    killed = NightFolder(tmp_path / "night")
    killed.begin(asked)
    cell = {"hash": "0" * 32, "backbone": "danube_tiny", "settings": {}}
    killed.ran.append(Ran("first look", ["-m"], 0.0, cells=[cell]))
    killed.write()
    again = NightFolder(killed.path)
    again.begin(asked)
    assert again.ran == []


@pytest.mark.usefixtures("place")
def test_a_night_without_a_validation_says_why_and_begins_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path("night")
    stored = json.loads((folder / "night.json").read_text())
    searched = [one for one in stored["ran"] if one["cells"]]
    write_json(folder / "night.json", {**stored, "ran": searched})
    for file in (folder / "sweep").glob("*/result.json"):
        write_json(file, {"trial": json.loads(file.read_text())["trial"], "state": "failed", "error": "the disk broke"})
    wrong = NightFolder(folder)
    wrong.asked = wrong.read()
    assert "(001_" in (said := run_night._nothing_validated(wrong)) and ": failed: the disk broke)" in said
    assert said.endswith("correct that, then go on with: danube-sweep tonight night")
    monkeypatch.setattr(run_night, "_search", lambda *_: None)  # the trials of the first look are those of `night`
    assert main.main(["tonight", "night"]) == 1
    out, err = capsys.readouterr()
    told = "no trial got as far as a validation (failed: the disk broke); they are kept in night/sweep-1"
    assert told in " ".join(out.split())
    more, hours = err.rstrip().rsplit(" ", 1)
    assert more.endswith("in this time; go on with: danube-sweep tonight night --hours") and float(hours) >= 1.0
    again = NightFolder(folder)
    again.asked = again.read()
    coming = run_night.next_round(again, run_night.backbones_of(again.asked, print))
    assert not isinstance(coming, str) and coming.stage == "first look"


def test_another_sample_submission_is_predicted_again(place: Path) -> None:
    Path("like.csv").write_text("id,cash,card\n" + "".join(f"{n},0,1\n" for n in range(39, -1, -1)))
    trials = trials_of(place)
    assert main.main(["tonight", "night", "--like", "like.csv"]) == 0
    rows = Path("night/submission.csv").read_text().splitlines()
    assert rows[0] == "id,cash,card" and rows[1].startswith("39,")
    assert trials_of(place) == trials
    assert [one[0] for one in commands_of(place)][-4:] == ["predict", "report", "predict", "report"]
    Path("like.csv").rename("other.csv")
    assert main.main(["tonight", "night", "--like", "other.csv"]) == 0
    assert [one[0] for one in commands_of(place)][-2:] == ["predict", "report"]


@pytest.mark.usefixtures("place")
def test_a_night_that_learned_nothing_says_so_before_its_predictions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_night, "nothing_learned_lines", lambda _ranking: ["nothing was learned: log_loss 5"])
    monkeypatch.setattr(run_night, "_predict", lambda *_: print("all is answered"))
    Path("like.csv").write_text("id,card,cash\n" + "".join(f"{n},0,1\n" for n in range(40)))
    assert main.main(["tonight", "night", "--like", "like.csv"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.index("nothing was learned") < out.index("all is answered")
    assert "night/submission.csv: the predictions, not better than the class prior by more than chance" in out
    assert "the answer" not in out


def test_a_refit_that_fails_leaves_the_answer_to_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise TrialFailed("the loss is not finite")

    monkeypatch.setattr(stages, "run_refit", fail)
    begun = NightFolder(tmp_path / "night")
    begun.begin(Asked("train.csv", "test.csv", 1.0, [], None, []))
    assert not stages.Stages(begun, Terminal()).refit()


def test_ties_are_confirmed_with_the_share_that_was_asked_for(
    night: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = json.loads((night[0] / "night" / "sweep" / "sweep.json").read_text())
    stored["settings"]["sweep"]["confirm_share"] = 0.0625
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text(json.dumps(stored))
    shares: list[float] = []
    monkeypatch.setattr(stages, "rank_sweep", lambda _path: None)
    monkeypatch.setattr(stages.confirm, "tied", lambda _ranking: [])
    monkeypatch.setattr(stages.confirm, "next_round", lambda _1, _2, sweep: shares.append(sweep.confirm_share))
    stages.Stages(NightFolder(tmp_path), Terminal()).confirm(60.0)
    assert shares == [0.0625]


def test_help_leads_to_tonight() -> None:
    assert "danube-sweep tonight FILE" in help_text()
