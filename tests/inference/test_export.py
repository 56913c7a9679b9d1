"""An exported run answers as the run does, without this package; one that does not is refused."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from runs import CPU, StopAfter, command, train
from scipy.special import expit, softmax
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer
from workbench import save_base

from danube_sweep.cli import main
from danube_sweep.config.schema import Config
from danube_sweep.errors import CheckpointError, ConfigError, DiskError, ExportRefused, Interrupted
from danube_sweep.inference.export.blended import ExportedEnsemble
from danube_sweep.inference.export.check_export import check_export, compare
from danube_sweep.inference.export.export_run import Options, Written, export_run, write_export
from danube_sweep.inference.export.how_to_read import HiddenStates, LoadedSequenceClassifier, LoadedTokenClassifier
from danube_sweep.inference.predict import Place, load_run
from danube_sweep.storage.ensemble_folder import EnsembleFolder, Weighted

Tiny = Callable[..., Config]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained tiny model in a folder, as other tools need one."""
    from conftest import tiny_config

    folder = tmp_path_factory.mktemp("base")
    save_base(tiny_config(), folder)
    return folder


@pytest.fixture(scope="module")
def finished(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A run over the pretrained model, three steps long and far from its start; trained once for all that asks."""
    from conftest import tiny_config

    few = ["trainer.max_steps=3", "trainer.validate_every=3", "data.max_length=48"]
    options = [f"model.path={base}", "optimizer.lr=3e-2", "schedule=constant", *few]

    @cache
    def build(*overrides: str) -> Path:
        folder = tmp_path_factory.mktemp("finished") / "run"
        train(tiny_config(*options, *overrides), folder)
        return folder

    return build


def written(run: Path, folder: Path, **options: Any) -> Written:
    folder.mkdir()
    return write_export(run, folder, load_run(run, CPU, by_peft=True), Options("an export", **options))


def reloaded(folder: Path, found: Written) -> torch.Tensor:
    """What the code on the card gives, run in this process."""
    sys.modules.pop("head", None)
    names: dict[str, Any] = {"folder": str(folder)}
    before = list(sys.path)
    try:
        exec(found.code, names)
        return torch.as_tensor(names["logits"](**found.expected.inputs).float())
    finally:
        sys.path[:] = before


def rows_of(path: Path, kind: str) -> list[str]:
    rows = [{"text": f"text {k} " + "good " * (k % 4), "score": 1 + k % 4, "words": [["a"], ["a", "b"], []][k % 3],
             "tokens": ["Anna", f"w{k}", "rides"], "labels": ["B-X", "O", "O"]} for k in range(40)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = "tokens" if kind == "token" else "table"
    column = {"multilabel": "words", "token": "labels"}.get(kind, "score")
    return [f"data={data}", f"data.path={path}", *([] if kind == "token" else [f"data.label_column={column}"])]


HEADS = {
    "sequence": ["head=sequence"],
    "sequence-bias": ["head=sequence", "head.bias=true"],
    "sequence-mean": ["head=sequence", "head.pooling=last_mean"],
    "attention": ["head=sequence", "head.pooling=attention", "head.hidden=32", "head.dropout=0.1"],
    "preference": ["head=preference"],
    "bradley_terry_ties": ["head=bradley_terry_ties"],
    "rao_kupper": ["head=bradley_terry_ties", "head.ties=rao_kupper", "head.pooling=mean"],
    "causal": ["head=causal", "head.words=[A,B,C]"],
    "ordinal": ["head=ordinal"],
    "regression": ["head=regression"],
    "multilabel": ["head=multilabel"],
    "token": ["head=token", "data.overlap=8"],
}


@pytest.mark.parametrize("head", HEADS)
def test_every_head_answers_alike_from_the_folder_alone(
    finished: Callable[..., Path], tmp_path: Path, head: str
) -> None:
    data = rows_of(tmp_path / "rows.jsonl", head) if head in ("ordinal", "regression", "multilabel", "token") else []
    run = finished(*HEADS[head], *data, "precision=fp32")
    for merge in (False, True):
        folder = tmp_path / f"merged {merge}"
        found = written(run, folder, merge=merge)
        checked = compare(reloaded(folder, found), found.expected, found.reading, found.tolerance)
        assert checked.difference < 2e-5
        assert not [file.name for file in folder.iterdir() if file.suffix in (".bin", ".pt", ".pkl")]


@pytest.mark.parametrize(
    "overrides",
    [
        ["precision=nf4"],
        ["precision=nf4_dq"],
        ["precision=int8"],
        ["precision=bf16"],
        ["precision=nf4", "lora=dora"],
        ["precision=fp32", "lora=none"],
        ["precision=fp32", "lora=full"],
        ["precision=fp32", "lora=ia3"],
        ["precision=nf4", "lora=olora"],
        ["precision=fp32", "lora=peft", "lora.type=oft", "lora.fields={oft_block_size:32}"],
    ],
)
def test_so_do_every_storage_and_every_kind_of_adapter(
    finished: Callable[..., Path], tmp_path: Path, overrides: list[str]
) -> None:
    run = finished("head=preference", "optimizer.lr=3e-3", *overrides)
    for merge in (False, True):
        folder = tmp_path / f"merged {merge}"
        found = written(run, folder, merge=merge)
        compare(reloaded(folder, found), found.expected, found.reading, found.tolerance)


def test_a_classifier_over_the_last_token_is_transformers_own(
    finished: Callable[..., Path], base: Path, tmp_path: Path
) -> None:
    run = finished("head=sequence", "precision=fp32")
    found = written(run, tmp_path / "out")
    assert found.reading == LoadedSequenceClassifier("layers.linear", biased=False)
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, pad_token_id=0, dtype=torch.float32)
    model = PeftModel.from_pretrained(plain, str(tmp_path / "out")).eval()
    with torch.no_grad():
        logits = model(**found.expected.inputs).logits
    torch.testing.assert_close(logits, found.expected.logits, rtol=0, atol=1e-5)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["label2id"] == {"winner_model_a": 0, "winner_model_b": 1, "winner_tie": 2}


def test_merged_classifiers_are_transformers_own_too(finished: Callable[..., Path], tmp_path: Path) -> None:
    run = finished("head=sequence", "precision=nf4", "precision.compute=fp32")
    found = written(run, tmp_path / "out", merge=True)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert model.dtype is torch.float32 and AutoTokenizer.from_pretrained(tmp_path / "out").pad_token_id == 0
    with torch.no_grad():
        logits = model(**found.expected.inputs).logits
    assert (logits - found.expected.logits).abs().max() <= found.tolerance
    with_bias = finished_again(tmp_path, run)
    assert isinstance(with_bias, LoadedSequenceClassifier | LoadedTokenClassifier | HiddenStates)


def finished_again(tmp_path: Path, run: Path) -> Any:
    return written(run, tmp_path / "again").reading


def test_the_body_of_a_merged_run_has_the_runs_hidden_states(finished: Callable[..., Path], tmp_path: Path) -> None:
    run = finished("head=preference", "precision=nf4", "precision.compute=fp32")
    found = written(run, tmp_path / "out", merge=True)
    trained = load_run(run, CPU, by_peft=True)
    inputs = found.expected.inputs
    body = AutoModel.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    trained.backbone.body.eval()
    with torch.no_grad():
        ours = trained.backbone.hidden(inputs["input_ids"], inputs["attention_mask"].bool())
        theirs = body(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    mask_BT = inputs["attention_mask"].bool()
    torch.testing.assert_close(theirs[mask_BT], ours[mask_BT], rtol=0, atol=1e-4)


def test_the_command_checks_in_a_fresh_process_and_writes_a_card(
    finished: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished("head=sequence", "precision=fp32", "data.test_fraction=0.2", "trainer.score_test=true")
    assert main.main(["export", str(run), str(tmp_path / "out"), "--accelerator", "cpu"]) == 0
    assert "loaded again, the largest difference is" in capsys.readouterr().out
    text = (tmp_path / "out" / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert header["library_name"] == "peft" and header["pipeline_tag"] == "text-classification"
    result = json.loads((run / "result.json").read_text())
    metrics = {(one["dataset"]["split"], metric["type"]): metric["value"]
               for one in header["model-index"][0]["results"] for metric in one["metrics"]}  # fmt: skip
    assert metrics["validation", "log_loss"] == pytest.approx(result["validation"]["log_loss"], abs=1e-6)
    assert metrics["test", "log_loss"] == pytest.approx(result["test"]["log_loss"], abs=1e-6)
    assert "lora:" in text and "from peft import PeftModel" in text and "95 %" in text


def test_an_export_that_answers_otherwise_is_refused_and_leaves_nothing(
    finished: Callable[..., Path], tmp_path: Path
) -> None:
    run = finished("head=sequence", "precision=fp32")
    found = written(run, tmp_path / "out")
    other = replace(found.expected, logits=found.expected.logits + 0.01)
    with pytest.raises(ExportRefused, match=r"a logit differs by 0\.01, and 0\.\d+ is allowed; nothing was written"):
        compare(reloaded(tmp_path / "out", found), other, found.reading, found.tolerance)
    with pytest.raises(ExportRefused, match="a logit differs by nan"):
        compare(torch.full_like(other.logits, torch.nan), other, found.reading, found.tolerance)
    (tmp_path / "out" / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(ExportRefused, match="the export cannot be loaded again: "):
        check_export(tmp_path / "out", found.code, found.expected, found.reading, found.tolerance, "cpu")


def test_what_cannot_be_exported_is_said_in_one_line_and_leaves_nothing(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Interrupted):
        train(tiny("trainer.max_steps=4"), tmp_path / "stopped", stop=StopAfter(2))
    with pytest.raises(CheckpointError, match="is not finished"):
        export_run(tmp_path / "stopped", tmp_path / "out", Place(CPU), Options("x"))
    train(tiny("trainer.max_steps=2"), tmp_path / "run")
    with pytest.raises(ConfigError, match="was trained over random weights, which no other tool has; give --merge"):
        export_run(tmp_path / "run", tmp_path / "out", Place(CPU), Options("x"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(DiskError, match="exists and is not empty; give another OUT_DIR"):
        export_run(tmp_path / "run", tmp_path / "full", Place(CPU), Options("x", merge=True))
    for words, said in (
        (["--dtype", "fp32"], "--dtype is the type of merged weights"),
        (["--private"], "--private is for an upload"),
        (["--push", "a/b/c"], "no name for the hub"),
        (["--push", "me/it"], "HF_HUB_OFFLINE is set"),
    ):
        assert main.main(["export", str(tmp_path / "run"), str(tmp_path / "out"), *words]) == 2
        assert said in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "run", "stopped"]


def test_help_says_what_it_writes(tmp_path: Path) -> None:
    done = command("export", "--help", cwd=tmp_path)
    assert done.returncode == 0 and "PEFT and transformers load" in done.stdout and "--push NAME" in done.stdout


def test_an_ensemble_is_an_export_of_each_run_and_the_formula_of_their_mean(
    finished: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished("head=sequence", "precision=fp32", "data.test_fraction=0.2", "trainer.score_test=true")
    trial = json.loads((run / "result.json").read_text())["trial"]
    EnsembleFolder(tmp_path / "best").write([Weighted("alone", 1.0, 2.0, [run], [trial])], {})
    assert main.main(["export", str(tmp_path / "best"), str(tmp_path / "out"), "--accelerator", "cpu"]) == 0
    assert "1 run, each loaded again; the largest difference is" in capsys.readouterr().out
    assert {"01", "README.md", "blend.py", "ensemble.json"} == {one.name for one in (tmp_path / "out").iterdir()}
    found = written(run, tmp_path / "alone")
    logits = reloaded(tmp_path / "out" / "01", found)
    classes = json.loads((tmp_path / "out" / "ensemble.json").read_text())["classes"]
    assert ExportedEnsemble(tmp_path / "out")([logits]).numpy() == pytest.approx(softmax(logits.numpy() / 2, axis=1))
    assert classes == load_run(run, CPU).classes


def test_the_formula_of_an_ensemble_averages_answers_at_their_temperatures(tmp_path: Path) -> None:
    members = [{"folder": "01", "share": 0.75, "temperature": 2.0}, {"folder": "02", "share": 0.25, "temperature": 1.0}]
    logits = [torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[-1.0, 0.0, 3.0]])]
    for answers, each in (
        ("one class", lambda x, t: softmax(x / t, axis=1)),
        ("any number of classes", lambda x, t: expit(x / t)),
        ("a number", lambda x, _t: x),
    ):
        described = {"answers": answers, "classes": ["a", "b", "c"], "members": members}
        (tmp_path / "ensemble.json").write_text(json.dumps(described))
        wanted = 0.75 * each(logits[0].numpy(), 2.0) + 0.25 * each(logits[1].numpy(), 1.0)
        assert ExportedEnsemble(tmp_path)(logits).numpy() == pytest.approx(wanted)
    with pytest.raises(ValueError, match="2 members answer together, got the logits of 1"):
        ExportedEnsemble(tmp_path)(logits[:1])
