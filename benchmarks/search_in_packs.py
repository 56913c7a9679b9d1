"""What a search finds in 40 trials when it trains in packs: the best value on three synthetic objectives, by pack size.

    python benchmarks/search_in_packs.py [--seeds 20] [--trials 40]

A pack's trials are drawn, end together, and make room for as many draws as the setting allows. `all at once` draws a
whole pack before any of its results, as version 0.1 did; `ahead` keeps to `sweep.draws_ahead=auto`. Random draws stand
beside them. The figure is the mean regret over the seeds: the best value found, above the least there is.
"""

import argparse
import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna

from danube_sweep.config.schema import Sampler, Sweep
from danube_sweep.storage.sweep_folder import Entry
from danube_sweep.sweeping.propose.draws_ahead import draws_ahead, startup_draws
from danube_sweep.sweeping.propose.optuna_journal import OptunaJournal
from danube_sweep.sweeping.propose.search_space import Number

SPACE = {"lr": Number(1e-5, 1e-1, log=True), "x": Number(0.0, 1.0), "y": Number(0.0, 1.0)}
Objective = Callable[[float, float, float], float]
OBJECTIVES: dict[str, Objective] = {
    "bowl": lambda a, x, y: (a - 0.4) ** 2 + (x - 0.7) ** 2 + (y - 0.2) ** 2,
    "valley": lambda a, x, y: (a - x) ** 2 * 10 + (x - 0.3) ** 2 + 0.1 * y,
    "waves": lambda a, x, y: (a - 0.6) ** 2 + 0.1 * (1 - math.cos(9 * (x - 0.5))) + 0.1 * abs(y - 0.8),
}
"""Each has its least value, 0, inside the space; `a` is the learning rate's place on its scale."""


def search(objective: Objective, sampler: Sampler, seed: int, trials: int, pack: int, ahead: bool) -> float:
    """The best value of a search whose packs hold at most `pack` trials."""
    sweep, found = Sweep(trials=trials, sampler=sampler), []
    with TemporaryDirectory() as folder:
        journal = OptunaJournal(Path(folder) / "history.log", [("validation/log_loss", "minimize")])
        while len(found) < trials:
            most = draws_ahead(sweep, len(found), len(found)) if ahead else None
            together = min(pack, trials - len(found), pack if most is None else most)
            startup = startup_draws(trials) if ahead else 1
            drawn = [journal.draw(SPACE, sampler, seed, startup=startup) for _ in range(together)]
            for draw, values in drawn:
                place = math.log(values["lr"] / 1e-5) / math.log(1e4)
                value = objective(place, values["x"], values["y"])
                entry = Entry(draw + 1, f"{draw:032x}", [], Path(folder), draw)
                journal.ended(entry, {"state": "finished", "validation": {"log_loss": value}})
                found.append(value)
    return min(found)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--packs", default="1,4,8,16")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    arms = {"random": (Sampler.random, False), "all at once": (Sampler.tpe, False), "ahead": (Sampler.tpe, True)}
    print(f"mean regret of the best of {options.trials}, {options.seeds} seeds")
    print(f"{'pack':>4}  {'draws':<12}" + "".join(f"{name:>10}" for name in OBJECTIVES))
    for pack in map(int, options.packs.split(",")):
        for arm, (sampler, ahead) in arms.items():
            means = [
                statistics.fmean(
                    search(one, sampler, seed, options.trials, pack, ahead) for seed in range(options.seeds)
                )
                for one in OBJECTIVES.values()
            ]
            print(f"{pack:>4}  {arm:<12}" + "".join(f"{mean:>10.4f}" for mean in means), flush=True)


if __name__ == "__main__":
    main()
