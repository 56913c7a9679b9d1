"""Evaluation by tokens against evaluation by micro-batches, over one backbone on a CPU.

    python benchmarks/evaluation.py [--model FOLDER] [--data FOLDER] [--rows 200] [--tokens 256,1024,4096] [OVERRIDES]

Rows are those of banking77 (short texts of 77 classes). It counts CPU seconds of a pass over them; the arms take turns,
and each row of the table is the median of `--rounds`.
"""

import argparse
import os
import resource
import statistics
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from danube_sweep.composer import Composer
from danube_sweep.config.schema import Config
from danube_sweep.data.batches import Rows, budget_batches, collate, eval_batches
from danube_sweep.training.evaluate import Evaluation, evaluate_together
from danube_sweep.training.prepare import Prepared
from danube_sweep.training.setup import PackBuilder, Stopwatch

TINY = ["model.shape.hidden_size=64", "model.shape.intermediate_size=128", "model.shape.num_hidden_layers=2"]
TINY += ["model.shape.num_attention_heads=2", "model.shape.num_key_value_heads=1", "model.shape.vocab_size=512"]


def configured(options: argparse.Namespace, more: Sequence[str]) -> Config:
    """The trial whose validation part is evaluated."""
    file = Path(options.data) / "banking77_test.csv"
    data = ["data=table", f"data.path={file}", f"data.max_rows={2 * options.rows}", "data.validation_fraction=0.5"]
    model = TINY if options.model is None else [f"model.path={options.model}"]
    return Composer().trial([*model, *data, "head=sequence", "device=cpu", "device.threads=1", *more])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--data", default=os.environ.get("DANUBE_SWEEP_DATA", "."))
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--tokens", default="256,1024,4096")
    parser.add_argument("--rounds", type=int, default=3)
    options, more = parser.parse_known_args(arguments)
    config = configured(options, more)
    builder = PackBuilder()
    prepared, model = builder.build(config, Stopwatch())
    builder.pack.adapters.arrange([model.packed])
    builder.pack.adapters.expect([0], {})
    lengths = prepared.parts["validation"].lengths
    rows = int(config.trainer.micro_batch)
    arms: dict[str, list[Rows]] = {f"{rows} rows": eval_batches(lengths, rows)}
    arms |= {f"{count} tokens": budget_batches(lengths, int(count)) for count in options.tokens.split(",")}
    taken: dict[str, list[float]] = {name: [] for name in arms}
    losses: dict[str, torch.Tensor] = {}
    for _ in range(options.rounds):
        for name, batches in arms.items():
            before = cpu_s()
            losses[name] = passed(builder, prepared, model.head, batches).losses_N
            taken[name].append(cpu_s() - before)
    first = next(iter(arms))
    print(f"{len(lengths)} rows of {lengths.mean():.0f} tokens on average, at most {lengths.max()}")
    print("| batches | number | CPU s | over the first | largest difference of a loss |")
    print("| --- | --- | --- | --- | --- |")
    for name, batches in arms.items():
        seconds, ratio = (
            statistics.median(taken[name]),
            statistics.median(taken[first]) / statistics.median(taken[name]),
        )
        difference = float((losses[name] - losses[first]).abs().max())
        print(f"| {name} | {len(batches)} | {seconds:.2f} | {ratio:.2f} | {difference:.1e} |", flush=True)


def passed(builder: PackBuilder, prepared: Prepared, head: torch.nn.Module, batches: Sequence[Rows]) -> Evaluation:
    """One evaluation of the validation part in these batches."""
    rows, backbone = prepared.parts["validation"], builder.pack.backbone
    collated = (collate(rows, chosen, prepared.pad_id).to(backbone.device) for chosen in batches)
    (found,) = evaluate_together(
        backbone,
        [head],  # type: ignore[list-item]
        rows,
        hidden=lambda batch: [backbone.hidden(batch.input_ids_BT, batch.mask_BT)],
        batches=collated,
    )
    return found


def cpu_s() -> float:
    """CPU seconds of this process so far."""
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])


if __name__ == "__main__":
    main()
