"""A grid's cells and a search's space, from the words of a command; nothing unbounded is ever expanded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from danube_sweep import paths
from danube_sweep.composer import Composer, compose, register
from danube_sweep.config.schema import Config, Sweep
from danube_sweep.errors import ConfigError
from danube_sweep.head.kinds.lm import LMHead
from danube_sweep.sweeping.propose.grid_cells import check_cells, check_search, expand, search_of, shared
from danube_sweep.sweeping.propose.search_space import Choice, Distribution, Number

PARSER = OverridesParser.create()


def parsed(*words: str) -> list[Override]:
    return PARSER.parse_overrides(list(words))


def cells(*words: str, most: int = 1000) -> list[list[str]]:
    return expand(parsed(*words), most)


def value(text: str) -> Any:
    return PARSER.parse_overrides([f"x={text}"])[0].value()


# ----------------------------------------------------------------------------------------------------- grids


def test_the_last_override_varies_fastest_and_keeps_its_place() -> None:
    assert cells("seed=0,1", "lora=none", "lora.rank=4,8") == [
        ["seed=0", "lora=none", "lora.rank=4"],
        ["seed=0", "lora=none", "lora.rank=8"],
        ["seed=1", "lora=none", "lora.rank=4"],
        ["seed=1", "lora=none", "lora.rank=8"],
    ]


def test_without_a_swept_value_there_is_one_cell() -> None:
    assert cells("seed=0") == [["seed=0"]]
    assert cells() == [[]]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("x=1,2", ["x=1", "x=2"]),
        ("x=choice(1,2)", ["x=1", "x=2"]),
        ("x=choice(a)", ["x=a"]),
        ("x=range(3)", ["x=0", "x=1", "x=2"]),
        ("x=range(1,8,3)", ["x=1", "x=4", "x=7"]),
        ("x=range(8,1,-3)", ["x=8", "x=5", "x=2"]),
        ("x=range(0.1,0.5,0.1)", ["x=0.1", "x=0.2", "x=0.3", "x=0.4"]),
        ("x=range(1e-5,4e-5,1e-5)", ["x=1e-05", "x=2e-05", "x=3e-05"]),
        ("x=float(range(3))", ["x=0.0", "x=1.0", "x=2.0"]),
        ("x=int(1.0,2.0)", ["x=1", "x=2"]),
        ("x=int(range(0.5,2.5))", ["x=0", "x=1"]),
        ("x=str(choice(1,2))", ["x=1", "x=2"]),
        ("x=bool(choice('true','false'))", ["x=True", "x=False"]),
        ("x=sort(3,1,2)", ["x=1", "x=2", "x=3"]),
        ("x=tag(fast,choice(1,2))", ["x=1", "x=2"]),
        ("x=[1,2],[3]", ["x=[1,2]", "x=[3]"]),
        ("+x=1,2", ["+x=1", "+x=2"]),
        ("++x=1,2", ["++x=1", "++x=2"]),
        ("hydra/launcher=a,b", ["hydra/launcher=a", "hydra/launcher=b"]),
        ("x@y=a,b", ["x@y=a", "x@y=b"]),
        ("~x", ["~x"]),
        ("~x=null", ["~x"]),
        ("~x=1", ["~x=1"]),
    ],
)
def test_every_way_to_sweep_has_its_cells(word: str, expected: list[str]) -> None:
    assert cells(word) == [[cell] for cell in expected]


@pytest.mark.parametrize("word", ["x=shuffle(1,2,3)", "x=shuffle(range(1,4))"])
def test_shuffled_values_are_the_same_values(word: str) -> None:
    assert sorted(cells(word)) == [["x=1"], ["x=2"], ["x=3"]]


def test_of_a_key_given_twice_the_last_one_counts_where_it_stands() -> None:
    assert cells("x=1,2", "y=3", "x=5") == [["y=3", "x=5"]]
    assert cells("x=range(1,3e7)", "x=1,2") == [["x=1"], ["x=2"]]


def test_a_glob_sweeps_the_options_of_a_group() -> None:
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(paths.conf_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        known = OverridesParser.create(config_loader=loader)
        assert expand(known.parse_overrides(["lora=glob(?o*,exclude=none)"]), 9) == [["lora=dora"], ["lora=lora"]]
        assert search_of(known.parse_overrides(["lora=glob(?ora)"])).space == {"lora": Choice(["dora", "lora"])}
        with pytest.raises(ConfigError, match="9 cells, more than"):
            expand(known.parse_overrides(["lora=glob(*)"]), 3)
        with pytest.raises(ConfigError, match=r"lora=glob\(x\*\): there is nothing to sweep over"):
            expand(known.parse_overrides(["lora=glob(x*)"]), 9)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x=range(1,3e7)"], "the grid has 29,999,999 cells, more than sweep.max_trials=1,000"),
        (["x=range(1000000000)", "y=range(1000000000)"], "the grid has 1,000,000,000,000,000,000 cells"),
        (["x=range(0,1,1e-9)"], "the grid has 1,000,000,000 cells"),
        (["x=range(40)", "y=range(5,-20,-1)", "z=1,2"], "the grid has 2,000 cells"),
        (["x=range(1,inf)"], "x=range(1,inf): the range has no end"),
        (["x=range(nan,3)"], "the range has no end"),
        (["x=range(1,5,0)"], "x=range(1,5,0): the range has no end"),
        (["x=range(0,1,0.0)"], "the range has no end"),
        (["x=range(5,1)"], "x=range(5,1): there is nothing to sweep over"),
        (["x=range(1,5,-1)", "y=1,2"], "x=range(1,5,-1): there is nothing to sweep over"),
        (["x=interval(1,8)"], "x: a grid cannot take an interval; use choice(…), range(…) or hydra/sweeper=optuna"),
        (["x=int(tag(log,interval(1,8)))"], "x: a grid cannot take an interval"),
        (["x=1,interval(1,8)"], "a choice of ranges or intervals cannot be swept"),
        (["x=range(1,3),range(5,7)"], "a choice of ranges or intervals cannot be swept"),
    ],
)
def test_what_is_no_grid_is_refused_before_it_is_expanded(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        cells(*words)
    assert said in str(raised.value)


def test_as_many_cells_as_allowed_are_allowed() -> None:
    assert len(cells("x=range(10)", "y=range(100)")) == 1000


VALUES = [
    "a", "'b, c'", '"d\'e"', "a\\,b", "''", "[1,2]", "[a,'b c']", "{a:1,b:[x]}", "null", "true", "1e-4", "-3", "0x1f",
    "007", "1_000", "'1'", "nan", "a:b", "path/to.csv", "50%", "'=[]{}()'", "\"back\\\\slash\"", "${seed}", "'${seed}'",
]  # fmt: skip


@pytest.mark.parametrize("text", VALUES)
def test_a_value_means_in_a_cell_and_in_a_search_what_it_means_in_the_command(text: str) -> None:
    expected = value(text)
    [(fixed,)] = cells(f"x={text}")
    (swept, _) = [cell[0] for cell in cells(f"x={text},other")]
    searched = search_of(parsed(f"x={text},other", f"y={text}"))
    found = [value(word.partition("=")[2]) for word in (fixed, swept, searched.fixed[0])]
    drawn = searched.space["x"]
    assert isinstance(drawn, Choice)
    assert [repr(one) for one in [*found, value(drawn.values[0])]] == [repr(expected)] * 4


def test_an_interpolation_in_a_cell_still_points_to_its_value() -> None:
    composer = Composer()
    assert [composer.trial(cell).lora.alpha for cell in cells("lora.alpha=${lora.rank}", "lora.rank=4,8")] == [4, 8]


def test_what_all_cells_share_is_what_no_folder_is_named_by() -> None:
    assert shared(cells("seed=0,1", "lora=none", "lora.rank=4,8")) == {"lora=none"}
    assert shared([["seed=0"]]) == {"seed=0"}


# ----------------------------------------------------------------------------------------------------- searches


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("x=interval(1,8)", Number(1.0, 8.0)),
        ("x=float(interval(1,8))", Number(1.0, 8.0)),
        ("x=int(interval(1,8))", Number(1, 8, whole=True)),
        ("x=tag(log,interval(1e-5,1e-2))", Number(1e-5, 1e-2, log=True)),
        ("x=tag(log,int(interval(1,64)))", Number(1, 64, log=True, whole=True)),
        ("x=int(tag(log,interval(1,64)))", Number(1, 64, log=True, whole=True)),
        ("x=interval(-1.5,2.5)", Number(-1.5, 2.5)),
        ("x=interval(3,3)", Number(3.0, 3.0)),
        ("x=range(3)", Number(0, 2, step=1, whole=True)),
        ("x=range(8,33,8)", Number(8, 32, step=8, whole=True)),
        ("x=range(8,35,8)", Number(8, 32, step=8, whole=True)),
        ("x=shuffle(range(1,4))", Number(1, 3, step=1, whole=True)),
        ("x=range(0.1,0.5,0.1)", Number(0.1, 0.4, step=0.1)),
        ("x=range(0.5,4)", Number(0.5, 3.5, step=1)),
        ("x=float(range(1,4))", Number(1.0, 3.0, step=1.0)),
        ("x=tag(log,range(1,65))", Number(1, 64, log=True, whole=True)),
        ("x=1,2", Choice(["1", "2"])),
        ("x=choice(4)", Choice(["4"])),
        ("x=4,4,8", Choice(["4", "8"])),
        ("x=shuffle(1,2,3)", Choice(["1", "2", "3"])),
        ("x=adamw,'a b',[1,2],null,1e-4", Choice(["adamw", "'a b'", "[1,2]", "null", "0.0001"])),
        ("x=true,false", Choice(["True", "False"])),
    ],
)
def test_every_way_to_sweep_has_its_distribution(word: str, expected: Distribution) -> None:
    assert search_of(parsed(word)).space == {"x": expected}


def test_a_search_has_what_is_fixed_and_what_varies_with_their_signs() -> None:
    search = search_of(parsed("seed=3", "lora=none", "++x=1,2", "~y", "hydra/launcher=basic"))
    assert search.fixed == ["seed=3", "lora=none", "~y", "hydra/launcher=basic"]
    assert list(search.space) == ["++x"]


def test_of_a_key_given_twice_a_search_takes_the_last_one_too() -> None:
    search = search_of(parsed("x=interval(1,2)", "y=1,2", "x=5"))
    assert search.fixed == ["x=5"] and list(search.space) == ["y"]
    assert list(search_of(parsed("x=5", "x=interval(1,2)")).space) == ["x"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x=3"], "there is nothing to search: give at least one choice(…), range(…) or interval(…)"),
        ([], "there is nothing to search"),
        (["x=interval(8,1)"], "x: the interval from 8 to 1 is empty; give the lower end first"),
        (["x=interval(0,inf)"], "x: the interval from 0 to inf is empty"),
        (["x=interval(nan,1)"], "x: the interval from nan to 1 is empty"),
        (["x=tag(log,interval(0,1))"], "x: a logarithmic interval must begin above 0, got 0"),
        (["x=tag(log,int(interval(0.5,8)))"], "x: a logarithmic interval must begin above 0, got 0"),
        (["x=tag(log,range(0,8))"], "x: a logarithmic interval must begin above 0, got 0"),
        (["x=tag(log,range(8,64,8))"], "no steps on a logarithmic scale; give tag(log,interval(low,high))"),
        (["x=range(5,1)"], "x=range(5,1): the range is empty or falls"),
        (["x=range(5,1,-1)"], "the range is empty or falls"),
        (["x=range(1,inf)"], "the range has no end"),
        (["x=range(1,5,0)"], "the range has no end"),
        (["x=1,interval(1,8)"], "a choice of ranges or intervals cannot be swept"),
        (["seed=0,1", "sweep.slots=1,2"], "sweep.slots belongs to the sweep, not to a trial; give it one value"),
        (["pruner=asha,none"], "pruner belongs to the sweep, not to a trial"),
        (["++sweep.trials=range(3)"], "sweep.trials belongs to the sweep, not to a trial"),
    ],
)
def test_what_cannot_be_searched_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        search_of(parsed(*words))
    assert said in str(raised.value)


# ----------------------------------------------------------------------------------------------------- checking


def test_every_cell_is_composed_and_the_mistakes_are_kept_beside_their_overrides(tmp_path: Path) -> None:
    (tmp_path / "there.txt").write_text("text\n" * 9)
    given = [
        ["lora.rank=4"],
        ["lora.rank=0"],
        ["lora.rnak=3"],
        ["head=lm", "data=text", f"data.path=[{tmp_path / 'there.txt'}]"],
        ["head=lm", "data=text", f"data.path=[{tmp_path / 'nowhere.txt'}]"],
    ]
    checked = check_cells([[*TINY, *cell] for cell in given], Composer().trial, Sweep())
    assert [cell[len(TINY) :] for _, cell in checked.valid] == [given[0], given[3]]
    assert checked.valid[0][0] == compose([*TINY, "lora.rank=4"])
    assert [cell[len(TINY) :] for cell, _ in checked.invalid] == [given[1], given[2], given[4]]
    said = [error for _, error in checked.invalid]
    assert said[0].startswith("lora.rank must be at least 1") and said[1].startswith("lora.rnak: no such field")
    assert "nowhere.txt: no such file" in said[2]


def test_a_cell_whose_head_does_not_report_the_metric_is_a_mistake() -> None:
    def composed(overrides: Sequence[str]) -> Config:
        config = compose([*TINY, "data.rows=60"])
        if "lm" in overrides:
            config.head = LMHead()
        return config

    checked = check_cells([["lm"], ["other"]], composed, Sweep(metric="validation/accuracy", goal="maximize"))
    assert [cell for _, cell in checked.valid] == [["other"]]
    [(cell, error)] = checked.invalid
    assert cell == ["lm"] and "sweep.metric=validation/accuracy: no trial with this head reports it" in error


def test_a_search_of_more_trials_than_a_sweep_may_have_is_refused() -> None:
    search = search_of(parsed("optimizer.lr=interval(1e-4,1e-3)"))
    with pytest.raises(ConfigError, match=r"^sweep\.trials=3 is more than sweep\.max_trials=2; give sweep\.trials=2"):
        check_search(search, compose, Sweep(trials=3, max_trials=2))
