"""What a draw becomes as the value of an override, and the space in sweep.json and back."""

import json
import math
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from danube_sweep.errors import CheckpointError, ConfigError
from danube_sweep.sweeping.dry_run import _words
from danube_sweep.sweeping.propose.search_space import (
    TAIL,
    Beta,
    Choice,
    Distribution,
    Normal,
    Number,
    Rounded,
    Search,
    Weighted,
    described,
    drawn_text,
    examples,
    recognised,
    size,
    tidy,
)


@pytest.mark.parametrize(
    ("distribution", "drawn", "text"),
    [
        (Choice(["a", "'b c'"]), "'b c'", "'b c'"),
        (Number(0.0, 1.0), 0.25, "0.25"),
        (Number(0.0, 1.0), 0.1234567890123456, "0.1234567890123456"),
        (Number(0.0, 1.0), 1, "1.0"),
        (Number(1e-6, 1e-2, log=True), 1e-5, "1e-05"),
        (Number(1, 8, whole=True), 3, "3"),
        (Number(1, 8, whole=True), 3.0, "3"),
        (Number(1, 64, log=True, whole=True), 17, "17"),
        # steps
        (Number(0.1, 0.4, step=0.1), 0.1 + 2 * 0.1, "0.3"),
        (Number(0, 0.9, step=0.1), 7 * 0.1, "0.7"),
        (Number(0.5, 3.5, step=1), 1.5, "1.5"),
        (Number(0.5, 3.5, step=1), 0.5, "0.5"),
        (Number(0, 3, step=1.0), 2.0, "2"),
        (Number(8, 32, step=8, whole=True), 24, "24"),
        (Number(1e-5, 3e-5, step=1e-5), 3 * 1e-5, "3e-05"),
        # on a logarithmic scale they are rounded here
        (Number(32, 256, log=True, step=8, whole=True), 45, "48"),
        (Number(32, 256, log=True, step=8, whole=True), 32, "32"),
        (Number(0.1, 0.9, log=True, step=0.1), 0.26, "0.3"),
        (Number(0.1, 0.9, log=True, step=0.1), 0.7, "0.7"),
        (Number(8, 64, log=True, step=8), 30.0, "32"),
        # quantiles
        (Rounded(3.0, 60.0, 8), 11.9, "8"),
        (Rounded(3.0, 60.0, 8), 12.0, "16"),
        (Rounded(3.0, 60.0, 8), 20.0, "16"),
        (Rounded(3.0, 60.0, 8), 3.0, "0"),
        (Rounded(4.0, 60.0, 8), 4.0, "8"),  # half a step: 0 has the probability 0
        (Rounded(4.0, 60.0, 8), 60.0, "56"),
        (Rounded(0.05, 0.3, 0.1), 0.05, "0.1"),
        (Rounded(0.1, 0.9, 0.1), 0.26, "0.3"),
        (Rounded(0.1, 0.2, 1), 0.2, "0"),
        (Beta(2.0, 2.0), 0.5, "0.5"),
        (Beta(1.0, 1.0), 0.25, "0.25"),
        (Beta(1.0, 1.0, step=0.1), 0.26, "0.3"),
        (Weighted(["a", "b", "c"], [0.5, 0.0, 0.5]), 0.499, "a"),
        (Weighted(["a", "b", "c"], [0.5, 0.0, 0.5]), 0.5, "c"),
        (Weighted(["a", "b", "c"], [0.0, 1.0, 0.0]), 0.0, "b"),
        (Weighted(["a", "b", "c"], [0.0, 1.0, 0.0]), 1.0, "b"),
        (Normal(3.0, 2.0), 0.5, "3.0"),
        (Normal(0.0, 1.0, log=True), 0.5, "1.0"),
        (Normal(3.2, 2.0, step=0.5), 0.5, "3.0"),
        (Normal(0.31, 2.0, step=0.1), 0.5, "0.3"),
        (Normal(2.6, 1.0, step=1), 0.5, "3"),
        (Normal(math.log(9.0), 1.0, log=True, step=4), 0.5, "8"),
    ],
    ids=str,
)
def test_a_draw_is_written_as_a_person_would(distribution: Distribution, drawn: Any, text: str) -> None:
    assert drawn_text(distribution, drawn) == text
    [override] = OverridesParser.create().parse_overrides([f"x={text}"])
    assert not override.is_sweep_override()


@pytest.mark.parametrize("log", [False, True])
def test_the_tails_of_a_normal_distribution_are_numbers(log: bool) -> None:
    low, high = (float(drawn_text(Normal(0.0, 1.0, log=log), tail)) for tail in (TAIL, 1 - TAIL))
    assert math.isfinite(low) and math.isfinite(high) and low < high
    if not log:
        assert -5 < low < -4 and 4 < high < 5


def test_tidying_changes_no_number_by_more_than_its_rounding() -> None:
    assert [tidy(number) for number in (3, 0.1 + 2 * 0.1, 1e-5, 3 * 1e-7, -1.1 * 3)] == [3, 0.3, 1e-5, 3e-7, -3.3]
    assert type(tidy(3)) is int and type(tidy(3.0)) is float


SPACE: dict[str, Distribution] = {
    "optimizer.lr": Number(1e-5, 1e-2, log=True),
    "lora.rank": Number(8, 32, step=8, whole=True),
    "lora.dropout": Normal(0.1, 0.05, step=0.01),
    "lora.alpha": Rounded(3.0, 60.0, 8, log=True),
    "data.fraction": Beta(2.0, 2.0, step=0.1),
    "++head": Choice(["preference", "sequence"]),
    "model": Weighted(["a", "b"], [0.75, 0.25]),
}


@pytest.mark.parametrize(
    ("space", "points"),
    [
        ({"x": Choice(["a", "b"]), "y": Number(1, 3, whole=True)}, 6),
        ({"x": Number(8, 32, step=8, whole=True)}, 4),
        ({"x": Number(8, 35, step=8, whole=True)}, 4),
        ({"x": Number(0.1, 0.4, step=0.1)}, 4),
        ({"x": Number(1, 64, log=True, whole=True)}, 64),
        ({"x": Number(3.0, 3.0)}, 1),
        ({"x": Number(0.0, 1.0), "y": Choice(["a"])}, math.inf),
        ({"x": Normal(0.0, 1.0, step=0.5)}, math.inf),
        ({"x": Rounded(4.0, 64.0, 8)}, 8),
        ({"x": Rounded(3.0, 60.0, 8)}, 8),
        ({"x": Rounded(0.1, 0.4, 1)}, 1),
        ({"x": Beta(2.0, 2.0, step=0.1)}, 11),
        ({"x": Beta(2.0, 2.0)}, math.inf),
        ({"x": Weighted(["a", "b", "c", "a"], [0.25, 0.0, 0.5, 0.25])}, 2),
    ],
    ids=str,
)
def test_a_finite_space_knows_its_points(space: dict[str, Distribution], points: float) -> None:
    assert size(space) == points


@pytest.mark.parametrize(
    ("distribution", "words"),
    [
        (Rounded(4.0, 60.0, 8), "4 to 60, rounded to multiples of 8"),
        (Rounded(4.0, 60.0, 8, log=True), "on a logarithmic scale 4 to 60, rounded to multiples of 8"),
        (Normal(1.0, 0.5, log=True, step=1), "log-normal, mean 1, standard deviation 0.5, rounded to multiples of 1"),
        (Beta(2.0, 5.0), "beta, a 2, b 5"),
        (Weighted(["a", "b"], [0.75, 0.25]), "a (0.75), b (0.25)"),
    ],
    ids=str,
)
def test_a_dry_run_describes_every_distribution(distribution: Distribution, words: str) -> None:
    assert _words(distribution) == words


def test_a_space_survives_the_disk() -> None:
    assert recognised(json.loads(json.dumps(described(SPACE)))) == SPACE
    assert list(recognised(described(SPACE))) == list(SPACE)


@pytest.mark.parametrize(
    "node",
    [None, [], {"x": None}, {"x": {}}, {"x": {"kind": "beta"}}, {"x": {"kind": "number"}},
     {"x": {"kind": "choice", "value": 3}}, {"x": {"kind": ["number"]}}, {"x": 3}],
    ids=str,
)  # fmt: skip
def test_a_damaged_space_is_refused(node: Any) -> None:
    with pytest.raises(CheckpointError, match=r"sweep\.json: the search space is damaged"):
        recognised(node)


def test_the_examples_are_the_ends_of_the_space() -> None:
    search = Search(["seed=3"], SPACE)
    low, high = examples(search)
    assert low[:4] == ["optimizer.lr=1e-05", "lora.rank=8", "lora.dropout=0.1", "lora.alpha=0"]
    assert low[4:] == ["data.fraction=0.5", "++head=preference", "model=a"]
    assert (high[3], high[6]) == ("lora.alpha=56", "model=b")
    assert [one.partition("=")[0] for one in high] == [one.partition("=")[0] for one in low] and high != low


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({}, "there is nothing to search"),
        ({"x": Choice([])}, "x: there is nothing to choose from"),
        ({"x": Number(2, 1)}, "x: the interval from 2 to 1 is empty"),
        ({"x": Number(0, math.inf)}, "x: the interval from 0 to inf is empty"),
        ({"x": Number(math.nan, 1)}, "is empty"),
        ({"x": Number(0, 1, log=True)}, "x: a logarithmic interval must begin above 0, got 0"),
        ({"x": Number(0, 1, step=0)}, "x: the step must be above 0, got 0"),
        ({"x": Number(0, 1, step=-0.5)}, "x: the step must be above 0, got -0.5"),
        ({"x": Normal(0, 1, step=0.0)}, "x: the step must be above 0, got 0"),
        ({"x": Normal(0, 0)}, "x: the standard deviation must be above 0, got 0"),
        ({"x": Normal(800, 1, log=True)}, "x: its largest draws are more than a number can hold"),
        ({"x": Normal(1e300, 1, step=1e-10)}, "x: its largest draws are more than a number can hold"),
        ({"x": Rounded(2, 1, 1)}, "x: the interval from 2 to 1 is empty"),
        ({"x": Rounded(0, 1, 1, log=True)}, "x: a logarithmic interval must begin above 0, got 0"),
        ({"x": Rounded(0, 1, 0)}, "x: the step must be above 0, got 0"),
        ({"x": Beta(0, 1)}, "x: a and b of a beta distribution must be above 0, got 0 and 1"),
        ({"x": Beta(1, 1, step=0.0)}, "x: the step must be above 0, got 0"),
        ({"x": Weighted([], [])}, "x: there is nothing to choose from"),
        ({"x": Normal(0, math.nan)}, "x: the standard deviation must be above 0, got nan"),
        ({"x": Choice(["1"]), "sweep.slots": Choice(["1", "2"])}, "sweep.slots belongs to the sweep"),
    ],
    ids=str,
)
def test_a_space_that_cannot_be_drawn_from_is_refused(space: dict[str, Distribution], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Search([], space)
    assert said in str(raised.value)


def test_a_space_of_an_unknown_kind_is_refused_and_not_guessed() -> None:
    unknown: Any = "a distribution of tomorrow"
    with pytest.raises(TypeError, match="no number of points in str"):
        size({"x": unknown})
