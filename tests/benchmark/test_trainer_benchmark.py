"""trainer.benchmark: what training costs in general ability, in a trial's result, a ranking and a page."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import pytest
import runs
import workbench
from benchmark_tasks import tiny_tasks
from conftest import TINY, tiny_config

from danube_sweep.benchmark.find_tasks import find_task
from danube_sweep.benchmark.harness_model import harness_model
from danube_sweep.benchmark.score_task import Settings, score_task
from danube_sweep.benchmark.scored_parts import check_benchmark, scored_parts
from danube_sweep.cli.main import main
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.options import OPTIONS
from danube_sweep.config.schema import Sweep
from danube_sweep.errors import ConfigError
from danube_sweep.inference.benchmarked_run import check_benchmarked, load_benchmarked
from danube_sweep.inference.predict import Place, open_run
from danube_sweep.storage.files import read_json

ENCODER = ["model=deberta_v3_base", "model.shape.num_key_value_heads=2"]
SHORT = ["head=sequence", "lora.rank=4", "optimizer.lr=3e-2", "trainer.max_steps=3", "data.rows=40"]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tasks(tmp_path_factory.mktemp("tasks") / "own")


@pytest.fixture(scope="module")
def swept(tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of two trials, ranked; one of their tasks has a test split."""
    place = tmp_path_factory.mktemp("swept")
    asked = [
        "trainer.benchmark=[tiny_valid,tiny_read,tiny_pages]",
        f"trainer.benchmark_dir={tasks}",
        "sweep.baseline=none",
    ]
    words = ["-m", *TINY, *SHORT, "optimizer.lr=3e-2,1e-3", *asked, "hydra.sweep.dir=sweep", "sweep.slots=1"]
    runs.command(*words, cwd=place).check_returncode()
    return place / "sweep"


def test_a_trial_of_a_pack_is_scored_with_its_own_adapter(swept: Path, tasks: Path) -> None:
    results = [read_json(file) for file in sorted(swept.glob("*/result.json"))]
    assert [one["measured"]["packed"] for one in results] == [2, 2]
    before = [one["benchmark"]["tiny_read"]["before"] for one in results]
    assert before[0] == before[1]
    for folder, result in zip(sorted(swept.glob("0*")), results, strict=True):
        trained = load_benchmarked(open_run(folder), Place(runs.CPU), merge=False)
        with harness_model(trained.backbone, trained.tokenizer, batch_rows=8) as model:
            (found,) = score_task(model, find_task("tiny_read", tasks), Settings())
        told = result["benchmark"]["tiny_read"]
        assert told["after"] == pytest.approx(found.value, rel=1e-4) != told["before"]
        assert told["change_low"] <= told["change"] <= told["change_high"]
        assert {one["split"] for one in result["benchmark"].values()} == {"validation"}


def test_only_the_winner_is_scored_on_a_test_split_once(swept: Path, tasks: Path) -> None:
    with (swept / "ranking.csv").open(newline="") as stream:
        best, other = csv.DictReader(stream)
    assert other["benchmark/tiny_pages/after"] == "" != other["benchmark/tiny_read/after"]
    winner = open_run(swept / best["trials"])
    told = read_json(swept / "test.json")["benchmarks"]
    ((identity, scores),) = told.items()
    assert identity == winner.manifest["trial"] and list(scores) == ["tiny_pages"]
    trained = load_benchmarked(winner, Place(runs.CPU), merge=False)
    untrained = workbench.load_base(winner.config, workbench.CPU, spare=True)
    for name, backbone in (("before", untrained), ("after", trained.backbone)):
        with harness_model(backbone, trained.tokenizer, batch_rows=8) as model:
            (found,) = score_task(model, find_task("tiny_pages", tasks), Settings())
        assert float(best[f"benchmark/tiny_pages/{name}"]) == scores["tiny_pages"][name] == pytest.approx(found.value)
    assert "scored on a test split, so for the winner alone: tiny_pages" in (swept / "ranking.md").read_text()
    logs = [file.read_text() for file in sorted(swept.glob("0*/log.txt"))]
    assert all("tiny_pages is left out, as it has a test split" in log for log in logs) and len(logs) == 2
    before = (swept / "test.json").stat().st_mtime_ns
    again = runs.command("resume", str(swept), "--trust", cwd=swept.parent)
    assert again.returncode == 0, again.stderr
    assert (swept / "test.json").stat().st_mtime_ns == before


def test_ranking_and_page_show_the_change_with_its_interval(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (swept / "ranking.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        found = {name: float(row[f"benchmark/tiny_read/{name}"]) for name in ("before", "after", "change")}
        assert found["change"] == pytest.approx(found["after"] - found["before"])
    assert "tiny_valid change, 95 %" in (swept / "ranking.md").read_text()
    assert main(["report", str(swept)]) == 0
    assert "tiny_valid change" in (swept / "report.html").read_text()


def test_training_is_the_same_with_and_without_a_benchmark(tasks: Path, tmp_path: Path) -> None:
    plain = tiny_config(*SHORT)
    asked = tiny_config(*SHORT, "trainer.benchmark=[tiny_valid]", f"trainer.benchmark_dir={tasks}")
    for name, config in (("plain", plain), ("asked", asked)):
        runs.train(config, tmp_path / name)
    told = [runs.metrics(tmp_path / one, "train") for one in ("plain", "asked")]
    columns = [[(row["step"], row["loss"]) for row in rows] for rows in told]
    assert columns[0] == columns[1] != []
    files = [tmp_path / one / "adapter" / "adapter_model.safetensors" for one in ("plain", "asked")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert "benchmark" not in read_json(tmp_path / "plain" / "result.json")
    run = open_run(tmp_path / "asked")
    for name in ("sequence", "bradley_terry_ties"):
        headed = replace(run, config=replace(run.config, head=OPTIONS["head"][name]()))
        said = f"the {name} head takes no part: the backbone with its adapter is scored"
        assert check_benchmarked(headed) == said


def test_the_hash_knows_a_benchmark_only_where_there_is_one(tasks: Path) -> None:
    plain, asked = tiny_config(*SHORT), tiny_config(*SHORT, "trainer.benchmark=[tiny_valid]")
    elsewhere = tiny_config(*SHORT, "trainer.benchmark=[tiny_valid]", f"trainer.benchmark_dir={tasks}")
    assert trial_hash(plain) != trial_hash(asked) == trial_hash(elsewhere)
    assert trial_hash(tiny_config(*SHORT, "trainer.benchmark=[tiny_valid]", "trainer.benchmark_test=false")) == (
        trial_hash(asked)
    )


def test_only_a_validation_split_may_choose_among_trials(tasks: Path) -> None:
    asked = ["trainer.benchmark=[tiny_choice,tiny_valid]", f"trainer.benchmark_dir={tasks}"]
    config = tiny_config(*SHORT, *asked)
    check_benchmark(Sweep(metric="benchmark/tiny_valid/after", goal="maximize"), config)
    with pytest.raises(ConfigError, match="tiny_choice is scored on its test split, which must not choose"):
        check_benchmark(Sweep(metric="benchmark/tiny_choice/change", goal="maximize"), config)
    with pytest.raises(ConfigError, match=r"benchmark=tiny_choice: .* sweep.score_test=false leaves that out"):
        check_benchmark(Sweep(score_test=False), config)
    check_benchmark(Sweep(score_test=False), tiny_config(*SHORT, *asked, "trainer.benchmark_test=false"))
    unknown = tiny_config(*SHORT, "trainer.benchmark=[tiny_none]", f"trainer.benchmark_dir={tasks}")
    with pytest.raises(ConfigError, match="tasks=tiny_none: no such task"):
        check_benchmark(Sweep(), unknown)


def test_a_task_file_that_changes_is_read_again(tmp_path: Path) -> None:
    for changed_s, split in enumerate(("test", "validation"), 1):
        (tmp_path / "own.yaml").write_text(f"task: own_task\n{split}_split: rows\n")
        os.utime(tmp_path / "own.yaml", (changed_s, changed_s))
        assert scored_parts("own_task", tmp_path) == {split}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer.benchmark_limit=3"], "trainer.benchmark_limit=3 needs trainer.benchmark"),
        (["trainer.benchmark_test=false"], "trainer.benchmark_test=false needs trainer.benchmark"),
        (["trainer.benchmark=[a]", "trainer.benchmark_limit=0"], "trainer.benchmark_limit must be at least 1, got 0"),
        (
            ["trainer.benchmark=[a]", "model=deberta_v3_base", "model.shape.num_key_value_heads=2"],
            "deberta-v2 is an encoder",
        ),
    ],
)
def test_a_setting_that_cannot_work_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tiny_config(*words)


def test_a_flat_backbone_and_an_unread_output_layer_score_as_a_padded_one(tasks: Path) -> None:
    found = []
    for layout in ("flat", "padded"):
        config = tiny_config(*SHORT, f"data.layout={layout}")
        backbone = workbench.load_base(config, workbench.CPU, spare=True)
        assert backbone.flat == (layout == "flat") and backbone.lm_head is None
        tokenizer = workbench.prepare(config).tokenizer
        with harness_model(backbone, tokenizer, batch_rows=4) as model:
            found += score_task(model, find_task("tiny_pages", tasks), Settings())
    assert found[0].value == found[1].value
