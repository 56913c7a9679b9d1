"""No field gets in that no dataclass declares, whatever sign and whatever file it comes with."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from danube_sweep.composer import Composer, compose
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Config, Peft
from danube_sweep.config.stored import load_config, plain_config
from danube_sweep.errors import CheckpointError, ConfigError

UNKNOWN = [
    ("+lora.rnk=32", "lora.rnk: no such field; did you mean lora.rank?"),
    ("++lora.rnk=32", "lora.rnk: no such field; did you mean lora.rank?"),
    ("+lora={rnk:32}", "lora.rnk: no such field; did you mean lora.rank?"),
    ("++trainer.devices=2", "trainer.devices: no such field; write device.count=2 (GPUs that train each trial"),
    ("+trainer.strategy=ddp", "trainer.strategy: no such field; write device.count=… (GPUs that train each trial"),
    ("+accelerator=gpu", "accelerator: no such field; write device.accelerator=cuda (device.count=N for several GPUs)"),
    ("+trainer.fsdp=full", "trainer.fsdp: no such field; write device.count=N device.sharding=full"),
    ("+foo.bar=1", "foo.bar: no such field; it has seed, name, model"),
    ("+foo=1", "foo: no such field; it has seed, name, model"),
    ("+foo={a:1,b:2}", "foo: no such field; it has seed, name, model"),
    ("+model.shape.hidden=8", "model.shape.hidden: no such field; did you mean model.shape.hidden_size?"),
    ("++model.chat.system=x", "model.chat.system: no such field; it has user, end, answer"),
    ("+sweep.slot=2", "sweep.slot: no such field; did you mean sweep.slots?"),
    ("++pruner.reduction=2", "pruner.reduction: no such field"),
    ("+lora@other=dora", "other: no such field"),
    ("+wandb=grid", "wandb: no such field; write tracking=wandb"),
]


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer()


@pytest.mark.parametrize(("override", "said"), UNKNOWN, ids=[override for override, _ in UNKNOWN])
def test_an_unknown_field_is_refused_as_a_trial_and_as_a_cell(composer: Composer, override: str, said: str) -> None:
    doors: list[Callable[[list[str]], Config]] = [compose, composer.trial]
    for door in doors:
        with pytest.raises(ConfigError) as raised:
            door([override])
        assert str(raised.value).startswith(said) and "\n" not in str(raised.value)


def test_a_sweep_refuses_an_unknown_setting_before_it_has_a_trial(composer: Composer) -> None:
    for override in ("+sweep.slot=2", "++pruner.foo=1", "+lora.rnk=3"):
        with pytest.raises(ConfigError, match="no such field"):
            composer.sweep([override])


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("++lora.rank=4", "lora.rank=4"),
        ("++lora={rank:4}", "lora.rank=4"),
        ("+experiment=embedded", "experiment=embedded"),
        ("++experiment=embedded", "experiment=embedded"),
        ("+lora=dora", "lora=dora"),
        ("++lora=dora", "lora=dora"),
    ],
)
def test_a_sign_before_what_exists_changes_nothing(composer: Composer, override: str, same: str) -> None:
    assert compose([override]) == composer.trial([override]) == compose([same])
    assert trial_hash(compose([override])) == trial_hash(compose([same]))


def test_pefts_own_fields_stay_free() -> None:
    for words in (["lora=peft", "+lora.fields.r=4"], ["lora=peft", "lora.fields={r:4}"]):
        adapter = compose(words).lora
        assert isinstance(adapter, Peft) and adapter.fields == {"r": 4}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# @package _global_\nlora:\n  rnk: 5\n", "lora.rnk: no such field; did you mean lora.rank?"),
        ("# @package _global_\nfoo:\n  bar: 5\n", "foo: no such field"),
        ("# @package _global_\nlr: 5\n", "lr: no such field; write optimizer.lr="),
        ("lora:\n  rank: 5\n", "experiment: no such field"),
    ],
    ids=["a typo", "a section", "another tool's name", "no package"],
)
def test_a_file_of_the_users_own_lets_no_unknown_field_in(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        Composer(config_dir=tmp_path).trial(["experiment=mine"])
    assert str(raised.value).startswith(said) and "\n" not in str(raised.value)


@pytest.mark.parametrize("place", [(), ("lora",), ("trainer",), ("model", "shape")], ids=str)
def test_a_received_config_file_with_an_unknown_field_is_refused(tmp_path: Path, place: tuple[str, ...]) -> None:
    plain = plain_config(compose())
    node = plain
    for name in place:
        node = node[name]
    node["devices"] = 2
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain))
    with pytest.raises(CheckpointError, match="devices"):
        load_config(tmp_path / "config.yaml")
