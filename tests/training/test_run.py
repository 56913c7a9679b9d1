"""A run from config to result: what it leaves behind can be recomputed, reloaded and trusted."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import warm
from conftest import ROOT
from covering import covering
from filelock import FileLock
from pyarrow import parquet
from runs import CPU, metrics, train
from sklearn.metrics import accuracy_score, f1_score, log_loss
from workbench import evaluate, train_pack

from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Config, Target
from danube_sweep.errors import CheckpointError, ConfigError, Diverged
from danube_sweep.inference.predict import Form, Trained, load_run, predict_file
from danube_sweep.inference.prediction_table import Predictions, table_of
from danube_sweep.results.decisions.decide_command import Decided
from danube_sweep.results.decisions.rules import Cuts, Outside, Thresholds
from danube_sweep.training.prepare import prepare

Tiny = Callable[..., Config]

HEADS = [
    "sequence",
    "preference",
    "bradley_terry_ties",
    "ordinal",
    "regression",
    "multilabel",
    "token",
    "causal",
    "lm",
]
PRECISIONS = ["fp32", "bf16", "int8", "nf4"]
FILES = {
    ".danube_sweep",
    ".lock",
    "adapter",
    "config.yaml",
    "environment.json",
    "log.txt",
    "metrics.csv",
    "predictions.parquet",
    "result.json",
}


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.jsonl"
    words = ["river", "delta", "bridge", "water", "stone", "boat", "evening", "fish"]
    rows = [{"text": " ".join(words[(k * j) % 8] for j in range(1, 12)) + f" {k}."} for k in range(60)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """Texts with a score from 1 to 4, and a list of the words that are in them."""
    file = tmp_path / "scores.jsonl"
    words = ["good", "long", "new"]
    rows = []
    for k in range(60):
        there = [word for place, word in enumerate(words) if k >> place & 1]
        rows.append({"text": f"text {k}: " + " ".join(there), "score": 1 + len(there), "words": there})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def entities(tmp_path: Path) -> Path:
    """Texts of twelve words, a name of two among them; some longer than a sequence."""
    file = tmp_path / "entities.jsonl"
    rows = []
    for k in range(30):
        words = [f"word{j}" for j in range(10 + 30 * (k % 3))]
        tokens = [*words[: k % 7], "Anna", "Bell", *words[k % 7 :]]
        labels = ["O"] * (k % 7) + ["B-NAME", "I-NAME"] + ["O"] * (len(words) - k % 7)
        rows.append({"document": k, "tokens": tokens, "labels": labels})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def trial(tiny: Tiny, texts: Path, scores: Path, entities: Path) -> Tiny:
    """Composes a trial of a head with what that head needs, four steps long: `trial("causal", "precision=nf4")`."""

    def build(head: str, *overrides: str) -> Config:
        table = ["data=table", f"data.path={scores}"]
        own = {
            "ordinal": [*table, "data.label_column=score"],
            "regression": [*table, "data.label_column=score"],
            "multilabel": [*table, "data.label_column=words"],
            "token": ["data=tokens", f"data.path={entities}", "data.id_column=document", "data.overlap=16"],
            "causal": ["head.words=[A,B,C]"],
            "lm": ["data=text", f"data.path=[{texts}]"],
        }
        return tiny(f"head={head}", "trainer.max_steps=4", "trainer.validate_every=2", *own.get(head, []), *overrides)

    return build


def reloaded(folder: Path) -> Trained:
    return load_run(folder, CPU)


def check_reload(folder: Path) -> None:
    """The run, loaded from its folder alone, gives the validation rows what predictions.parquet says."""
    trained = reloaded(folder)
    prepared = prepare(trained.config)
    found = evaluate(trained.backbone, trained.head, prepared.parts["validation"], batch_rows=4, pad_id=prepared.pad_id)
    stored = parquet.read_table(folder / "predictions.parquet").to_pydict()
    np.testing.assert_allclose(found.losses_N.numpy(), stored["loss"], rtol=0, atol=1e-6)
    assert stored["id"] == prepared.parts["validation"].examples
    if found.answers_NA is not None:
        number = trained.config.head.target is Target.number
        names = ["prediction"] if number else [f"probability_{name}" for name in prepared.classes]
        answers = np.array([stored[name] for name in names]).T
        np.testing.assert_allclose(found.answers_NA.numpy(), answers, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def in_fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the run of every head in fp32."""
    return tmp_path_factory.mktemp("heads")


def head_and_storage(case: tuple[str, str]) -> list[str]:
    """Each head is there, and those that read the stored output layer meet every storage type."""
    head, precision = case
    return [head, precision, f"{head if head in ('causal', 'lm') else 'other'} over {precision}"]


@pytest.mark.parametrize(("head", "precision"), covering(HEADS, PRECISIONS, meets=head_and_storage))
def test_every_head_trains_over_every_storage_and_comes_back_as_it_was(
    trial: Tiny, tmp_path: Path, in_fp32: Path, head: str, precision: str
) -> None:
    folder = in_fp32 / head if precision == "fp32" else tmp_path / "run"
    compute = "fp32" if precision == "fp32" else "bf16"
    result = train(trial(head, f"precision={precision}", f"precision.compute={compute}"), folder)
    assert result["state"] == "finished"
    assert result["steps"] == 4
    assert result == json.loads((folder / "result.json").read_text())
    assert {file.name for file in folder.iterdir()} == FILES
    described = json.loads((folder / "environment.json").read_text())["data"]["parts"]
    said = next(line for line in (folder / "log.txt").read_text().splitlines() if line.startswith("data: "))
    assert re.findall(r"(\d+) (\w+) row", said) == [(str(part["rows"]), name) for name, part in described.items()]
    assert len(metrics(folder, "train")) == 4
    assert [row["step"] for row in metrics(folder, "validation")] == ["2", "4"]
    assert tuple(result["validation"]) == trial(head).head.metrics
    check_reload(folder)


@pytest.mark.parametrize(
    ("head", "overrides"),
    [
        ("preference", ["lora=dora"]),
        ("sequence", ["lora=dora", "precision=nf4", "precision.compute=bf16"]),
        ("preference", ["lora=none"]),
        ("sequence", ["lora=full"]),
        ("causal", ["lora=full"]),
        ("lm", ["lora=full"]),
        ("sequence", ["lora=full", "precision=bf16"]),
        ("preference", ["lora.last_k=1"]),
        ("sequence", ["lora.rslora=true", "lora.targets=[q_proj,up_proj]", "head.pooling=attention"]),
        ("preference", ["precision.gradient_checkpointing=true", "head.pooling=mean"]),
        ("preference", ["model.variant=chat", "model.variants=[base,chat]"]),
        ("preference", ["head.hidden=32", "head.dropout=0.2", "head.pooling=last_mean"]),
        ("bradley_terry_ties", ["head.ties=rao_kupper", "head.pooling=mean"]),
        ("bradley_terry_ties", ["head.hidden=32", "head.dropout=0.2", "data.swap_augment=true"]),
        ("ordinal", ["head.hidden=32", "head.label_smoothing=0.1"]),
        ("regression", ["head.loss=huber", "head.pooling=last_mean"]),
        ("regression", ["head.loss=mae"]),
        ("token", ["head.hidden=32", "head.dropout=0.2", "precision=nf4"]),
    ],
)
def test_every_way_to_train_the_backbone_comes_back_as_it_was(
    trial: Tiny, tmp_path: Path, head: str, overrides: list[str]
) -> None:
    result = train(trial(head, *overrides), tmp_path / "run")
    assert result["state"] == "finished"
    assert (tmp_path / "run" / ("model" if "lora=full" in overrides else "adapter")).is_dir()
    check_reload(tmp_path / "run")


def test_every_head_comes_back_in_a_fresh_process(trial: Tiny, in_fp32: Path) -> None:
    for head in HEADS:
        if not (in_fp32 / head).is_dir():  # asked for alone
            train(trial(head, "precision=fp32"), in_fp32 / head)
    script = (
        "import sys; from pathlib import Path; sys.path[:0] = ['tests', 'tests/training']\n"
        "from test_run import check_reload\n"
        "for folder in sys.argv[1:]: check_reload(Path(folder)); print('same', end=' ')"
    )
    places = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = warm.run("-c", script, *(in_fp32 / head for head in HEADS), cwd=ROOT, env=places)
    assert done.stdout.split() == ["same"] * len(HEADS), done.stderr


def test_the_metrics_are_those_sklearn_computes_from_the_predictions(tiny: Tiny, tmp_path: Path) -> None:
    result = train(tiny("trainer.max_steps=6", "data.rows=120"), tmp_path / "run")
    table = parquet.read_table(tmp_path / "run" / "predictions.parquet").to_pydict()
    names = [name.removeprefix("probability_") for name in table if name.startswith("probability_")]
    assert list(table) == ["id", "group", "loss", "label", *(f"probability_{name}" for name in names)]
    probabilities = np.array([table[f"probability_{name}"] for name in names]).T.astype(np.float64)
    truth = [names.index(label) for label in table["label"]]
    answers = probabilities.argmax(axis=1)
    metrics = result["validation"]
    shares = probabilities / probabilities.sum(axis=1, keepdims=True)
    assert metrics["log_loss"] == pytest.approx(log_loss(truth, shares, labels=[0, 1, 2]), abs=1e-6)
    assert metrics["log_loss"] == pytest.approx(np.mean(table["loss"]), abs=1e-6)
    assert metrics["accuracy"] == pytest.approx(accuracy_score(truth, answers), abs=1e-6)
    assert metrics["macro_f1"] == pytest.approx(f1_score(truth, answers, average="macro", zero_division=0), abs=1e-6)
    assert result["rows"]["validation"] == len(truth)


def test_the_test_part_is_scored_only_when_asked(tiny: Tiny, tmp_path: Path) -> None:
    held_out = ["data.test_fraction=0.2", "trainer.max_steps=2"]
    assert train(tiny(*held_out), tmp_path / "unscored")["test"] is None
    scored = train(tiny(*held_out, "trainer.score_test=true"), tmp_path / "scored")
    assert scored["test"].keys() == scored["validation"].keys()
    assert scored["test"] != scored["validation"]
    with pytest.raises(ConfigError, match=r"trainer\.score_test=true needs a test part"):
        tiny("trainer.score_test=true")


def test_the_best_step_is_kept_and_not_the_last(tiny: Tiny, tmp_path: Path) -> None:
    noise = ["data.noise=0.66", "schedule=constant"]  # labels drawn by lot: whatever is learned is worse than nothing
    config = tiny(*noise, "optimizer.lr=0.02", "trainer.max_steps=24", "trainer.validate_every=1")
    result = train(config, tmp_path / "run")
    losses = [float(row["log_loss"]) for row in metrics(tmp_path / "run", "validation")]
    assert min(losses) < losses[-1]
    assert result["best_step"] == 1 + losses.index(min(losses)) < result["steps"] == 24
    assert result["validation"]["log_loss"] == min(losses)
    check_reload(tmp_path / "run")


def test_training_stops_when_patience_runs_out(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(
        "optimizer.lr=0.5",
        "schedule=constant",
        "trainer.max_steps=40",
        "trainer.validate_every=1",
        "trainer.patience=2",
    )
    result = train(config, tmp_path / "run")
    losses = [float(row["log_loss"]) for row in metrics(tmp_path / "run", "validation")]
    assert result["state"] == "finished"
    assert result["steps"] == result["best_step"] + 2 == len(losses) < 40
    assert min(losses[-2:]) >= min(losses[:-2])


def test_a_loss_that_is_not_finite_ends_the_trial_as_diverged(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("optimizer.lr=1e30", "schedule=constant", "trainer.max_steps=6", "trainer.clip_norm=null")
    with pytest.raises(Diverged, match=r"optimizer\.lr") as raised:
        train(config, tmp_path / "run")
    assert raised.value.exit_code == 1
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["state"] == "diverged"
    assert str(raised.value) in result["error"]
    assert "validation" not in result


def test_a_diverged_trial_is_tried_again_when_asked_to_run(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("optimizer.lr=1e30", "trainer.max_steps=6", "trainer.clip_norm=null")
    for _ in range(2):
        with pytest.raises(Diverged):
            train(config, tmp_path / "run")


def test_a_finished_folder_reports_what_it_has_and_trains_nothing(tiny: Tiny, tmp_path: Path) -> None:
    config, folder = tiny("trainer.max_steps=2"), tmp_path / "run"
    first = train(config, folder)
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.name != ".lock"}
    assert train(config, folder) == first
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.name != ".lock"} == before


def test_a_folder_of_another_trial_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny("trainer.max_steps=2"), tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"holds another trial .* give another hydra\.run\.dir"):
        train(tiny("trainer.max_steps=2", "seed=1"), tmp_path / "run")


def test_a_folder_that_another_process_trains_in_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    script = (
        "import sys; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire(); "
        "print('held', flush=True); sys.stdin.read()"
    )
    holder = warm.popen("-c", script, folder / ".lock", stdin=subprocess.PIPE, stderr=None)
    assert holder.stdout is not None and holder.stdin is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(CheckpointError, match="is being trained by another process"):
        train(tiny("trainer.max_steps=2"), folder)
    holder.kill()
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    assert train(tiny("trainer.max_steps=2"), folder)["state"] == "finished"


def test_a_lock_of_this_process_counts_too(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"), pytest.raises(CheckpointError, match="another process"):
        train(tiny("trainer.max_steps=2"), tmp_path / "run")


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_the_same_trial_twice_has_the_same_losses_bit_for_bit(tiny: Tiny, tmp_path: Path, precision: str) -> None:
    config = tiny(f"precision={precision}", "trainer.max_steps=5", "lora.dropout=0.1")
    results = [train(config, tmp_path / name) for name in ("a", "b")]
    for part in ("train", "validation"):
        assert metrics(tmp_path / "a", part) == metrics(tmp_path / "b", part)
    assert [{**result, "measured": None} for result in results[:1]] == [{**results[1], "measured": None}]
    assert (tmp_path / "a/predictions.parquet").read_bytes() == (tmp_path / "b/predictions.parquet").read_bytes()


def test_the_product_is_worth_what_the_loss_curve_says(tiny: Tiny, tmp_path: Path) -> None:
    """A classifier learns a rule that its texts state outright."""
    file = tmp_path / "rule.csv"
    rows = [f"question {k} is {'good' if k % 2 else 'bad'},{'right' if k % 2 else 'wrong'}" for k in range(80)]
    file.write_text("text,label\n" + "\n".join(rows) + "\n")
    config = tiny(
        "data=table", f"data.path={file}", "head=sequence", "head.pooling=mean", "trainer.epochs=6", "optimizer.lr=0.01"
    )
    result = train(config, tmp_path / "run")
    assert result["validation"]["log_loss"] < 0.2 < result["references"]["prior_log_loss"]


# ------------------------------------------------------------------------------------------------- labels, data


def arena_file(folder: Path, rows: int = 40, soft: bool = False) -> Path:
    file = folder / "arena.csv"
    lines = ["id,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie"]
    for k in range(rows):
        label = "0.5,0.25,0.25" if soft else ["1,0,0", "0,1,0", "0,0,1"][k % 3]
        lines.append(f'{k},"[""question {k}""]","[""answer {k % 3}""]","[""other {k % 5}""]",{label}')
    file.write_text("\n".join(lines) + "\n")
    return file


def test_soft_labels_train_towards_the_probabilities_given(tiny: Tiny, tmp_path: Path) -> None:
    file = arena_file(tmp_path, soft=True)
    config = tiny("data=arena", f"data.path={file}", "data.soft_labels=true", "trainer.epochs=6")
    result = train(config, tmp_path / "run")
    entropy = -(0.5 * math.log(0.5) + 0.5 * math.log(0.25))
    rows = result["rows"]["train"]
    smoothed = [(rows / 2 + 1) / (rows + 3), (rows / 4 + 1) / (rows + 3)]
    assert result["prior"] == pytest.approx([*smoothed, smoothed[1]])
    prior = -(0.5 * math.log(smoothed[0]) + 0.5 * math.log(smoothed[1]))
    assert result["references"]["prior_log_loss"] == pytest.approx(prior)
    assert entropy - 1e-6 <= result["validation"]["log_loss"] < entropy + 0.02


def test_swapped_copies_double_the_training_rows_and_no_others(tiny: Tiny, tmp_path: Path) -> None:
    file = arena_file(tmp_path)
    plain = tiny("data=arena", f"data.path={file}", "trainer.max_steps=2")
    both = tiny("data=arena", f"data.path={file}", "trainer.max_steps=2", "data.swap_augment=true")
    one, two = train(plain, tmp_path / "plain"), train(both, tmp_path / "both")
    assert two["rows"] == {**one["rows"], "train": 2 * one["rows"]["train"]}


def test_label_smoothing_is_trained_on_and_not_evaluated_with(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("head.label_smoothing=0.3", "trainer.max_steps=3")
    train(config, tmp_path / "smooth")
    train(tiny("trainer.max_steps=3"), tmp_path / "hard")
    smooth, hard = (metrics(tmp_path / name, "train")[0]["loss"] for name in ("smooth", "hard"))
    assert smooth != hard
    check_reload(tmp_path / "smooth")


# --------------------------------------------------------------------------------------------------- identity


def test_equal_meaning_has_an_equal_hash(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    file = arena_file(tmp_path)
    copy = shutil.copy(file, tmp_path / "elsewhere" / "renamed.csv")
    one = tiny("data=arena", f"data.path={file}")
    two = tiny(
        "data=arena",
        f"data.path={copy}",
        "name=another name",
        "tracking=wandb",
        "tracking.project=p",
        "device=auto",
        "trainer.eval_batch=2",
        "trainer.log_every=1",
        "head.lr=null",
    )
    assert trial_hash(one) == trial_hash(two)


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "lora.rank=8",
        "lora=dora",
        "precision=bf16",
        "head=sequence",
        "optimizer.lr=0.001",
        "optimizer=adamw_8bit",
        "schedule=linear",
        "data.order_seed=1",
        "data.max_length=64",
        "model.init_seed=1",
        "model.shape.num_hidden_layers=3",
        "trainer.max_steps=3",
    ],
)
def test_another_meaning_has_another_hash(tiny: Tiny, override: str) -> None:
    assert trial_hash(tiny()) != trial_hash(tiny(override))


def test_other_rows_under_the_same_name_are_another_trial(tiny: Tiny, tmp_path: Path) -> None:
    file = arena_file(tmp_path)
    config = tiny("data=arena", f"data.path={file}")
    before = trial_hash(config)
    file.write_text(file.read_text().replace("question 7", "question 8"))
    assert trial_hash(config) != before


def test_other_weights_under_the_same_path_are_another_trial(tiny: Tiny, tmp_path: Path, texts: Path) -> None:
    pretrain = tiny("lora=full", "head=lm", "data=text", f"data.path=[{texts}]", "trainer.max_steps=2")
    train(pretrain, tmp_path / "one")
    train(replace(pretrain, seed=1, optimizer=replace(pretrain.optimizer, lr=0.01)), tmp_path / "two")
    config = tiny(f"model.path={tmp_path / 'one' / 'model'}")
    before = trial_hash(config)
    shutil.copytree(tmp_path / "one" / "model", tmp_path / "copy")
    assert trial_hash(tiny(f"model.path={tmp_path / 'copy'}")) == before
    shutil.rmtree(tmp_path / "one" / "model")
    shutil.copytree(tmp_path / "two" / "model", tmp_path / "one" / "model")
    assert trial_hash(config) != before


def test_a_pretrained_model_is_the_backbone_of_the_next_run(tiny: Tiny, tmp_path: Path, texts: Path) -> None:
    pretrain = tiny("lora=full", "head=lm", "data=text", f"data.path=[{texts}]", "trainer.max_steps=2")
    train(pretrain, tmp_path / "base")
    for precision in ("fp32", "nf4"):
        config = tiny(f"model.path={tmp_path / 'base' / 'model'}", f"precision={precision}", "trainer.max_steps=2")
        assert train(config, tmp_path / precision)["state"] == "finished"
        check_reload(tmp_path / precision)
    described = json.loads((tmp_path / "fp32" / "adapter" / "adapter_config.json").read_text())
    assert described["base_model_name_or_path"] == str(tmp_path / "base" / "model")


# ---------------------------------------------------------------------------------------------------- secrets


def test_no_file_of_a_run_holds_a_secret_or_a_remote_address(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"MY_API_TOKEN": "tok-9876543210", "DB_PASSWORD": "hunter2-hunter2", "AWS_SECRET_ACCESS_KEY": "x" * 20}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    repository = tmp_path / "repository"
    repository.mkdir()
    monkeypatch.chdir(repository)
    for words in (["init", "-q"], ["remote", "add", "origin", "https://user:letmein@git.example.org/x.git"]):
        subprocess.run(["git", *words], check=True)
    monkeypatch.setattr(sys, "argv", ["danube-sweep", f"name={secrets['MY_API_TOKEN']}"])
    train(tiny("trainer.max_steps=2", f"name={secrets['MY_API_TOKEN']}"), tmp_path / "run")
    written = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    assert len(written) > 8
    for file, content in written.items():
        for value in [*secrets.values(), "letmein", "git.example.org"]:
            assert value.encode() not in content, file
    assert os.environ["MY_API_TOKEN"] == secrets["MY_API_TOKEN"]


def test_results_count_every_parameter_of_a_quantised_backbone(tiny: Tiny, tmp_path: Path) -> None:
    whole = train(tiny("trainer.max_steps=1"), tmp_path / "fp32")["parameters"]
    assert train(tiny("trainer.max_steps=1", "precision=nf4"), tmp_path / "nf4")["parameters"] == whole
    blocks = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64)
    assert whole["backbone"] == 512 * 64 + blocks + 64  # and nothing of the adapter


def test_a_run_leaves_no_gradient_mode_or_thread_setting_behind(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny("trainer.max_steps=1"), tmp_path / "run")
    assert torch.is_grad_enabled()
    assert torch.get_num_threads() == 1


def test_the_best_step_is_chosen_by_the_metric_that_is_named(trial: Tiny, tmp_path: Path) -> None:
    options = ["trainer.max_steps=8", "trainer.validate_every=1", "optimizer.lr=3e-2", "trainer.best_by=qwk"]
    result = train(trial("ordinal", *options), tmp_path / "run")
    qwks = {int(row["step"]): float(row["qwk"]) for row in metrics(tmp_path / "run", "validation")}
    assert result["best_step"] == max(qwks, key=lambda step: qwks[step])
    assert result["validation"]["qwk"] == pytest.approx(max(qwks.values()))


def test_dropout_in_a_head_is_its_own_in_a_pack(tiny: Tiny, tmp_path: Path) -> None:
    configs = [tiny("lora=none", "head.dropout=0.5", "trainer.max_steps=4", f"seed={seed}") for seed in (0, 1)]
    together = train_pack(configs, tmp_path / "pack")
    for number, config in enumerate(configs):
        (alone,) = train_pack([config], tmp_path / f"alone{number}")
        for name, value in alone.model.head.state_dict().items():
            torch.testing.assert_close(value, together[number].model.head.state_dict()[name], rtol=0, atol=1e-6)


def test_words_predict_a_row_each_and_a_submission_of_entities(trial: Tiny, entities: Path, tmp_path: Path) -> None:
    train(trial("token", "trainer.max_steps=30", "optimizer.lr=1e-2"), tmp_path / "run")
    trained = load_run(tmp_path / "run", CPU)
    words = sum(len(json.loads(line)["tokens"]) for line in entities.read_text().splitlines())
    assert predict_file(trained, entities, tmp_path / "all.csv") == words
    header, first, *_ = (tmp_path / "all.csv").read_text().splitlines()
    assert header == "document,token,O,B-NAME,I-NAME" and first.startswith("0,0,")
    found = predict_file(trained, entities, tmp_path / "labels.csv", form=Form(labels=True))
    lines = (tmp_path / "labels.csv").read_text().splitlines()
    assert lines[0] == "row_id,document,token,label" and len(lines) == found + 1 and 0 < found < words
    assert [line.split(",")[0] for line in lines[1:]] == [str(number) for number in range(found)]
    assert not any(line.endswith(",O") for line in lines)
    never = Decided(Outside([2.0], 0), ["O", "B-NAME", "I-NAME"], "never O")
    assert predict_file(trained, entities, tmp_path / "none.csv", form=Form(labels=True, rule=never)) == words


def test_a_number_is_predicted_as_a_number_and_has_no_likeliest_class(
    trial: Tiny, scores: Path, tmp_path: Path
) -> None:
    train(trial("regression"), tmp_path / "run")
    trained = load_run(tmp_path / "run", CPU)
    assert predict_file(trained, scores, tmp_path / "out.csv") == 60
    header, *rows = (tmp_path / "out.csv").read_text().splitlines()
    assert header == "id,score" and all(0 < float(row.split(",")[1]) < 5 for row in rows)
    with pytest.raises(ConfigError, match="--labels names one class a row, and this run predicts a number"):
        predict_file(trained, scores, tmp_path / "labels.csv", form=Form(labels=True))
    numbers = [float(row.split(",")[1]) for row in rows]
    cut = sorted(numbers)[29] / 2 + sorted(numbers)[30] / 2
    rule = Decided(Cuts([0.0, cut]), ["1", "2", "3"], "two borders")
    predict_file(trained, scores, tmp_path / "grades.csv", form=Form(labels=True, rule=rule))
    header, *rows = (tmp_path / "grades.csv").read_text().splitlines()
    assert header == "id,score" and [row.split(",")[1] for row in rows] == [
        "3" if one > cut else "2" for one in numbers
    ]


def test_several_classes_a_row_have_labels_by_a_rule_alone(tiny: Tiny) -> None:
    config = tiny(
        "data=table", "data.path=x.jsonl", "data.text_column=text", "data.label_column=label", "head=multilabel"
    )
    rule = Decided(Thresholds([0.5, 0.1]), ["a", "b"], "thresholds")
    table, _ = table_of(config, ["a", "b"], form=Form(labels=True, rule=rule), id_column=None)
    answers = Predictions(["x", "y"], torch.tensor([[0.5, 0.05], [0.4, 0.2]], dtype=torch.float64))
    assert table.header == ["id", "a", "b"] and list(table.rows(answers, 0)) == [["x", "1", "0"], ["y", "0", "1"]]


def test_the_likeliest_class_stands_in_the_column_that_was_learned(trial: Tiny, scores: Path, tmp_path: Path) -> None:
    train(trial("ordinal"), tmp_path / "run")
    predict_file(load_run(tmp_path / "run", CPU), scores, tmp_path / "out.csv", form=Form(labels=True))
    header, *rows = (tmp_path / "out.csv").read_text().splitlines()
    assert header == "id,score" and {row.split(",")[1] for row in rows} <= set("1234")
