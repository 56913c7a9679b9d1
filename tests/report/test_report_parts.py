"""What the report is put together from: curves, lanes, certainty, importance, the front, scales, escaping."""

import json
import re
import shlex
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from drawn import BEGAN, Sketch, distinct, grid, write_sweep
from pyarrow import parquet
from rich.console import Console

from danube_sweep.benchmark.published import published_of
from danube_sweep.errors import GuardError
from danube_sweep.report.collect import gather
from danube_sweep.report.factor_effects import find_factors, student
from danube_sweep.report.importance import Importance
from danube_sweep.report.importance_process import Question, weigh
from danube_sweep.report.in_terminal import _parts, answer_lines
from danube_sweep.report.learning_curves import read_curve
from danube_sweep.report.markup import Markup, element, escaped, joined
from danube_sweep.report.page import page
from danube_sweep.report.page_data import Shown
from danube_sweep.report.pictures.axes import Scale, dot, spread, tick_labels
from danube_sweep.report.pictures.cost_pictures import memory_gib, pareto
from danube_sweep.report.pictures.factor_pictures import one_factor
from danube_sweep.report.row_predictions import read_seen
from danube_sweep.report.sections.answer_section import answer_section
from danube_sweep.report.slot_times import timeline
from danube_sweep.results.rank import rank_sweep
from danube_sweep.results.trial_results import read_trials
from danube_sweep.results.winning_run import winning_run

NOW = BEGAN.timestamp() + 86400


def test_references_that_lie_close_are_named_on_lines_of_their_own(tmp_path: Path) -> None:
    close = {"uniform": 1.1, "class prior": 1.09, "lengths baseline": 1.087, "far below": 0.2}
    card = str(answer_section(replace(gather(write_sweep(tmp_path / "sweep", grid(4))), references=close)))
    heights = [re.findall(rf'<text[^>]* y="([\d.]+)"[^>]*>{name} ', card)[0] for name in close]
    assert len(set(heights[:3])) == 3 and heights[3] == heights[0]


# ------------------------------------------------------------------------------------------------------- curves


def test_a_curve_is_read_as_far_as_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    lines = ["step,part,epoch,loss,seconds,log_loss", "1,train,0.1,2.0,,", "2,train,0.2,1.0,4.0,"]
    file.write_text("\n".join([*lines, "2,validation,0.2,,4.0,0.5", "3,train,0.3,0"]))
    curve = read_curve(file, "log_loss")
    assert curve is not None
    assert (curve.steps.tolist(), curve.seconds.tolist(), curve.losses.tolist()) == ([1, 2], [2, 4], [2, 1])
    assert (curve.at_steps.tolist(), curve.at_seconds.tolist(), curve.values.tolist()) == ([2], [4], [0.5])
    assert (curve.step, curve.epoch, curve.last_loss) == (2, 0.2, 1.0)


@pytest.mark.parametrize("text", ["", "step,part\n", "step,part\n1,train\n", "nothing\n\x00\n"])
def test_a_file_without_a_curve_has_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    assert read_curve(tmp_path / "metrics.csv", "log_loss") is None
    assert read_curve(tmp_path / "no.csv", "log_loss") is None


def test_a_long_curve_is_thinned_to_means(tmp_path: Path) -> None:
    rows = [f"{step},train,0,{step},{step}," for step in range(1, 1001)]
    (tmp_path / "metrics.csv").write_text("\n".join(["step,part,epoch,loss,seconds,log_loss", *rows, ""]))
    curve = read_curve(tmp_path / "metrics.csv", "log_loss", most=10)
    assert curve is not None
    assert curve.steps.tolist() == list(range(100, 1001, 100))
    assert curve.losses.tolist() == pytest.approx([50.5 + 100 * place for place in range(10)])


# -------------------------------------------------------------------------------------------------- predictions


def test_every_kind_of_predictions_is_read(tmp_path: Path) -> None:
    file, ids = tmp_path / "predictions.parquet", ["a", "b"]
    kinds: dict[str, dict[str, list[float]]] = {
        "number": {"label": [1.0, 2.0], "prediction": [1.0, 4.0], "loss": [0.0, 4.0]},
        "many": {"label_x": [1.0, 0.0], "probability_x": [0.9, 0.2], "loss": [0.1, 0.3]},
        "text": {"weight": [3.0, 1.0], "loss": [1.0, 2.0]},
    }
    wanted = {"number": {"mse": 2.0, "mae": 1.0}, "many": {"log_loss": 0.2}, "text": {"log_loss": 1.25}}
    for kind, columns in kinds.items():
        parquet.write_table(pa.table({"id": ids, **columns}), file)
        seen = read_seen([file])
        assert seen is not None
        assert seen.recomputed == pytest.approx(wanted[kind])
        assert (seen.classes, seen.calibration) == ([], None)


def test_the_fingerprint_is_of_ids_and_labels_alone(tmp_path: Path) -> None:
    def fingerprint(ids: list[str], labels: list[str], sure: float) -> str:
        columns = {
            "id": ids,
            "loss": [sure, sure],
            "label": labels,
            "probability_x": [sure] * 2,
            "probability_y": [0.1] * 2,
        }
        parquet.write_table(pa.table(columns), tmp_path / "one.parquet")
        seen = read_seen([tmp_path / "one.parquet"])
        assert seen is not None
        return seen.fingerprint

    first = fingerprint(["a", "b"], ["x", "y"], 0.9)
    assert fingerprint(["a", "b"], ["x", "y"], 0.4) == first
    assert fingerprint(["a", "c"], ["x", "y"], 0.9) != first
    assert fingerprint(["a", "b"], ["x", "x"], 0.9) != first


@pytest.mark.parametrize(
    "metric", ["validation/accuracy", "measured/tokens_per_s", ["validation/log_loss", "measured/peak_memory_bytes"]]
)
def test_a_sweep_can_be_about_another_metric_or_several(tmp_path: Path, metric: object) -> None:
    sweep = write_sweep(tmp_path / "sweep", distinct(3))
    described = json.loads((sweep / "sweep.json").read_text())
    described["settings"]["sweep"] |= {"metric": metric}
    (sweep / "sweep.json").write_text(json.dumps(described))
    report = gather(sweep)
    best = report.answer.best
    assert best is not None and best.key == "r1"
    if metric == "validation/accuracy":
        assert best.row.mean == max(one.row.metrics["accuracy"] for one in report.shown)
    assert page(report).count("<tbody") == len(report.shown) + page(report).count("<tbody>")
    titles = [title for title, _ in _parts(report, Console())]
    if metric == "measured/tokens_per_s":  # measured once, so the curves are of the loss, and no row has an interval
        assert "log_loss at each validation" in titles and "log_loss by step" in page(report)
        assert "tokens_per_s by step" not in page(report)
        assert "as good and cheaper: unknown, as no difference has an interval" in answer_lines(report)
        assert not any("stands in" in one for one in report.answer.unknown)


# -------------------------------------------------------------------------------------------------------- slots


def lanes(path: Path, *sketches: Sketch) -> list[tuple[int, int]]:
    """Lane and place of each trial."""
    found = timeline(read_trials(write_sweep(path, sketches))[0], NOW)
    return [(bar.lane, bar.place) for bar in sorted(found.bars, key=lambda bar: bar.trial)]


def test_trials_one_after_the_other_share_a_lane_and_trials_at_a_time_do_not(tmp_path: Path) -> None:
    at = [(0.0, 60.0), (0.0, 90.0), (60.0, 20.0), (89.0, 10.0)]  # starts are whole seconds: 89 is after 0 + 90
    sketches = [Sketch([f"seed={n}"], None, "failed", start_s=start, seconds=s) for n, (start, s) in enumerate(at)]
    assert lanes(tmp_path / "sweep", *sketches) == [(0, 0), (1, 0), (0, 0), (0, 0)]


def test_a_stated_slot_is_the_lane_and_a_pack_has_one(tmp_path: Path) -> None:
    pack = [Sketch([f"seed={n}"], None, "failed", attempt={"pack": "p001", "slot": 1}) for n in range(2)]
    alone = Sketch(["seed=3"], None, "failed", attempt={"slot": 0})
    assert lanes(tmp_path / "sweep", *pack, alone) == [(1, 0), (1, 1), (0, 0)]


def test_hosts_have_lanes_of_their_own(tmp_path: Path) -> None:
    hosts = [Sketch([f"seed={n}"], None, "failed", attempt={"host": host}) for n, host in enumerate("ab")]
    assert lanes(tmp_path / "sweep", *hosts) == [(0, 0), (1, 0)]


def test_every_attempt_is_a_bar(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", [Sketch(["seed=0"], None, "failed")])
    (file,) = sweep.glob("*/attempts.jsonl")
    again = {**json.loads(file.read_text()), "state": "finished", "started": "2026-11-20T09:00:00+00:00"}
    file.write_text(file.read_text() + json.dumps(again) + "\n" + '{"state": "cut')
    assert [bar.state for bar in timeline(read_trials(sweep)[0], NOW).bars] == ["failed", "finished"]


# -------------------------------------------------------------------------------------------------- how sure it is


def test_students_quantiles_are_those_of_the_tables() -> None:
    wanted = {1: 12.706, 2: 4.303, 5: 2.571, 14: 2.145, 20: 2.086, 30: 2.042, 120: 1.980}
    assert {freedom: pytest.approx(student(freedom), abs=0.0006) for freedom in wanted} == wanted


def test_the_edge_of_a_range_a_lone_seed_and_ties_are_what_the_sweep_cannot_tell(tmp_path: Path) -> None:
    trials = [Sketch([f"lora.rank={r}", "optimizer.lr=0.001"], q) for r, q in ((4, 0.3), (8, 0.4), (16, 0.9))]
    said = " ".join(gather(write_sweep(tmp_path / "edge", trials)).answer.unknown)
    assert "lora.rank=16 won at the largest value tried; go higher" in said
    assert "optimizer.lr" not in said
    trials = [Sketch([f"lora.dropout={share}"], q) for share, q in ((0, 0.9), (0.1, 0.4), (0.2, 0.3))]
    said = " ".join(gather(write_sweep(tmp_path / "zero", trials)).answer.unknown)
    assert "What lies beyond" not in said  # nothing is below 0
    assert "no configuration was trained to its end with a second seed" in said
    trials = [Sketch([f"lora.rank={r}"], 0.5, seconds=100 / r) for r in (4, 8, 16)]
    answer = gather(write_sweep(tmp_path / "tie", trials)).answer
    assert answer.as_good == 2
    assert any("which of the first 3 is really best" in one.lower() for one in answer.unknown)
    assert answer.best is not None and answer.best.row.values != {"lora.rank": 16}
    assert answer.cheaper[0].shown.row.values == {"lora.rank": 16}
    assert "less time" in answer.cheaper[0].saved


def test_rows_on_few_validations_are_told_though_nothing_was_learned(tmp_path: Path) -> None:
    states = ("finished", "finished", "pruned", "pruned")
    path = write_sweep(tmp_path, [Sketch([f"lora.rank={n}"], -0.3, state=one) for n, one in enumerate(states, 1)])
    for folder, count in zip(sorted(path.glob("0*")), (4, 4, 1, 2), strict=True):
        (folder / "environment.json").write_text('{"total_steps": 40}')
        rows = "".join(f"{10 * (n + 1)},validation,{1.5 - 0.1 * n}\n" for n in range(count))
        (folder / "metrics.csv").write_text(f"step,part,log_loss\n{rows}")
    report = gather(path)
    assert report.answer.command is None
    (said,) = [one for one in report.answer.unknown if one.startswith("Regret: ")]
    assert "1 row that ended early rests on one validation." in said
    assert sorted(row.readings or 0 for row in report.ranking.rows if row.pruned) == [1, 2]
    assert ">validations</button>" in page(report)


def test_a_best_that_has_learned_nothing_is_said(tmp_path: Path) -> None:
    answer = gather(
        write_sweep(tmp_path / "sweep", [Sketch(["lora.rank=4"], -0.3), Sketch(["lora.rank=8"], -0.5)])
    ).answer
    (said,) = answer.nothing_learned
    assert "does not beat the class prior, 1.0921, by more than chance" in said
    report = gather(tmp_path / "sweep")
    assert answer_lines(report)[0] == said
    assert answer.command is None and not any("danube-sweep" in line for line in answer_lines(report))
    card = page(report).partition('class="chosen"')[0]
    statement, *reasons = said.split("; ")
    assert '<h2 class="warn">Nothing was learned</h2>' in card and statement in card
    assert len(reasons) == card.count("<li>") and 'id="command"' not in page(report)


def test_the_answer_ends_in_commands_that_use_it_unless_nothing_was_learned(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "my sweep", [Sketch(["lora.rank=4"], 0.5), Sketch(["lora.rank=8"], 0.9)])
    report = gather(sweep)
    assert report.answer.best is not None
    best = report.answer.best.used[0].folder.path
    words = [shlex.split(command) for command in report.answer.then]
    assert words == [
        ["danube-sweep", "predict", str(sweep), "test.csv", "-o", "submission.csv"],
        ["danube-sweep", "ensemble", str(sweep), "-o", "ensemble"],
        ["danube-sweep", "refit", str(sweep), "--seeds", "3", "-o", "final"],
        ["danube-sweep", "export", str(best), "my-model"],
    ]
    assert answer_lines(report)[-4:] == [f"then: {command}" for command in report.answer.then]
    assert all(str(escaped(command)) in page(report) for command in report.answer.then)
    alone = gather(write_sweep(tmp_path / "one", [Sketch(["lora.rank=4"], 0.5)])).answer.then
    assert [shlex.split(command)[1] for command in alone] == ["predict", "refit", "export"]
    two = [Sketch(["lora.rank=4", f"seed={seed}"], 0.4 + seed / 10) for seed in (0, 1)]
    seeds = write_sweep(tmp_path / "seeds", two)
    exported = shlex.split(gather(seeds).answer.then[-1])[2]
    assert Path(exported).resolve() == winning_run(seeds)[0].resolve()
    nothing = write_sweep(tmp_path / "nothing", [Sketch(["lora.rank=4"], -0.3), Sketch(["lora.rank=8"], -0.5)])
    assert gather(nothing).answer.then == []


# ------------------------------------------------------------------------------------------------- what matters


def test_the_key_that_decides_matters_most_and_another_process_says_the_same(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", distinct(40))
    ranking = rank_sweep(sweep)
    factors = find_factors({str(place): row for place, row in enumerate(ranking.rows)}, ranking.varied)
    with Importance(wanted=True) as importance:
        found = importance.of(ranking.rows, factors, "minimize")
    assert isinstance(found, dict)
    assert next(iter(found)) == "optimizer.lr"
    assert sum(found.values()) == pytest.approx(1.0)
    # The other goal asks what leads to the worst rows, which is another question.
    values = ["a", "b"] * 10
    question = Question("maximize", {}, [{"x": value, "y": "c"} for value in values], [float(v == "a") for v in values])
    assert weigh(question) == {"x": 1.0, "y": 0.0}


def test_too_few_rows_have_no_importance(tmp_path: Path) -> None:
    report = gather(write_sweep(tmp_path / "sweep", grid(4)))
    assert report.importance == "2 rows with a metric; an importance needs at least 4"


def test_a_level_has_the_mean_of_its_rows_with_students_interval(tmp_path: Path) -> None:
    trials = [Sketch([f"lora.rank={r}", f"lora.dropout={d}"], 0.2 + r / 40) for r in (4, 8) for d in (0.0, 0.1, 0.2)]
    (rank_, dropout) = gather(write_sweep(tmp_path / "sweep", trials)).factors
    assert [level.label for level in rank_.levels] == ["4", "8"] and [len(one.keys) for one in dropout.levels] == [
        2
    ] * 3
    low, high = rank_.levels[0].interval or (0.0, 0.0)
    numbers = rank_.levels[0].numbers
    assert (high - low) / 2 == pytest.approx(4.303 * np.std(numbers, ddof=1) / 3**0.5, rel=2e-4)


def test_no_row_of_the_front_is_beaten_for_less(tmp_path: Path) -> None:
    report = gather(write_sweep(tmp_path / "sweep", grid(24)))
    front = pareto(report.shown, memory_gib, "minimize")

    def beats(one: Shown, other: Shown) -> bool:
        mine, theirs = ((x.row.mean or 0.0, memory_gib(x) or 0.0) for x in (one, other))
        return mine[0] <= theirs[0] and mine[1] <= theirs[1] and mine != theirs

    for one in report.shown:
        assert (one in front) != any(beats(other, one) for other in report.shown)
    turned = [replace(one, row=replace(one.row, objectives=[-(one.row.mean or 0.0)])) for one in report.shown]
    assert [one.key for one in pareto(turned, memory_gib, "maximize")] == [one.key for one in front]


# ------------------------------------------------------------------------------------------------ how it is drawn


def test_ticks_are_round_and_inside() -> None:
    assert Scale(0.0, 1.0, 0, 100).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert Scale(1e-5, 1e-2, 0, 100, logarithmic=True).ticks() == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2])
    assert spread([], 0, 10).ticks() and spread([2.0], 0, 10)(2.0) == pytest.approx(5.0)
    assert spread([float("nan"), 1.0, 3.0], 0, 10, room=0.0)(2.0) == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("low", "high", "logarithmic", "wanted"),
    [
        (0.9151, 0.9154, False, ["0.9151", "0.9152", "0.9153", "0.9154"]),
        (1000.0, 1003.0, False, ["1,000", "1,001", "1,002", "1,003"]),
        (1e9, 1e9 + 3e6, False, ["1.000e9", "1.001e9", "1.002e9", "1.003e9"]),
        (1e-5, 1e-2, True, ["1e-5", "1e-4", "1e-3", "1e-2"]),
        (1.1e-3, 1.9e-3, True, ["0.0012", "0.0014", "0.0016", "0.0018"]),
        (-0.5, 0.5, False, ["-0.4", "-0.2", "0.0", "0.2", "0.4"]),
    ],
)
def test_the_labels_of_ticks_are_round_and_differ(
    low: float, high: float, logarithmic: bool, wanted: list[str]
) -> None:
    assert tick_labels(Scale(low, high, 0, 100, logarithmic=logarithmic).ticks()) == wanted


@pytest.mark.parametrize(
    ("ticks", "wanted"),
    [
        ([1.5e-4, 3e-4], ["1.5e-4", "3.0e-4"]),
        ([0.5, 1.5, 2.5], ["0.5", "1.5", "2.5"]),
        ([16.0], ["16"]),
    ],
)
def test_a_label_says_the_value_of_its_tick(ticks: list[float], wanted: list[str]) -> None:
    assert tick_labels(ticks) == wanted


def test_a_key_of_numbers_lies_on_a_numeric_axis_with_its_values_as_ticks(tmp_path: Path) -> None:
    trials = [Sketch([f"optimizer.lr={lr}", f"lora.rank={r}"], 0.5) for lr in (1e-4, 1e-3, 1e-2) for r in (4, 8, 16)]
    drawn = str(one_factor(gather(write_sweep(tmp_path / "sweep", trials))))
    rates, ranks = drawn.split("</figure>")[:2]
    assert "optimizer.lr, logarithmic" in rates and "lora.rank, log" not in ranks and "log_loss, nats" in rates

    def at(label: str, plot: str) -> float:
        return float(re.findall(rf'<text x="([\d.]+)"[^>]*>{label}</text>', plot)[0])

    assert at("1e-3", rates) - at("1e-4", rates) == pytest.approx(at("1e-2", rates) - at("1e-3", rates), abs=0.2)
    assert at("16", ranks) - at("8", ranks) == pytest.approx(2 * (at("8", ranks) - at("4", ranks)), abs=0.3)


def test_text_is_escaped_and_markup_is_not() -> None:
    assert element("td", "<b>&", class_="a'\"b") == '<td class="a&#x27;&quot;b">&lt;b&gt;&amp;</td>'
    assert element("td", element("b", 1), None) == "<td><b>1</b></td>"
    assert joined("a<", Markup("<br>"), None, by=" ") == "a&lt; <br>"
    assert (
        element("p", "\x00\ud800\u202e")
        == "<p>\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}</p>"
    )


def test_models_are_known_by_hub_name_and_by_folder() -> None:
    for path in ("h2oai/h2o-danube3-4b-base", "/kaggle/input/h2o_danube3_4b_chat", "h2oai/h2o-danube3.1-4b-chat"):
        found = published_of([path])
        assert found is not None and found.models == ["Danube3-4b"]
    assert published_of(["pretrained/model"]) is None


def test_a_page_is_the_same_for_the_same_folder(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", grid(3))
    at = datetime(2026, 11, 21, tzinfo=UTC)
    assert page(gather(sweep, at)) == page(gather(sweep, at))


def test_a_row_of_an_unknown_kind_gets_no_mark_that_means_another() -> None:
    with pytest.raises(GuardError, match="no mark for rows of kind new"):
        dot(0, 0, "new")
