"""The search of a night, planned without training: its space, its neighbours, its rounds and their seconds."""

import csv
import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
from benchmark_tasks import tiny_tasks
from conftest import compose

from danube_sweep.benchmark.scored_parts import check_benchmark, tasks_of_trial
from danube_sweep.planner.trial_plan import plan_of
from danube_sweep.storage.sweep_folder import Attempt, SweepFolder, append_attempt
from danube_sweep.terminal.screen import Terminal
from danube_sweep.tonight import run_night, stages
from danube_sweep.tonight.asked import Asked
from danube_sweep.tonight.backbones import Backbone, backbones_of, begin_with
from danube_sweep.tonight.costs import predict_s, reserve_s, trial_s
from danube_sweep.tonight.next_round import NOTHING_LEFT, OF_A_ROUND, Best, Moment, Round, _first_rates, round_around
from danube_sweep.tonight.night_folder import PREDICT, NightFolder, Ran
from danube_sweep.tonight.run_night import FIRST_RATES, MOST_AT_FIRST, _choose_start
from danube_sweep.tonight.searched_keys import (
    EPOCHS_KEY,
    HEAD,
    LAST_K,
    LR,
    OPTIMIZER,
    POOLING,
    PRECISION,
    RANK,
    TARGETS,
    Key,
    Space,
)

RATES = {"adamw": ("1", "2", "4"), "muon": ("3", "6", "12")}
SPACE = Space(
    [
        Key(LR, RATES["adamw"], "2"),
        Key(HEAD, ("sequence", "causal"), "sequence", ordered=False),
        Key(OPTIMIZER, ("adamw", "muon"), "adamw", ordered=False),
        Key(POOLING, ("mean", "last"), "mean", ordered=False),
        Key(EPOCHS_KEY, ("0.5", "1", "2"), "0.5", only_up=True),
    ],
    RATES,
    {"0.5": "20"},
)
Search = Callable[..., Backbone]


def moves(settings: dict[str, str], name: str) -> list[dict[str, str]]:
    return SPACE.moves(settings, next(key for key in SPACE.keys if key.name == name))


def test_another_optimizer_is_tried_at_its_own_rates() -> None:
    first = SPACE.first
    assert [(one[OPTIMIZER], one[LR]) for one in moves(first, OPTIMIZER)] == [
        ("muon", "6"),
        ("muon", "12"),
        ("muon", "3"),
    ]
    highest = {**first, OPTIMIZER: "muon", LR: "12"}
    assert [one[LR] for one in moves(highest, LR)] == ["6"]
    assert [(one[OPTIMIZER], one[LR]) for one in moves(highest, OPTIMIZER)] == [("adamw", "4"), ("adamw", "2")]


def test_a_first_look_is_at_rates_far_apart_if_there_are_any() -> None:
    rates = tuple(map(str, range(9)))
    assert _first_rates(Key(LR, rates, "3")) == ["5", "7", "3"]  # the first of them where not all fit
    assert _first_rates(Key(LR, rates[:7], "3")) == ["3", "4", "2"]  # those of a whole model


def test_a_head_without_a_pooling_takes_it_away_and_brings_it_back() -> None:
    causal = moves({**SPACE.first, POOLING: "last"}, HEAD)[0]
    assert causal[HEAD] == "causal" and POOLING not in causal
    assert moves(causal, POOLING) == []
    assert moves(causal, HEAD)[0][POOLING] == "mean"


def test_a_trial_of_less_than_an_epoch_validates_twice() -> None:
    assert SPACE.first["trainer.validate_every"] == "20"
    (longer,) = moves(SPACE.first, EPOCHS_KEY)
    assert (longer[EPOCHS_KEY], longer["trainer.validate_every"]) == ("1", "null")
    assert moves({**longer, EPOCHS_KEY: "2"}, EPOCHS_KEY) == []


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """The backbone of a night over 400 short texts of three classes."""
    files = [tmp_path_factory.mktemp("rows") / f"{name}.csv" for name in ("train", "test")]
    for file in files:
        with file.open("w", newline="") as stream:
            rows = [[n, f"query number {n} and more words", ("card", "money", "other")[n % 3]] for n in range(400)]
            csv.writer(stream).writerows([["id", "text", "label"], *rows])

    @lru_cache
    def found(model: str, *words: str) -> Backbone:
        said: list[str] = []
        asked = Asked(str(files[0]), str(files[1]), 1.0, [model], None, list(words))
        (backbone,) = backbones_of(asked, said.append)
        return backbone

    return found


def values(backbone: Backbone, name: str) -> tuple[str, ...]:
    return next((key.values for key in backbone.space.keys if key.name == name), ())


def test_every_family_of_settings_is_searched_on_a_gpu(searched: Search) -> None:
    backbone = searched("danube3_500m", "device=kaggle_t4")
    assert values(backbone, PRECISION) == ("fp16", "int8", "nf4")
    assert values(backbone, TARGETS) == ("all_linear", "attention")
    assert values(backbone, OPTIMIZER) == ("adamw", "muon")
    assert values(backbone, HEAD) == ("sequence", "causal")  # card, money and other differ in their first letter
    assert values(backbone, RANK) == ("4", "16", "64") and values(backbone, LAST_K) == ("4", "8", "null")
    muon = backbone.trial({**backbone.first, OPTIMIZER: "muon", LR: backbone.space.rates["muon"][3]})
    assert muon.optimizer.lr == pytest.approx(3 * backbone.start.config.optimizer.lr)


def test_precisions_that_do_not_fit_are_not_searched(searched: Search) -> None:
    backbone = searched("danube3_4b", "device=kaggle_t4", "device.memory_gib=5.5")
    offered = values(backbone, PRECISION) or (backbone.start.config.precision.storage.value,)
    for name in ("fp16", "int8", "nf4"):
        words = [word for word in backbone.start.overrides if not word.startswith(f"{PRECISION}=")]
        plan = plan_of(backbone.composer.trial([*words, f"{PRECISION}={name}"]))
        assert (name in {one.removesuffix("_dq") for one in offered}) == plan.fit.fits, (name, offered)
    assert "fp16" not in offered


def test_a_cpu_searches_only_precisions_that_take_no_longer(searched: Search) -> None:
    backbone = searched("danube3_500m", "device=cpu")
    usual_s = backbone.plan(backbone.first).step_s
    for name in values(backbone, PRECISION):
        assert backbone.plan({**backbone.first, PRECISION: name}).step_s <= usual_s


def test_what_is_given_is_not_searched(searched: Search) -> None:
    given = ["optimizer.lr=1e-3", "precision.gradient_checkpointing=true", "head.pooling=mean", "lora.targets=qv"]
    backbone = searched("danube3_500m", "device=kaggle_t4", *given)
    assert {key.name for key in backbone.space.keys} == {RANK, LAST_K, EPOCHS_KEY}


def test_trials_of_a_night_leave_test_splits_to_its_refit(
    searched: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["trainer.benchmark=[tiny_choice]", f"trainer.benchmark_dir={tiny_tasks(tmp_path / 'tasks')}"]
    backbone, words = searched("danube3_500m", "device=cpu", *given), list[str]()
    night = NightFolder(tmp_path / "night")
    night.begin(Asked("train.csv", "test.csv", 1.0, [], None, given))
    monkeypatch.setattr(stages, "run_call", lambda called, *_: words.extend(called))
    first = {name: [value] for name, value in backbone.first.items()}
    stages.Stages(night, Terminal()).search(Round("first look", backbone, first, [], 1.0, 1.0, 60.0))
    sweep, config = backbone.composer.sweep(words)[0], backbone.composer.trial(words)
    assert not sweep.score_test and config.trainer.benchmark == ["tiny_choice"] and tasks_of_trial(config) == []
    check_benchmark(sweep, config)
    folder = SweepFolder(night.sweep)
    folder.path.mkdir()
    with folder.locked():
        ((entry, _),) = folder.add([(compose(), ["seed=0"], None)])
    append_attempt(entry.folder, Attempt("finished", 100.0, "2026-11-23T10:00:00+00:00", "here"))
    stages.Stages(night, Terminal()).search(Round("rates", backbone, first, [], 1.0, 1.0, 60.0))
    sweep = backbone.composer.sweep(words[len(words) // 2 :])[0]  # the budget is the whole sweep's
    assert (sweep.budget_h, sweep.deadline_h) == pytest.approx((160 / 3600, 60 / 3600), rel=1e-4)


def test_where_not_even_the_first_look_fits_trials_start_with_the_upper_quarter_of_the_blocks(
    searched: Search,
) -> None:
    backbone = searched("danube3_500m", "device=cpu", "lora.rank=16")
    night = NightFolder(Path("night"))
    train = next(one.value for one in backbone.start.guesses if one.field == "data.path")
    night.asked = Asked(train, train, 0.0, [], None, [])
    _choose_start(backbone, night, 1e9)
    assert backbone.first[LAST_K] == "null" and backbone.first[EPOCHS_KEY] == MOST_AT_FIRST
    begin_with(backbone, EPOCHS_KEY, "1")
    whole_s = FIRST_RATES * trial_s(night, backbone, backbone.first) + reserve_s(night, backbone, backbone.first)
    _choose_start(backbone, night, whole_s + 1)
    assert (backbone.first[LAST_K], backbone.first[EPOCHS_KEY]) == ("null", "1")
    _choose_start(backbone, night, whole_s - 1)
    assert backbone.first[LAST_K] == values(backbone, LAST_K)[0] == "4"


def rounds_of(backbone: Backbone, hours: float, best: dict[str, str]) -> tuple[list[Round], str]:
    """The rounds while a trial stays the best, and why they end."""
    night = NightFolder(Path("night"))
    train = next(one.value for one in backbone.start.guesses if one.field == "data.path")
    night.asked = Asked(train, train, hours, [], None, [])
    now = Moment(night, {backbone.hash(best)}, hours * 3600)
    found: list[Round] = []
    while isinstance(coming := round_around(now, Best(backbone, best, backbone.hash(best))), Round):
        assert coming.limit_s <= now.left_s - reserve_s(night, backbone, best) + 1e-6
        found.append(coming)
        tried = {*now.known, *(cell["hash"] for cell in coming.new)}
        now = replace(now, known=tried, left_s=now.left_s - coming.seconds)
    return found, coming


def test_long_hours_try_every_neighbour_once_and_end_early(searched: Search) -> None:
    backbone = searched("danube3_500m", "device=kaggle_t4")
    found, why = rounds_of(backbone, 8.0, backbone.first)
    tried = [cell["hash"] for one in found for cell in one.new]
    space = backbone.space
    expected = {backbone.hash(one) for key in space.keys for one in space.moves(backbone.first, key)}
    assert why == NOTHING_LEFT and len(tried) == len(set(tried)) and set(tried) == expected
    assert found[-1].values[EPOCHS_KEY] == ["2"]  # the longer trial comes last


def test_while_nothing_is_learned_the_rate_is_the_last_to_change(searched: Search) -> None:
    backbone = searched("danube3_500m", "device=kaggle_t4")
    night = NightFolder(Path("night"))
    train = next(one.value for one in backbone.start.guesses if one.field == "data.path")
    night.asked = Asked(train, train, 8.0, [], None, [])
    best = Best(backbone, backbone.first, backbone.hash(backbone.first))
    for learned, wanted in ((True, True), (False, False)):
        coming = round_around(Moment(night, {best.hash}, 8 * 3600), replace(best, learned=learned))
        assert isinstance(coming, Round) and (coming.values[LR] != [backbone.first[LR]]) is wanted


def test_short_hours_are_spread_and_keep_the_end_free(searched: Search) -> None:
    backbone = searched("danube3_500m", "device=kaggle_t4")
    each_s = backbone.predicted_s(backbone.first)
    hours = 14 * each_s / 3600
    found, why = rounds_of(backbone, hours, backbone.first)
    assert why.startswith("the time that is left is kept")
    assert sum(one.seconds for one in found) <= hours * 3600 * 0.9
    assert found[0].seconds <= OF_A_ROUND * hours * 3600


def test_after_more_epochs_were_better_still_more_are_next(searched: Search) -> None:
    backbone = searched("danube3_500m", "device=kaggle_t4")
    found, _ = rounds_of(backbone, 8.0, {**backbone.first, EPOCHS_KEY: "2"})
    assert found[0].values[EPOCHS_KEY] == ["3"]


def test_the_words_of_a_round_compose_to_its_trials(searched: Search) -> None:
    backbone = searched("danube3_500m", "device=kaggle_t4")
    for one in rounds_of(backbone, 8.0, backbone.first)[0]:
        several = [name for name, some in one.values.items() if len(some) > 1]
        assert len(several) <= 1  # a command's commas make no other trials
        assert len(one.new) == max(len(some) for some in one.values.values())


def test_the_time_of_the_refit_goes_to_a_trial_that_is_open_where_none_has_ended(
    searched: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, night, given = searched("danube3_500m", "device=cpu"), NightFolder(Path("night")), list[float]()
    train = next(one.value for one in backbone.start.guesses if one.field == "data.path")
    night.asked = Asked(train, train, 1.0, [], None, [])
    for name, found in {
        "open_trials": ["001"],
        "next_round": "no trial has come to its end yet",
        "best_so_far": None,
    }.items():
        monkeypatch.setattr(run_night, name, lambda *_, found=found: found)
    monkeypatch.setattr(night, "spent_s", lambda: 1800.0)
    search = stages.Stages(night, Terminal())
    monkeypatch.setattr(search, "continue_search", given.append)
    monkeypatch.setattr(run_night, "Stages", lambda *_: search)
    run_night._search(night, [backbone], search)
    assert given[-1] == pytest.approx(1800 - predict_s(night, backbone))


def test_only_a_session_that_was_killed_ends_at_its_last_sign_of_life(tmp_path: Path) -> None:
    asked = Asked("train.csv", "test.csv", 1.0, [], None, [])
    night = NightFolder(tmp_path / "night")
    night.begin(asked)
    began = night.sessions[0][0] - 36_000
    for closed, spent in ((True, 1000.0), (False, 3000.0)):
        night.sessions, night.closed = [[began, began + 1000]], closed
        night.write()
        stored = json.loads(night.file.read_text())
        stored["sessions"] = [[began, began + 1000]]
        night.file.write_text(json.dumps(stored))
        (file := night.sweep / "001/metrics.csv").parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (began + 3000, began + 3000))
        (night.path / "report.html").touch()  # written long after
        again = NightFolder(night.path)
        again.begin(asked)
        assert again.spent_s() == pytest.approx(spent, abs=60)


def test_predictions_that_are_gone_or_of_an_older_test_file_are_not_the_answer(tmp_path: Path) -> None:
    (test := tmp_path / "test.csv").write_text("id,text\n1,a\n")
    night = NightFolder(tmp_path / "night")
    night.begin(Asked("train.csv", str(test), 1.0, [], None, []))
    predicted = Ran(PREDICT, [PREDICT, "night/sweep", str(test)], test.stat().st_mtime + 10)
    assert not night.is_as_asked(predicted)
    night.submission.touch()
    assert night.is_as_asked(predicted)
    os.utime(test, (predicted.began + 5, predicted.began + 5))
    assert not night.is_as_asked(predicted)
