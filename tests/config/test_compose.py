"""Overrides in, a validated config out: every option composes, survives its file, and mistakes say the way out."""

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import yaml
from conftest import ROOT, compose
from omegaconf import OmegaConf

from danube_sweep import paths
from danube_sweep.config.options import OPTIONS
from danube_sweep.config.schema import Config, Dora, Init, Pooling, Side
from danube_sweep.config.stored import load_config, plain_config
from danube_sweep.data.kinds.arena import ArenaData
from danube_sweep.data.kinds.table import TableData
from danube_sweep.data.kinds.text import TextData
from danube_sweep.errors import CheckpointError, ConfigError
from danube_sweep.head.kinds.lm import LMHead
from danube_sweep.planner.memory import GIB
from danube_sweep.planner.trial_plan import plan_of

Tiny = Callable[..., Config]

CONF = paths.conf_dir()
NEEDS = {
    "head=lm": ["data=text", "data.path=[a.jsonl]"],
    "head=sequence": [],
    "data=arena": ["data.path=a.csv"],
    "head=ordinal": ["data=table", "data.path=a.csv"],
    "head=regression": ["data=table", "data.path=a.csv"],
    "head=multilabel": ["data=table", "data.path=a.csv"],
    "head=token": ["data=tokens", "data.path=a.jsonl"],
    "data=pairs": ["data.path=a.csv"],
    "data=tokens": ["data.path=a.jsonl", "head=token"],
    "data=table": ["data.path=a.csv", "head=sequence"],
    "data=hub": ["data.path=owner/name", "head=sequence"],
    "data=text": ["data.path=[a.jsonl]", "head=lm"],
    "precision=fp16": ["device.types=[fp32,fp16]"],
    "optimizer=schedulefree": ["schedule=constant"],
    "model=auto": [f"model.path={ROOT / 'tests' / 'kept' / 'files' / 'model'}", "data.max_length=64"],
}
"""What an option cannot be composed without."""

CHOICES = [f"{group}={file.stem}" for group in OPTIONS for file in sorted((CONF / group).glob("*.yaml"))]
EXPERIMENTS = sorted(file.stem for file in (CONF / "experiment").glob("*.yaml"))


def with_needs(choice: str) -> list[str]:
    return [choice, *NEEDS.get(choice, [])]


def test_every_group_of_the_schema_has_a_folder_and_an_option_for_each_of_its_classes() -> None:
    for group, options in OPTIONS.items():
        files = {file.stem for file in (CONF / group).glob("*.yaml")}
        assert files, group
        if len(options) > 1:
            assert files == options.keys()


@pytest.mark.parametrize("choice", CHOICES)
def test_every_option_composes_and_survives_its_file(choice: str, tmp_path: Path) -> None:
    group, _, option = choice.partition("=")
    config = compose(with_needs(choice))
    assert type(getattr(config, group)) is OPTIONS[group].get(option, next(iter(OPTIONS[group].values())))
    file, plain = tmp_path / "config.yaml", plain_config(config)
    file.write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    assert load_config(file) == config
    for value in plain.values():
        if isinstance(value, dict):
            value.pop("kind", None)
    assert plain == OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_survives_its_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DANUBE_SWEEP_DATA", str(tmp_path / "data"))
    path = [] if name in ("banking77", "pretrain_tiny", "embedded") else ["data.path=train.csv"]
    config = compose([f"experiment={name}", *path])
    if name in ("banking77", "pretrain_tiny"):
        assert str(tmp_path / "data") in str(plain_config(config)["data"]["path"])
    file, plain = tmp_path / "config.yaml", plain_config(config)
    file.write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    assert load_config(file) == config
    for value in plain.values():
        if isinstance(value, dict):
            value.pop("kind", None)
    assert plain == OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_comment_of_an_experiment_says_what_memory_to_expect(name: str) -> None:
    comment = " ".join(line.lstrip("# ") for line in (CONF / "experiment" / f"{name}.yaml").read_text().splitlines())
    said = re.search(r"Expected memory: ([\d.]+) GiB( of host memory|.* by danube-sweep plan ([^.]*)\.)", comment)
    assert said is not None
    if said[3] is not None:
        config = compose([*said[3].split(), "data.path=train.csv"])
        assert plan_of(config).fit.memory.total / GIB == pytest.approx(float(said[1]), abs=0.06)


def test_the_embedded_experiment_is_the_default_trial() -> None:
    assert compose(["experiment=embedded"]) == compose()


def test_what_is_given_by_hand_wins_over_an_experiment() -> None:
    config = compose(["experiment=preference_danube3_500m_t4", "data.path=a.csv", "lora.rank=4", "lora=dora"])
    assert isinstance(config.lora, Dora)
    assert config.lora.rank == 4
    assert config.model.path == "h2oai/h2o-danube3-500m-chat"


def test_values_take_the_type_of_their_field() -> None:
    config = compose(
        [
            "head=sequence",
            "head.pooling=attention",
            "data.truncation=middle",
            "model.init=random",
            "trainer.clip_norm=null",
            "lora.targets=[q_proj,v_proj]",
            "lora.alpha=8",
            "optimizer.lr=1e-3",
            "name=null",
        ]
    )
    head = plain_config(config)["head"]
    assert head["pooling"] == "attention"
    assert getattr(config.head, "pooling", None) is Pooling.attention
    assert config.data.truncation is Side.middle
    assert config.model.init is Init.random
    assert config.trainer.clip_norm is None
    assert getattr(config.lora, "targets", None) == ["q_proj", "v_proj"]
    assert config.optimizer.lr == 1e-3
    assert config.name is None


def test_the_model_suggests_the_learning_rate_and_the_override_decides() -> None:
    suggested = compose(["model=danube3_500m"])
    assert suggested.optimizer.lr == suggested.model.lr
    assert compose(["model=danube3_500m", "optimizer.lr=0.5"]).optimizer.lr == 0.5
    assert compose(["model=danube2_1_8b", "model.variant=chat"]).model.path == "h2oai/h2o-danube2-1.8b-chat"


def test_paths_become_absolute_and_hub_names_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "weights").mkdir()
    given = ["data.path=sub/a.csv", "data.validation_path='~/v.csv'", "data.test_path=/t.csv", "model.path=weights"]
    config = compose(["data=arena", *given])
    assert isinstance(config.data, ArenaData)
    assert config.data.path == str(tmp_path / "sub" / "a.csv")
    assert config.data.validation_path == str(tmp_path / "home" / "v.csv")
    assert config.data.test_path == "/t.csv"
    assert config.model.path == str(tmp_path / "weights")
    text = compose(["data=text", "head=lm", "data.path=[a.jsonl,/b.jsonl]", "model.path=some/model"])
    assert isinstance(text.data, TextData) and isinstance(text.head, LMHead)
    assert text.data.path == [str(tmp_path / "a.jsonl"), "/b.jsonl"]
    assert text.model.path == "some/model"


def test_words_that_yaml_would_read_as_booleans_stay_words(tmp_path: Path) -> None:
    config = compose(["data=table", "data.path=a.csv", "head=sequence", "data.classes=['NO','yes','null','1e3']"])
    assert isinstance(config.data, TableData)
    assert config.data.classes == ["NO", "yes", "null", "1e3"]
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(plain_config(config)))
    assert load_config(file) == config


@pytest.mark.parametrize("text", ["", "a: [", "- 1\n- 2\n", "seed: 0\n", "just words"])
def test_a_damaged_config_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.yaml is damaged or from another version") as raised:
        load_config(file)
    assert "\n" not in str(raised.value)


def test_a_config_file_with_an_unknown_field_or_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    for group, field, value in [("lora", "width", 3), ("lora", "kind", "other"), ("optimizer", "lr", "fast")]:
        plain = plain_config(compose())
        plain[group][field] = value
        file.write_text(yaml.safe_dump(plain))
        with pytest.raises(CheckpointError):
            load_config(file)


# ------------------------------------------------------------------------------------------------- mistakes

ARENA = ["data=arena", "data.path=a.csv"]
TABLE = ["data=table", "data.path=a.csv", "head=sequence"]
TEXT = ["data=text", "data.path=[a.jsonl]", "head=lm"]

REFUSED: list[tuple[list[str], str]] = [
    # unknown names
    (["head=foo"], "head=foo: no such option; there are bradley_terry_ties, causal, lm"),
    (["model=danube3_500"], "did you mean model=danube3_500m?"),
    (["experiment=nothing"], "experiment=nothing: no such option; there are arena_human, banking77"),
    (
        ["model=[danube3_500m,danube3_4b]"],
        "model=[danube3_500m,danube3_4b]: it takes the name of one option, not a list",
    ),
    (["+lora=[1,2]"], "lora=[1,2]: it takes the name of one option, not a list"),
    (["experiment=[1]"], "experiment=[1]: it takes the name of one option, not a list"),
    (["model=auto", "model.path=https://huggingface.co/me/m/tree/main"], "give the hub's name: model.path=me/m"),
    (["model=auto", "model.path=hf://me/m"], "give the hub's name: model.path=me/m"),
    (["data=hub", "data.path=https://huggingface.co/datasets/me/d", "head=sequence"], "hub's name: data.path=me/d"),
    (["data=arena", "data.path=s3://b/x.csv"], "data.path=s3://b/x.csv: no URL is read or written here; download it"),
    (["data=text", "data.path=[a,file:///b.txt]", "head=lm"], "give the path alone: data.path=/b.txt"),
    (["lora.rnak=3"], "lora.rnak: no such field; did you mean lora.rank?"),
    (["lroa.rank=3"], "lroa.rank: no such field; did you mean lora?"),
    (["+extra=1"], "extra: no such field"),
    (["lora=none", "lora.rank=3"], "lora.rank: no such field; the chosen lora has none"),
    # wrong types
    (["lora.rank=many"], "lora.rank must be a whole number, got many"),
    (["lora.rank=1.5"], "lora.rank must be a whole number, got 1.5"),
    (
        ["head.pooling=middle"],
        "head.pooling: invalid value 'middle', expected one of [last, mean, attention, last_mean, pair]",
    ),
    (["optimizer.lr=null"], "optimizer.lr"),
    (["data.path=3", "data=generated"], "data.path"),
    (["trainer.score_test=maybe"], "trainer.score_test: value 'maybe'"),
    # not an override at all
    (["data.path=~/a.csv"], """quote a value that contains special characters: 'data.path="~/a.csv"'"""),
    (
        ["data.tie_labels=[tie,tie (both)]"],
        """quote a value that contains special characters: 'data.tie_labels=[tie,"tie (both)"]'""",
    ),
    (["nonsense"], "nonsense: not an override; write GROUP=OPTION or FIELD=VALUE"),
    # required, interpolated
    (["data=arena"], "data.path is required: give data.path=…"),
    (["name=${nowhere}"], "name"),
    # out of range
    (["seed=-1"], "seed must be at least 0 and under 2**32, got -1"),
    (["seed=4294967296"], "seed must be at least 0 and under 2**32"),
    (["model.init_seed=-1"], "model.init_seed must be at least 0"),
    (["data.seed=-1"], "data.seed must be at least 0"),
    (["data.order_seed=-1"], "data.order_seed must be at least 0"),
    (["data.split_seed=-1"], "data.split_seed must be at least 0"),
    (["optimizer.lr=inf"], "optimizer.lr must be a finite number, got inf"),
    (["optimizer.lr=nan"], "optimizer.lr must be a finite number, got nan"),
    (["trainer.epochs=inf"], "trainer.epochs must be a finite number"),
    (["trainer.clip_norm=nan"], "trainer.clip_norm must be a finite number"),
    (["model.variant=tuned"], "model.variant=tuned: there is base"),
    (["model.init=pretrained"], "model.init=pretrained needs weights"),
    (["model.shape.model_type=gpt2"], "model.shape.model_type must be one of llama, mistral"),
    (["model.shape.hidden_size=0"], "model.shape.hidden_size must be at least 1, got 0"),
    (["model.shape.intermediate_size=0"], "model.shape.intermediate_size must be at least 1"),
    (["model.shape.num_hidden_layers=0"], "model.shape.num_hidden_layers must be at least 1"),
    (["model.shape.num_attention_heads=0"], "model.shape.num_attention_heads must be at least 1"),
    (["model.shape.num_key_value_heads=3"], "model.shape.num_key_value_heads must divide num_attention_heads=4, got 3"),
    (["model.shape.num_key_value_heads=0"], "model.shape.num_key_value_heads must divide"),
    (["model.shape.head_dim=31"], "model.shape.head_dim must be even and at least 2, got 31"),
    (["model.shape.vocab_size=100"], "model.shape.vocab_size must be at least 259"),
    (["model.shape.rope_theta=0"], "model.shape.rope_theta must be above 0, got 0"),
    (["model.shape.sliding_window=0"], "model.shape.sliding_window must be at least 1, got 0"),
    (["lora.rank=0"], "lora.rank must be at least 1, got 0; for no adapter use lora=none"),
    (["lora.alpha=0"], "lora.alpha must be above 0"),
    (["lora.dropout=1"], "lora.dropout must be at least 0 and under 1"),
    (["lora.dropout=-0.1"], "lora.dropout must be at least 0"),
    (["lora.last_k=0"], "lora.last_k must be at least 1"),
    (["lora.targets=everything"], "lora.targets=everything: no such set"),
    (["lora.targets=[]"], "lora.targets must be one of"),
    (["lora.targets=[1]"], "lora.targets must be one of"),
    (["head.lr=0"], "head.lr must be above 0"),
    (["head.label_smoothing=1"], "head.label_smoothing must be at least 0 and under 1"),
    (["head.dropout=1"], "head.dropout must be at least 0 and under 1"),
    (["head.hidden=0"], "head.hidden must be at least 1, got 0; null for no hidden layer"),
    (["head=regression"], "head=regression, head=ordinal and head=multilabel read one text and its label"),
    (["head=multilabel", "data=pairs", "data.path=a.csv"], "read one text and its label; use data=table"),
    (["head=token"], "head=token needs data=tokens"),
    (["data=tokens", "data.path=a.jsonl"], "data=tokens has a label for every word; use head=token"),
    (["head=bradley_terry_ties", "data=table", "data.path=a.csv"], "compare two answers; use data=arena, data=pairs"),
    (["head=bradley_terry_ties", "head.ties=often"], "head.ties: invalid value 'often', expected one of [davidson"),
    (["head=regression", "data=table", "data.path=a.csv", "head.loss=l0"], "head.loss: invalid value 'l0'"),
    (
        ["head=regression", "data=table", "data.path=a.csv", "data.classes=[a,b]"],
        "data.classes: head=regression predicts a number, so there are no classes",
    ),
    (
        ["head=token", "data=tokens", "data.path=a.jsonl", "data.overlap=-1"],
        "data.overlap must be at least 0 and under",
    ),
    (
        ["head=token", "data=tokens", "data.path=a.jsonl", "data.overlap=64", "data.max_length=64"],
        "data.overlap must be at least 0 and under data.max_length=64, got 64",
    ),
    (
        ["head=token", "data=tokens", "data.path=a", "data.classes=[O]"],
        "data.classes needs at least two different names",
    ),
    (
        ["data=pairs", "data.path=a.csv", "data.tie_labels=[tie,model_a]"],
        "data.a_label, data.b_label and data.tie_labels must all differ, got model_a, model_b, tie, model_a",
    ),
    (
        ["trainer.best_by=qwk"],
        "trainer.best_by=qwk: this head does not report that metric; it reports log_loss, accuracy",
    ),
    (["head=causal", "head.words=[a,b]"], "head.words needs 3 words"),
    (["optimizer.lr=0"], "optimizer.lr must be above 0"),
    (["optimizer.weight_decay=-1"], "optimizer.weight_decay must be at least 0"),
    (["optimizer.beta1=1"], "optimizer.beta1 must be at least 0 and under 1"),
    (["optimizer.beta2=-1"], "optimizer.beta2 must be at least 0 and under 1"),
    (["optimizer.eps=0"], "optimizer.eps must be above 0"),
    (["schedule.warmup=1"], "schedule.warmup must be at least 0 and under 1"),
    (["schedule.warmup=-1"], "schedule.warmup must be at least 0"),
    (["data.max_length=8"], "data.max_length must be at least 16 tokens"),
    (["data.max_rows=1"], "data.max_rows must be at least 2"),
    (["data.validation_fraction=1"], "data.validation_fraction must be at least 0 and under 1"),
    (["data.test_fraction=-1"], "data.test_fraction must be at least 0"),
    (
        ["data.validation_fraction=0.5", "data.test_fraction=0.5"],
        "must be under 1, got 1: no rows would be left for training",
    ),
    (["data.rows=5"], "data.rows must be at least 10"),
    (["data.noise=1"], "data.noise must be at least 0 and under 1"),
    ([*TABLE, "data.classes=[a]"], "data.classes needs at least two"),
    ([*TABLE, "data.classes=[a,a]"], "data.classes needs at least two"),
    ([*TABLE, "data.soft_label_columns=[a]"], "data.soft_label_columns needs at least two columns"),
    (["data=text", "data.path=[]", "head=lm"], "data.path needs at least one file"),
    ([*TEXT, "data.test_fraction=0.1"], "data=text has no test part"),
    (["trainer.epochs=0"], "trainer.epochs must be above 0"),
    (["trainer.max_steps=0"], "trainer.max_steps must be at least 1"),
    (["trainer.benchmark=[a]", "trainer.benchmark_limit=0"], "trainer.benchmark_limit must be at least 1, got 0"),
    (["trainer.stop_after=0"], "trainer.stop_after must be at least 1"),
    (["trainer.micro_batch=0"], "trainer.micro_batch must be at least 1"),
    (["trainer.effective_batch=12"], "trainer.effective_batch must be a multiple of trainer.micro_batch=8, got 12"),
    (["trainer.eval_batch=0"], "trainer.eval_batch must be at least 1"),
    (["trainer.validate_every=0"], "trainer.validate_every must be at least 1"),
    (["trainer.patience=0"], "trainer.patience must be at least 1"),
    (["trainer.log_every=0"], "trainer.log_every must be at least 1"),
    (["trainer.clip_norm=0"], "trainer.clip_norm must be above 0"),
    (["trainer.score_test=true"], "trainer.score_test=true needs a test part"),
    (["device.accelerator=tpu"], "device.accelerator must be auto, cpu, cuda or mps"),
    (["optimizer=schedulefree"], "schedule=cosine: optimizer=schedulefree averages its steps instead of lowering"),
    (["optimizer=schedulefree", "schedule=constant", "optimizer.beta1=0"], "must be above 0, got 0.0"),
    (["device.types=[fp8]"], "device.types must be among bf16, fp16, fp32"),
    (["device.threads=0"], "device.threads must be at least 1"),
    (["lora.layers=[]"], "lora.layers must list block numbers from 0 and ranges, for example [0,1,20-23], got []"),
    (["lora.layers=[0,-1]"], "and ranges, for example [0,1,20-23], got [0,-1]; for no adapter use lora=none"),
    (["lora.layers=[3-1]"], "and ranges, for example [0,1,20-23], got [3-1]"),
    (["lora.layers=[first]"], "and ranges, for example [0,1,20-23], got [first]"),
    (["lora.layers=0-3"], "lora.layers takes a list: write lora.layers=[…]"),
    (["lora.layers=${seed}"], "lora.layers takes a list: write lora.layers=[…]"),
    (["lora.layers=[2-4]"], "lora.layers must be under 4, the model's number of blocks, got [2, 3, 4]"),
    (["lora.last_k=5"], "lora.last_k must be at most 4, the model's number of blocks, got 5"),
    (["data.cache_prefix=true"], "data.cache_prefix=true keeps what comes out of the blocks below the first that"),
    (["data.cache_prefix=true", "lora.last_k=4"], "and there is none: use lora=none, lora.last_k or lora.layers above"),
    (["data.cache_prefix=true", "lora=full"], "with lora=full all train: use lora.last_k or give false"),
    (["lora.layers=[1]", "lora.last_k=1"], "lora.layers=[1] and lora.last_k=1 both choose blocks; give one"),
    (["lora=adalora", "lora.target_rank=12"], "lora.target_rank must be at least 1 and under lora.rank=12, got 12"),
    (["lora=adalora", "lora.delta_t=0"], "lora.delta_t must be at least 1, got 0"),
    (["lora=adalora", "lora.warmup=-0.1"], "lora.warmup must be at least 0 and under 1, got -0.1"),
    (
        ["lora=adalora", "lora.final=1"],
        "lora.final must be at least 0 and under 1, got 1.0: it is a share of all steps",
    ),
    (["lora=adalora", "lora.warmup=0.5", "lora.final=0.5"], "lora.warmup + lora.final must be under 1, got 1"),
    (["lora=adalora", "lora.orthogonality=-1"], "lora.orthogonality must be at least 0, got -1"),
    (["lora=adalora", "lora.beta1=0"], "lora.beta1 must be above 0 and under 1, got 0"),
    (["lora=adalora", "lora.beta2=1"], "lora.beta2 must be above 0 and under 1, got 1"),
    (["lora=vera", "lora.d_initial=0"], "lora.d_initial must not be 0 (nothing would train)"),
    (
        ["data.folds=1", "data.fold=0"],
        "data.folds must be at least 2, got 1; for one split use data.validation_fraction",
    ),
    (
        ["data=tokens", "data.path=a", "head=token", "data.folds=3", "data.fold=0", "data.stratified=true"],
        "data.stratified=true spreads the classes of rows, and those of data=text and data=tokens have none",
    ),
    (["data.folds=3", "data.fold=3"], "data.fold must be from 0 to 2 with data.folds=3, got 3"),
    (["lora.plus_ratio=0"], "lora.plus_ratio must be above 0, got 0"),
    (["optimizer=sgd", "optimizer.momentum=1"], "optimizer.momentum must be at least 0 and under 1, got 1"),
    (
        ["optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=true"],
        "optimizer.nesterov=true needs optimizer.momentum above 0",
    ),
    (["optimizer=adafactor", "optimizer.clip=0"], "optimizer.clip must be above 0, got 0"),
    (["optimizer=ademamix_8bit", "optimizer.beta3=1"], "optimizer.beta3 must be at least 0 and under 1, got 1"),
    (["optimizer=ademamix_8bit", "optimizer.slow=-1"], "optimizer.slow must be above 0, got -1"),
    (["optimizer=lion_8bit", "optimizer.beta2=2"], "optimizer.beta2 must be at least 0 and under 1, got 2"),
    (["schedule=wsd", "schedule.decay=0"], "schedule.decay must be above 0"),
    (["schedule=wsd", "schedule.decay=0.9", "schedule.warmup=0.2"], "at most 1 together with schedule.warmup"),
    (["device.bandwidth_gb_s=0"], "device.bandwidth_gb_s must be above 0, got 0"),
    (["device.link_gb_s=0"], "device.link_gb_s must be above 0, got 0"),
    (["device.tflops_fp32=-1"], "device.tflops_fp32 must be above 0, got -1"),
    (["device.tflops_16bit=0"], "device.tflops_16bit must be above 0, got 0"),
    (["device.dequantised_g_s=0"], "device.dequantised_g_s must be above 0, got 0"),
    (["device.launch_us=0"], "device.launch_us must be above 0, got 0"),
    (["device.context_gib=0"], "device.context_gib must be above 0, got 0"),
    (["device.efficiency=0"], "device.efficiency must be above 0 and at most 1, got 0"),
    (["device.attention_efficiency=2"], "device.attention_efficiency must be above 0 and at most 1, got 2"),
    (["device.index=-1"], "device.index must be at least 0, got -1"),
    (["device.gpus=0"], "device.gpus must be at least 1, got 0"),
    (["device.memory_gib=0"], "device.memory_gib must be above 0, got 0"),
    (["device.memory_limit_gib=-2"], "device.memory_limit_gib must be above 0, got -2"),
    (["tracking.mode=sometimes"], "tracking.mode must be one of"),
    (["tracking.timeout_s=0"], "tracking.timeout_s must be above 0"),
    # impossible combinations
    ([*TABLE, "data.extra_weight=0"], "data.extra_weight must be above 0, got 0"),
    ([*TABLE, "data.extra_temperature=-1"], "data.extra_temperature must be above 0, got -1"),
    ([*TABLE, "head=preference"], "head=preference and head=bradley_terry_ties compare two answers"),
    (["head=lm", "data=text", "data.path=[a.jsonl]", "head.chunk=0"], "head.chunk must be at least 1, got 0"),
    (["head=lm"], "head=lm needs data=text"),
    (["data=text", "data.path=[a.jsonl]"], "data=text has no labels; use head=lm"),
    (["data=text", "data.path=[a.jsonl]", "head=sequence"], "data=text has no labels; use head=lm"),
    (["head=causal", "lora=none"], "lora=none leaves nothing to train"),
    (["lora=full", "precision=nf4"], "lora=full cannot train weights stored in nf4"),
    (
        ["lora=full", "precision.storage=fp16", "precision.compute=fp16"],
        "lora=full cannot train weights stored in fp16",
    ),
    (["lora=dora", "precision=int8", "device=cpu"], "lora=dora does not work over int8 on a CPU"),
    (["precision.double_quant=true"], "precision.double_quant needs 4-bit storage"),
    (["precision.storage=bf16"], "precision.storage=bf16 computes in bf16"),
    (["device=kaggle_t4", "precision=bf16"], "does not support bf16; use precision=fp16"),
]


@pytest.mark.parametrize(("overrides", "said"), REFUSED, ids=[" ".join(overrides) for overrides, _ in REFUSED])
def test_a_mistake_is_refused_in_one_line_that_says_the_way_out(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        compose(overrides)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_table_of_mistakes_covers_every_number_of_the_schema() -> None:
    """A new number in any option needs a bound, and a line above."""
    free = {"model.lr"}
    tried = {override.partition("=")[0] for overrides, _ in REFUSED for override in overrides}
    numbers = {
        f"{group}.{field.name}"
        for group, options in OPTIONS.items()
        for schema in options.values()
        for field in fields(schema)
        if {int, float} & {hint := get_type_hints(schema)[field.name], *get_args(hint)}
    }
    assert numbers - free <= tried


@pytest.mark.parametrize(
    ("model", "base", "chat", "marker"),
    [
        ("danube3_500m", "h2oai/h2o-danube3-500m-base", "h2oai/h2o-danube3-500m-chat", "<|prompt|>"),
        ("danube_1_8b", "h2oai/h2o-danube-1.8b-base", "h2oai/h2o-danube-1.8b-chat", "<|prompt|>"),
        ("gemma_7b", "google/gemma-7b", "google/gemma-7b-it", "<start_of_turn>user\n"),
        ("gemma2_9b", "google/gemma-2-9b", "google/gemma-2-9b-it", "<start_of_turn>user\n"),
        ("qwen2_0_5b", "Qwen/Qwen2-0.5B", "Qwen/Qwen2-0.5B-Instruct", "<|im_start|>user\n"),
        ("qwen2_5_1_5b", "Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-1.5B-Instruct", "<|im_start|>user\n"),
        ("smollm2_135m", "HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M-Instruct", "<|im_start|>user\n"),
        (
            "llama3_2_1b",
            "meta-llama/Llama-3.2-1B",
            "meta-llama/Llama-3.2-1B-Instruct",
            "<|start_header_id|>user<|end_header_id|>\n\n",
        ),
    ],
)
def test_a_variant_names_its_weights_and_its_format(model: str, base: str, chat: str, marker: str) -> None:
    assert compose([f"model={model}", "model.variant=base"]).model.path == base
    found = compose([f"model={model}", "model.variant=chat"]).model
    assert (found.path, found.chat.user) == (chat, marker)
