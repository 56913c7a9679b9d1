"""Random rows laid end to end against the same rows padded, and against bucketed ones: padding, and rows and tokens per
CPU second of training on arena_human.csv with a mid-size random Danube and LoRA on all linears, on one thread.

    python benchmarks/flat.py [--rounds 3] [--rows 48] [--hidden 256] [--precision fp32] [--data FOLDER]

All arms train on the same rows, each once in a round, in alternation; the ratio of medians counts.
"""

import argparse
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from danube_sweep.composer import compose
from danube_sweep.config.schema import Config
from danube_sweep.data.encoded import Encoded
from danube_sweep.terminal.quiet_libraries import quiet_libraries
from danube_sweep.training.prepare import prepare
from danube_sweep.training.setup import PackBuilder, Stopwatch
from danube_sweep.training.step_plan import Collator, StepPlan

ARMS = {
    "flat": ["data.layout=flat"],
    "padded": ["data.layout=padded"],
    "bucketed": ["data.batching=bucketed", "data.layout=padded"],
}
"""The default on a CPU, on a GPU, and with steps of similar length."""
TARGETS = {"padded": 1.2, "bucketed": 1.0}


def trial(options: argparse.Namespace, arm: str, order_seed: int) -> Config:
    """One epoch over the rows, without a validation on the way."""
    hidden = options.hidden
    shape = {"hidden_size": hidden, "intermediate_size": 3 * hidden, "num_hidden_layers": 4}
    shape |= {"num_attention_heads": hidden // 64, "num_key_value_heads": max(1, hidden // 256), "head_dim": 64}
    return compose([
        *("device=cpu", "device.threads=1", "tracking=none", "data=arena", "data.validation_fraction=0.05"),
        *(f"model.shape.{name}={value}" for name, value in shape.items()),
        *(f"data.path={options.data}/arena_human.csv", f"data.max_rows={options.rows}"),
        *("trainer.micro_batch=8", "trainer.effective_batch=16", "trainer.epochs=1", f"data.order_seed={order_seed}"),
        *(f"precision={options.precision}", *ARMS[arm]),
    ])  # fmt: skip


def seconds(config: Config) -> float:
    """CPU seconds of an epoch: forward and backward passes and updates, over the parts that `danube-sweep` builds.

    Not of the clock, so that another load on the machine moves them little; on one thread they are the same.
    """
    builder = PackBuilder()
    prepared, model = builder.build(config, Stopwatch())
    assert model.packed is not None
    adapters = builder.pack.adapters
    adapters.put_alone(model.packed)
    plan = StepPlan(config, prepared.parts["train"], prepared.pad_id)
    optimizer = torch.optim.AdamW(model.parameters.values(), lr=config.optimizer.lr)
    start = time.process_time()
    for micro in plan.micro_batches(0, Collator(model.backbone.device)):
        hidden_BTH = model.backbone.hidden(micro.batch.input_ids_BT, micro.batch.mask_BT)
        (model.head.loss(model.head(hidden_BTH, micro.batch), micro.batch) * micro.share).backward()
        adapters.bind()
        if micro.last:
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
    return time.process_time() - start


def padding(options: argparse.Namespace, train: Encoded) -> Iterator[tuple[str, float]]:
    """Tokens of padded micro-batches over those without padding, by how steps are made; flat rows have none."""
    for arm in ("padded", "bucketed"):
        yield arm, StepPlan(trial(options, arm, 0), train, 0).padding()
    # Version 0.1: blocks of 50 steps sorted by length, steps of 16 cut from them, or random micro-batches.
    order = np.random.default_rng(0).permutation(len(train.lengths))
    by_block = [rows[np.argsort(-train.lengths[rows])] for rows in np.split(order, range(800, len(order), 800))]
    for name, rows in (("0.1 bucketed", np.concatenate(by_block)), ("0.1 shuffled", order)):
        pieces = np.split(train.lengths[rows], range(8, len(rows), 8))
        yield name, sum(len(piece) * int(piece.max()) for piece in pieces) / int(train.lengths.sum())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="0 counts padding only")
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DANUBE_SWEEP_DATA", "data")))
    options = parser.parse_args(arguments)
    if not (options.data / "arena_human.csv").is_file():
        parser.error(f"no arena_human.csv in {options.data}: give --data or set DANUBE_SWEEP_DATA")
    quiet_libraries()
    torch.set_num_threads(1)
    train = prepare(trial(options, "flat", 0)).parts["train"]
    lengths = train.lengths
    rows, tokens = len(lengths), int(lengths.sum())
    print(f"{rows} rows of {lengths.min()} to {lengths.max()} tokens, {lengths.mean():.0f} on average")
    print("padded tokens over tokens:", ", ".join(f"{name} {share:.3f}" for name, share in padding(options, train)))
    if not options.rounds:
        return
    taken: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for number in range(options.rounds):
        for arm in ARMS:
            taken[arm].append(seconds(trial(options, arm, number)))
    print(f"{'':<10} {'rows/s':>8} {'tokens/s':>9}   CPU seconds")
    for arm, values in taken.items():
        median = statistics.median(values)
        print(f"{arm:<10} {rows / median:8.2f} {tokens / median:9.0f}   {min(values):.2f}-{max(values):.2f}")
    for base, target in TARGETS.items():
        ratio = statistics.median(taken[base]) / statistics.median(taken["flat"])
        print(f"flat against {base}: {ratio:.2f}x, ratio of medians (target {target}x)")


if __name__ == "__main__":
    main()
