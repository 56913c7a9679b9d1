"""Another tool's name is answered with ours, and our answer, typed back, composes."""

import re
from dataclasses import fields
from enum import Enum
from functools import cache
from typing import Any

import pytest
from conftest import compose

from danube_sweep import paths
from danube_sweep.composer import Composer
from danube_sweep.config.explain import options_of
from danube_sweep.config.facts.other_names import FIELD_NAMES, OPTION_NAMES
from danube_sweep.config.options import OPTIONS, SWEEP_OPTIONS
from danube_sweep.config.schema import Config
from danube_sweep.errors import ConfigError

EXAMPLES = {
    "head.pooling": "mean", "head.label_smoothing": "0.1", "sweep.goal": "minimize", "sweep.trials": "2",
    "sweep.slots": "2",
}  # fmt: skip
"""Values of fields that the default trial lacks, or has another kind of."""


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer()


def refused(composer: Composer, override: str) -> str:
    with pytest.raises(ConfigError) as raised:
        composer.sweep([override])
    assert "\n" not in str(raised.value)
    return str(raised.value)


def every_answer() -> list[str]:
    """The overrides that the table of fields answers with, one each."""
    written = [write for ours in FIELD_NAMES.values() for write in (ours.write, *ours.values.values())]
    return sorted({word for write in written for word in write.split()})


@cache
def default() -> Config:
    return compose()


def options_there(group: str) -> set[str]:
    files = {file.stem for file in (paths.conf_dir() / group).glob("*.yaml")}
    return files | set(options_of(group))


def value_for(key: str) -> str:
    """A value that the field takes: its default."""
    if key in EXAMPLES:
        return EXAMPLES[key]
    value: Any = default()
    for name in key.split("."):
        value = getattr(value, name, "x")
    value = value.name if isinstance(value, Enum) else value
    return "null" if value is None else str(value).replace(" ", "")


@pytest.mark.parametrize(
    ("override", "write"),
    [
        ("lora.r=8", "lora.rank=8"),
        ("lora.lora_alpha=32", "lora.alpha=32"),
        ("lora.lora_dropout=0.1", "lora.dropout=0.1"),
        ("lora.target_modules=[q_proj,v_proj]", "lora.targets=[q_proj,v_proj]"),
        ("lora.target_modules=all-linear", "lora.targets=all_linear"),
        ("lr=3e-4", "optimizer.lr=3e-4"),
        ("learning_rate=3e-4", "optimizer.lr=3e-4"),
        ("optimizer.learning_rate=3e-4", "optimizer.lr=3e-4"),
        ("+trainer.lr=0.1", "optimizer.lr=0.1"),
        ("batch_size=4", "trainer.micro_batch=4 "),
        ("per_device_train_batch_size=4", "trainer.micro_batch=4 "),
        ("gradient_accumulation_steps=4", "trainer.effective_batch=… "),
        ("num_train_epochs=3", "trainer.epochs=3"),
        ("warmup_steps=100", "schedule.warmup=… (a share of all steps"),
        ("max_seq_length=512", "data.max_length=512"),
        ("precision=int4", "precision=nf4;"),
        ("precision=4bit", "precision=nf4;"),
        ("precision=16", "precision=fp16;"),
        ("4bit=true", "precision=nf4"),
        ("load_in_4bit=true", "precision=nf4"),
        ("load_in_8bit=true", "precision=int8"),
        ("bf16=true", "precision=bf16"),
        ("lora=qlora", "precision=nf4 lora=lora;"),
        ("lora=null", "lora=none;"),
        ("head=classification", "head=sequence;"),
        ("wandb.project=mine", "tracking.project=mine"),
        ("report_to=none", "tracking=none"),
        ("rank=8", "lora.rank=8"),
    ],
)
def test_what_people_type_is_answered_in_our_words(composer: Composer, override: str, write: str) -> None:
    line = refused(composer, override)
    assert line.startswith(override.lstrip("+").partition("=")[0])
    assert f"write {write}" in f"{line} "


def test_every_answer_about_a_field_composes_when_it_is_typed(composer: Composer) -> None:
    keys = {word.partition("=")[0] for word in every_answer()} - {*OPTIONS, *SWEEP_OPTIONS, "lora.type"}
    typed = [f"{key}={value_for(key)}" for key in sorted(keys)]
    assert len(typed) > 40
    composer.sweep(["data=table", "data.path=x.csv", "head=sequence", *typed])
    assert all(ours.write or ours.note for ours in FIELD_NAMES.values())


def test_every_answer_that_chooses_an_option_names_one_that_there_is() -> None:
    of_options = [word for names in OPTION_NAMES.values() for ours in names.values() for word in ours.split()]
    answers = every_answer() + of_options
    chosen = {tuple(word.split("=")) for word in answers if word.partition("=")[0] in (*OPTIONS, *SWEEP_OPTIONS)}
    assert len(chosen) > 30
    there = {(group, name) for group, name in chosen if name.partition(":")[0] in {*options_there(group), "{value}"}}
    assert chosen == there


def test_every_answer_about_an_option_composes_when_it_is_typed(composer: Composer) -> None:
    by_group: dict[str, set[str]] = {}
    for names in OPTION_NAMES.values():
        for ours in names.values():
            fields_of = [word for word in ours.split() if "." in word.partition("=")[0]]
            if fields_of:
                by_group.setdefault(ours, set()).update(fields_of)
    for ours in by_group:
        composer.sweep(ours.split())


def test_no_name_of_another_tool_is_one_of_ours(composer: Composer) -> None:
    ours = {field.name for field in fields(Config)} | set(SWEEP_OPTIONS)
    assert not ours & set(FIELD_NAMES)
    for group, names in OPTION_NAMES.items():
        there = re.search(r"there are (.*)", refused(composer, f"{group}=no_such_option"))
        assert there is not None and not set(there[1].split(", ")) & set(names), group


def test_lr_is_never_taken_for_lora(composer: Composer) -> None:
    assert "lora" not in refused(composer, "lr=1e-4")
