"""Extra training rows: their labels, their weight in the loss, and the rows that they must keep away from."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_config
from torch.nn import functional as F
from workbench import build

from danube_sweep.composer import compose
from danube_sweep.config.identity import split_hash, trial_hash
from danube_sweep.config.schema import Config, Target
from danube_sweep.data.extra_rows import tempered
from danube_sweep.data.parts import load_parts, load_undivided
from danube_sweep.data.records import Parts
from danube_sweep.data.size import data_size
from danube_sweep.errors import ConfigError, DataError
from danube_sweep.training.prepare import Prepared, prepare
from danube_sweep.training.step_plan import Collator, StepPlan

WORDS = ["red", "green", "blue"]


def write(file: Path, rows: list[dict[str, Any]]) -> str:
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(file)


@pytest.fixture
def train_csv(tmp_path: Path) -> str:
    rows = [{"text": f"the {WORDS[k % 3]} one of row {k}", "label": WORDS[k % 3], "user": k // 2} for k in range(30)]
    return write(tmp_path / "train.csv", rows)


def soft_rows(count: int, start: int = 100) -> list[dict[str, Any]]:
    shares = [(0.7, 0.2, 0.1), (0.0, 0.5, 0.5), (0.25, 0.5, 0.25)]
    named = ["blue", "green", "red"]
    return [
        {"id": k, "text": f"another of {k}", **dict(zip(named, shares[k % 3], strict=True))}
        for k in range(start, start + count)
    ]


def config_of(train_csv: str, extra: str, *more: str) -> Config:
    data = ["data=table", f"data.path={train_csv}", "head=sequence", f"data.extra=[{extra}]"]
    return tiny_config(*data, "precision=fp32", "lora=none", *more)


def parts_of(config: Config) -> Parts:
    return load_parts(config.data, config.head.target)


# ------------------------------------------------------------------------------------------------------- in the loss


def step_gradient(config: Config, prepared: Prepared) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """The gradient of the first step's loss by a scale of random outputs, those outputs, and the step's rows."""
    head = build(config, prepared).head
    plan = StepPlan(config, prepared.parts["train"], prepared.pad_id)
    width = 1 if config.head.target is Target.number else len(prepared.classes)
    outputs_NC = torch.randn(len(plan.train.ids), width, generator=torch.Generator().manual_seed(1))
    outputs_NC.requires_grad_()
    rows = []
    for micro in plan.micro_batches(0, Collator(torch.device("cpu"))):
        rows.append(micro.batch.rows)
        (head.loss(outputs_NC[torch.from_numpy(micro.batch.rows)], micro.batch) * micro.share).backward()
        if micro.last:
            break
    assert outputs_NC.grad is not None
    return outputs_NC.grad, outputs_NC, np.concatenate(rows)


def by_hand(config: Config, outputs_NC: torch.Tensor, labels_NC: torch.Tensor) -> torch.Tensor:
    """The losses of rows, in plain torch."""
    match config.head.target:
        case Target.number:
            return (outputs_NC - labels_NC).square().sum(dim=1)  # a new head has the mean 0 and the deviation 1
        case Target.many:
            p = outputs_NC.sigmoid()
            return -(labels_NC * p.log() + (1 - labels_NC) * (1 - p).log()).mean(dim=1)
        case _:  # the KL divergence from the teacher, plus the teacher's entropy, which has no gradient
            kl_NC = F.kl_div(outputs_NC.log_softmax(dim=1), labels_NC, reduction="none")
            return kl_NC.sum(dim=1)


@pytest.mark.parametrize("head", ["sequence", "multilabel", "regression"])
@pytest.mark.parametrize("weight", [0.25, 3.0])
def test_a_row_counts_in_the_gradient_by_its_weight(head: str, weight: float, tmp_path: Path) -> None:
    labels = {"sequence": WORDS, "multilabel": ['["red"]', '["red", "blue"]', '["green"]'], "regression": [1, 2.5, 7]}
    own = [{"text": f"row {k}", "label": labels[head][k % 3]} for k in range(20)]
    added = soft_rows(12)
    if head == "regression":
        added = [{"text": f"more {k}", "label": k} for k in range(12)]
    config = config_of(
        write(tmp_path / "train.csv", own),
        write(tmp_path / "soft.csv", added),
        f"head={head}",
        f"data.extra_weight={weight}",
        "trainer.micro_batch=2",
        "trainer.effective_batch=8",
        "data.validation_fraction=0.2",
    )
    prepared = prepare(config)
    train = prepared.parts["train"]
    assert len(train.ids) == 16 + 12
    gradient_NC, outputs_NC, rows = step_gradient(config, prepared)
    weights_N = torch.tensor([1.0] * 16 + [weight] * 12)
    assert len(rows) == 8 and 0 < (rows >= 16).sum() < 8  # both kinds are in the step
    assert train.labels is not None
    labels_NC = torch.from_numpy(train.labels)
    losses_N = by_hand(config, outputs_NC, labels_NC)
    wanted = (weights_N * losses_N)[torch.from_numpy(rows)].sum() / (weights_N.mean() * 8)
    (expected_NC,) = torch.autograd.grad(wanted, outputs_NC)
    torch.testing.assert_close(gradient_NC, expected_NC, rtol=1e-5, atol=1e-7)


def test_rows_that_all_weigh_1_have_the_loss_of_torch_to_the_last_bit(train_csv: str, tmp_path: Path) -> None:
    parts = build(config_of(train_csv, write(tmp_path / "soft.csv", soft_rows(6))))
    batch, logits_BC = parts.batch([0, 1, 25, 26]), torch.randn(4, 3)
    assert batch.labels_BC is not None and batch.even
    assert torch.equal(parts.head.loss(logits_BC, batch), F.cross_entropy(logits_BC, batch.labels_BC))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_a_temperature_divides_log_probabilities(temperature: float) -> None:
    label = (0.7, 0.2, 0.0, 0.1)
    wanted = (torch.tensor(label, dtype=torch.float64).log() / temperature).softmax(dim=0).tolist()
    assert tempered(label, temperature, shares=True) == pytest.approx(wanted, abs=1e-12)
    alone = torch.sigmoid(torch.logit(torch.tensor(label, dtype=torch.float64)) / temperature).tolist()
    assert tempered(label, temperature, shares=False) == pytest.approx(alone, abs=1e-12)


# ----------------------------------------------------------------------------------------------------- in the parts


def test_extra_rows_change_no_other_part_no_reference_and_no_old_hash(train_csv: str, tmp_path: Path) -> None:
    extra = write(tmp_path / "soft.csv", soft_rows(9))
    without, config = (
        config_of(train_csv, "", "data.folds=3", "data.fold=1"),
        config_of(train_csv, extra, "data.folds=3", "data.fold=1", "data.extra_weight=0.5"),
    )
    before, after = parts_of(without), parts_of(config)
    assert (before.train, before.validation) == (after.train, after.validation) and not before.extra
    assert [(record.id, record.weight) for record in after.extra[:2]] == [("1", 0.5), ("2", 0.5)]
    assert after.extra[0].label == (0.0, 0.5, 0.5)
    assert load_undivided(config.data, config.head.target) == load_undivided(without.data, without.head.target)
    assert prepare(config).references == prepare(without).references
    assert "9 more training rows, each with weight 0.5; 9 of 9 have soft labels" in after.notes[-1]
    assert "training rows" in prepare(config).description.lines()[0]
    assert split_hash(without) == split_hash(config)
    assert trial_hash(without) != trial_hash(config) != trial_hash(config_of(train_csv, extra))
    size, larger = data_size(without.data), data_size(config.data)
    assert size is not None and larger is not None and larger.rows == size.rows + 9


def test_the_hash_counts_the_content_of_extra_files_and_not_their_names(train_csv: str, tmp_path: Path) -> None:
    first = trial_hash(config_of(train_csv, write(tmp_path / "a.csv", soft_rows(3))))
    assert first == trial_hash(config_of(train_csv, write(tmp_path / "b.csv", soft_rows(3))))
    assert first != trial_hash(config_of(train_csv, write(tmp_path / "b.csv", soft_rows(4))))


def test_hard_labels_and_soft_ones_of_pairs_and_arenas(tmp_path: Path) -> None:
    texts = [{"prompt": f"p{k}", "response_a": "x" * k, "response_b": "y"} for k in range(12)]
    train = write(tmp_path / "train.csv", [{**row, "winner": f"model_{'ab'[k % 2]}"} for k, row in enumerate(texts)])
    new = [{**row, "prompt": f"new {k}"} for k, row in enumerate(texts[:3])]
    hard = write(tmp_path / "hard.csv", [{**row, "winner": "model_b"} for row in new])
    soft = write(tmp_path / "soft.csv", [{**row, "model_a": 0.75, "model_b": 0.25} for row in new])
    found = parts_of(tiny_config("data=pairs", f"data.path={train}", f"data.extra=[{hard},{soft}]")).extra
    assert [record.label for record in found] == [(0.0, 1.0)] * 3 + [(0.75, 0.25)] * 3
    winners = ["winner_model_a", "winner_model_b", "winner_tie"]
    one = [{**row, **dict(zip(winners, np.eye(3)[k % 3], strict=True))} for k, row in enumerate(texts)]
    two = [{**row, **dict(zip(winners, (0.5, 0.25, 0.25), strict=True))} for row in new]
    paths = write(tmp_path / "one.csv", one), write(tmp_path / "two.csv", two)
    config = tiny_config("data=arena", f"data.path={paths[0]}", f"data.extra=[{paths[1]}]", "data.swap_augment=true")
    assert [record.label for record in parts_of(config).extra] == [(0.5, 0.25, 0.25)] * 3
    labels = prepare(config).parts["train"].labels
    assert labels is not None
    assert labels[-2:].tolist() == [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]  # in both orders


# ------------------------------------------------------------------------------------------------- what is refused


def test_rows_whose_text_is_held_out_are_refused_with_their_number(train_csv: str, tmp_path: Path) -> None:
    held = parts_of(config_of(train_csv, "", "data.test_fraction=0.2"))
    for part, record in (("validation", held.validation[0]), ("test", held.test[0])):
        rows = soft_rows(5)
        rows[1]["text"] = rows[4]["text"] = f" {record.texts[0].upper()}"
        extra = write(tmp_path / "soft.csv", rows)
        config = config_of(train_csv, extra, "data.test_fraction=0.2", "data.id_column=id")
        config.data = replace(config.data, id_column=None)  # type: ignore[call-arg]
        with pytest.raises(
            DataError, match=rf"2 of 5 rows \(id 2, 5\) have a text that also stands in the {part} part"
        ):
            parts_of(config)


def test_rows_of_a_template_or_a_group_that_is_held_out_are_refused(train_csv: str, tmp_path: Path) -> None:
    held = parts_of(config_of(train_csv, "", "data.group_column=user")).validation
    rows = [{**row, "user": held[0].group if k else "nobody"} for k, row in enumerate(soft_rows(3))]
    config = config_of(train_csv, write(tmp_path / "soft.csv", rows), "data.group_column=user")
    with pytest.raises(DataError, match=r"2 of 3 rows .* have a group that also stands in the validation part"):
        parts_of(config)
    texts = [{"text": f"{word} takes {k} of these", "label": word} for k in range(4) for word in ("it", "he", "we")]
    own = write(tmp_path / "own.csv", texts)
    like = write(tmp_path / "like.csv", [{"text": "it takes 99 of these", "label": "it"}])
    template = ["data=table", f"data.path={own}", "head=sequence", "data.group_by=template"]
    found = [tiny_config(*template, f"data.split_seed={seed}") for seed in range(9)]
    held_out = [config for config in found if any("it takes" in row.texts[0] for row in parts_of(config).validation)]
    assert 0 < len(held_out) < 9
    for config in found:
        config.data.extra = [like]  # type: ignore[attr-defined]
        if config in held_out:
            with pytest.raises(DataError, match=r"1 of 1 rows .* have a template that also stands in the validation"):
                parts_of(config)
        else:
            assert len(parts_of(config).extra) == 1


def test_rows_that_validated_before_a_refit_may_train(train_csv: str, tmp_path: Path) -> None:
    texts = [record.texts[0] for record in parts_of(config_of(train_csv, "")).validation]
    rows = [{**row, "text": text} for row, text in zip(soft_rows(len(texts)), texts, strict=True)]
    extra = write(tmp_path / "soft.csv", rows)
    found = parts_of(config_of(train_csv, extra, "data.train_on_validation=true"))
    assert len(found.extra) == len(texts) and len(found.train) == 30 and not found.validation


Change = Callable[[list[dict[str, Any]]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [row.pop("red") for row in rows], "neither the column 'label' nor all columns of probabilities"),
        (lambda rows: [row.update(label="red") for row in rows], "a label column 'label' and a column per class"),
        (lambda rows: rows[1].update(red=0.9), r"1 row \(line 3\) without a valid label; .* that sum to 1"),
        (lambda rows: [row.pop("text") for row in rows], "no column 'text'"),
        (lambda rows: rows[0].update(blue=-0.1, green=1.0), "without a valid label"),
    ],
)
def test_labels_that_cannot_be_read_are_one_line(change: Change, message: str, train_csv: str, tmp_path: Path) -> None:
    rows = soft_rows(3)
    change(rows)
    with pytest.raises(DataError, match=message):
        parts_of(config_of(train_csv, write(tmp_path / "soft.csv", rows)))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.extra_weight=0.5"], "data.extra_weight=0.5 is for rows of data.extra, and there are none"),
        (["data.extra=[a.csv]", "data.extra_weight=0"], "data.extra_weight must be above 0, got 0"),
        (["data.extra=[a.csv]", "data.extra_temperature=-1"], "data.extra_temperature must be above 0, got -1"),
        (["data.extra=[a.csv,a.csv]"], "lists .*a.csv twice; raise data.extra_weight instead"),
        (["data.extra=a.csv"], r"data.extra takes a list: write data.extra=\[…\]"),
        (["data.extra=[a.csv]", "data.extra_temperature=2", "head=regression"], "head=regression predicts a number"),
        (
            ["data.extra=[a.csv]", "data.group_column=user", "data.group_by=text"],
            "by data.group_column or by data.group_by; give one of them",
        ),
    ],
)
def test_settings_that_cannot_work_are_one_line(overrides: list[str], message: str, train_csv: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(["data=table", f"data.path={train_csv}", "head=sequence", *overrides])


def test_a_temperature_without_soft_labels_and_an_empty_file_are_refused(train_csv: str, tmp_path: Path) -> None:
    hard = write(tmp_path / "hard.csv", [{"text": "new", "label": "red"}])
    with pytest.raises(DataError, match=r"all labels of data\.extra are hard; give 1"):
        parts_of(config_of(train_csv, hard, "data.extra_temperature=2"))
    (tmp_path / "empty.csv").write_text("text,label\n")
    with pytest.raises(DataError, match="the file has no rows"):
        parts_of(config_of(train_csv, str(tmp_path / "empty.csv")))
