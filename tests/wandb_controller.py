"""What a W&B server decides about a sweep: the next point, which run is stopped, and when there is no more to do."""

import itertools
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass
class Received:
    """What came for one run."""

    history: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    sweep: str | None = None
    group: str | None = None
    exit_code: int | None = None


@dataclass
class Handed:
    """A sweep and the points that it hands out: those in `waiting` first, then what its method draws if it `draws`."""

    config: dict[str, Any]
    waiting: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Runs (id, arguments) that agents are yet to be given."""
    at_once: int = 1
    """Runs that one agent has at a time."""
    draws: bool = False
    ended: bool = False
    """Whether somebody has stopped the sweep on its page: agents kill what runs and leave."""
    to_stop: set[str] = field(default_factory=set)
    """Ids of runs that are asked to stop as soon as they have reported."""
    given: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Every run that was given out, and its arguments."""
    seen: list[int] = field(default_factory=list)
    """How many reported values each draw of bayes was based on."""

    def commands(self, running: list[str], runs: Mapping[str, Received]) -> list[dict[str, Any]]:
        """What an agent with these running runs is told next."""
        self._stop_early(runs)
        if self.ended:
            return [{"type": "exit"}]
        if stopping := [name for name in running if name in self.to_stop and name in runs and runs[name].history]:
            return [{"type": "stop", "run_id": name} for name in stopping]
        commands = []
        for _ in range(self.at_once - len(running)):
            if (point := self._next(runs)) is None:
                break
            self.given[point[0]] = point[1]
            arguments = {key: {"value": value} for key, value in point[1].items()}
            commands.append({"type": "run", "run_id": point[0], "program": "", "args": arguments})
        return commands if commands or running else [{"type": "exit"}]

    def _next(self, runs: Mapping[str, Received]) -> tuple[str, dict[str, Any]] | None:
        if self.waiting:
            return self.waiting.pop(0)
        drawn = len(self.given)
        if not self.draws or drawn >= self.config.get("run_cap", math.inf):
            return None
        parameters = self.config["parameters"]
        if self.config["method"] == "grid":
            cells = itertools.product(*(parameters[key]["values"] for key in sorted(parameters)))
            cell = next(itertools.islice(cells, drawn, None), None)
            return None if cell is None else (f"grid{drawn}", dict(zip(sorted(parameters), cell, strict=True)))
        chance = random.Random(drawn)
        point = {key: _drawn(one, chance) for key, one in parameters.items()}
        if self.config["method"] == "bayes":
            point |= self._learned(runs, chance)
        return f"{self.config['method']}{drawn}", point

    def _learned(self, runs: Mapping[str, Received], chance: random.Random) -> dict[str, Any]:
        # The best point so far with one value changed: no Gaussian process, but it needs the values that came.
        metric = self.config["metric"]["name"]
        values = {name: runs[name].summary[metric] for name in self.given if metric in runs[name].summary}
        self.seen.append(len(values))
        if not values:
            return {}
        best = dict(self.given[min(values, key=lambda name: values[name])])
        best.pop(chance.choice(sorted(best)))
        return best

    def _stop_early(self, runs: Mapping[str, Received]) -> None:
        # Half of the runs that reach the first bracket go on.
        early = self.config.get("early_terminate")
        if early is None:
            return
        metric, bracket = self.config["metric"]["name"], early["min_iter"]
        seen = {name: [row[metric] for row in runs[name].history if metric in row] for name in self.given & runs.keys()}
        reached = {name: min(values[:bracket]) for name, values in seen.items() if len(values) >= bracket}
        limit = median(reached.values()) if len(reached) > 1 else math.inf
        self.to_stop |= {name for name, value in reached.items() if value > limit and runs[name].exit_code is None}


def _drawn(parameter: Mapping[str, Any], chance: random.Random) -> Any:
    if "values" in parameter:
        return chance.choice(parameter["values"])
    low, high = parameter["min"], parameter["max"]
    draw: Callable[[Any, Any], Any] = (
        chance.randint if isinstance(low, int) and isinstance(high, int) else chance.uniform
    )
    return draw(low, high)
