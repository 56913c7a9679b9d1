"""An arm of a benchmark: a process that trains the steps it is told to, says how long they took, and waits."""

import logging
import os
import signal
import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, final

import baseline_hf as hf
import numpy as np
import torch
from sides import dies_with, task_of, trial_of

from danube_sweep.config.schema import Config

Build = Callable[[Sequence[Config], Path, "Pace"], None]
"""Trains configs in a folder and tells the pace of every step; never returns."""


@final
class Pace:
    """The child's side: trains the steps it was told to, says how long they took, and waits."""

    def __init__(self, link: Connection, device: str, clock: str, warm_up: int) -> None:
        self._link, self._device, self._left = link, device, warm_up
        self._clock = time.process_time if clock == "cpu" else time.perf_counter
        self._start = self._clock()

    def border(self) -> None:
        """To be called after every step; does not return from the last one."""
        self._left -= 1
        if self._left > 0:
            return
        if self._device == "cuda":
            torch.cuda.synchronize()
        self._link.send(self._clock() - self._start)
        self._left = self._link.recv()
        if self._left == 0:
            from danube_sweep.training.device import peak_memory_bytes

            self._link.send(peak_memory_bytes(torch.device(self._device)))
            os._exit(0)
        self._start = self._clock()


def plain_arm(configs: Sequence[Config], folder: Path, pace: Pace) -> None:
    """Baseline (a): the loop that a competent user writes, for one trial: the others would come after it."""
    from danube_sweep.training.prepare import prepare
    from danube_sweep.training.step_plan import StepPlan

    (config,) = configs
    prepared = prepare(config)
    task = task_of(config, prepared.pad_id, len(prepared.classes))
    trial = trial_of(config)
    model = hf.Classifier(hf.adapted(hf.load_body(task), trial), task, trial).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=trial.lr, weight_decay=trial.weight_decay, fused=True)
    autocast = torch.autocast(task.device.partition(":")[0], hf.DTYPES[task.compute], enabled=task.compute != "fp32")
    lengths, collated = prepared.parts["train"].lengths, []
    for rows in hf.Epochs(prepared.parts["train"], task, trial):
        collated.append(hf.inputs_of(hf.collate(prepared.parts["train"], np.array(rows), task.pad_id)))
    assert lengths.min() == lengths.max() == config.data.max_length, "the rows are not as long as the table says"
    assert StepPlan(config, prepared.parts["train"], task.pad_id).steps_per_epoch == len(collated)
    while True:
        for batch in collated:
            with autocast:
                loss = model(**{name: value.to(task.device) for name, value in batch.items()})["loss"]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, task.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            pace.border()


def pack_arm(configs: Sequence[Config], folder: Path, pace: Pace) -> None:
    """This engine: the trials in one pack."""
    from rich.console import Console

    from danube_sweep.terminal.screen import Terminal
    from danube_sweep.training.run import run_pack
    from danube_sweep.training.setup import Entrant

    terminal = Terminal(Console(quiet=True))
    entrants = [Entrant(config, folder / str(number), terminal) for number, config in enumerate(configs)]
    run_pack(entrants, Gate(entrants[0], pace), stop=lambda: False)  # type: ignore[arg-type]


@final
class Gate:
    """A pack's door that nobody enters; a step is over when its first trial is asked."""

    def __init__(self, first: Any, pace: Pace) -> None:
        self._first, self._pace = first, pace

    def next(self) -> None:
        return None

    def dismisses(self, entrant: Any) -> None:
        if entrant is self._first:
            self._pace.border()

    def left(self, entrant: Any, error: BaseException | None) -> None:
        raise RuntimeError(f"{entrant.path} has left the pack") from error


def child(build: Build, configs: Sequence[Config], folder: Path, link: Connection, clock: str, warm_up: int) -> None:
    """Runs an arm and tells what goes wrong with it."""
    from danube_sweep.terminal.quiet_libraries import quiet_libraries

    dies_with(signal.SIGKILL)()
    quiet_libraries()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    device = "cpu" if configs[0].device.accelerator == "cpu" else "cuda"
    try:
        build(configs, folder, Pace(link, device, clock, warm_up))
    except BaseException:
        link.send(traceback.format_exc())


@dataclass
class Arm:
    """The parent's side. `seconds` has a figure per round: seconds of a step."""

    name: str
    process: Any
    link: Connection
    trials: int
    turn: int = 1
    seconds: list[float] = field(default_factory=list)

    def answer(self) -> Any:
        found = self.link.recv()
        if isinstance(found, str):
            raise SystemExit(f"{self.name} failed:\n{found}")
        return found

    def run(self, steps: int) -> float:
        """Seconds of a step."""
        self.link.send(steps)
        return float(self.answer() / steps)

    def end(self) -> int:
        """Peak memory in bytes."""
        self.link.send(0)
        peak = int(self.answer())
        self.process.join()
        return peak

    @property
    def each(self) -> float:
        """Median seconds of a step, for one trial."""
        return statistics.median(self.seconds) / self.trials
