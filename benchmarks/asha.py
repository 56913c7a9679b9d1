"""Does pruner=asha find the winner of the sweep that prunes nothing, and with how many of its optimizer steps?

    python benchmarks/asha.py [--seeds 5] [--trials 24] [--keep FOLDER] [--replay 1000]

For every seed one random search over learning rate, rank and targets on the generated data runs twice, trial after
trial in the order of its draws: as it is, and with pruner=asha at its defaults. Both are real sweeps. A trial is
validated five times, the trainer's own default, so there are rungs after a fifth and three fifths of its steps.
`--keep` holds the sweeps: a benchmark that was killed goes on, one that has ended is only read.

`--replay N` adds N searches of `--trials` trials each, drawn from all unpruned trials and put into a random order, and
lets each of several pruners decide on the validations that are on record. Trials are equal to the last bit with and
without a pruner, so that is what a real sweep would do.
"""

import argparse
import csv
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna

from danube_sweep.config.schema import Asha, Hyperband, Median, NoPruner, Pruner
from danube_sweep.config.schema.states import State
from danube_sweep.results.rank import rank_sweep
from danube_sweep.results.rows import winner
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.sweeping.propose.pruners import build_pruner

STEPS, VALIDATIONS = 120, 5
TINY = [
    *("model.shape.hidden_size=64", "model.shape.intermediate_size=192", "model.shape.vocab_size=1024"),
    *("model.shape.num_hidden_layers=2", "model.shape.num_attention_heads=2", "model.shape.num_key_value_heads=1"),
    *("data.rows=800", "data.max_length=160", "trainer.micro_batch=16", "trainer.eval_batch=32"),
    *(f"trainer.max_steps={STEPS}", f"trainer.validate_every={STEPS // VALIDATIONS}"),
    *("device=cpu", "device.threads=1", "tracking=none"),
]
SPACE = [
    "optimizer.lr=tag(log,interval(2e-4,2e-2))",  # a decade on either side of the model's own
    "lora.rank=choice(4,16)",
    "lora.targets=choice(qv,all_linear)",
]
SAME, SHARE = 0.8, 0.45
"""The targets: the same winner in four of five seeds, with at most so much of the steps."""
PRUNERS: dict[str, Pruner] = {
    "asha": Asha(),
    "asha reduction=2": Asha(reduction=2),
    "asha min_validations=2": Asha(min_validations=2),
    "asha min_validations=2 reduction=2": Asha(min_validations=2, reduction=2),
    "hyperband": Hyperband(),
    "median": Median(),
}


@dataclass(frozen=True)
class Search:
    """What a sweep came to: its winner, and each trial's steps, state and curve by hash, in the order of the draws."""

    winner: str
    log_loss: dict[str, float]
    steps: dict[str, int]
    pruned: set[str]
    curves: dict[str, list[float]]
    """Validation log losses of each trial."""

    @property
    def total_steps(self) -> int:
        return sum(self.steps.values())


def run_sweep(folder: Path, seed: int, trials: int, pruner: str) -> None:
    """Runs the search to its end, or what is left of it."""
    drawn = ["hydra/sweeper=optuna", "sweep.sampler=random", f"sweep.sampler_seed={seed}", f"sweep.trials={trials}"]
    place = [f"seed={seed}", f"pruner={pruner}", "sweep.slots=1", f"hydra.sweep.dir={folder}"]
    command = [sys.executable, "-m", "danube_sweep", "-m", *drawn, *SPACE, *TINY, *place]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the sweep in {folder} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")


def read_sweep(folder: Path) -> Search:
    """What is in the folder of a sweep that has ended."""
    best = winner(rank_sweep(folder))
    assert best is not None
    results, curves = {}, {}
    for run in map(RunFolder, sorted(folder.glob("[0-9]*"))):
        result = run.read_result()
        assert result is not None
        results[run.path.name] = result
        with run.metrics.open(newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["part"] == "validation"]
        curves[result["trial"]] = [float(row["log_loss"]) for row in rows]
    return Search(
        winner=results[best.used[0]]["trial"],
        log_loss={result["trial"]: result["validation"]["log_loss"] for result in results.values()},
        steps={result["trial"]: result["steps"] for result in results.values()},
        pruned={result["trial"] for result in results.values() if result["state"] == State.pruned.value},
        curves=curves,
    )


def compare(seed: int, whole: Search, pruned: Search) -> tuple[bool, float]:
    """Prints a line about a seed; returns whether the winner is the same and the share of the steps."""
    if list(whole.steps) != list(pruned.steps):
        raise SystemExit(f"seed {seed}: the two sweeps did not draw the same trials")
    for name, curve in pruned.curves.items():
        if curve != whole.curves[name][: len(curve)]:
            raise SystemExit(f"seed {seed}: {name} has other losses with a pruner than without")
    same, best = pruned.winner == whole.winner, whole.log_loss[whole.winner]
    share = pruned.total_steps / whole.total_steps
    loss = f"{best:.4f}  {pruned.log_loss[pruned.winner] - best:.4f}"
    cost = f"{pruned.total_steps:>6} of {whole.total_steps}  {share:.3f}  {len(pruned.pruned)} of {len(pruned.steps)}"
    print(f"{seed:>4}  {'same' if same else 'other':<6}  {loss}  {cost}", flush=True)
    return same, share


def real_sweeps(folder: Path, seeds: int, trials: int) -> list[tuple[Search, Search]]:
    """Runs both arms of every seed, prints the table and the verdict, and returns the arms: unpruned, pruned."""
    print(f"{trials} trials of {STEPS} steps and {VALIDATIONS} validations, in draw order; pruner=asha at its defaults")
    print("seed  winner    best  regret           steps  share  pruned")
    searches, found = [], []
    for seed in range(seeds):
        for pruner in ("none", "asha"):
            run_sweep(folder / f"seed-{seed}-{pruner}", seed, trials, pruner)
        whole, pruned = (read_sweep(folder / f"seed-{seed}-{pruner}") for pruner in ("none", "asha"))
        searches.append((whole, pruned))
        found.append(compare(seed, whole, pruned))
    both, share = sum(same and part <= SHARE for same, part in found), statistics.median(part for _, part in found)
    verdict = "met" if both >= SAME * seeds else "missed"
    print(f"same winner with at most {SHARE:.0%} of the steps: {both} of {seeds} seeds (target {SAME:.0%}: {verdict})")
    print(f"same winner: {sum(same for same, _ in found)} of {seeds} seeds; median share of the steps: {share:.3f}")
    return searches


def replay(curves: Sequence[list[float]], pruner: Pruner) -> tuple[float, int]:
    """The best log loss of a trial that finishes, and the validations of all, if `pruner` had decided."""
    sampler = optuna.samplers.RandomSampler()
    # Hyperband picks a trial's bracket by the study's name.
    study = optuna.create_study(study_name="sweep", pruner=build_pruner(pruner), sampler=sampler)
    best, validations = float("inf"), 0
    for curve in curves:
        trial = study.ask()
        for number, value in enumerate(curve, start=1):
            trial.report(value, number)
            unwanted = trial.should_prune()
            if unwanted and number < len(curve):
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, min(curve))
            best = min(best, min(curve))
        validations += number
    return best, validations


def as_it_was(whole: Search, pruned: Search) -> bool:
    """Whether a replay of the unpruned arm in its own order comes to what the pruned arm came to."""
    validations = sum(map(len, pruned.curves.values()))
    return replay(list(whole.curves.values()), Asha()) == (pruned.log_loss[pruned.winner], validations)


def replays(searches: Sequence[tuple[Search, Search]], count: int, trials: int) -> None:
    """Prints for each pruner how often it keeps the winner, what it loses and what it costs."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    right = sum(as_it_was(*search) for search in searches)
    print(f"\nreplayed in their own order, {right} of {len(searches)} searches end as their real sweeps did")
    everything = [curve for whole, _ in searches for curve in whole.curves.values()]
    generator = random.Random(0)
    drawn = [generator.sample(everything, min(trials, len(everything))) for _ in range(count)]
    print(f"replay of {count} searches, each {len(drawn[0])} of {len(everything)} trials in a random order")
    print(f"{'pruner':<36} same winner  with <= {SHARE:.0%}  mean regret  median share")
    for name, pruner in {"none": NoPruner(), **PRUNERS}.items():
        regrets, shares = [], []
        for curves in drawn:
            best, validations = replay(curves, pruner)
            regrets.append(best - min(map(min, curves)))
            shares.append(validations / sum(map(len, curves)))
        same = [regret == 0 for regret in regrets]
        both = sum(one and share <= SHARE for one, share in zip(same, shares, strict=True))
        kept = f"{sum(same) / count:>11.1%}  {both / count:>11.1%}"
        cost = f"{statistics.fmean(regrets):>11.4f}  {statistics.median(shares):>12.3f}"
        print(f"{name:<36} {kept}  {cost}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--keep", type=Path, help="folder for the sweeps; without it they are removed")
    parser.add_argument("--replay", type=int, default=0, metavar="N", help="searches to replay")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the running sweep ends with this process
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).absolute()
        searches = real_sweeps(folder, options.seeds, options.trials)
    if options.replay:
        replays(searches, options.replay, options.trials)


if __name__ == "__main__":
    main()
