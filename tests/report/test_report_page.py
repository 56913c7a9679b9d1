"""The page of a sweep: its numbers, from the raw predictions again; its words, whatever the sweep is like."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import Sketch, distinct, grid, write_sweep
from filelock import FileLock
from pages import Node, parsed, ranking_of, section
from pyarrow import parquet
from ranking_oracle import Oracle, oracle
from sklearn.metrics import confusion_matrix, f1_score, log_loss, roc_auc_score

from danube_sweep.cli import main
from danube_sweep.report.collect import gather
from danube_sweep.report.page import page
from danube_sweep.results import rank, ranking_files

EVIL = "<script>alert(1)</script>"


def drawn(path: Path) -> Node:
    return parsed(page(gather(path)))


def mixed() -> list[Sketch]:
    """Trials in many states: eight of them have a metric, one of these is pruned."""
    trials = grid(14)
    trials[3].state, trials[3].error, trials[3].quality = "oom", "out of memory with trainer.micro_batch=8", None
    trials[5].state = "pruned"
    trials[4].state = "pruned"
    trials[7].state, trials[7].error, trials[7].quality = "diverged", "the loss is not finite at step 12", None
    trials[9].state, trials[9].error, trials[9].quality = "failed", "RuntimeError: no\nsecond line", None
    return trials


# -------------------------------------------------------------------------------- the numbers of a real sweep


@pytest.fixture(scope="module")
def real(real_sweep: Path) -> Node:
    return drawn(real_sweep)


def raw(sweep: Path, rank_: int, lr: str) -> list[dict[str, Any]]:
    """The validation predictions of a row's three seeds, as numpy arrays."""
    found = []
    for folder in sorted(sweep.glob(f"*rank-{rank_}_lr-{lr}_*")):
        columns = parquet.read_table(folder / "predictions.parquet").to_pydict()
        names = [name for name in columns if name.startswith("probability_")]
        classes = [name.removeprefix("probability_") for name in names]
        probabilities = np.array([columns[name] for name in names], dtype=np.float64).T
        probabilities /= probabilities.sum(axis=1, keepdims=True)  # of the rounding to 32 bits
        labels = np.array([classes.index(label) for label in columns["label"]])
        found.append({"p": probabilities, "y": labels, "classes": classes, "loss": np.array(columns["loss"])})
    assert len(found) == 3
    return found


def cells(real_sweep: Path, real: Node) -> list[tuple[dict[str, str], list[dict[str, Any]]]]:
    rows = ranking_of(real)
    assert len(rows) == 4
    return [(row, raw(real_sweep, int(row["rank"]), row["lr"])) for row in rows]


def test_the_metrics_of_the_table_are_those_of_the_raw_predictions(real_sweep: Path, real: Node) -> None:
    for row, seeds in cells(real_sweep, real):
        losses = [log_loss(one["y"], one["p"], labels=[0, 1, 2]) for one in seeds]
        mean, deviation = row["log_loss"].split(" \N{PLUS-MINUS SIGN}")
        assert float(mean) == pytest.approx(np.mean(losses), abs=6e-5)
        assert float(deviation) == pytest.approx(np.std(losses, ddof=1), abs=6e-5)
        right = [(one["p"].argmax(axis=1) == one["y"]).mean() for one in seeds]
        assert float(row["accuracy"]) == pytest.approx(np.mean(right), abs=6e-5)
        both = [f1_score(one["y"], one["p"].argmax(axis=1), labels=[0, 1, 2], average="macro") for one in seeds]
        assert float(row["macro_f1"]) == pytest.approx(np.mean(both), abs=6e-5)
        areas = [roc_auc_score(np.eye(3)[one["y"]], one["p"], average="macro") for one in seeds]
        assert float(row["auroc"]) == pytest.approx(np.mean(areas), abs=6e-5)


@pytest.fixture(scope="module")
def again(real_sweep: Path, real: Node) -> Oracle:
    """The intervals of the real sweep, from its files by numpy and scipy alone."""
    order = [sorted(real_sweep.glob(f"*rank-{row['rank']}_lr-{row['lr']}_*")) for row in ranking_of(real)]
    return oracle(order, lambda found, rows: float(found["loss"][rows].mean()))


def test_a_difference_and_its_interval_are_those_of_the_files_read_again(real: Node, again: Oracle) -> None:
    for row, apart, half in zip(ranking_of(real)[1:], again.differences, again.halves, strict=True):
        said, low, high = map(float, re.findall(r"[+-]\d\S*", row["vs best"]))
        assert said == pytest.approx(apart, abs=6e-4)
        assert (low, high) == pytest.approx((apart - half, apart + half), abs=0.2 * half + 1e-4)
        assert ("tie" in row["vs best"]) == (low <= 0 <= high)


def test_the_interval_of_the_answer_covers_rows_and_seeds(real_sweep: Path, real: Node, again: Oracle) -> None:
    _, best = cells(real_sweep, real)[0]
    mean = np.array([one["loss"] for one in best], dtype=np.float64).mean()
    assert float(real.one("span", class_="big").text) == pytest.approx(mean, abs=6e-5)
    low, high = map(float, re.findall(r"\d\.\d+", real.one("span", class_="sure").text))
    assert (mean - low, high - mean) == pytest.approx([again.own] * 2, rel=0.1)
    (told,) = re.findall(r"training noise: sd (\S+) over seeds", section(real, "answer"))
    assert float(told) == pytest.approx(again.sd, rel=0.03)


def test_confusions_and_calibration_are_those_of_the_raw_predictions(real_sweep: Path, real: Node) -> None:
    for number, (_, seeds) in enumerate(cells(real_sweep, real), start=1):
        p, y = np.concatenate([one["p"] for one in seeds]), np.concatenate([one["y"] for one in seeds])
        opened = real.one("tr", id=f"r{number}-more")
        shown = [[int(cell.text) for cell in row.all("td", class_="c")] for row in opened.all("tr")]
        expected = confusion_matrix(y, p.argmax(axis=1), labels=[0, 1, 2]).tolist()
        assert [row for row in shown if len(row) == 3] == expected
        picture = next(one for one in opened.all("svg") if one.one("title").text == "calibration")
        confidence = p.max(axis=1)
        bins = np.ceil(confidence * 15)
        places = sorted(float(mark.attributes["cx"] or 0) for mark in picture.all("circle"))
        assert len(places) == len(set(bins))
        means = sorted(confidence[bins == one].mean() for one in set(bins))
        a, b = np.polyfit(means, places, 1)  # the axis is linear from 0 to 1
        assert np.allclose(np.polyval([a, b], means), places, atol=0.06)


def test_the_answer_is_a_command_that_trains_the_best_trial_again(tmp_path: Path) -> None:
    words = ["seed=0", "trainer.max_steps=6", "sweep.slots=2", "hydra.sweep.dir=there"]
    sketches = [Sketch([f"lora.rank={rank}", *words], quality) for rank, quality in ((8, 0.7), (16, 0.3))]
    said = drawn(write_sweep(tmp_path / "sweep", sketches)).one("code", id="command").text
    assert said.split() == ["danube-sweep", "lora.rank=8", "seed=0", "trainer.max_steps=6"]


def test_six_steps_have_learned_nothing_and_lead_to_no_command(real: Node) -> None:
    answer = real.one("section", id="answer")
    assert answer.one("h2").text == "Nothing was learned"
    assert "nothing was learned" in real.one("header").text
    assert any("may be too few" in reason.text for reason in answer.all("li"))
    assert not list(answer.all("code"))


def test_what_was_compared_is_said(real: Node) -> None:
    said = section(real, "compared")
    assert "data" in said and "generated" in said
    assert re.search(r"train \d+, validation \d+", said)
    assert "the same validation rows and labels in every row of the ranking" in said
    assert "torch 2." in said and "kind cpu" in said and "split_seed 0" in said
    assert "in nats" in said and "class prior" in said
    assert " differs" not in said


def test_the_pictures_of_a_real_sweep_are_all_there(real: Node) -> None:
    captions = [one.one("b").text for one in real.one("section", id="pictures").all("figure")]
    assert captions == [
        "Which choice matters",
        "lora.rank",
        "optimizer.lr",
        "Best so far, over trials",
        "Best so far, over time",
        "Quality against memory",
        "Quality against time",
        "Memory: predicted against measured",
        "training loss by step",
        "learning rate by step",
        "training loss by seconds",
        "log_loss by step",
        "log_loss by seconds",
        "Slots over time",
    ]
    assert len(list(real.one("section", id="pictures").all("rect", class_="slot"))) == 12


# -------------------------------------------------------------------------------------- whatever the sweep is like


def test_failed_and_pruned_trials_are_shown_with_their_reason(tmp_path: Path) -> None:
    found = drawn(write_sweep(tmp_path / "sweep", mixed()))
    said = section(found, "ranking")
    assert "out of memory with trainer.micro_batch=8" in said
    assert "the loss is not finite at step 12" in said
    assert "second line" not in said
    assert {"1 finished, 1 oom", "pruned"} <= {row["state"] for row in ranking_of(found)}
    pictures = found.one("section", id="pictures")
    assert len(list(pictures.all("polyline", class_="pruned"))) >= 8  # faded, in each of the four plots
    assert len(list(pictures.all("rect", class_="slot bad"))) == 3
    assert "ended without a result" not in section(found, "answer")  # their seeds' others have one


def test_a_running_sweep_says_that_it_can_still_change(tmp_path: Path) -> None:
    trials = grid(4)
    trials[2].state, trials[3].state = None, "waiting"
    sweep = write_sweep(tmp_path / "sweep", trials)
    (running,) = sweep.glob("003_*")
    with FileLock(running / ".lock"):
        found = drawn(sweep)
    assert "still under way" in found.one("header").text
    assert "1 running" in found.one("header").text
    assert "2 trials have not ended yet" in section(found, "answer")
    assert found.one("rect", class_="slot running")


def test_a_single_trial_is_the_answer_and_has_nothing_to_compare_with(tmp_path: Path) -> None:
    found = drawn(write_sweep(tmp_path / "sweep", [Sketch(["lora.rank=8"], 0.5)]))
    said = section(found, "answer")
    assert "danube-sweep lora.rank=8" in said
    assert "nothing to compare" in said
    assert "training noise is unknown, as nothing was trained to its end with a second seed" in said
    assert not list(found.all("section", id="explore"))


def test_an_empty_sweep_says_so_and_a_folder_that_is_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = drawn(write_sweep(tmp_path / "sweep", []))
    assert "no trials yet" in section(found, "answer")
    assert "Nothing to draw yet" in section(found, "pictures")
    (tmp_path / "other").mkdir()
    for name in ("other", "nowhere"):
        for command in (["report"], ["watch", "--once"], ["rank", "--full"]):
            assert main.main([*command, str(tmp_path / name)]) == 2
            assert f"{name} is no sweep" in capsys.readouterr().err


def test_a_sweep_without_a_finished_trial_recommends_nothing(tmp_path: Path) -> None:
    trials = [Sketch([f"lora.rank={rank}"], None, state="oom", error="out of memory") for rank in (8, 16)]
    found = drawn(write_sweep(tmp_path / "sweep", trials))
    assert "nothing to recommend" in section(found, "answer")
    assert {(row["state"], row["reason"]) for row in ranking_of(found)} == {("oom", "out of memory")}
    assert not list(found.all("code", id="command"))


def test_hostile_names_and_texts_stay_text(tmp_path: Path) -> None:
    classes = ["<b>A</b>", "=1+1 \N{GRINNING FACE}", "x" * 300]
    values = [EVIL, '" onmouseover=alert(2)', '=HYPERLINK("http://evil")', "w" * 400, "'; </style></svg> &amp;"]
    trials = [Sketch([f"data.text_column={value}"], 0.5, classes=classes) for value in values]
    trials.append(
        Sketch(["data.text_column=\u202egnp.exe"], None, state="failed", error="<img src=x onerror=alert(3)>")
    )
    sweep = write_sweep(tmp_path / "sweep", trials)
    html = page(gather(sweep))
    found = parsed(html)
    assert len([one for one in found.all("script") if "type" not in one.attributes]) == 1
    assert not list(found.all("img"))
    assert not [
        node for tag in ("td", "bdi", "a", "text") for node in found.all(tag) if "onmouseover" in node.attributes
    ]
    assert not {"\u202e", "\x00"} & set(html)
    said = section(found, "ranking")
    assert all(text in said for text in (EVIL, "<b>A</b>", "\N{GRINNING FACE}", "w" * 400, "<img src=x"))


def test_a_spreadsheet_takes_no_cell_of_ranking_csv_for_a_formula(tmp_path: Path) -> None:
    values = ["=HYPERLINK(1)", "+1+cmd", "-2+3", "@SUM(1)", "-5"]
    write_sweep(tmp_path / "sweep", [Sketch([f"data.text_column={value}"], 0.5) for value in values])
    ranking_files.write(rank.rank_sweep(tmp_path / "sweep"), tmp_path / "sweep")
    with (tmp_path / "sweep" / "ranking.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["data.text_column"] for row in rows} == {*(f"'{value}" for value in values[:4]), "-5"}
    assert all(float(row["validation/log_loss"]) > 0 for row in rows)


def test_two_hundred_trials_make_a_page_under_two_megabytes_without_torch(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", distinct(200))
    script = (
        "import sys; from danube_sweep.cli import main; code = main.main(sys.argv[1:]); "
        "print(code, sorted({'torch', 'transformers', 'lightning', 'wandb', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script, "report", str(sweep)], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
    file = sweep / "report.html"
    assert file.stat().st_size < 2_000_000
    found = parsed(file.read_text(encoding="utf-8"))
    assert len(ranking_of(found)) == 200
    assert "lr" in found.one("figure").text or "optimizer.lr" in section(found, "pictures")


def test_the_page_fetches_nothing_and_allows_no_other_script(tmp_path: Path) -> None:
    html = page(gather(write_sweep(tmp_path / "sweep", grid(2))))
    found = parsed(html)
    (policy,) = [node.attributes["content"] or "" for node in found.all("meta", http_equiv="Content-Security-Policy")]
    assert policy.startswith("default-src 'none'") and "sha256-" in policy
    assert not list(found.all("link")) and not list(found.all("img"))
    assert not re.search(r"""(src|url)\s*[=(]\s*["']?(https?:|//)""", html)


def test_packed_trials_are_joined_bars_and_share_what_they_cost(tmp_path: Path) -> None:
    trials = grid(8)
    for number, one in enumerate(trials):
        one.attempt, one.measured = {"pack": f"p{number // 4:03d}", "slot": 0}, {"packed": 4}
        one.start_s, one.seconds, one.memory_gib = 60.0 * (number // 4), 40.0, 2.0
    found = drawn(write_sweep(tmp_path / "sweep", trials))
    timeline = found.one("section", id="pictures")
    bars = list(timeline.all("rect", class_="slot"))
    assert len({bar.attributes["x"] for bar in bars}) == 2  # two packs, one after the other
    assert len({bar.attributes["y"] for bar in bars}) == 4  # four trials on one another
    assert "trained together in a pack and share memory and seconds" in timeline.text
    assert "it trained in a pack" in section(found, "answer")
    assert {row["GiB"] for row in ranking_of(found) if "GiB" in row} <= {"2.20"}  # predicted, not the pack's 2.00
    assert gather(tmp_path / "sweep").shown[0].seconds == pytest.approx(40.0)  # a share of the pack's already


def test_the_published_figures_of_a_model_stand_beside_it_and_are_called_published(tmp_path: Path) -> None:
    trials = [Sketch([f"lora.rank={rank}"], 0.5, config={"model.path": "h2oai/h2o-danube3-4b-chat"}) for rank in (8, 9)]
    found = drawn(write_sweep(tmp_path / "sweep", trials))
    titles = [one.text for one in found.one("section", id="compared").all("h3")]
    assert len(titles) == 2 and all(title.startswith("Published: ") for title in titles)
    mine = [cell.text for cell in found.one("table", class_="published").all("td", class_="mine")]
    assert mine == ["54.74", "80.36", "58.96", "47.79", "76.48", "50.18", "61.42"]


def test_a_row_opens_to_what_differs_from_the_best_and_to_its_folders(tmp_path: Path) -> None:
    trials = grid(3)
    for one in trials[:2]:
        one.config = {"tracking.kind": "wandb", "tracking.entity": "me", "tracking.project": "p<1>"}
    sweep = write_sweep(tmp_path / "sweep", trials)
    for folder in sweep.glob("00[12]_*"):
        (folder / "wandb" / "run-20261120_080000-abc").mkdir(parents=True)
    found = drawn(sweep)
    opened = found.one("tr", id="r2-more")
    (line,) = [row.text for row in opened.one("table", class_="diff").all("tr") if "lora.targets" in row.text]
    assert line == "lora.targetsqvattention"
    links = [link.attributes["href"] or "" for link in opened.all("a")]
    assert links[0].startswith("001_") and (sweep / links[0]).is_dir()
    assert links[1] == f"https://wandb.ai/me/p%3C1%3E/runs/{1:032x}"


def test_what_was_read_is_shown_once_for_the_trials_that_read_it(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", grid(3))
    part = {"rows": 80, "median_tokens": 12, "longest_tokens": 90, "cut_rows": 4, "empty_rows": 0}
    stored = {
        "parts": {"training": part, "validation": {**part, "rows": 20}}, "max_length": 64, "unit": "text", "groups": 99,
        "repeated": 1, "repeated_templates": 2, "leaks": {"text": 3}, "cure": {"text": "give data.group_by=text"},
        "classes": {EVIL: 60, "b": 40}, "notes": ["blanks are left out"],
    }  # fmt: skip
    for folder in sorted(sweep.glob("00*"))[:2]:
        environment = json.loads((folder / "environment.json").read_text())
        (folder / "environment.json").write_text(json.dumps({**environment, "data": stored}))
    data = section(drawn(sweep), "data")
    assert data.count("80 training rows and 20 validation rows, in 99 groups") == 1
    assert f"{EVIL} (60), b (40)" in data
    assert "4 over data.max_length=64 (5 %)" in data
    assert "warning3 of 20 validation rows have a text that also occurs in training; give data.group_by=text" in data
    assert "noteblanks are left out" in data
    assert "2 trials: " in data


def test_damaged_files_leave_a_page(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", grid(6))
    one, two, three, *_ = sorted(sweep.glob("00*"))
    (one / "predictions.parquet").write_bytes(b"PAR1")
    (two / "metrics.csv").write_text("step,part\n1")
    (three / "result.json").write_text("{")
    (three / "attempts.jsonl").write_text('{"state": "finished"\nnot json\n[1]\n')
    (three / "environment.json").write_text("[]")
    said = section(drawn(sweep), "ranking")
    assert "damaged predictions" in said
    assert "result.json is cut short or damaged" in said


# ------------------------------------------------------------------------------------------------ the commands


def test_the_report_is_written_where_it_is_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = write_sweep(tmp_path / "sweep", grid(2))
    assert main.main(["report", str(sweep)]) == 0
    assert re.fullmatch(r".*sweep/report\.html: 2 trials, \d+ kB\n", capsys.readouterr().out)
    assert main.main(["report", str(sweep), "-o", str(tmp_path / "there.html")]) == 0
    links = [
        link.attributes["href"] or "" for link in parsed((tmp_path / "there.html").read_text()).all("a", href="001_")
    ]
    assert links and all((tmp_path / link).is_dir() for link in links)
    assert main.main(["report", str(sweep), "-o", str(tmp_path / "no" / "page.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    (sweep / "sweep.json").write_text('{"format": 99}')
    assert main.main(["report", str(sweep)]) == 2
    assert "another version" in capsys.readouterr().err


def test_the_terminal_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = write_sweep(tmp_path / "sweep", mixed())
    assert main.main(["rank", "--full", str(sweep)]) == 0
    said = capsys.readouterr().out
    found = drawn(sweep)
    assert found.one("code", id="command").text in said
    assert found.one("span", class_="big").text in said
    for part in (
        "open questions of this sweep",
        "PED-ANOVA",
        "no other row is as good at lower cost",
        "what was compared",
    ):
        assert part in said
    assert "A" in said and "fingerprint" in said
    assert (sweep / "ranking.csv").is_file()


def test_a_terminal_without_unicode_gets_the_full_ranking_too(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", [Sketch(["data.text_column=\N{SNOWMAN}"], 0.5, classes=["\u00e9", "b"])])
    done = subprocess.run(
        [sys.executable, "-m", "danube_sweep", "rank", "--full", str(sweep)],
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin", "PYTHONUTF8": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and b"the answer" in done.stdout


def test_what_a_trial_said_of_packs_does_not_hide_its_attempt(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", [Sketch(["lora.rank=8"], 0.5, attempt={"pack": "p001", "more": [1]})])
    (bar,) = gather(sweep).timeline.bars
    assert (bar.pack, bar.seconds, bar.state) == ("p001", 60.0, "finished")
    assert json.loads((next(sweep.glob("001_*")) / "attempts.jsonl").read_text())["more"] == [1]
