"""Our scores against `lm_eval.simple_evaluate`, run plainly on the same folder: the same numbers to the last digit."""

import argparse
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import lm_eval.evaluator
import pytest
import runs
import torch
from benchmark_tasks import rows, tiny_tasks, write_rows
from conftest import tiny_config
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from workbench import CAUSAL, save_base

from danube_sweep.benchmark.find_tasks import find_task
from danube_sweep.benchmark.harness_model import harness_model
from danube_sweep.benchmark.score_task import Score, Settings, score_task
from danube_sweep.cli.benchmark_cells import Request, _of_model
from danube_sweep.cli.benchmark_words import Words
from danube_sweep.config.schema import Config
from danube_sweep.data.tokenizer import load_tokenizer
from danube_sweep.inference.benchmarked_run import load_benchmarked
from danube_sweep.inference.predict import Place, open_run
from danube_sweep.model.backbone import Backbone, load_backbone

TASKS = ("tiny_choice", "tiny_pages", "tiny_answers")
METRICS = {
    "tiny_choice": {"acc,none", "acc_norm,none"},
    "tiny_pages": {"word_perplexity,none", "byte_perplexity,none", "bits_per_byte,none"},
    "tiny_answers": {"exact_match,none"},
}
SHOTS, ROWS = 2, 4


@dataclass
class Bench:
    """A tiny causal LM in a folder, a run trained over it, and tasks whose answers the model can get right."""

    base: Path
    tasks: Path
    run: Path

    def config(self, *overrides: str) -> Config:
        return tiny_config(f"model.path={self.base}", "model.init=pretrained", *overrides)

    def backbone(self, *overrides: str) -> Backbone:
        config = self.config(*overrides)
        return load_backbone(config.model, config.precision, with_lm_head=True, device=torch.device("cpu"))

    def ours(self, backbone: Backbone, name: str, shots: int = SHOTS) -> Score:
        tokenizer = load_tokenizer(self.config().model)
        with harness_model(backbone, tokenizer, batch_rows=ROWS, folder=self.base) as model:
            (found,) = score_task(model, find_task(name, self.tasks), Settings(shots=shots))
        return found

    def plain(self, name: str, model: Any = "hf", **arguments: Any) -> Any:
        manager = TaskManager(include_path=str(self.tasks), include_defaults=False)
        given = {"pretrained": str(self.base), "dtype": "float32", **arguments} if model == "hf" else None
        return lm_eval.simple_evaluate(
            model, given, [name], num_fewshot=SHOTS, batch_size=ROWS, device="cpu", task_manager=manager
        )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    place = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        # The harness's report about the machine: 4 seconds for each call, and no number in it.
        patch.setattr(lm_eval.evaluator, "add_env_info", lambda _results: None)
        patch.setenv("DANUBE_SWEEP_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))  # as the tests have it
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", place / "datasets")
        made = Bench(place / "base", tiny_tasks(place / "tasks"), place / "run")
        save_base(tiny_config("data.rows=60"), made.base)
        answered = made.plain("tiny_answers")["samples"]["tiny_answers"]
        known = rows("answers", 6, 1)
        for row, sample in zip(known[:3], answered, strict=False):
            row["a"] = sample["resps"][0][0]
        write_rows(made.tasks / "answers_test.jsonl", known)
        lora = ["lora.rank=4", "lora.dropout=0.5", "optimizer.lr=3e-2", "trainer.max_steps=3", "data.rows=40"]
        runs.train(made.config(*CAUSAL, *lora), made.run)
        yield made


def same(score: Score, plain: Any) -> None:
    """Every number, every prompt and every item's score."""
    name = score.task
    row = plain["results"][name]
    assert set(score.metrics) == METRICS[name]
    for metric, found in score.metrics.items():
        assert found["value"] == row[metric]
        spread = row[metric.replace(",", "_stderr,")]
        assert found["stderr"] == (None if spread == "N/A" else spread)
    short = score.metric.partition(",")[0]
    samples = plain["samples"][name]
    alike = [list(one[short]) if isinstance(one[short], tuple) else [one[short]] for one in samples]
    assert score.scores == alike and score.items == len(samples)
    assert score.prompts == [f"{one['doc_hash'][:16]}{one['prompt_hash'][:16]}" for one in samples]


@pytest.mark.parametrize("name", TASKS)
def test_the_base_scores_as_in_the_harness(bench: Bench, name: str) -> None:
    found = bench.ours(bench.backbone(), name)
    same(found, bench.plain(name))
    assert found.split == "test" and found.shots == (0 if name == "tiny_pages" else SHOTS)
    assert name != "tiny_answers" or found.value == 0.5  # three of the six answers are the model's own


@pytest.mark.parametrize("name", TASKS)
def test_a_run_with_its_adapter_scores_as_peft_in_the_harness(bench: Bench, name: str) -> None:
    backbone = load_benchmarked(open_run(bench.run), Place(runs.CPU), merge=False).backbone
    found = bench.ours(backbone, name)
    same(found, bench.plain(name, peft=str(bench.run / "adapter")))
    assert name != "tiny_pages" or found.value != bench.ours(bench.backbone(), name).value


def test_a_merged_adapter_scores_as_an_attached_one(bench: Bench) -> None:
    attached = load_benchmarked(open_run(bench.run), Place(runs.CPU), merge=False).backbone
    merged = load_benchmarked(open_run(bench.run), Place(runs.CPU), merge=True).backbone
    assert not any("lora" in name for name, _ in merged.named_parameters())
    one, two = (bench.ours(backbone, "tiny_pages") for backbone in (attached, merged))
    assert two.value == pytest.approx(one.value, rel=1e-4)


@pytest.mark.parametrize("name", TASKS)
def test_nf4_scores_as_transformers_and_bitsandbytes_in_the_harness(bench: Bench, name: str) -> None:
    asked = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(bench.base, quantization_config=asked, dtype=torch.float32)
    for layer in plain.modules():
        if type(layer).__name__ == "Linear4bit":
            layer.support_avx512bf16_for_cpu = False  # its kernel computes in bf16 whatever is asked
    theirs = HFLM(pretrained=plain, tokenizer=AutoTokenizer.from_pretrained(bench.base), batch_size=ROWS)
    found = bench.ours(bench.backbone("precision=nf4", "precision.compute=fp32"), name)
    same(found, bench.plain(name, theirs))


def test_a_group_has_one_score_and_those_of_its_members(bench: Bench) -> None:
    found = bench.ours(bench.backbone(), "tiny_both")
    single = bench.ours(bench.backbone(), "tiny_choice")
    assert found.task == "tiny_both" and set(found.members) == {"tiny_choice", "tiny_valid"}
    assert found.value == found.members["tiny_choice"] == single.value and found.items == 24 and found.pooled


def test_the_command_scores_each_precision_and_goes_on_where_it_stopped(bench: Bench, tmp_path: Path) -> None:
    words = ["benchmark", "-m", "model=auto", f"model.path={bench.base}", "precision=fp32,nf4", "device=cpu"]
    words += ["precision.compute=fp32", "tasks=[tiny_choice,tiny_answers]", f"shots={SHOTS}", f"batch={ROWS}"]
    words += ["--tasks-dir", str(bench.tasks), "-o", "out"]
    done = runs.command(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cells = json.loads((tmp_path / "out" / "benchmark.json").read_text())["cells"]
    assert [cell["precision"]["storage"] for cell in cells] == ["fp32", "nf4"]
    wanted = [
        bench.ours(bench.backbone(f"precision={one}", "precision.compute=fp32"), "tiny_choice")
        for one in ("fp32", "nf4")
    ]
    assert [cell["tasks"]["tiny_choice"]["value"] for cell in cells] == [one.value for one in wanted]
    assert cells[0]["tasks"]["tiny_answers"]["value"] == 0.5
    assert cells[0]["settings"]["seeds"]["fewshot"] == 1234 and cells[0]["versions"]["lm_eval"]
    (tmp_path / "out" / "001" / "scores" / "model-tiny_choice.json").unlink()
    again = runs.command(*words, cwd=tmp_path)
    assert [line for line in again.stdout.splitlines() if line.startswith("model:")] == ["model: tiny_choice (1 of 1)"]


def test_a_folder_is_resumed_only_with_the_same_tokenizer(bench: Bench, tmp_path: Path) -> None:
    words = Words(["tiny_choice"], None, None, None, 1, None)
    other = shutil.copytree(bench.base, tmp_path / "other")
    request, keys = Request(words, argparse.Namespace(), None), set[str]()
    for place, template in ((bench.base, None), (other, None), (other, "{{ messages }}")):
        if template is not None:
            (place / "chat_template.jinja").write_text(template)
        job, _ = _of_model(replace(bench.config(), model=replace(bench.config().model, path=str(place))), request)
        keys.add(job.key)
    assert len(keys) == 2


def test_a_run_is_scored_before_and_after_its_training(bench: Bench, tmp_path: Path) -> None:
    words = ["benchmark", str(bench.run), "tasks=[tiny_choice,tiny_pages]", f"batch={ROWS}", "shots=2", "-o", "out"]
    done = runs.command(*words, "--tasks-dir", str(bench.tasks), "--accelerator", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "out" / "benchmark.json").read_text())["tasks"]
    for name, one in told.items():
        assert one["before"]["value"] == bench.ours(bench.backbone(), name).value
        assert one["change"]["value"] == one["value"] - one["before"]["value"]
        low, high = one["change"]["interval"]
        assert low <= one["change"]["value"] <= high
    assert "change, 95 %" in done.stdout
    assert "planned time: about" in done.stdout and "tiny_choice: took" in done.stdout
