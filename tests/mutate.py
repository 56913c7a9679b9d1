"""`make mutate`: puts one-line faults into a copy of the package, one by one, and shows which test catches each.

A fault that no test catches is a hole in the suite: the exit code is 1. Each is tried in a process forked from one that
has imported the libraries and nothing of ours, with the test files that are about its subject.
"""

import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("danube_sweep", "hydra_plugins", "conf", "tests", "benchmarks", "docs", "pyproject.toml", "README.md")
LIBRARIES = (
    "bitsandbytes",
    "hydra",
    "lightning",
    "optuna",
    "peft",
    "pyarrow.parquet",
    "sklearn.metrics",
    "torchmetrics.functional.classification",
    "transformers.models.llama.modeling_llama",
    "wandb",
)


@dataclass(frozen=True)
class Fault:
    """A line of the package, what it becomes, and where the tests of its subject are."""

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]


TRIAL, GROUPS = "training/trial.py", "optimizer/parameter_groups.py"
STORED = "training/pack/stored_prefix.py"
RUN = "training/test_run.py"

FAULTS = [
    Fault(
        "nothing is tight, as if no run had ever exceeded its prediction",
        "planner/memory.py",
        "SPREAD = {False: 0.12, True: 0.4}",
        "SPREAD = {False: 0.0, True: 0.0}",
        ("planner/test_what_fits.py",),
    ),
    Fault(
        "a plan has one slot, however many GPUs are found",
        "sweeping/dry_run.py",
        "default=0) or 1",
        "default=0) and 1",
        ("planner/test_planned_device.py",),
    ),
    Fault(
        "packs follow a guess even after steps were measured",
        "planner/pack_plan.py",
        "guessed = self._device.guessed and not self._corrections.observed(self._key)",
        "guessed = self._device.guessed",
        ("planner/test_planned_device.py",),
    ),
    Fault(
        "a soup's updates are summed, and not averaged",
        "inference/soup/average.py",
        "(one.scale / count)",
        "one.scale",
        ("inference/test_soup.py",),
    ),
    Fault(
        "the greedy soup tries the trials that it has passed again",
        "inference/soup/choose_soup.py",
        "rest = rest[better + 1 :]",
        "rest = rest[:better] + rest[better + 1 :]",
        ("inference/test_soup.py::test_the_choice_is_that_of_the_paper_in_fewer_passes",),
    ),
    Fault(
        "every trial of a sweep is scored on test splits",
        "sweeping/execute/child_process.py",
        "benchmark_test=not asked.benchmark",
        "benchmark_test=True",
        ("benchmark/test_trainer_benchmark.py::test_only_the_winner_is_scored_on_a_test_split_once",),
    ),
    Fault(
        "a rule is judged on the rows that chose it",
        "results/decisions/judge_rules.py",
        "np.flatnonzero(~out_N)",
        "np.flatnonzero(out_N)",
        ("results/test_decisions.py",),
    ),
    Fault(
        "answers with a deadline and without one are mixed",
        "inference/predict_ensemble.py",
        "compute, CHUNK_ROWS, deadline]",
        "compute, CHUNK_ROWS]",
        ("inference/test_predict_ensemble.py::test_parts_with_a_deadline_and_without_one_never_mix",),
    ),
    Fault(
        "two soups of one config have one hash",
        "inference/soup/write_soup.py",
        ".view(torch.uint8).numpy().tobytes()",
        ".view(torch.uint8).numpy().tobytes()[:0]",
        ("inference/test_soup.py::test_soups_of_one_config_have_hashes_of_their_own_and_are_two_members",),
    ),
    Fault(
        "the search for cut points starts from grade 0",
        "results/decisions/fit_rules.py",
        "truth.lowest + np.arange(truth.classes - 1)",
        "np.arange(truth.classes - 1)",
        ("results/test_decisions.py::test_the_rule_for_grades_from_10_is_that_for_grades_from_0_moved_by_10",),
    ),
    Fault(
        "parts of another prediction are taken for this one's",
        "storage/prediction_parts.py",
        'if stated.get("key") == key:',
        'if "key" in stated:',
        ("inference/test_predict_ensemble.py",),
    ),
    Fault(
        "a deadline is judged without its margin",
        "inference/deadline.py",
        "return total * MARGIN",
        "return total",
        (
            "inference/test_predict_ensemble.py::test_a_deadline_leaves_out_the_other_order_and_then_the_smallest_shares",
        ),
    ),
    Fault(
        "a micro-batch's share of its step is left out of the gradient",
        TRIAL,
        "loss = mean * micro.share",
        "loss = mean",
        ("training/test_lightning_loop.py",),
    ),
    Fault(
        "the gradient is not clipped",
        TRIAL,
        "(math.inf if limit is None else limit, self.ranks)",
        "(math.inf, self.ranks)",
        ("training/test_pack.py::test_a_trial_of_a_pack_follows_plain_peft",),
    ),
    Fault(
        "the head's last gradient is not clipped",
        "training/shards.py",
        "clip_grad_norm_(self.whole, limit)",
        "clip_grad_norm_(self.whole[:-1], limit)",
        ("training/test_pack.py::test_a_trial_of_a_pack_follows_plain_peft",),
    ),
    Fault(
        "scaled gradients of fp16 are clipped",
        TRIAL,
        "self.scaler.unscale_(self.optimizer)",
        "pass",
        ("training/test_loss_scale.py",),
    ),
    Fault(
        "the schedule stands still in a step that overflows",
        TRIAL,
        "self.schedule.step()",
        "self.schedule.step() if self.done.overflows == 0 else None",
        ("training/test_loss_scale.py",),
    ),
    Fault(
        "the best step is the worst",
        "training/best_and_patience.py",
        "value = -metrics[objective] if",
        "value = metrics[objective] if",
        ("training/test_best_and_patience.py",),
    ),
    Fault(
        "patience lasts one validation longer",
        "training/best_and_patience.py",
        ">= (patience or math.inf)",
        "> (patience or math.inf)",
        ("training/test_best_and_patience.py",),
    ),
    Fault(
        "what is saved is the last step",
        "training/resume.py",
        ".folder(trial.done.step if best is None else best)",
        ".folder(trial.done.step)",
        (f"{RUN}::test_the_best_step_is_kept_and_not_the_last",),
    ),
    Fault(
        "a head is evaluated in train mode",
        "training/evaluate.py",
        "modules = [*backbone.modules(), *heads]",
        "modules = [*backbone.modules()]",
        (f"{RUN}::test_every_way_to_train_the_backbone_comes_back_as_it_was",),
    ),
    Fault(
        "the calibration error has other bins",
        "training/metrics.py",
        "n_bins=15",
        "n_bins=10",
        ("training/test_metrics.py",),
    ),
    Fault(
        "the answers of a pack come in the order of ranks",
        "inference/joint_answers.py",
        "at = np.argsort(places)",
        "at = np.arange(len(places))",
        (
            "inference/test_runs_in_packs.py::test_a_pack_answers_as_its_runs_do_one_by_one_and_runs_the_frozen_blocks_once",
        ),
    ),
    Fault(
        "gradients of divided weights are averaged over the ranks",
        "model/sharded.py",
        "ADDS_UP: Final = 1.0",
        "ADDS_UP: Final = 2.0",
        ("sweeping/test_sharding.py::test_full_training_over_divided_weights_is_that_over_whole_ones",),
    ),
    Fault(
        "the norm that divided gradients are clipped by is that of a rank's part",
        "training/shards.py",
        "ranks.add_up([square])",
        "ranks.add_up([])",
        ("sweeping/test_sharding.py::test_full_training_over_divided_weights_is_that_over_whole_ones",),
    ),
    Fault(
        "extra rows weigh as much as the others",
        "head/base_head.py",
        "(losses_B * batch.weights_B).sum() / batch.weights_B.sum()",
        "losses_B.mean()",
        ("data/test_extra_rows.py::test_a_row_counts_in_the_gradient_by_its_weight",),
    ),
    Fault(
        "labels are smoothed in evaluation",
        "head/base_head.py",
        'F.cross_entropy(output, self.wanted(batch), reduction="none")',
        'F.cross_entropy(output, self.wanted(batch), reduction="none", label_smoothing=self.label_smoothing)',
        (
            "head/test_heads_by_hand.py",
            f"{RUN}::test_label_smoothing_is_trained_on_and_not_evaluated_with",
        ),
    ),
    Fault(
        "a mean is taken over padding",
        "head/formulas.py",
        "weights_BT = mask_BT.to(hidden_BTH.dtype)",
        "weights_BT = torch.ones_like(mask_BT, dtype=hidden_BTH.dtype)",
        ("head/test_heads_by_hand.py",),
    ),
    Fault(
        "the input's gradient passes where dropout took the input away",
        "lora/packed_operation.py",
        "through_nMI = _masked(through_nMI, part, given.shape, layout).to(given.dtype)",
        "through_nMI = through_nMI.to(given.dtype)",
        ("lora/test_packed_operation.py",),
    ),
    Fault(
        "rsLoRA divides by the rank",
        "lora/packed_adapters.py",
        "(math.sqrt(config.rank) if config.rslora else config.rank)",
        "config.rank",
        ("training/test_assemble.py",),
    ),
    Fault(
        "norms and biases decay",
        GROUPS,
        "one.ndim >= 2 and not",
        "one.ndim >= 1 and not",
        ("optimizer/test_optimizer.py",),
    ),
    Fault("LoRA+ has no ratio", GROUPS, "self.lr * self.plus_ratio", "self.lr", ("optimizer/test_optimizer.py",)),
    Fault(
        "the head's own rate is ignored",
        "optimizer/build_optimizer.py",
        "config.lr, head_lr or config.lr",
        "config.lr, config.lr",
        ("optimizer/test_optimizer.py",),
    ),
    Fault(
        "a sliding window is one token longer",
        "model/unpadded.py",
        "seen.triu(1 - window)",
        "seen.triu(-window)",
        ("model/test_unpadded.py",),
    ),
    Fault(
        "the scores of Gemma 2 have no cap",
        "model/unpadded.py",
        '"eager": eager_attention_forward,',
        '"eager": sdpa_attention_forward,',
        ("model/test_unpadded.py",),
    ),
    Fault(
        "averaging both orders of answers does not exchange the columns",
        "inference/joint_answers.py",
        "other.answers_NA[:, [1, 0, *range(2,",
        "other.answers_NA[:, [0, 1, *range(2,",
        ("inference/test_predict.py",),
    ),
    Fault(
        "exchanged answers keep their label",
        "data/records.py",
        "texts=(prompt, b, a), label=label)",
        "texts=(prompt, b, a))",
        ("data/test_data_kinds.py",),
    ),
    Fault(
        "validation rows are augmented",
        "training/prepare.py",
        '"validation": loaded.validation,',
        '"validation": _augmented(loaded.validation, config),',
        (f"{RUN}::test_swapped_copies_double_the_training_rows_and_no_others",),
    ),
    Fault(
        "the validation share is one of all rows and not of those without the test part",
        "data/split.py",
        "validation_share / (1 - test_share)",
        "validation_share",
        ("data/test_data_kinds.py", "data/test_grouping.py"),
    ),
    Fault(
        "every epoch has the same order",
        "data/batches.py",
        "PCG64([seed, epoch])",
        "PCG64([seed, 0])",
        ("data/test_data_batches.py",),
    ),
    Fault(
        "kept states of one block pass for those of another",
        STORED,
        "precision, block, made_by]",
        "precision, made_by]",
        ("training/test_stored_prefix.py",),
    ),
    Fault(
        "kept states of one backbone pass for those of another",
        STORED,
        "[VERSION, backbone.fingerprint, precision,",
        "[VERSION, precision,",
        ("training/test_changed_backbone.py",),
    ),
    Fault(
        "trials are resampled independently of each other",
        "results/bootstrap.py",
        "sums_BTS = (counts_BG[kept] @ together).reshape(int(kept.sum()), trials, width)",
        "sums_BTS = np.stack([_counts(generator, int(kept.sum()), groups) @ one for one in fold.sums_TGS], axis=1)",
        ("results/test_intervals.py",),
    ),
    Fault(
        "early stopping ignores the goal",
        "results/courses.py",
        'sign = -1.0 if goal == "maximize" else 1.0',
        "sign = 1.0",
        ("sweeping/test_early_stopping.py", "sweeping/test_pruners.py"),
    ),
    Fault(
        "a search takes the least of every metric, whatever its goal",
        "sweeping/propose/optuna_journal.py",
        "optuna.study.StudyDirection[goal.upper()] for _, goal in objectives",
        "optuna.study.StudyDirection.MINIMIZE for _ in objectives",
        ("sweeping/test_optuna_journal.py",),
    ),
    Fault(
        "a combination of options keeps those it was made from",
        "composer.py",
        "for group, word in options - present:",
        "for group, word in ():",
        ("config/test_composer.py::test_hydra_composes_each_option_once_and_no_combination_of_known_ones",),
    ),
]


class FirstFailure:
    """A pytest plugin that keeps the name of the first test that fails."""

    def __init__(self) -> None:
        self.name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid.removeprefix("tests/")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.name:
            self.name = f"cannot be collected: {report.nodeid}"


@contextmanager
def put_into(package: Path, fault: Fault) -> Iterator[None]:
    """Inside, the package has the fault. Raises ValueError if its line is not there exactly once."""
    file = package / fault.file
    text = file.read_text(encoding="utf-8")
    if text.count(fault.right) != 1:
        raise ValueError(f"{fault.file} has {text.count(fault.right)} times, and not once: {fault.right}")
    file.write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(text, encoding="utf-8")


def first_failure(copy: Path, tests: Sequence[str]) -> str:
    """The first of the tests that fails over the copy, in a process of its own; empty if none does."""
    ours, theirs = os.pipe()
    if child := os.fork():
        os.close(theirs)
        with os.fdopen(ours) as told:
            name = told.read()
        os.waitpid(child, 0)
        return name
    failed = FirstFailure()
    os.chdir(copy)
    os.environ["PYTHONPATH"] = sys.path[0] = str(copy)
    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silent, stream)
    code = pytest.main(["-x", "-p", "no:cacheprovider", *(f"tests/{one}" for one in tests)], [failed])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not failed.name:
        failed.name = f"pytest ends with {code!r}"
    os.write(theirs, failed.name.encode())
    os._exit(0)


def copied(folder: Path) -> Path:
    """A copy of the project."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.png")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def main(words: Sequence[str]) -> int:
    sys.dont_write_bytecode = True  # of a file that changes twice in a second, an old one would be taken
    for name in LIBRARIES:
        importlib.import_module(name)
    chosen = [fault for fault in FAULTS if not words or any(word in fault.name for word in words)]
    survived = 0
    with tempfile.TemporaryDirectory() as place:
        copy = copied(Path(place))
        wanted = sorted({test for fault in chosen for test in fault.tests})
        if broken := first_failure(copy, wanted):
            print(f"without any fault this fails: {broken}", file=sys.stderr)
            return 2
        print("| fault | caught by |\n| --- | --- |")
        for fault in chosen:
            with put_into(copy / "danube_sweep", fault):
                name = first_failure(copy, fault.tests)
            survived += not name
            print(f"| {fault.name} | {name or '**survives**'} |", flush=True)
    print(f"\n{len(chosen) - survived} of {len(chosen)} faults are caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
