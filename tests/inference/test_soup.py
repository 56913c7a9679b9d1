"""A soup is the exact average by PEFT's own sums, chosen as Wortsman et al. choose it, and plain PEFT loads it."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_config
from peft import PeftModel
from pyarrow import parquet
from runs import CPU, train
from transformers import AutoModel
from workbench import evaluate, save_base

from danube_sweep.cli import main
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.stored import load_config
from danube_sweep.errors import CheckpointError, DiskError
from danube_sweep.inference.predict import load_run
from danube_sweep.inference.soup.average import average, cut
from danube_sweep.inference.soup.choose_soup import Chosen, Tasted, best_single, greedy_soup, worth_of
from danube_sweep.inference.soup.ingredients import Ingredient
from danube_sweep.inference.soup.write_soup import soup_hash
from danube_sweep.results.ensemble.members import find_members
from danube_sweep.storage import predictions
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.training.prepare import prepare

FEW = ["data.rows=40", "trainer.max_steps=2", "trainer.validate_every=2", "data.max_length=48", "precision=fp32"]
RUNS = {
    "small": ["lora.rank=2"],
    "large": ["lora.rank=4", "seed=1", "lora.rslora=true"],
    "third": ["lora.rank=3", "seed=2", "lora.alpha=9"],
    "dora": ["lora=dora", "lora.rank=2"],
    "qv": ["lora.rank=2", "lora.targets=qv"],
    "mean": ["lora.rank=2", "head.hidden=8"],
    "biased": ["lora.rank=2", "precision=bf16"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("soup")
    save_base(tiny_config(), folder / "base")
    return folder


@pytest.fixture(scope="module")
def trained(place: Path) -> dict[str, Path]:
    start = [f"model.path={place / 'base'}", "optimizer.lr=2e-2", "schedule=constant"]
    for name, options in RUNS.items():
        train(tiny_config(*FEW, *start, *options), place / name)
    return {name: place / name for name in RUNS}


@pytest.fixture(scope="module")
def souped(trained: dict[str, Path], place: Path) -> Path:
    """The average of all three, whatever they are worth: their validation losses are those of a choice by hand."""
    assert (
        main.main(["soup", *(str(trained[name]) for name in ("small", "large", "third")), "-o", str(place / "one")])
        == 0
    )
    return place / "one"


def by_peft(place: Path, folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the backbone with an adapter merged in by PEFT."""
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(place / "base"), folder)
    return dict(model.merge_and_unload().state_dict())


def mean_by_peft(place: Path, folders: Sequence[Path]) -> dict[str, torch.Tensor]:
    each = [by_peft(place, folder) for folder in folders]
    return {name: torch.stack([one[name] for one in each]).mean(dim=0) for name in each[0]}


def ingredients_of(souped: Path) -> list[Path]:
    stated = json.loads((souped / "soup.json").read_text())["ingredients"]
    return [(souped / one["run"]).resolve() / "adapter" for one in stated]


def test_the_adapter_that_plain_peft_loads_is_the_mean_of_its_trials(souped: Path, place: Path) -> None:
    folders = ingredients_of(souped)
    assert len(folders) > 1
    wanted, found = mean_by_peft(place, folders), by_peft(place, souped / "adapter")
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)


def ingredient(name: str, run: Path) -> Ingredient:
    from danube_sweep.inference.predict import open_run
    from danube_sweep.inference.soup.ingredients import _ingredient

    return _ingredient(name, open_run(run))


def test_three_ranks_and_scales_average_and_are_cut_to_the_nearest_matrix(
    trained: dict[str, Path], place: Path
) -> None:
    names = ("small", "large", "third")
    whole = average([ingredient(name, trained[name]) for name in names])
    assert whole.rank == 9
    base = AutoModel.from_pretrained(place / "base").state_dict()
    exact = mean_by_peft(place, [trained[name] / "adapter" for name in names])
    smaller, lost = cut(whole, 3)
    squares = []
    for name, (a_RI, b_OR) in whole.adapter.items():
        weight = f"{name.removeprefix('base_model.model.')}.weight"
        update = exact[weight] - base[weight]
        torch.testing.assert_close(b_OR @ a_RI, update, rtol=0, atol=1e-6)
        u, values, vh = torch.linalg.svd(update.double())
        nearest = u[:, :3] * values[:3] @ vh[:3]
        a_cut, b_cut = smaller.adapter[name]
        assert a_cut.shape[0] == b_cut.shape[1] == 3
        torch.testing.assert_close((b_cut @ a_cut).double(), nearest, rtol=0, atol=1e-5)
        squares.append((float(values[3:].square().sum()), float(values.square().sum())))
    assert lost == pytest.approx(sum(one for one, _ in squares) / sum(one for _, one in squares), rel=1e-3)


def test_the_run_validates_as_it_says_and_its_trial_answers_alike_over_pefts_layers(souped: Path) -> None:
    result = json.loads((souped / "result.json").read_text())
    table = parquet.read_table(souped / "predictions.parquet")
    assert result["validation"]["log_loss"] == pytest.approx(np.mean(table["loss"]), abs=1e-6)
    run = load_run(souped, CPU, by_peft=True)
    prepared = prepare(run.config)
    found = evaluate(run.backbone, run.head, prepared.parts["validation"], batch_rows=4, pad_id=prepared.pad_id)
    assert found.losses_N.numpy() == pytest.approx(np.array(table["loss"]), abs=1e-5)
    assert RunFolder(souped).hash_of(run.config) == result["trial"]


def test_a_cut_is_written_with_its_cost(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(trained[name]) for name in ("small", "large", "third", "dora", "qv")]
    capsys.readouterr()
    assert main.main(["soup", "--trust", *runs, "-o", str(tmp_path / "one"), "--rank", "1"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "lora=dora: its update is more than a product of two matrices" in said
    assert "other targets (lora.targets=qv) than" in said and "% of the update's squared norm is lost" in said
    stated = json.loads((tmp_path / "one" / "soup.json").read_text())
    table = parquet.read_table(tmp_path / "one" / "predictions.parquet")
    best = min(json.loads((trained[name] / "result.json").read_text())["validation"]["log_loss"]
               for name in ("small", "large", "third"))  # fmt: skip
    assert f"({stated['cut']['loss_after'] - stated['cut']['loss_before']:+.4f})" in said
    assert f"the best trial alone has {best:.4f}" in said and "the exact average, before its cut, is " in said
    assert stated["cut"]["loss_after"] == pytest.approx(np.mean(table["loss"]), abs=1e-6)
    assert load_run(tmp_path / "one", CPU).config.lora.rank == 1  # type: ignore[attr-defined]


def sequential(losses: dict[Chosen, Any], count: int) -> Chosen:
    """Recipe 1 of the paper, one average after the other."""
    order = sorted(range(count), key=lambda place: losses[(place,)].mean())
    soup = [order[0]]
    for one in order[1:]:
        if losses[tuple(sorted([*soup, one]))].mean() < losses[tuple(sorted(soup))].mean():
            soup.append(one)
    return tuple(sorted(soup))


@pytest.mark.parametrize("seed", range(5))
def test_the_choice_is_that_of_the_paper_in_fewer_passes(seed: int) -> None:
    random, count = np.random.default_rng(seed), 6
    subsets = [tuple(k for k in range(count) if code >> k & 1) for code in range(1, 2**count)]
    losses = {one: random.normal(1 - 0.01 * len(one), 0.1, 40) for one in subsets}
    asked: list[Chosen] = []

    def evaluate_some(some: Sequence[Chosen]) -> list[Any]:
        asked.extend(some)
        return [losses[one] for one in some]

    tasted = Tasted(evaluate_some)
    chosen = greedy_soup(tasted, count, np.arange(40))
    assert chosen == sequential(losses, count)
    assert tasted.passes <= len(chosen) + 1 and len(asked) == len(set(asked))
    halves = np.arange(40)
    worth = worth_of(tasted, count, chosen, halves)
    assert worth.soup == pytest.approx(losses[chosen].mean())
    assert worth.single == pytest.approx(losses[best_single(tasted, count, halves)].mean())
    assert worth.unseen_soup > worth.soup - 0.1 and worth.half > 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["small", "dora", "-o", "new"], "a soup needs two trials that can be averaged: "),
        (["small", "qv", "-o", "new"], "than "),
        (["small", "mean", "-o", "new"], "another form of the head (head.*) than"),
        (["small", "biased", "-o", "new"], "another precision (bf16) than small"),
        (["small", "-o", "new"], "a soup needs two models of the same rows"),
        (["small", "large", "-o", "small"], "-o small exists already; choose a new or empty folder"),
        (["small", "large", "-o", "none/new"], "there is no folder none; make it or choose another place"),
        (["small", "large", "-o", "new", "--rank", "0"], "--rank must be at least 1, got 0"),
        (["small", "large", "-o", "new", "--candidates", "1"], "--candidates must be at least 2, got 1"),
        (["nowhere", "-o", "new"], "nowhere is no sweep: there is no such folder"),
    ],
    ids=lambda value: " ".join(value)[:24] if isinstance(value, list) else "",
)
def test_what_cannot_be_averaged_is_one_line_and_writes_nothing(
    words: list[str], line: str, trained: dict[str, Path], place: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(place)
    capsys.readouterr()
    assert main.main(["soup", "--trust", *words]) == 2
    error = capsys.readouterr().err
    assert line in error and len([one for one in error.splitlines() if "error: " in one]) == 1
    assert not (place / "new").exists()


def test_soups_of_one_config_have_hashes_of_their_own_and_are_two_members(
    trained: dict[str, Path], souped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (average([ingredient(name, trained[name])]) for name in ("small", "dora"))
    assert soup_hash("0" * 32, one) == soup_hash("0" * 32, average([ingredient("small", trained["small"])]))
    assert len({soup_hash("0" * 32, one), soup_hash("1" * 32, one), soup_hash("0" * 32, other)}) == 3
    stated, config = RunFolder(souped).stated() or {}, load_config(RunFolder(souped).config)
    assert stated["also"] == [trial_hash(config)] != [stated["trial"]]
    for name in ("a", "b"):
        shutil.copytree(souped, tmp_path / name / "one")
    capsys.readouterr()
    runs = [str(tmp_path / "a" / "one"), str(tmp_path / "b" / "one")]
    assert main.main(["ensemble", *runs, "-o", str(tmp_path / "best")]) == 0
    assert "soups, whose trials these rows chose, so no row is unseen to them: " in capsys.readouterr().out
    assert (
        main.main(["ensemble", *(str(trained[name]) for name in ("small", "third")), "-o", str(tmp_path / "no")]) == 0
    )
    assert "soups, whose trials" not in capsys.readouterr().out
    assert main.main(["decide", "--trust", runs[0]]) == 0
    assert "these rows also chose the soup, so both scores are somewhat too good" in capsys.readouterr().out
    members, _ = find_members([tmp_path / "a" / "one", tmp_path / "b" / "one"])
    assert len({one.name for one in members}) == 2
    assert [one.runs for one in members] == [[tmp_path / name / "one"] for name in ("a", "b")]


def test_a_soup_whose_process_died_is_made_again_and_never_trained(
    trained: dict[str, Path], souped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = tmp_path / "one"
    shutil.copytree(souped, one)
    (one / "result.json").unlink()
    (one / ".predictions.parquet.7-0a1b2c.tmp").touch()
    capsys.readouterr()
    assert main.main(["resume", "--trust", str(one)]) == 2
    assert "is an unfinished soup; make it again by the same danube-sweep soup command" in capsys.readouterr().err
    runs = [str(trained[name]) for name in ("small", "large", "third")]
    assert main.main(["soup", "--trust", *runs, "-o", str(one)]) == 0
    assert sorted(file.name for file in one.iterdir()) == sorted(file.name for file in souped.iterdir())
    weights = Path("adapter", "adapter_model.safetensors")
    assert (one / weights).read_bytes() == (souped / weights).read_bytes()


def test_a_soup_that_cannot_be_written_leaves_nothing(
    trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise DiskError("the disk is full")

    monkeypatch.setattr(predictions, "write", full)
    runs = [str(trained[name]) for name in ("small", "large")]
    assert main.main(["soup", "--trust", *runs, "-o", str(tmp_path / "one")]) == 2
    assert not list(tmp_path.iterdir())


def test_a_soup_is_no_settings_to_refit(souped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["refit", "--trust", str(souped), "-o", str(tmp_path / "final")]) == 2
    assert "is a soup, whose config was never trained; refit the sweep" in capsys.readouterr().err


def test_a_trial_whose_data_were_changed_is_refused(trained: dict[str, Path], tmp_path: Path) -> None:
    result = trained["third"] / "result.json"
    before = result.read_text()
    result.write_text(before.replace(json.loads(before)["trial"], "0" * 32))
    try:
        with pytest.raises(CheckpointError, match="its data or model files were changed since the run"):
            ingredient_of_member(trained)
    finally:
        result.write_text(before)


def ingredient_of_member(trained: dict[str, Path]) -> None:
    from danube_sweep.inference.predict import Place
    from danube_sweep.inference.soup.ingredients import find_ingredients

    members, _ = find_members([trained["small"], trained["third"]])
    find_ingredients(members, Place(CPU), 10)
