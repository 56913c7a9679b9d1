"""Words of the command, names of tasks, folders and mistakes; nothing is scored here."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_tasks import CHOICE, tiny_tasks, write_task
from conftest import ROOT, compose

from danube_sweep.benchmark.find_tasks import fetch_command, find_task, harness_folder, names_in
from danube_sweep.benchmark.forgetting import change
from danube_sweep.benchmark.isolated import isolated
from danube_sweep.benchmark.pinned_tasks import PINNED, named_tasks
from danube_sweep.benchmark.published import published_score
from danube_sweep.benchmark.score_folder import ScoreFolder
from danube_sweep.benchmark.score_model import Job, _described
from danube_sweep.benchmark.score_task import Score, Settings
from danube_sweep.benchmark.scored_parts import check_overlap, described_in, scored_parts
from danube_sweep.cli import benchmark_cells
from danube_sweep.cli.benchmark_table import scored
from danube_sweep.cli.main import main
from danube_sweep.errors import CheckpointError, ConfigError, DataError
from danube_sweep.planner.benchmark_rows import benchmark_rows

MODEL = ["model=danube3_500m", "device=cpu"]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tasks(tmp_path_factory.mktemp("tasks") / "own")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*MODEL, "tasks=[tiny_choise]"], "tasks=tiny_choise: no such task; did you mean tiny_choice?"),
        ([*MODEL, "tasks=[tiny_choice]", "limit=0"], "limit must be at least 1, got 0; leave it out for every item"),
        ([*MODEL, "tasks=[tiny_choice]", "limit=half"], "limit must be a whole number, got half"),
        ([*MODEL, "tasks=[tiny_choice]", "shots=-1"], "shots must be at least 0, got -1"),
        ([*MODEL, "tasks=[tiny_choice]", "timeout_h=0"], "timeout_h must be above 0, got 0"),
        (
            [*MODEL, "tasks=[tiny_choice]", "timeout_h=nan"],
            "timeout_h must be a number of hours, got nan; leave it out",
        ),
        (
            [*MODEL, "tasks=[tiny_choice]", "timeout_h=inf"],
            "timeout_h must be a number of hours, got inf; leave it out",
        ),
        ([*MODEL, "tasks=[tiny_choice]", "chat_template=yes"], "chat_template must be auto, true or false, got yes"),
        (MODEL, "tasks= is missing: give tasks=post"),
        (["model=deberta_v3_base", "tasks=[tiny_choice]"], "deberta-v2 is an encoder"),
        (["tasks=[tiny_choice]"], "benchmark needs trained weights, and this model has random ones"),
        (
            [*MODEL, "tasks=[tiny_choice]", "data=arena"],
            "data=arena: a benchmark reads model, precision and device",
        ),
        (["some/run", "precision=nf4", "tasks=[tiny_choice]"], "precision=nf4: a run has its own model and precision"),
        ([*MODEL, "tasks=[tiny_choice]", "--merge"], "--merge is for the folder of a run"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    tasks: Path,
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", *words, "--tasks-dir", str(tasks)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and said in told[0]
    assert not os.listdir(tmp_path)


def test_a_model_that_never_got_to_a_folder_leaves_it_alone(
    tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (other := tmp_path / "other").mkdir()
    (other / "benchmark.json").write_text('{"tasks": {"tiny_choice": {"value": 0.5}}}')
    monkeypatch.setattr(benchmark_cells, "_of_model", lambda *_: os._exit(9))
    words = ["benchmark", *MODEL, "precision=fp32", "tasks=[tiny_choice]", "--tasks-dir", str(tasks), "-o", str(other)]
    monkeypatch.setattr(benchmark_cells, "is_random", lambda _: False)
    assert main(words) == 1
    said = capsys.readouterr()
    assert "its process ended with exit code 9" in said.err + said.out and "tiny_choice" not in said.out
    assert (other / "benchmark.json").read_text() == '{"tasks": {"tiny_choice": {"value": 0.5}}}'


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("acc_norm,none", 0.5123, "51.23"),
        ("exact_match,strict-match", 0.25, "25.00"),
        ("prompt_level_strict_acc,none", 0.5, "50.00"),
        ("perplexity,none", 8.5849, "8.585"),  # of lambada_openai, whose items are choices
        ("bleu,none", 82.05, "82.05"),
        ("bits_per_byte,none", 1.25, "1.25"),
    ],
)
def test_only_shares_are_shown_in_per_cent(metric: str, value: float, shown: str) -> None:
    assert scored({"metric": metric, "kind": "loglikelihood", "value": value, "stderr": None}) == shown


def test_a_folder_without_tasks_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "tasks=[a]", "--tasks-dir", str(tmp_path)]) == 2
    assert "no task in it; a task is a YAML file with a line `task: NAME`" in capsys.readouterr().err


def test_data_that_are_missing_are_one_line(tasks: Path, tmp_path: Path) -> None:
    write_task(tmp_path, "tiny_gone", CHOICE, test=tmp_path / "gone.jsonl")
    with pytest.raises(DataError, match=r"tasks=tiny_gone: its data are missing"):
        find_task("tiny_gone", tmp_path)
    with pytest.raises(DataError, match=r"python -c .* load_dataset\('allenai/ai2_arc', 'ARC-Easy'\)"):
        find_task("arc_easy", None)  # the tests are offline
    (own := tmp_path / "own").mkdir()
    (own / "far.yaml").write_text(f"task: tiny_far\ndataset_path: some/set\ntest_split: test\n{CHOICE}")
    with pytest.raises(DataError, match=r"python -c .* load_dataset\('some/set'\)"):
        find_task("tiny_far", own)


def test_the_six_are_tasks_of_the_harness_with_the_pinned_versions_and_metrics() -> None:
    known = names_in(harness_folder())
    for one in PINNED:
        (file,) = (file for file in known[one.name] if described_in(file).get("task") == one.name or one.name == "mmlu")
        described = described_in(file)
        assert described["metadata"]["version"] == one.version
        metric, _, filtered = one.metric.partition(",")
        if one.name != "mmlu":
            assert metric in [listed["metric"] for listed in described["metric_list"]]
            assert filtered in ["none", *(listed["name"] for listed in described.get("filter_list", []))]
    assert named_tasks(["post", "arc_easy", "mmlu"]) == [*(one.name for one in PINNED), "arc_easy"]


def test_a_published_figure_is_of_the_chat_model() -> None:
    assert published_score("h2oai/h2o-danube3-4b-chat", "MMLU (5)") == "54.74"
    assert published_score("microsoft/Phi-3-mini-4k-instruct", "GSM8K (5)") == "85.70"
    assert published_score("h2oai/h2o-danube3-4b-base", "MMLU (5)") is None
    assert published_score("models/danube3_4b_base", "MMLU (5)") is None
    score = replace(a_score([[1.0]]), task="mmlu")
    for variant, figure in (("chat", 54.74), ("base", None)):
        config = compose(["model=danube3_4b", f"model.variant={variant}", "model.path=some/h2o-danube3-4b"])
        assert _described(Job(config, ["mmlu"], Settings(), 1), score)["published"] == figure
    for other in ("some/other", "microsoft/Phi-3-mini-128k-instruct", "google/codegemma-7b-it"):
        assert published_score(other, "MMLU (5)") is None


def test_the_part_that_is_scored_is_read_from_the_yaml(tasks: Path, tmp_path: Path) -> None:
    assert scored_parts("tiny_choice", tasks) == {"test"} and scored_parts("tiny_valid", tasks) == {"validation"}
    assert scored_parts("tiny_both", tasks) == {"test", "validation"}
    (tmp_path / "code.yaml").write_text("task: code\nclass: !function task.Own\n")
    (tmp_path / "plain.yaml").write_text("task: plain\ninclude:\nvalidation_split: dev\n")
    (tmp_path / "round.yaml").write_text("task: round\ninclude: round.yaml\n")
    (tmp_path / "mine.yaml").write_text("group: mine\ntask: [arc_easy, hellaswag]\n")
    (tmp_path / "odd.yaml").write_text("group: odd\ntask: [nowhere, hellaswag]\n")
    assert scored_parts("mine", tmp_path) == scored_parts("odd", tmp_path) == {"test", "validation"}
    assert scored_parts("hellaswag", None) == {"validation"} and scored_parts("mmlu", None) == {"test"}
    assert scored_parts("arc_challenge", None) == {"test"}  # through what it includes
    assert scored_parts("xstorycloze_gl", None) == {"test"}  # validates on it
    assert scored_parts("code", tmp_path) == {"test"} and scored_parts("plain", tmp_path) == {"validation"}
    with pytest.raises(ConfigError, match=r"round\.yaml includes itself"):
        scored_parts("round", tmp_path)


def test_two_names_of_one_task_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gsm8k_cot and chain_of_thought both stand for gsm8k_cot; give one of them"):
        check_overlap(["gsm8k_cot", "chain_of_thought"], None)
    check_overlap([one.name for one in PINNED], None)


def test_the_command_that_fetches_a_group_names_each_source_once() -> None:
    assert fetch_command("ai2_arc").count("load_dataset(") == 2
    assert "load_dataset('openai/gsm8k', 'main')" in fetch_command("gsm8k_cot")


def test_names_are_listed_by_a_word(tasks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--list", "arc_chall", "--tasks-dir", str(tasks)]) == 0
    told = capsys.readouterr().out
    assert "tiny_choice" in told and "\n  arc_challenge\n" in told and "gsm8k_cot" in told


def test_the_rows_at_a_time_follow_from_the_memory_of_the_device() -> None:
    devices = ("kaggle_t4", "h200")
    small, large = (benchmark_rows(compose(["model=danube3_4b", "precision=fp16", f"device={one}"])) for one in devices)
    assert 1 <= small < large == 64


def a_score(values: list[list[float]], metric: str = "acc,none", prompts: str = "p") -> Score:
    mean = sum(one[0] for one in values) / len(values)
    names = [f"{prompts}{place}" for place in range(len(values))]
    return Score(
        "t", metric, mean, None, True, len(values), 0, 1, "test", "multiple_choice", {}, {}, values, names, True
    )


def test_a_change_has_the_interval_of_its_paired_differences() -> None:
    from scipy import stats

    before, after = a_score([[0.0], [1.0], [1.0], [0.0]] * 10), a_score([[1.0], [1.0], [0.0], [1.0]] * 10)
    paired = [new[0] - old[0] for old, new in zip(before.scores, after.scores, strict=True)]
    wanted = stats.norm.interval(0.95, loc=0.25, scale=stats.sem(paired))
    found = change(before, after)
    assert found.value == pytest.approx(0.25) and found.interval == pytest.approx(wanted)
    assert change(before, a_score(after.scores, prompts="other")).interval is None


def test_only_a_mean_and_a_perplexity_have_an_interval() -> None:
    rng = np.random.default_rng(0)
    logs_N = rng.normal(-2.0, 1.0, 200)

    def perplexity(logs: Any) -> Score:
        return replace(a_score([[float(one)] for one in logs], "perplexity,none"), value=float(np.exp(-logs.mean())))

    before, after = perplexity(logs_N), perplexity(logs_N - rng.normal(0.2, 0.3, 200))
    found = change(before, after)
    draws = rng.integers(200, size=(4000, 200))
    old_N, new_N = (np.array(one.scores)[:, 0] for one in (before, after))
    wanted = np.quantile([np.exp(-new_N[rows].mean()) - np.exp(-old_N[rows].mean()) for rows in draws], [0.025, 0.975])
    assert found.interval == pytest.approx(wanted, rel=0.1)
    assert change(replace(before, metric="f1,none"), replace(after, metric="f1,none")).interval is None
    mcc = [replace(a_score([[1, 0], [0, 0], [1, 0]], "mcc,none"), value=value) for value in (0.0, 0.5)]
    assert change(*mcc).interval is None and change(*mcc).value == 0.5


def test_a_process_that_is_killed_or_late_ends_alone() -> None:
    assert isolated(lambda: {"a": 1}).value == {"a": 1}
    assert isolated(lambda: os.kill(os.getpid(), 9)).state == "killed"
    assert isolated(lambda: time.sleep(60), timeout_s=0.2).state == "timeout"

    def mistaken() -> None:
        raise ConfigError("a mistake")

    with pytest.raises(ConfigError, match="a mistake"):
        isolated(mistaken)


def test_what_decides_the_prompts_is_in_the_key_of_a_folder() -> None:
    words = (["model.variant=base"], ["model.variant=chat"], ["model.variant=chat", "model.chat.user=Q"])
    jobs = [Job(compose(["model=danube3_4b", *more]), ["mmlu"], Settings(), 1) for more in words]
    assert len({job.key for job in jobs}) == 3


def test_a_folder_takes_no_other_model(tmp_path: Path) -> None:
    folder = ScoreFolder(tmp_path / "out")
    folder.take("one")  # and nothing is written: it is killed
    folder.take("one")
    with pytest.raises(CheckpointError, match="holds the benchmark of another model"):
        folder.take("two")
    assert json.loads((folder.path / ".danube_sweep").read_text())["kind"] == "benchmark"
    with pytest.raises(CheckpointError, match="holds files that danube-sweep did not write"):
        ScoreFolder(ROOT / "docs").take("one")


def test_a_timeout_may_be_longer_than_a_single_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isolated(lambda: 1, 10_000 * 3600.0).value == 1
    monkeypatch.setattr("danube_sweep.benchmark.isolated._ONE_WAIT_S", 0.01)
    assert isolated(lambda: time.sleep(0.1) or 2, 60.0).value == 2
    assert isolated(lambda: time.sleep(60), 0.1).state == "timeout"
