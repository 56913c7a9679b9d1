"""Many trials composed fast are the trials that one command each would compose; a sweep's settings survive the disk."""

import json
from pathlib import Path
from typing import Any

import pytest
from covering import one_in
from omegaconf import DictConfig

from danube_sweep.composer import Composer, _load, compose
from danube_sweep.config.schema import Asha, Config, Hyperband, Median, NoPruner, OnOom, Patient, Pruner, Sampler, Sweep
from danube_sweep.config.stored import load_sweep, plain_sweep
from danube_sweep.errors import CheckpointError, ConfigError, UserError


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer()


def told(composed: Any, overrides: list[str]) -> Config | str:
    try:
        found: Config = composed(overrides)
        return found
    except UserError as error:
        return f"{type(error).__name__}: {error}"


COMMANDS = [
    "",
    "lora=none",
    "head=sequence lora.rank=4 seed=3",
    "lora.rank=4 lora.rank=8",
    "lora=dora lora=none",
    # the option is composed first, wherever it stands
    "optimizer.lr=1e-3 optimizer=adamw_8bit",
    "model.shape.hidden_size=64 model=danube3_500m",
    "seed=3 experiment=pretrain_tiny data.path=a.txt",
    "experiment=embedded lora.rank=3",
    # a group as a value
    "lora={rank:5}",
    "lora.rank=2 lora={rank:5}",
    "lora={rank:5} lora.rank=2",
    "model.shape={hidden_size:64,intermediate_size:128}",
    # signs, in their order
    "++lora.rank=3",
    "lora.rank=4 ++lora.rank=8",
    "++lora.rank=8 lora.rank=4",
    "+lora.last_k=2",
    "~model.path",
    "seed=1 ~seed=1",
    # words
    "name='a,_b'",
    'name="it\'s"',
    "name=a\\,b",
    "name=",
    "name=null",
    "name='${seed}'",
    "name=${model.variant}",
    "seed='3'",
    "lora.rank=3.0",
    "trainer.max_steps=1e3",
    "lora.targets=[q_proj,'v_proj']",
    "head=causal head.words=[A,B,tie]",
    "head.words=[A,B,tie] head=causal",
    "data=table data.path=t.csv head=sequence data.classes=['NO',yes,'1e3']",
    # settings that are not the trial's
    "sweep.trials=3 pruner=asha pruner.reduction=4",
    "pruner.reduction=4 pruner=asha",
    "hydra.job.name=mine",
    # mistakes
    "head=foo",
    "nogroup=3",
    "nogroup.x=3",
    "lora.rnak=3",
    "lora.rank=many",
    "lora.rank=0",
    "lora.rank.x=3",
    "++lora.foo=3",
    "+lora.foo=3",
    "+lora.rank=3",
    "~lora.rank",
    "~seed=1",
    "~lora",
    "lora=3",
    "lora=null",
    "lora@here=dora",
    "nonsense",
    "lora",
    "a=b=c",
    "data.path=~/x",
    "name=ü",
    "seed=1,2",
    "seed=${nowhere}",
    "name=${oc.env:NO_SUCH_VARIABLE}",
    "data=arena",
    "tracking=none tracking.project=x",
    "pruner.reduction=4",
    "++experiment=embedded",
    "hydra/launcher=nope",
    "_target_=x",
]


@pytest.mark.parametrize("command", one_in(3, COMMANDS))
def test_a_cell_is_the_trial_of_its_own_command(composer: Composer, command: str) -> None:
    overrides = command.split()
    found = told(composer.trial, overrides)
    assert found == told(compose, overrides)
    assert isinstance(found, Config) or (found.startswith("ConfigError: ") and "\n" not in found)


def test_a_cell_leaves_nothing_behind_in_the_next_one(composer: Composer) -> None:
    before = composer.trial(["lora.targets=[q_proj]"])
    composer.trial(["lora.targets=[v_proj]", "lora.rank=4", "++seed=7"])
    changed = composer.trial(["lora.targets=[q_proj]"])
    changed.seed = 9
    assert composer.trial(["lora.targets=[q_proj]"]) == before


def test_hydra_composes_each_option_once_and_no_combination_of_known_ones() -> None:
    composed: list[list[str]] = []

    def load(words: list[str]) -> DictConfig:
        composed.append(words)
        return _load(words, None)

    composer = Composer(load)
    heads, adapters = ("preference", "sequence", "bradley_terry_ties"), ("lora", "dora", "ia3")
    others = ([], ["optimizer=sgd"], ["schedule=constant", "seed=4"])
    cells = [  # each pair of options once
        [f"head={head}", f"lora={adapter}", *others[(one + other) % 3]]
        for one, head in enumerate(heads)
        for other, adapter in enumerate(adapters)
    ]
    for cell in cells:
        assert composer.trial(cell) == compose(cell), cell
    assert len(composed) == 1 + 2 + 2  # the others came along with a new adapter


def test_the_options_of_another_directory_stand_beside_the_packaged_ones(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nlora:\n  rank: 5\n")
    own = Composer(config_dir=tmp_path)
    assert own.trial(["experiment=mine"]) == compose(["lora.rank=5"])
    assert own.trial(["experiment=mine", "head=sequence"]) == compose(["lora.rank=5", "head=sequence"])
    with pytest.raises(ConfigError, match="experiment=mine: no such option"):
        Composer().trial(["experiment=mine"])


def test_a_cell_states_the_settings_of_its_sweep(composer: Composer) -> None:
    given = ["pruner=median", "pruner.startup_trials=2", "sweep.trials=null", "sweep.retry=[failed,oom]"]
    sweep, pruner = composer.sweep([*given, "sweep.metric=validation/accuracy", "sweep.goal=maximize", "seed=3"])
    assert sweep == Sweep("validation/accuracy", "maximize", trials=None, retry=["failed", "oom"])
    assert pruner == Median(startup_trials=2)
    with pytest.raises(ConfigError, match=r"sweep\.slots must be at least 1, got 0"):
        composer.sweep(["sweep.slots=0"])
    with pytest.raises(ConfigError, match="pruner=nope: no such option; did you mean pruner=none"):
        composer.sweep(["pruner=nope"])


# --------------------------------------------------------------------------------------- settings on the disk

PRUNERS = [NoPruner(), Asha(0.2, 4, 3), Hyperband(0.1, 9, 2), Hyperband(), Median(0.3, 1), Patient(2, 0.01)]


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: str(pruner))
def test_settings_survive_the_disk(pruner: Pruner) -> None:
    sweep = Sweep(trials=None, sampler=Sampler.qmc, retry=["oom"], slots=3, deadline_h=0.5, on_oom=OnOom.retry)
    stored = json.loads(json.dumps(plain_sweep(sweep, pruner)))
    assert load_sweep(stored) == (sweep, pruner)


def test_several_objectives_survive_the_disk() -> None:
    sweep = Sweep(metric=["validation/log_loss", "predicted/peak_memory_bytes"], goal=["minimize", "minimize"])
    stored = json.loads(json.dumps(plain_sweep(sweep, NoPruner())))
    loaded, _ = load_sweep(stored)
    assert loaded == sweep and type(loaded.metric) is list


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ("sweep.slots=2", "slots", 2),
        ("sweep.slots=null", "slots", None),
        ("sweep.retry=[failed,oom]", "retry", ["failed", "oom"]),
        ("sweep.deadline_h=1e-3", "deadline_h", 0.001),
        ("sweep.sampler=gp", "sampler", Sampler.gp),
        ("sweep.skip_invalid=true", "skip_invalid", True),
        (
            "sweep.metric=[validation/log_loss,validation/accuracy]",
            "metric",
            ["validation/log_loss", "validation/accuracy"],
        ),
    ],
)
def test_a_sweep_goes_on_with_changed_settings(change: str, field: str, value: Any) -> None:
    sweep, _ = load_sweep(plain_sweep(Sweep(slots=4), NoPruner()), [change])
    assert getattr(sweep, field) == value
    setattr(sweep, field, getattr(Sweep(slots=4), field))
    assert sweep == Sweep(slots=4)


def test_the_last_of_two_changes_counts_and_the_pruner_can_be_tuned() -> None:
    stored = plain_sweep(Sweep(), Asha())
    sweep, pruner = load_sweep(stored, ["sweep.slots=2", "sweep.slots=3", "pruner.reduction=4"])
    assert sweep.slots == 3 and pruner == Asha(reduction=4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("sweep.nope=3", "sweep.nope: no such field; it has metric, goal, trials"),
        ("sweep.slot=3", "did you mean sweep.slots?"),
        ("sweep.slots=0", "sweep.slots must be at least 1, got 0"),
        ("sweep.slots=x", "sweep.slots must be a whole number, got x"),
        ("sweep.sampler=banana", "sweep.sampler: invalid value 'banana', expected one of [tpe, random"),
        ("sweep.retry=[nonsense]", "sweep.retry=nonsense: this state cannot be run again; there are failed, oom"),
        ("sweep.retry=[failed", "sweep.retry=[failed: not YAML; write sweep.FIELD=VALUE"),
        ("sweep.retry=failed", "sweep.retry takes a list: write sweep.retry=[…]"),
        ("sweep.retry=null", "sweep.retry: "),
        ("sweep.goal=best", "sweep.goal must be minimize or maximize, got best"),
        ("pruner.nope=1", "pruner.nope: no such field; it has rung_share, min_validations, reduction"),
        ("pruner.reduction=1", "pruner.reduction must be at least 2, got 1"),
        *((word, f"{word}: not a setting of a sweep; write sweep.FIELD=VALUE") for word in
          ("sweep.slots", "sweep", "sweep=3", "pruner=none", "lora.rank=4", "=3", "")),
    ],
)  # fmt: skip
def test_a_change_that_does_not_fit_is_one_line(change: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_sweep(plain_sweep(Sweep(), Asha()), [change])
    assert said in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        [],
        {},
        {"sweep": {}},
        {"sweep": {}, "pruner": {}},
        {"sweep": {}, "pruner": "asha"},
        {"sweep": {}, "pruner": {"kind": "nope"}},
        {"sweep": {}, "pruner": {"kind": ["asha"]}},
        {"sweep": {}, "pruner": {"kind": "asha", "eta": 3}},
        {"sweep": None, "pruner": {"kind": "none"}},
        {"sweep": {"x": 1}, "pruner": {"kind": "none"}},
        {"sweep": {"trials": "x"}, "pruner": {"kind": "none"}},
    ],
    ids=str,
)
def test_settings_that_this_version_did_not_write_are_refused_in_one_line(stored: Any) -> None:
    with pytest.raises(CheckpointError, match=r"sweep\.json is damaged or from another version") as raised:
        load_sweep(stored)
    assert "\n" not in str(raised.value)
