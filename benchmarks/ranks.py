"""One trial by several processes on a CPU, a core each, against the same trial by one process.

    python benchmarks/ranks.py [--counts 2] [--steps 12] [--hidden 512] [--blocks 4] [--tokens 128] [--rounds 3]

Counts CPU seconds of training (from the second step to the last), since wall time also has the waits for other work
on the machine: the ratio is those of the one process over those of the busiest of several. Waiting for the others costs
no CPU seconds, so a ratio says how evenly the work is divided and what exchanging gradients costs.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path

from danube_sweep.composer import compose
from danube_sweep.config.schema import Config
from danube_sweep.config.schema.states import Verdict
from danube_sweep.planner.planned_architecture import planned_architecture
from danube_sweep.planner.planned_device import planned_device
from danube_sweep.planner.step_seconds import seconds_of
from danube_sweep.sweeping.execute.child_process import train_task
from danube_sweep.sweeping.execute.messages import Job, Stepped, Validated
from danube_sweep.sweeping.execute.process_pool import Child, Pool

TICKS = os.sysconf("SC_CLK_TCK")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures in turns and prints a line for each number of processes."""
    parser = argparse.ArgumentParser()
    for name, value in {"steps": 12, "hidden": 512, "blocks": 4, "tokens": 128, "rounds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--counts", default="2")
    options = parser.parse_args(arguments)
    counts = [1, *map(int, options.counts.split(","))]
    config = trial(options)
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(options.rounds):
        for count in counts:
            seconds[count].append(cpu_seconds(config, count, options.steps))
    one = statistics.median(seconds[1])
    for count in counts[1:]:
        busiest = statistics.median(seconds[count])
        spread = " ".join(f"{value:.2f}" for value in seconds[count])
        print(
            f"{count} processes against 1: {one / busiest:.2f}x, predicted {predicted(config, count):.2f}x  "
            f"(CPU seconds of the busiest {busiest:.2f}: {spread}; of one {one:.2f})",
            flush=True,
        )


def predicted(config: Config, count: int) -> float:
    """Predicted seconds of a step by one process over those by several."""
    model = planned_architecture(config.model)
    one, several = (
        seconds_of(
            config,
            model,
            planned_device(replace(config.device, count=each)),
            tokens_per_row=float(config.data.max_length),
        ).step
        for each in (1, count)
    )
    return one / several


def trial(options: argparse.Namespace) -> Config:
    """A trial whose steps are four micro-batches of equal rows."""
    heads, width = max(1, options.hidden // 64), options.hidden
    shape = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": options.blocks}
    shape |= {"num_attention_heads": heads, "num_key_value_heads": heads, "vocab_size": 2048}
    return compose(
        [
            *(f"model.shape.{name}={value}" for name, value in shape.items()),
            *("precision=fp32", "data.rows=200", f"data.max_length={options.tokens}", "trainer.micro_batch=2"),
            *("trainer.effective_batch=8", f"trainer.max_steps={options.steps}", "trainer.log_every=1"),
            *(f"trainer.validate_every={options.steps}", "device=cpu", "device.threads=1", "tracking=none"),
        ]
    )


def cpu_seconds(config: Config, count: int, steps: int) -> float:
    """The most CPU seconds that one of the processes spends from the end of the first step to that of the last."""
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder, "run"), Path.cwd(), dict(os.environ), config, log=Path(folder, "log.txt"))
        job.path.mkdir()
        ranks = ({},) * count if count > 1 else ()
        child = Pool(on_cpu=True).start(train_task, Job(**{**vars(job), "ranks": ranks}))
        seen: dict[int, list[float]] = {}
        lives = True
        while lives:
            wait(child.places(), 0.5)
            lives = child.process.is_alive()
            while (message := child.hear()) is not None:
                if isinstance(message, Validated):
                    child.tell(Verdict.go_on)
                if isinstance(message, Stepped) and message.step in (1, steps):
                    seen[message.step] = used(child)
        if child.reap():
            raise SystemExit(Path(folder, "log.txt").read_text()[-2000:])
    return max(last - first for first, last in zip(seen[1], seen[steps], strict=True))


def used(child: Child) -> list[float]:
    """The CPU seconds of each process so far."""
    found = []
    for one in (child, *child.followers):
        words = Path(f"/proc/{one.process.pid}/stat").read_text().rpartition(")")[2].split()
        found.append((int(words[11]) + int(words[12])) / TICKS)
    return found


if __name__ == "__main__":
    main()
