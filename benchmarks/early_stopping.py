"""Does early stopping keep the winner, and with how many of the steps? Replays of recorded and of synthetic sweeps.

    python benchmarks/early_stopping.py [--orders 20] [--synthetic 40] [--pack 1] [--tune] [--wandb PYTHON]

The readings are those of benchmarks/early_stopping.npz, which benchmarks/record_readings.py adds to, and synthetic
curves that cross. Every sweep is replayed in random orders of its trials: a rule decides on the validations that are on
record, and the answer is the best validation of any trial that it has trained to its end. Half of the sweeps are for
tuning, the others are reported: of the synthetic ones four in turn, which are of the four kinds, of the recorded ones
every second. A setting that was chosen on the tuning half looks better there, so each table has both halves of the
synthetic sweeps side by side. `--tune` prints a table of many settings.

Beside our rules stand Optuna's own successive halving, which ends trials for good, our copy of W&B's hyperband, and
with `--wandb` W&B's package `sweeps` 0.3.0 itself, run by that Python: it needs numpy < 2.
"""

import argparse
import itertools
import json
import random
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import optuna

from danube_sweep.config.schema import Asha, Hyperband, Median, Pruner, WandbHyperband
from danube_sweep.config.schema.states import Verdict
from danube_sweep.results.courses import Course, Reading
from danube_sweep.sweeping.propose.pause_policy import Known, PausePolicy
from danube_sweep.sweeping.propose.pruners import Pausing, WandbBands, build_pruner

READINGS = Path(__file__).with_suffix(".npz")
STEPS = 100
KEPT, SHARE = 0.95, 0.45
"""The targets: the winner kept in so many replays, with at most so much of the steps on average."""

Curves = list[list[float]]


def synthetic(seed: int, trials: int = 12) -> Curves:
    """Curves that cross, of one of four kinds: two laws of decay, a late gain, and some that get worse again."""
    draw = np.random.default_rng(seed)
    readings = (10, 12, 20)[seed % 3]
    share_V = np.arange(1, readings + 1) / readings
    base_T1 = 1.0 + 0.12 * draw.normal(size=(trials, 1))
    if seed % 4 == 1:
        power_T1 = 0.7 * np.exp(0.4 * draw.normal(size=(trials, 1)))
        curves_TV = base_T1 + 0.35 * (20 * share_V) ** -power_T1
    else:
        rate_T1 = 4 * np.exp(0.6 * draw.normal(size=(trials, 1)))
        curves_TV = base_T1 + draw.uniform(0.5, 1.2) * np.exp(-rate_T1 * share_V)
    if seed % 4 == 2:
        curves_TV -= draw.uniform(0, 0.15, size=(trials, 1)) * np.clip((share_V - 0.5) / 0.5, 0, 1)
    if seed % 4 == 3:
        worse_T1 = (draw.random((trials, 1)) < 0.4) * draw.uniform(0, 0.5, size=(trials, 1))
        curves_TV += worse_T1 * np.clip(share_V - 0.3, 0, 1)
    noise = draw.choice([0.002, 0.008, 0.02])
    return [list(map(float, curve)) for curve in curves_TV + noise * draw.normal(size=curves_TV.shape)]


def drawn_half(drawn: Sequence[Curves], rest: int) -> list[Curves]:
    """The synthetic sweeps of one half, 0 for tuning: as many of each kind as the other has."""
    return [curves for seed, curves in enumerate(drawn) if seed // 4 % 2 == rest]


def recorded() -> dict[str, Curves]:
    """The sweeps of the file, by name."""
    if not READINGS.is_file():
        return {}
    stored = np.load(READINGS)
    names = sorted(name for name in stored.files if "/" not in name and len(stored[name]) > 3)
    return {name: [list(map(float, curve)) for curve in stored[name]] for name in names}


# ----------------------------------------------------------------------------------------------------- the replays


@dataclass
class Replay:
    """A sweep of which so many validations of each trial are known."""

    curves: Curves
    policy: PausePolicy | WandbBands
    pack: int
    seen: dict[int, int] = field(default_factory=dict)
    paused: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)

    def run(self) -> tuple[float, float]:
        """The best value that a trial has, and the share of the steps."""
        waiting, running = list(range(len(self.curves))), set[int]()
        while True:
            self._fill(waiting, running)
            if not running:
                break
            for number in running:
                self.seen[number] = self.seen.get(number, 0) + 1
            for number in sorted(running):
                self._judge(number, running, waiting)
        whole = [number for number in self.seen if self.seen[number] == len(self.curves[number])]
        best = min(min(self.curves[number]) for number in whole) if whole else float("inf")
        return best, sum(self.seen.values()) / sum(map(len, self.curves))

    def _fill(self, waiting: list[int], running: set[int]) -> None:
        while len(running) < self.pack:
            coming = (
                self.policy.promotions(self._known(waiting, running)) if isinstance(self.policy, PausePolicy) else []
            )
            if not coming and waiting:
                running.add(waiting.pop(0))
                continue
            if not coming and isinstance(self.policy, PausePolicy):
                coming = self.policy.revivals(self._known(waiting, running))
            if not coming:
                return
            self.paused.discard(coming[0])
            running.add(coming[0])

    def _judge(self, number: int, running: set[int], waiting: list[int]) -> None:
        if self.seen[number] == len(self.curves[number]):
            running.discard(number)
            self.ended.add(number)
            return
        known = self._known(waiting, running)
        if isinstance(self.policy, WandbBands):
            if self.policy.verdict(number, known.judged) is Verdict.prune:
                running.discard(number)
                self.ended.add(number)
        elif self.policy.rule.stands(number, known.courses[number]) and not self.policy.goes_on(number, known):
            running.discard(number)
            self.paused.add(number)

    def _known(self, waiting: Sequence[int], running: set[int]) -> Known:
        courses = {number: self._course(number) for number in range(len(self.curves))}
        return Known(courses, set(self.paused), {*waiting, *running})

    def _course(self, number: int) -> Course:
        curve, count = self.curves[number], self.seen.get(number, 0)
        return Course(tuple(Reading(at + 1, (at + 1) / len(curve), curve[at]) for at in range(count)), STEPS)


Rule = Callable[[Curves, int], tuple[float, float]]


def ours(pruner: Pruner, budget: float | None = None, worth: float = 0.05) -> Rule:
    """A rule of ours."""
    built = build_pruner(pruner)

    def run(curves: Curves, pack: int) -> tuple[float, float]:
        if isinstance(built, WandbBands):
            return Replay(curves, built, pack).run()
        assert isinstance(built, Pausing)
        limit = None if budget is None else (lambda known: budget * known.whole)
        return Replay(curves, PausePolicy(built, limit, worth), pack).run()

    return run


def optunas_asha(least: int, reduction: int) -> Rule:
    """Optuna's successive halving, one trial after the other."""

    def run(curves: Curves, _pack: int) -> tuple[float, float]:
        pruner = optuna.pruners.SuccessiveHalvingPruner(least, reduction, 0)
        study = optuna.create_study(pruner=pruner, sampler=optuna.samplers.RandomSampler())
        best, validations = float("inf"), 0
        for curve in curves:
            trial = study.ask()
            for number, value in enumerate(curve, start=1):
                trial.report(value, number)
                if trial.should_prune() and number < len(curve):
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                    break
            else:
                study.tell(trial, min(curve))
                best = min(best, min(curve))
            validations += number
        return best, validations / sum(map(len, curves))

    return run


_WANDB = """
import json, sys, warnings
warnings.filterwarnings("ignore")
from sweeps.hyperband_stopping import hyperband_stop_runs
from sweeps.run import RunState, SweepRun
config = {"method": "random", "metric": {"name": "loss", "goal": "minimize"}, "parameters": {"a": {"value": 1}}}
for line in sys.stdin:
    stop, curves = json.loads(line)
    config["early_terminate"] = stop
    ended, used = [], 0
    for number, curve in enumerate(curves):
        for count in range(1, len(curve) + 1):
            run = SweepRun(name="now", state=RunState.running, history=[{"loss": one} for one in curve[:count]])
            if hyperband_stop_runs([*ended, run], dict(config)) and count < len(curve):
                break
        used += count
        ended.append(SweepRun(name="then", state=RunState.finished, history=run.history))
    whole = [min(curve) for run, curve in zip(ended, curves) if len(run.history) == len(curve)]
    print(json.dumps([min(whole, default=1e9), used / sum(map(len, curves))]), flush=True)
"""


def wandbs(python: Path, stop: dict[str, object]) -> Rule:
    """W&B's package itself, one trial after the other, in a process that has it."""
    process = subprocess.Popen(
        [python, "-W", "ignore", "-c", _WANDB], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def run(curves: Curves, _pack: int) -> tuple[float, float]:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps([stop, curves]) + "\n")
        process.stdin.flush()
        best, share = json.loads(process.stdout.readline())
        return float(best), float(share)

    return run


# ------------------------------------------------------------------------------------------------------- the table


def measured(rule: Rule, sweeps: Sequence[Curves], orders: int, pack: int) -> tuple[float, float, float]:
    """How often the winner is kept, the mean share of the steps, and the mean of what is lost."""
    kept, shares, lost = [], [], []
    for curves in sweeps:
        best = min(map(min, curves))
        for order in range(orders):
            shuffled = random.Random(order).sample(curves, len(curves))
            found, share = rule(shuffled, pack)
            kept.append(found <= best + 1e-9)
            shares.append(share)
            lost.append(found - best)
    return statistics.fmean(kept), statistics.fmean(shares), statistics.fmean(lost)


def tuned() -> dict[str, Rule]:
    """The settings to choose from."""
    choices = itertools.product((0.2, 0.25), (3, 4, 6), (0.02, 0.05, 0.1))
    return {
        f"rung_share={share} reduction={reduction} worth={worth}": ours(Asha(share, 2, reduction), worth=worth)
        for share, reduction, worth in choices
    }


def show(rules: dict[str, Rule], halves: dict[str, list[Curves]], orders: int, pack: int) -> None:
    """A line for each rule: over each set of sweeps how often the winner is kept, the share of the steps, the loss."""
    print(f"{'rule':<38}" + "".join(f"{name:>22}: kept  share  lost " for name in halves))
    for name, rule in rules.items():
        cells = [measured(rule, sweeps, orders, pack) if sweeps else None for sweeps in halves.values()]
        told = [f"{'-':>42}" if cell is None else f"{cell[0]:>27.1%}  {cell[1]:.3f}  {cell[2]:.4f}" for cell in cells]
        print(f"{name:<38}{''.join(told)}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=20)
    parser.add_argument("--synthetic", type=int, default=40)
    parser.add_argument("--pack", type=int, default=1)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--wandb", type=Path)
    options = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    real, drawn = recorded(), [synthetic(seed) for seed in range(options.synthetic)]
    rules: dict[str, Rule] = {
        "pruner=asha": ours(Asha()),
        "pruner=asha sweep.budget=0.45": ours(Asha(), budget=0.45),
        "pruner=asha, rung_share=0.2 reduction=4": ours(Asha(0.2, 2, 4)),
        "pruner=hyperband": ours(Hyperband()),
        "pruner=median": ours(Median()),
        "Optuna's ASHA, min 1, factor 3": optunas_asha(1, 3),
        "Optuna's ASHA, min 2, factor 2": optunas_asha(2, 2),
        "W&B's hyperband, min 2, eta 3": ours(WandbHyperband(min_iter=2)),
        "the same, strict": ours(WandbHyperband(min_iter=2, strict=True)),
    }
    if options.wandb is not None:
        stop: dict[str, object] = {"type": "hyperband", "min_iter": 2, "eta": 3}
        rules["W&B's package, min 2, eta 3"] = wandbs(options.wandb, {**stop, "strict": False})
        rules["W&B's package, strict"] = wandbs(options.wandb, {**stop, "strict": True})
    # Four seeds in a row are of four kinds: both halves have as many of each.
    tuning, reported = (drawn_half(drawn, rest) for rest in (0, 1))
    halves = {"recorded": list(real.values())[1::2], "synthetic": reported, "synthetic, for tuning": tuning}
    if options.tune:
        rules, halves = tuned(), {"recorded, for tuning": list(real.values())[::2], **halves}
    print(
        f"{len(real)} recorded and {len(drawn)} synthetic sweeps, half of each is for tuning; {options.orders} orders"
    )
    show(rules, halves, options.orders, options.pack)


if __name__ == "__main__":
    sys.exit(main())
