"""A W&B sweep file becomes the overrides that W&B's own agent would pass, and what cannot be kept is one line."""

import math
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import ROOT
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from sweeps import quiet

from danube_sweep import paths
from danube_sweep.composer import VERSION_BASE, compose, register
from danube_sweep.config.schema import NoPruner, Pruner, Sampler, Sweep, WandbHyperband
from danube_sweep.config.typed import typed_sweep
from danube_sweep.errors import ConfigError
from danube_sweep.sweeping.entry import sweep_file_command
from danube_sweep.sweeping.propose.search_space import (
    Beta,
    Choice,
    Distribution,
    Normal,
    Number,
    Rounded,
    Search,
    Weighted,
    examples,
)
from danube_sweep.sweeping.wandb_file.read_sweep_file import (
    EARLY_TERMINATE,
    KEYS,
    METRIC,
    NO_OVERRIDES,
    SAMPLERS,
    SIGNS,
    SweepFile,
    read_sweep_file,
)
from danube_sweep.sweeping.wandb_file.wandb_parameters import TAKES, override_text

READY = sorted((paths.conf_dir() / "wandb").glob("*.yaml"))
DOCUMENT = ROOT / "docs" / "wandb.md"
COMMAND = ["${env}", "danube-sweep", "${args_no_hyphens}"]


def sheet(tmp_path: Path, parameters: Any = None, **keys: Any) -> SweepFile:
    """A sheet with these keys, and a grid over two seeds where nothing is said; a key that is None is left out."""
    node = {"method": "grid", "parameters": parameters or {"seed": {"values": [0, 1]}}, "command": COMMAND, **keys}
    file = tmp_path / "sheet.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in node.items() if value is not None}, sort_keys=False))
    return read_sweep_file(file)


def drawn_from(tmp_path: Path, **parameter: Any) -> Distribution:
    return sheet(tmp_path, {"optimizer.lr": parameter}, method="random").space["optimizer.lr"]


def mistake(tmp_path: Path, text: str) -> str:
    file = tmp_path / "sheet.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_sweep_file(file).cells(1000)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{file}: ")
    return message.removeprefix(f"{file}: ")


def mistake_in(tmp_path: Path, parameters: Any = None, **keys: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        sheet(tmp_path, parameters, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def a_draw(found: SweepFile) -> list[str]:
    """A cell of the grid, or the lowest draw of every distribution."""
    if found.method == "grid":
        return found.cells(1000)[0]
    return examples(Search([], found.space))[0]


def settings_of(found: SweepFile) -> tuple[Sweep, Pruner]:
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(paths.conf_dir()), version_base=VERSION_BASE):
        return typed_sweep(hydra_compose("config", overrides=found.settings))


# ------------------------------------------------------------------------------------------------- values


VALUES = [None, True, False, 0, -7, 1e-5, 1e22, math.inf, [], [1, [None, "a,b"]], {}, {"a": {"b": ["c d"]}}]
TEXTS = [
    "",
    "null",
    "True",
    "nan",
    "1e-4",
    "007",
    "-1",
    "+x",
    "a,b",
    "choice(1,2)",
    "range(1,3)",
    "x=y",
    "{a:1}",
    "[1]",
]
TEXTS += ["~/a file.csv", "data/train.csv", "C:\\dir\\", "it's", "both \" and '", "two\nlines", "größe", " spaced "]


@pytest.mark.parametrize("value", [*VALUES, *TEXTS, TEXTS, dict(zip("abc", TEXTS, strict=False))])
def test_a_value_comes_back_from_hydra_as_it_was_and_as_one(value: Any) -> None:
    override = OverridesParser.create().parse_override(f"key={override_text('key', value)}")
    assert not override.is_sweep_override()
    assert override.value() == value
    assert type(override.value()) is type(value)


def test_any_text_comes_back_from_hydra_as_it_was() -> None:
    drawn, parser = random.Random(0), OverridesParser.create()
    signs = "abeINTnul017._/-\\'\", :=()[]{}$%*@?|+~#!&;<>^`\t\né"
    for _ in range(2000):
        text = "".join(drawn.choices(signs, k=drawn.randint(0, 7)))
        override = parser.parse_override(f"key={override_text('key', text)}")
        assert not override.is_sweep_override()
        assert override.value() == text


# ------------------------------------------------------------------------------------------------- distributions

E = math.exp
DRAWS: list[tuple[dict[str, Any], Distribution]] = [
    ({"values": [8, "a,b", None]}, Choice(["8", "'a,b'", "null"])),
    ({"distribution": "categorical", "values": [1]}, Choice(["1"])),
    ({"min": 1, "max": 3}, Number(1, 3, whole=True)),
    ({"distribution": "int_uniform", "min": "1", "max": 3}, Number(1, 3, whole=True)),
    ({"min": 0.0, "max": 1.0}, Number(0.0, 1.0)),
    ({"min": 0, "max": 0.3}, Number(0.0, 0.3)),
    ({"min": 0.5, "max": 2}, Number(0.5, 2.0)),
    ({"distribution": "uniform", "min": 0, "max": 1}, Number(0.0, 1.0)),
    ({"distribution": "q_uniform", "min": 0.04, "max": 0.31, "q": 0.1}, Rounded(0.04, 0.31, 0.1)),
    ({"distribution": "q_uniform", "min": 1, "max": 9}, Rounded(1.0, 9.0, 1)),
    ({"distribution": "q_uniform", "min": 8, "max": 63, "q": 8}, Rounded(8.0, 63.0, 8)),
    ({"distribution": "log_uniform", "min": -9, "max": 0}, Number(E(-9), 1.0, log=True)),
    ({"distribution": "log_uniform_values", "min": "1e-4", "max": "1e-2"}, Number(1e-4, 1e-2, log=True)),
    ({"distribution": "inv_log_uniform", "min": 2, "max": 9}, Number(E(-9), E(-2), log=True)),
    ({"distribution": "inv_log_uniform_values", "min": 1e-4, "max": 1e-2}, Number(1e-4, 1e-2, log=True)),
    ({"distribution": "q_log_uniform", "min": 0, "max": 4}, Rounded(1.0, E(4), 1, log=True)),
    ({"distribution": "q_log_uniform_values", "min": 1, "max": 64, "q": 8}, Rounded(1.0, 64.0, 8, log=True)),
    ({"distribution": "normal"}, Normal(0.0, 1.0)),
    ({"distribution": "normal", "mu": "1e-1", "sigma": 2}, Normal(0.1, 2.0)),
    ({"distribution": "log_normal", "mu": -9}, Normal(-9.0, 1.0, log=True)),
    ({"distribution": "q_normal", "q": 0.5}, Normal(0.0, 1.0, step=0.5)),
    ({"distribution": "q_log_normal"}, Normal(0.0, 1.0, log=True, step=1)),
    ({"distribution": "beta"}, Beta(1.0, 1.0)),
    ({"distribution": "beta", "a": 2, "b": "5"}, Beta(2.0, 5.0)),
    ({"distribution": "q_beta", "a": 2, "q": 0.1}, Beta(2.0, 1.0, step=0.1)),
    ({"values": [8, "b"], "probabilities": [0.75, 0.25]}, Weighted(["8", "b"], [0.75, 0.25])),
    (
        {"distribution": "categorical_w_probabilities", "values": [8, 9], "probabilities": [0, 1]},
        Weighted(["8", "9"], [0.0, 1.0]),
    ),
]


@pytest.mark.parametrize(("parameter", "expected"), DRAWS)
def test_a_parameter_is_drawn_as_wandb_draws_it(
    parameter: dict[str, Any], expected: Distribution, tmp_path: Path
) -> None:
    found = drawn_from(tmp_path, **parameter)
    assert found == expected
    Search([], {"optimizer.lr": found})


def test_every_distribution_of_wandb_is_drawn() -> None:
    drawn = {parameter.get("distribution") for parameter, _ in DRAWS} | {"constant"}
    assert drawn >= TAKES.keys()


def test_nested_parameters_and_constants_become_dotted_overrides(tmp_path: Path) -> None:
    parameters = {
        "optimizer.lr": {"value": 0.001},
        "lora": {"parameters": {"rank": {"values": [4, 8]}, "dropout": {"distribution": "constant", "value": 0}}},
        "data": {"parameters": {"path": {"value": "a b.csv"}}},
    }
    found = sheet(tmp_path, parameters)
    assert found.fixed == ["data.path='a b.csv'", "lora.dropout=0", "optimizer.lr=0.001"]
    assert found.space == {"lora.rank": Choice(["4", "8"])}


# ------------------------------------------------------------------------------------------------- grids


def test_a_grid_goes_through_its_product_with_the_keys_sorted_and_the_last_one_fastest(tmp_path: Path) -> None:
    parameters = {"seed": {"min": 0, "max": 1}, "lora.rank": {"values": [4, 8, 4]}, "model": {"value": "danube_tiny"}}
    found = sheet(tmp_path, parameters)
    assert found.cells(4) == [
        ["lora.rank=4", "seed=0"],
        ["lora.rank=4", "seed=1"],
        ["lora.rank=8", "seed=0"],
        ["lora.rank=8", "seed=1"],
    ]
    assert found.fixed == ["model=danube_tiny"]


@pytest.mark.parametrize("bounds", [(0.0, 1.0, 0.1), (0.3, 1.0, 0.1), (1, 10, 2), (-1, 1, 0.25), (0.05, 0.2, 0.05)])
def test_a_grid_over_q_uniform_has_the_steps_of_wandb(bounds: tuple[float, float, float], tmp_path: Path) -> None:
    low, high, step = bounds
    found = sheet(tmp_path, {"lora.dropout": {"distribution": "q_uniform", "min": low, "max": high, "q": step}})
    assert [float(cell[0].partition("=")[2]) for cell in found.cells(100)] == np.arange(low, high, step).tolist()


def test_a_grid_is_counted_before_it_is_expanded(tmp_path: Path) -> None:
    axes = {f"a{axis}": {"min": 0, "max": 10**12 - 1} for axis in range(9)}
    with pytest.raises(ConfigError, match=f"the grid has {10**108} trials, more than the 1000 allowed"):
        sheet(tmp_path, axes).cells(1000)
    capped = sheet(tmp_path, axes, run_cap=3)
    assert [cell[-1] for cell in capped.cells(3)] == ["a8=0", "a8=1", "a8=2"]
    with pytest.raises(ConfigError, match="the grid has 3 trials, more than the 2 allowed"):
        capped.cells(2)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([8, 8.0, 16], ["8.0", "16"]),
        ([8.0, 16, 8], ["8", "16"]),
        ([1, True, "1"], ["1", "true", "'1'"]),
        ([0.5], ["0.5"]),
    ],
)
def test_a_whole_number_is_one_value_of_a_grid_with_a_point_or_without(
    values: list[Any], texts: list[str], tmp_path: Path
) -> None:
    assert sheet(tmp_path, {"seed": {"values": values}}).cells(9) == [[f"seed={text}"] for text in texts]


def test_a_grid_of_constants_is_one_trial(tmp_path: Path) -> None:
    assert sheet(tmp_path, {"seed": {"value": 3}}).cells(1) == [[]]


# ------------------------------------------------------------------------------------------------- the sweep's settings


@pytest.mark.parametrize(("method", "sampler"), SAMPLERS.items())
def test_the_method_chooses_the_sampler_and_run_cap_the_number_of_trials(
    method: str, sampler: str, tmp_path: Path
) -> None:
    metric = {"name": "validation/accuracy", "goal": "maximize"}
    sweep, pruner = settings_of(sheet(tmp_path, method=method, metric=metric, run_cap=7))
    assert (sweep.sampler, sweep.trials, sweep.metric, sweep.goal) == (
        Sampler(sampler),
        7,
        "validation/accuracy",
        "maximize",
    )
    assert isinstance(pruner, NoPruner)
    assert settings_of(sheet(tmp_path, method=method, metric={"name": "validation/log_loss"}))[0].trials is None


def test_the_goal_is_to_minimize_unless_said(tmp_path: Path) -> None:
    found = sheet(tmp_path, metric={"name": "validation/log_loss"})
    assert found.settings[:2] == ["sweep.metric=validation/log_loss", "sweep.goal=minimize"]
    assert not any("metric" in setting for setting in sheet(tmp_path).settings)


@pytest.mark.parametrize(
    ("stop", "pruner"),
    [
        ({"min_iter": 3}, WandbHyperband(min_iter=3, strict=True)),
        ({"min_iter": 1, "eta": 2.5, "s": 5, "strict": False}, WandbHyperband(min_iter=1, eta=2.5)),
        ({"max_iter": 20, "s": 2, "strict": True}, WandbHyperband(max_iter=20, s=2, strict=True)),
    ],
)
def test_early_terminate_keeps_every_setting(stop: dict[str, Any], pruner: WandbHyperband, tmp_path: Path) -> None:
    found = sheet(tmp_path, metric={"name": "validation/log_loss"}, early_terminate={"type": "hyperband", **stop})
    assert settings_of(found)[1] == pruner


def test_project_and_entity_go_to_tracking_unless_it_is_off(tmp_path: Path) -> None:
    owner = {"project": "danubes", "entity": "team a"}
    assert sheet(tmp_path, **owner).fixed == ["tracking.project=danubes", "tracking.entity='team a'"]
    off = ["danube-sweep", "tracking=none", "${args_no_hyphens}"]
    assert sheet(tmp_path, command=off, **owner).fixed == ["tracking=none"]


# ------------------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("command", "program"),
    [
        (["danube-sweep", "${args_no_hyphens}"], None),
        ("${env} danube-sweep ${args_no_hyphens}", None),
        (["/usr/bin/env", "/opt/bin/danube-sweep", "${args_no_hyphens}"], "train.py"),
        (["${env}", "${interpreter}", "-m", "danube_sweep", "${args_no_hyphens}"], None),
        (["${env}", "python3.11", "-m", "${program}", "${args_no_hyphens}"], "danube_sweep"),
        (["${env}", "${program}", "${args_no_hyphens}"], "danube-sweep"),
    ],
)
def test_the_program_may_be_named_in_any_way_that_starts_ours(
    command: Any, program: str | None, tmp_path: Path
) -> None:
    found = sheet(tmp_path, command=command, program=program)
    assert found.fixed == []
    assert found.cells(2) == [["seed=0"], ["seed=1"]]


def test_overrides_in_the_command_hold_for_every_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANUBE_SWEEP_DATA", "some/where")
    words = [
        "data=arena",
        "data.path=${envvar:DANUBE_SWEEP_DATA}/train.csv",
        "~tracking",
        "data.max_length=${model.lr}",
    ]
    found = sheet(tmp_path, command=["danube-sweep", *words[:2], "${args_no_hyphens}", *words[2:]])
    assert found.fixed == ["data=arena", "data.path=some/where/train.csv", *words[2:]]


@pytest.mark.parametrize(("macro", "sign"), SIGNS.items())
def test_the_macro_decides_the_sign_of_the_overrides(macro: str, sign: str, tmp_path: Path) -> None:
    parameters = {"seed": {"values": [0]}, "lora.rank": {"value": 4}}
    found = sheet(tmp_path, parameters, command=["danube-sweep", macro])
    assert found.fixed == [f"{sign}lora.rank=4"]
    assert found.cells(1) == [[f"{sign}seed=0"]]


@pytest.mark.parametrize("macro", NO_OVERRIDES)
def test_macros_that_make_no_overrides_are_refused_with_the_one_that_does(macro: str, tmp_path: Path) -> None:
    assert "use ${args_no_hyphens}" in mistake_in(tmp_path, command=["danube-sweep", macro])


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (None, "command is missing"),
        (["danube-sweep"], "must hold one of ${args_no_hyphens}"),
        (["danube-sweep", "${args_no_hyphens}", "${args_append_hydra}"], "got 2"),
        (["${env}", "${interpreter}", "train.py", "${args_no_hyphens}"], "must start danube-sweep"),
        (["${env}"], "must start danube-sweep"),
        (["danube-sweep", "-m", "${args_no_hyphens}"], "-m would start a sweep in every trial"),
        (["danube-sweep", "--multirun", "${args_no_hyphens}"], "--multirun would start"),
        (["danube-sweep", "--cfg", "${args_no_hyphens}"], "--cfg has no meaning"),
        (["danube-sweep", "${args_no_hyphen}"], "${args_no_hyphen} has no meaning"),
        (["danube-sweep", "resume", "${args_no_hyphens}"], "resume is no override"),
        (["danube-sweep", "lora.rank=4,8", "${args_no_hyphens}"], "has several values"),
        (["danube-sweep", "lora.rank=4", "lora.rank=8", "${args_no_hyphens}"], "lora.rank is given twice"),
        (["danube-sweep", "seed=4", "${args_no_hyphens}"], "seed stands in command and in parameters"),
        (["danube-sweep", "name=${envvar:SLURM_X}", "${args_no_hyphens}"], "the environment has no SLURM_X"),
        (["danube-sweep", "name=${envvar:MY_TOKEN}", "${args_no_hyphens}"], "a sweep file may read DANUBE_SWEEP_"),
        (["danube-sweep", "name=${oc.env:MY_TOKEN}", "${args_no_hyphens}"], "all that a received file may ask for"),
        (["danube-sweep", "hydra/job_logging=none", "${args_no_hyphens}"], "belongs to Hydra"),
        (["${program}", "${args_no_hyphens}"], "program is missing"),
        (["danube-sweep", {"data.rows": 5}, "${args_no_hyphens}"], "must be a list of words"),
        ("danube-sweep '", "No closing quotation"),
    ],
)
def test_a_command_that_would_not_run_the_trials_is_refused(command: Any, says: str, tmp_path: Path) -> None:
    assert says in mistake_in(tmp_path, command=command)


# ------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("parameter", "says"),
    [
        (0.1, "optimizer.lr=0.1: a parameter is a mapping; write optimizer.lr: {value: …}"),
        ({}, "a parameter is a mapping"),
        ({"parameters": {}}, "optimizer.lr.parameters={}: must be a mapping"),
        ({"parameters": {"a": {"value": 1}}, "min": 1}, "optimizer.lr.min=1: no such key here"),
        ({"values": []}, "must be a list with at least one value"),
        ({"values": "abc"}, "optimizer.lr.values=abc: must be a list"),
        ({"vaules": [1]}, "did you mean values?"),
        ({"value": 1, "values": [1]}, "optimizer.lr.values=[1]: constant does not take it"),
        ({"values": [1, 2], "probabilities": [1]}, "must be a list with a number for each of the 2 values"),
        ({"values": [1, 2], "probabilities": [0.5, 0.4]}, "must be 0 or more each and 1 in sum, got 0.9"),
        ({"values": [1, 2], "probabilities": [1.5, -0.5]}, "must be 0 or more each and 1 in sum, got 1"),
        ({"values": [1, 2], "probabilities": [0.5, "half"]}, "optimizer.lr.probabilities=half: must be a finite"),
        ({"distribution": "categorical_w_probabilities", "values": [1]}, "optimizer.lr.probabilities is missing"),
        ({"distribution": "categorical", "values": [1], "probabilities": [1]}, "categorical does not take it"),
        ({"min": 1}, "give value, values, min and max, or a distribution"),
        ({"mu": 1}, "give value, values, min and max, or a distribution"),
        ({"min": 2, "max": 1}, "min=2 must be below max=1"),
        ({"min": 2, "max": 2}, "for one value write value: 2"),
        ({"min": "low", "max": 1}, "optimizer.lr.min=low: must be a finite number"),
        ({"min": True, "max": 1}, "optimizer.lr.min=True: must be a finite number"),
        ({"min": 0.0, "max": math.inf}, "optimizer.lr.max=inf: must be a finite number"),
        ({"min": 1, "max": 10**400}, "must be a finite number"),
        ({"min": -1.7e308, "max": 1.7e308}, "more than a number can hold"),
        ({"distribution": "int_uniform", "min": 0.5, "max": 2}, "of int_uniform must be whole"),
        ({"distribution": "uniform", "min": 1.0}, "optimizer.lr.max is missing: uniform takes min, max"),
        ({"distribution": "uniform", "min": 1.0, "max": 2.0, "q": 1}, "uniform does not take it"),
        ({"distribution": "unifrom", "min": 1.0, "max": 2.0}, "did you mean uniform?"),
        ({"distribution": 3, "min": 1.0, "max": 2.0}, "no such distribution"),
        ({"distribution": "log_uniform", "min": 1, "max": 1000}, "use log_uniform_values"),
        ({"distribution": "log_uniform_values", "min": 0, "max": 1}, "needs bounds above 0"),
        ({"distribution": "q_log_uniform_values", "min": 0, "max": 9}, "needs bounds above 0"),
        ({"distribution": "q_uniform", "min": 0, "max": 9, "q": 0}, "optimizer.lr.q=0: must be above 0"),
        ({"distribution": "q_uniform", "min": 0, "max": 9, "q": 1e-300}, "too small"),
        ({"distribution": "q_uniform", "min": 1e18, "max": 2e18, "q": 1}, "too small"),
        ({"distribution": "normal", "sigma": 0}, "optimizer.lr.sigma=0: must be above 0"),
        ({"distribution": "beta", "a": 0}, "optimizer.lr.a=0: must be above 0"),
        ({"distribution": "beta", "a": 1, "q": 1}, "beta does not take it, only a, b"),
        ({"value": {1: 2}}, "its keys must be plain words"),
    ],
)
def test_a_parameter_with_a_mistake_is_one_line_that_names_it(parameter: Any, says: str, tmp_path: Path) -> None:
    message = mistake_in(tmp_path, {"optimizer.lr": parameter, "seed": {"values": [0, 1]}}, method="random")
    assert says in message
    assert "optimizer.lr" in message


@pytest.mark.parametrize("kind", ["uniform", "log_uniform", "normal", "q_normal", "q_log_uniform_values", "beta"])
def test_a_grid_refuses_what_is_continuous_by_name(kind: str, tmp_path: Path) -> None:
    bounds = {"min": 1.0, "max": 2.0} if "min" in TAKES[kind] else {}
    message = mistake_in(tmp_path, {"optimizer.lr": {"distribution": kind, **bounds}})
    assert f"optimizer.lr: a grid cannot hold {kind}" in message


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"imports": []}, "imports=[]: no such key here"),
        ({"metod": "grid"}, "did you mean method?"),
        ({"image_uri": "x"}, "image_uri=x: no such key here"),
        ({"method": None}, "method=None: must be one of grid, random, bayes"),
        ({"method": "custom"}, "method=custom: must be one of"),
        ({"name": 3}, "name=3: must be text"),
        ({"project": ["a"]}, "project=['a']: must be text"),
        ({"run_cap": 0}, "run_cap=0: must be a whole number of at least 1"),
        ({"run_cap": 1.5}, "run_cap=1.5: must be a whole number"),
        ({"method": "bayes"}, "metric is missing: method: bayes needs it"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 1}}, "early_terminate needs it"),
        ({"metric": "validation/log_loss"}, "metric=validation/log_loss: must be a mapping"),
        ({"metric": {"goal": "minimize"}}, "metric.name is missing"),
        ({"metric": {"name": "a", "goal": "minimise"}}, "metric.goal=minimise: must be minimize or maximize"),
        ({"metric": {"name": "a", "target": 0.1}}, "metric.target=0.1: a sweep here does not end at a target"),
        ({"metric": {"name": "a", "gaol": "minimize"}}, "did you mean goal?"),
        ({"method": "random", "parameters": {"seed": {"value": 0}}}, "none of them varies"),
        ({"parameters": {"sweep.slots": {"values": [1]}}}, "a setting of the sweep cannot vary"),
        ({"parameters": {"a b": {"values": [1]}}}, "no name of a parameter"),
        ({"parameters": {True: {"values": [1]}}}, "no name of a parameter"),
        ({"parameters": ["seed"]}, "parameters=['seed']: must be a mapping"),
        (
            {"parameters": {"a.b": {"value": 1}, "a": {"parameters": {"b": {"value": 1}}}}},
            "a.b is given twice",
        ),
    ],
)
def test_a_key_with_a_mistake_is_one_line_that_names_it(keys: dict[str, Any], says: str, tmp_path: Path) -> None:
    assert says in mistake_in(tmp_path, **keys)


@pytest.mark.parametrize(
    ("stop", "says"),
    [
        ({"type": "envelope"}, "early_terminate.type=envelope: must be hyperband"),
        ({"min_iter": 3}, "early_terminate.type=None: must be hyperband"),
        ({"type": "hyperband"}, "give either min_iter, or max_iter and s"),
        ({"type": "hyperband", "min_iter": 1, "max_iter": 9, "s": 1}, "give either min_iter, or max_iter and s"),
        ({"type": "hyperband", "max_iter": 27}, "early_terminate.s is missing"),
        ({"type": "hyperband", "max_iter": 2, "s": 1}, "no trial would ever be stopped"),
        ({"type": "hyperband", "min_iter": 0}, "min_iter=0: must be a whole number of at least 1"),
        ({"type": "hyperband", "min_iter": 1, "eta": 1}, "eta=1: must be above 1"),
        ({"type": "hyperband", "min_iter": 1, "strict": "yes"}, "early_terminate.strict=yes: must be true or false"),
        ({"type": "hyperband", "min_iters": 1}, "did you mean min_iter?"),
    ],
)
def test_early_stopping_that_would_differ_from_wandb_is_refused(
    stop: dict[str, Any], says: str, tmp_path: Path
) -> None:
    assert says in mistake_in(tmp_path, metric={"name": "validation/log_loss"}, early_terminate=stop)


LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("- a\n", "must be a mapping"),
        ("{}", "must be a mapping"),
        ("method: grid\nname: a\nmethod: bayes\n", "line 3: the key method is given twice"),
        (LAUGHS, "line 2: *a is an alias"),
        ("method: !!python/name:os.system x\n", "is a tag; leave it out"),
        ("command: [${env}, danube-sweep]\n", "put ${…} in quotes"),
        ("method: [grid\n", "line 2: "),
        ("? [a]\n: b\n", "a key must be one word"),
        ("a: b\n---\na: b\n", "but found another document"),
        ("[" * 5000, "nested too deeply"),
        ("name: 2024-99-99\n", "mend the YAML"),
        ("name: \x01\n", "mend the YAML"),
        ("x" * 1_000_001, "at most 1000000 bytes"),
        ("method: grid\nparameters: {a: {value: 2024-01-01}}\ncommand: danube-sweep ${args_no_hyphens}", "in quotes"),
    ],
)
def test_yaml_that_cannot_be_a_sheet_is_one_line(text: str, says: str, tmp_path: Path) -> None:
    assert says in mistake(tmp_path, text)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    for place in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(ConfigError, match="no such file"):
            read_sweep_file(place)


# ------------------------------------------------------------------------------------------------- ready files and docs


@pytest.mark.parametrize("file", READY, ids=lambda file: file.stem)
def test_a_ready_file_composes_and_its_settings_hold(file: Path) -> None:
    found = read_sweep_file(file)
    assert found.name == file.stem
    compose([*found.fixed, *a_draw(found)])
    sweep, pruner = settings_of(found)
    assert sweep.metric == "validation/log_loss"
    assert isinstance(pruner, WandbHyperband) == (found.method == "bayes")


@pytest.mark.parametrize("file", READY, ids=lambda file: file.stem)
def test_wandbs_own_agent_would_train_the_same_trial(file: Path) -> None:
    from wandb.apis.public.sweeps import _validate_config_and_fill_distribution
    from wandb.sdk.launch.sweeps import utils

    node = _validate_config_and_fill_distribution(utils.load_sweep_config(str(file)) or {})
    drawn = {
        key: one.get("value", one.get("min", one.get("values", [None])[0])) for key, one in node["parameters"].items()
    }
    passed = utils.create_sweep_command_args({"args": {key: {"value": value} for key, value in drawn.items()}})
    words = []
    for word in utils.create_sweep_command(list(node["command"])):
        words += passed["args_no_hyphens"] if word == "${args_no_hyphens}" else [word]
    assert words[:2] == ["${env}", node["program"]]
    found = read_sweep_file(file)
    assert compose(words[2:]) == compose([*found.fixed, *a_draw(found)])


def test_the_ready_files_cover_every_method() -> None:
    assert {read_sweep_file(file).method for file in READY} == SAMPLERS.keys()


def test_the_tables_of_the_document_name_every_key_and_no_other() -> None:
    rows = [line.split("|")[1] for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    named = {word for row in rows for quoted in re.findall(r"`([^`]+)`", row) for word in quoted.split(": ")}
    parameter = {"distribution", *(key for keys in TAKES.values() for key in keys)}
    macros = {*SIGNS, *NO_OVERRIDES, "${env}", "${interpreter}", "${program}", "${envvar:NAME}"}
    keys = {*KEYS, *METRIC, *EARLY_TERMINATE, *SAMPLERS, *TAKES, *parameter, *macros}
    assert keys <= named
    assert named - keys == {"hyperband", "-m", "--multirun", "target"}


def test_a_parameter_that_is_no_field_is_refused_whatever_sign_the_macro_puts_before_it(tmp_path: Path) -> None:
    for macro in SIGNS:
        file = sheet(tmp_path, {"lora.rnk": {"values": [8, 32]}}, command=["danube-sweep", macro])
        for cell in file.cells(10):
            with pytest.raises(ConfigError, match=r"lora\.rnk: no such field; did you mean lora\.rank\?"):
                compose([*file.fixed, *cell])


@pytest.mark.parametrize(
    ("words", "project"), [([], "mine"), (["tracking=wandb"], "mine"), (["tracking=wandb", "tracking=none"], None)]
)
def test_the_files_project_counts_unless_another_tracker_is_asked_for(
    words: list[str], project: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sheet.yaml"
    text = {"program": "danube-sweep", "method": "grid", "project": "mine", "parameters": {"seed": {"values": [1, 2]}}}
    file.write_text(yaml.safe_dump({**text, "command": ["${env}", "danube-sweep", "${args_no_hyphens}"]}))
    seen: list[list[str]] = []

    def planned(_place: Path, cells: list[list[str]], *_more: Any, **_named: Any) -> None:
        seen.extend(cells)

    monkeypatch.setattr(sweep_file_command, "plan_grid", planned)
    sweep_file_command.run_sweep_file(file, [*words, f"hydra.sweep.dir={tmp_path / 'sweep'}"], quiet()[0])
    assert [one.partition("=")[2] for one in seen[0] if one.startswith("tracking.project=")] == [
        one for one in [project] if one
    ]
