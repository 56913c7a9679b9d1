"""Every benchmark has a toy form, which prints its table; those of packs are in test_benchmarks.py.

Those of packing, time_to_best and agent take longer, and are marked `full`.
"""

import csv
import importlib
import json
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import warm
from chromium import CHROMIUM, DRIVER
from conftest import ROOT, tiny_config
from workbench import save_base

PLACE = ROOT / "benchmarks"
sys.path.insert(0, str(PLACE))

TOYS: dict[str, tuple[str, str]] = {
    "attention": ("--tokens 32 --lengths 8,16 --rounds 1", "| 16 | "),
    "early_stopping": ("--orders 1 --synthetic 2", "synthetic, for tuning: kept  share  lost"),
    "flat": ("--rounds 1 --rows 24 --hidden 64 --data FOLDER", "flat against padded: "),
    "evaluation": ("--rows 12 --rounds 1 --tokens 64 --data FOLDER", "| 64 tokens | "),
    "instant_trials": ("--trials 2 --only sweep", "2 trials: claim, start, end"),
    "null_sweep": ("FOLDER/null --trials 2 --steps 1 --out FOLDER/null.npz", "2 trials, "),
    "predict": (
        "--rounds 1 --rows 8 --hidden 64 --blocks 2 --last-k 1 --members 2 --precision fp32",
        "fp32: 2 as a pack against one by one: ",
    ),
    "ranks": ("--steps 3 --hidden 64 --blocks 1 --tokens 32 --rounds 1", "2 processes against 1: "),
    "record_readings": ("FOLDER/readings --only generated-0 --steps 1 --out FOLDER/out.npz", "generated-0: 12 trials"),
    "run_overhead": ("--only overhead --rounds 1 --steps 1 --hidden 64", "steps/s, nf4, bf16 compute: ours, plain"),
    "scale": ("--workers 1 --trials 2 --seconds 0 --locks lease", "lease          1 "),
    "search_in_packs": ("--seeds 1 --trials 4 --packs 1,2", "   2  ahead"),
    "sweep_overhead": ("--rounds 1 --trials 1 --steps 1 --fresh 1", "a fresh process per trial (all run)"),
    "update_share": ("--trials 2 --tokens 16 --steps 1 --rounds 1 --precision fp32", "| over the stacks | "),
    "what_fits": ("danube3_500m", "| danube3_500m | QLoRA |"),
}
"""The arguments of a script's toy form, and what a line of its table has."""
OTHERS = {
    "agent": "below",
    "baseline_hf": "test_benchmarks.py",
    "bf16_casts": "below",
    "null_analysis": "test_benchmarks.py",
    "packing": "test_benchmarks.py",
    "published_t4": "below, and planner/test_published.py",
    "general_ability": "below",
    "real_sweep": "below",
    "real_model": "below, and training/test_against_plain_peft.py",
    "report_page": "below",
    "smollm2_folder": "test_tutorial.py",
    "time_left": "below",
    "time_to_best": "test_benchmarks.py",
    "tutorial": "test_tutorial.py",
}
"""Scripts that other tests try."""
SHORT_SWEEP = "--steps 4 --validations 2 --rows 40 --validation 0.2 --max-length 16 --batch 4 --precision fp32 "
SHORT_SWEEP += "--rates 1e-2 --last-k 1 --seeds 2"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of a script whose own processes are forked."""

    def forked(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert command[0] == sys.executable
        done = warm.run(*command[1:], env=options.get("env"))
        assert done.returncode == 0, done.stderr
        return done

    found = importlib.import_module(name)
    if hasattr(found, "subprocess"):
        monkeypatch.setattr(found.subprocess, "run", forked)
    return found


def texts(file: Path, rows: int) -> None:
    """A table of short texts of three classes, as banking77's is."""
    with file.open("w", newline="") as stream:
        lines = [[n, f"query {n} {'again ' * (n % 9)}", "abc"[n % 3]] for n in range(rows)]
        csv.writer(stream).writerows([["id", "text", "label"], *lines])


def arena(file: Path, rows: int) -> None:
    """Answers to prompts, of different lengths."""
    names = ["id", "model_a", "model_b", "prompt", "response_a", "response_b"]
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*names, "winner_model_a", "winner_model_b", "winner_tie"])
        for n in range(rows):
            texts = [f'["{word} {n} {"more " * (n % 7)}"]' for word in ("prompt", "one", "two")]
            writer.writerow([n, "x", "y", *texts, *(int(n % 3 == place) for place in range(3))])


def test_every_script_is_tried() -> None:
    scripts = {file.stem for file in PLACE.glob("*.py") if "__main__" in file.read_text()}
    assert scripts == {*TOYS, *OTHERS}


@pytest.mark.parametrize("name", TOYS)
def test_a_script_prints_its_table(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, line = TOYS[name]
    arena(tmp_path / "arena_human.csv", 40)
    texts(tmp_path / "banking77_test.csv", 40)
    script(name, monkeypatch).main([word.replace("FOLDER", str(tmp_path)) for word in words.split()])
    assert line in capsys.readouterr().out


def test_a_real_model_is_compared_and_its_casts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_base(tiny_config(), tmp_path / "base")
    for part in ("train", "test"):
        texts(tmp_path / f"banking77_{part}.csv", 40)
    common = ["--model", str(tmp_path / "base"), "--data", str(tmp_path), "--run", str(tmp_path / "run"), "--rows", "4"]
    script("real_model", monkeypatch).main([*common, "--steps", "2", "data.validation_fraction=0.2"])
    assert "plain, padded on the left: " in capsys.readouterr().out
    script("bf16_casts", monkeypatch).main(common)
    assert "plain PEFT under autocast" in capsys.readouterr().out


def test_a_real_sweep_is_measured_once_and_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_base(tiny_config(), tmp_path / "base")
    for part in ("train", "test"):
        texts(tmp_path / f"banking77_{part}.csv", 60)
    words = f"FOLDER/records --model FOLDER/base --data FOLDER --only banking77 --clock cpu --no-ablation {SHORT_SWEEP}"
    measure, said = partial(script("real_sweep", monkeypatch).main, words.replace("FOLDER", str(tmp_path)).split()), []
    sides = importlib.import_module("sides")
    monkeypatch.setattr(sides, "subprocess", SimpleNamespace(run=subprocess.run, Popen=warm.WarmPopen))
    measure()
    said.append(capsys.readouterr().out)
    assert float(said[0].partition("at most ")[2].split()[0]) < 1e-5, "the two sides do not train the same"
    assert "4 trials of 4 steps, cpu seconds" in said[0] and said[0].count("goal: ") == 2
    assert "for each of 2 seeds: 10 of the baseline, 1 of ours" in said[0] and " of 20 replays never reach" in said[0]
    stored = tmp_path / "records" / "banking77"
    orders = [
        [cell[-4:] for cell in json.loads((stored / f"everything-on-seed-{seed}-order-0-cells.json").read_text())]
        for seed in (0, 1)
    ]
    cells = json.loads((stored / "everything-on-seed-0-order-0-cells.json").read_text())
    task = json.loads((stored / "task-0" / "task.json").read_text())["task"]
    assert "trainer.eval_batch=null" in cells[0] and task["eval_batch"] == 64, "evaluation by tokens is ours alone"
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]) and len(orders[0]) == 4
    log = stored / "baseline-1.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    cut = max(number for number, line in enumerate(lines) if '"start"' in line) + 1
    log.write_text("".join(lines[:cut]) + lines[cut][:20])  # killed in the middle of the last trial, and of a line
    (stored / "everything-on.json").write_text("of an earlier version")
    measure()
    said.append(capsys.readouterr().out)
    assert "everything-on.json is not used" in said[1]
    events = [json.loads(line)["event"] for line in log.read_text().splitlines() if line.endswith("}")]
    assert events.count("test") == 4 and events.count("start") == 5, "it trained others again, or none"
    monkeypatch.setattr(sides, "subprocess", None)
    measure()
    assert capsys.readouterr().out == said[1], "nothing was left to measure"


def test_a_benchmark_refuses_the_records_of_another_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_base(tiny_config(), tmp_path / "base")
    study = partial(script("real_sweep", monkeypatch).Study, data="banking77", model=tmp_path / "base")
    options = {"steps": 4, "validations": 2, "data": tmp_path, "last_k": "1", "rates": "1e-2", "model": None}
    options |= {"precision": "fp32", "compute": "fp32", "clock": "cpu", "batch": 4, "max_length": 16}
    options |= {"device": "cpu", "eval_batch": "null", "variant": "auto"}
    for rows in (40, 40):
        study(SimpleNamespace(**options, rows=rows, validation=0.2), folder=tmp_path / "records")
    with pytest.raises(SystemExit, match="recorded with --rows 40, not 60"):
        study(SimpleNamespace(**options, rows=60, validation=0.2), folder=tmp_path / "records")
    file = tmp_path / "records" / "settings.json"
    settings = json.loads(file.read_text())
    file.write_text(
        json.dumps({name: settings[name] for name in settings if name not in ("device", "eval_batch", "variant")})
    )
    with pytest.raises(SystemExit, match="recorded with --eval-batch 64, not null"):  # by an earlier version
        study(SimpleNamespace(**options, rows=40, validation=0.2), folder=tmp_path / "records")
    study(SimpleNamespace(**{**options, "eval_batch": "64"}, rows=40, validation=0.2), folder=tmp_path / "records")


def test_a_sweep_that_never_reaches_a_loss_counts_with_its_whole_time() -> None:
    readings = importlib.import_module("readings")

    def reading(total: float, *losses: tuple[float, float]) -> Any:
        found = readings.Reading(total=total)
        for step, (loss, seconds) in enumerate(losses):
            found.add("trial", step, loss, seconds)
        return found

    early, late, never = reading(50, (0.5, 10)), reading(60, (0.9, 5), (0.4, 30)), reading(80, (0.9, 1))
    assert readings.ratios([early, late], [reading(9, (0.5, 5))], 0.5) == [2, 6]
    assert readings.ratios([never], [reading(9, (0.5, 5))], 0.5) == [16]  # at least
    assert readings.ratios([early, never], [reading(8, (0.6, 5))], 0.5) == [0, 10]
    assert readings.ratios([early], [late, early], 0.5) == [pytest.approx(1 / 3), 1]


@pytest.mark.parametrize(
    ("apart", "half", "wanted"),
    [(0.01, 0.02, "met"), (0.0, 0.06, "undecided"), (-0.3, 0.2, "met"), (0.03, 0.01, "missed"), (0.4, 0.2, "missed")],
)
def test_a_winner_is_as_good_only_if_its_interval_says_so(
    apart: float, half: float, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = script("real_sweep_table", monkeypatch)
    faster, as_good = table.verdicts(5.9, table.GOALS["cuda"], apart, half)
    assert next(table.verdicts(5.9, table.GOALS["cpu"], apart, half)).endswith("5.90: met")
    assert (
        "at least 10 times" in faster
        and faster.endswith("5.90: missed")
        and as_good.rpartition("±")[2].split()[1].startswith(wanted)
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_benchmark_on_a_gpu_refuses_a_machine_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="torch finds no GPU here"):
        script("real_sweep", monkeypatch).main([str(tmp_path / "records"), "--device", "cuda"])
    assert not (tmp_path / "records").exists()


def test_general_ability_equals_that_of_the_harness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_base(tiny_config(), tmp_path / "base")
    texts(tmp_path / "banking77_test.csv", 40)
    words = [str(tmp_path / "base"), "--data", str(tmp_path), "--items", "6"]
    script("general_ability", monkeypatch).main(words)
    assert "nf4" in capsys.readouterr().out


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium here: apt-get install chromium chromium-driver")
def test_the_page_is_opened_and_filtered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    script("report_page", monkeypatch).main(["--trials", "6", "8", "--rounds", "1"])
    assert "8 trials, " in capsys.readouterr().out


def test_published_steps_are_predicted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ROOT.parent / "shared" / "published"
    if not (folder / "t4_measured.csv").is_file():
        pytest.skip("the published T4 runs are not here: shared/published/t4_measured.csv beside the checkout")
    script("published_t4", monkeypatch).main([str(folder)])
    assert "runs, " in capsys.readouterr().out


@pytest.mark.full
@pytest.mark.timeout(1000)
def test_agents_are_compared(tmp_path: Path) -> None:
    # In a process of its own: it waits for every process that it leaves behind.
    words = [sys.executable, str(PLACE / "agent.py"), "--trials", "2", "--at-once", "2", "--steps", "2"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert "the same hashes" in done.stdout and "in CPU seconds" in done.stdout, done


def test_time_left_compares_what_was_said_with_what_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Two packs of two trials, 60 s each, one after the other.
    for number, (minute, second) in enumerate([(0, 60), (0, 60), (1, 58), (1, 60)]):
        (tmp_path / "sweep" / str(number)).mkdir(parents=True)
        said = {"state": "finished", "started": f"2026-01-01T00:0{minute}:00+00:00", "seconds": second, "host": "a"}
        line = json.dumps({**said, "pack": f"p{minute}", "slot": 0})
        (tmp_path / "sweep" / str(number) / "attempts.jsonl").write_text(line + "\n")
    script("time_left", monkeypatch).main([str(tmp_path / "sweep")])
    out = capsys.readouterr().out
    assert out.count("| sweep | 4 | 120 | 50% | 60 | 60 | ") == 2  # of which the mean said 90 at first
    assert "| 50% | 60 | 60 | 90 |" in out and "sweep: said 1% and 0% of 3, mean of the ended 25% and" in out
