"""The time of a benchmark: its requests as the harness makes them, its seconds by hand, and the time that is left."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark_tasks import CHOICE, tiny_tasks, write_task
from conftest import compose

from danube_sweep.benchmark.find_tasks import find_task
from danube_sweep.benchmark.pinned_tasks import PINNED
from danube_sweep.benchmark.plan_benchmark import BenchmarkPlan, PlannedTask, TimeLeft, plan_tasks
from danube_sweep.benchmark.score_folder import ScoreFolder
from danube_sweep.benchmark.score_model import _Scoring
from danube_sweep.benchmark.task_facts import FACTS
from danube_sweep.benchmark.task_requests import Amount, requests_of
from danube_sweep.cli.main import main
from danube_sweep.config.schema import Config
from danube_sweep.planner.benchmark_seconds import BenchmarkSeconds, Requests, benchmark_seconds
from danube_sweep.planner.planned_architecture import planned_architecture

FAST = 1e9


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tasks(tmp_path_factory.mktemp("tasks") / "own")


@pytest.fixture(scope="module")
def trial() -> Config:
    """Over a CPU with one figure only: 1 GFLOP/s."""
    config = compose(["model=danube3_500m", "precision=fp32", "device=cpu"])
    device = replace(config.device, tflops_fp32=1e-3, bandwidth_gb_s=FAST, launch_us=0.0)
    return replace(config, device=device)


@pytest.mark.parametrize(
    ("name", "limit"), [("tiny_choice", None), ("tiny_pages", None), ("tiny_answers", None), ("tiny_choice", 5)]
)
def test_requests_of_a_local_task_are_those_of_the_harness(tasks: Path, name: str, limit: int | None) -> None:
    asked = requests_of(name, tasks, Amount(limit, shots=0))
    assert asked is not None
    (task,) = find_task(name, tasks).tasks.values()
    task.set_config(key="num_fewshot", value=0)
    task.build_all_requests(limit=limit)
    texts = [" ".join(one for one in request.args if isinstance(one, str)) for request in task.instances]
    characters = sum(map(len, texts)) / len(texts)
    if name == "tiny_answers":
        assert (asked.generated, asked.scored, asked.answer_tokens) == (len(texts), 0, 4)
        assert asked.prompt_tokens == pytest.approx(characters / 4, rel=0.15)
    else:
        assert (asked.scored, asked.generated) == (len(texts), 0)
        assert asked.scored_tokens == pytest.approx(characters / 4, rel=0.15)


def test_examples_lengthen_prompts_and_groups_add_up(tasks: Path) -> None:
    none, two = (requests_of("tiny_choice", tasks, Amount(shots=shots)) for shots in (0, 2))
    assert none is not None and two is not None
    assert two.scored == none.scored and two.scored_tokens == pytest.approx(3 * none.scored_tokens)
    both = requests_of("tiny_both", tasks, Amount())
    assert both is not None and both.scored == 2 * none.scored
    assert requests_of("tiny_pages", tasks, Amount(shots=2)) == requests_of("tiny_pages", tasks, Amount())  # states 0


def test_letters_as_choices_are_read_from_one_pass(tmp_path: Path, tasks: Path) -> None:
    letters = CHOICE.replace('"{{choices}}"', '["A", "B", "C"]')
    write_task(tmp_path, "lettered", letters, test=tasks / "choice_test.jsonl")
    found = requests_of("lettered", tmp_path, Amount())
    assert found is not None and found.scored == 12


def test_what_cannot_be_counted_is_unknown_and_said(tmp_path: Path, trial: Config) -> None:
    (tmp_path / "far.yaml").write_text(f"task: far\ndataset_path: some/set\ntest_split: test\n{CHOICE}")
    write_task(tmp_path, "gone", CHOICE, test=tmp_path / "gone.jsonl")
    (tmp_path / "rows.jsonl").write_text('{"q": "a", "choices": ["b", "c"], "gold": 0}\n')
    write_task(tmp_path, "called", CHOICE.replace('"{{choices}}"', "!function made.up"), test=tmp_path / "rows.jsonl")
    for name in ("far", "gone", "called"):
        assert requests_of(name, tmp_path, Amount()) is None
    plan = plan_tasks(trial, ["far", "gsm8k"], tmp_path, Amount(limit=8), 8)
    assert plan.said().endswith("; unknown for far: its items are not counted before they are loaded")
    assert "scored prompts" not in plan.said() and "generated answers at most" in plan.said()


def test_the_facts_cover_the_six_and_a_limit_is_of_each_subject() -> None:
    assert {one.name for one in PINNED} <= set(FACTS)
    found = requests_of("mmlu", None, Amount(limit=2))
    assert found == Requests(scored=114, scored_tokens=6 * 110)
    found = requests_of("hellaswag", None, Amount(shots=0))
    assert found == Requests(scored=40_168, scored_tokens=90)
    found = requests_of("truthfulqa_mc2", None, Amount(limit=10, shots=5))  # its prompt always holds the same six
    assert found == Requests(scored=72, scored_tokens=185)
    found = requests_of("gsm8k_cot", None, Amount(limit=10))
    assert found == Requests(generated=10, prompt_tokens=70 + 5 * 95, answer_tokens=256)


def test_prompts_take_the_operations_of_a_forward_pass(trial: Config) -> None:
    model = planned_architecture(trial.model)
    found = benchmark_seconds(trial, Requests(scored=64, scored_tokens=50), batch_rows=8)
    weights = model.layers * sum(one.inputs * one.outputs for one in model.linears) + model.vocab * model.hidden
    operations = 64 * 50 * (2 * weights + 4 * model.layers * 50 * model.heads * model.head_dim)
    assert found.likelihood == pytest.approx(operations / 1e9, rel=1e-3) and found.generation == 0


def test_answers_take_the_bytes_of_the_weights_for_every_token(trial: Config) -> None:
    model = planned_architecture(trial.model)
    bound = replace(trial, device=replace(trial.device, tflops_fp32=FAST, bandwidth_gb_s=1.0))
    found = benchmark_seconds(bound, Requests(generated=2, prompt_tokens=1, answer_tokens=100), batch_rows=1)
    weights = model.linear_weights + model.embedding
    assert found.generation == pytest.approx(2 * 101 * 4 * weights / 1e9, rel=0.02) and found.likelihood == 0
    longer = benchmark_seconds(bound, Requests(generated=2, prompt_tokens=1000, answer_tokens=100), batch_rows=1)
    cached = 2 * 100 * 1000 * 2 * model.kv * model.layers * 4 / 1e9
    assert longer.generation > found.generation + cached


def test_the_time_left_follows_what_was_measured() -> None:
    clock, said = [0.0], list[str]()
    one = PlannedTask("one", Requests(scored=100, scored_tokens=10), BenchmarkSeconds(likelihood=100.0))
    two = PlannedTask("two", Requests(scored=100, scored_tokens=10), BenchmarkSeconds(likelihood=200.0))
    left = TimeLeft(BenchmarkPlan([one, PlannedTask("far", unknown="why"), two]), said.append, lambda: clock[0])
    left.began("one")
    clock[0] = 5.0
    left.passed(100)
    assert said == []  # a line comes every ten seconds
    clock[0] = 40.0
    left.passed(100)  # a fifth of the task, in twice its planned seconds
    assert said == ["one: 20%, 9 min left"]
    clock[0] = 200.0
    left.ended(whole=True)
    assert said[1:] == ["one: took 3 min, planned 2 min; 7 min left"]
    left.began("far")
    clock[0] = 300.0
    left.passed(10)
    left.ended(whole=True)
    assert said[2:] == ["far: took 2 min; 7 min left"]
    left.began("two")
    clock[0] = 301.0
    left.ended(whole=False)
    assert len(said) == 3


def test_the_time_left_is_told_while_answers_are_written(tmp_path: Path) -> None:
    clock, said = [0.0], list[str]()
    asked = Requests(generated=4, prompt_tokens=10, answer_tokens=50)
    plan = BenchmarkPlan([PlannedTask("answers", asked, BenchmarkSeconds(generation=100.0))])
    job: Any = None  # of which a pass knows nothing
    scoring = _Scoring(job, ScoreFolder(tmp_path), said.append, TimeLeft(plan, said.append, lambda: clock[0]))
    scoring.left.began("answers")
    for tokens in (10, *[1] * 30):  # a prompt, and its answer token by token
        scoring._passed(None, (torch.zeros(1, tokens),), {}, None)
        clock[0] += 1.0
    assert len(said) == 3 and all(line.endswith(" left") for line in said)


def test_plan_shows_the_benchmark_of_a_trial_and_of_a_sweep(tasks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["model=danube3_500m", "device=cpu", f"trainer.benchmark_dir={tasks}"]
    assert main(["plan", *asked, "trainer.benchmark=[tiny_choice,tiny_answers]"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "benchmark before and after training, each time about" in told
    assert "scored prompts" in told and "generated answers at most" in told
    assert main(["plan", "-m", *asked, "trainer.benchmark=[tiny_choice,tiny_valid]", "precision=fp32,bf16"]) == 0
    told = capsys.readouterr().out
    assert told.count("benchmark: after training, and before it once for each backbone, about") == 2
    assert told.count("benchmark: tiny_choice has a test split, so twice for the winner alone, about") == 2
    assert main(["plan", "--json", *asked, "trainer.benchmark=[tiny_choice]"]) == 0
    found = json.loads(capsys.readouterr().out)[0]["benchmark_seconds"]
    assert found["likelihood"] > 0 == found["generation"] and found["unknown"] == {}
    assert main(["plan", *asked, "trainer.benchmark=[tiny_choise]"]) == 2
    assert "tasks=tiny_choise: no such task; did you mean tiny_choice?" in capsys.readouterr().err
