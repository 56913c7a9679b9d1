"""Eight adapters over one backbone as a pack, against eight predictions one after the other, and one adapter against a
plain loop of transformers and PEFT over sorted batches. CPU seconds on one thread, tokenising included.

    python benchmarks/predict.py [--rounds 3] [--rows 96] [--hidden 256] [--blocks 8] [--last-k 2] [--members 8]
                                 [--precision fp32,nf4]

The runs are trained for one step over a random Danube. The ratio of medians counts; loading is shown beside it.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rich.console import Console

from danube_sweep.composer import compose
from danube_sweep.config.schema import Device
from danube_sweep.data.encode import encode
from danube_sweep.data.kinds.generated import generate, write_csv
from danube_sweep.data.parts import read_unlabelled
from danube_sweep.data.records import Record
from danube_sweep.inference.joint_answers import joint_predictions
from danube_sweep.inference.predict import FinishedRun, Place, Trained, load, open_run, predictions
from danube_sweep.inference.runs_in_packs import load_pack
from danube_sweep.terminal.quiet_libraries import quiet_libraries
from danube_sweep.terminal.screen import Terminal
from danube_sweep.training.run import run_trial

BATCH = 16
PACK, ALONE = 2.0, 0.95
"""Targets: of a pack that adapts a quarter of the blocks, and of one adapter against the plain loop."""
CPU = Place(Device(accelerator="cpu", threads=1))


def trained(options: argparse.Namespace, folder: Path, precision: str) -> list[FinishedRun]:
    """Finished runs that differ in their seed."""
    hidden = options.hidden
    shape = {"hidden_size": hidden, "intermediate_size": 3 * hidden, "num_hidden_layers": options.blocks}
    shape |= {"num_attention_heads": hidden // 32, "num_key_value_heads": max(1, hidden // 128), "head_dim": 32}
    common = [
        *("device=cpu", "device.threads=1", "tracking=none", "data.rows=60", "data.max_length=256", "lora.rank=8"),
        *("trainer.max_steps=1", "trainer.micro_batch=2", "trainer.effective_batch=2", "data.layout=padded"),
        *(f"model.shape.{name}={value}" for name, value in shape.items()),
        *(f"precision={precision}", "precision.compute=fp32", f"lora.last_k={options.last_k}"),
    ]
    runs = []
    for seed in range(options.members):
        place = folder / f"{precision}-{seed}"
        run_trial(compose([*common, f"seed={seed}"]), place, Terminal(Console(quiet=True)))
        runs.append(open_run(place))
    return runs


@torch.no_grad()
def plain(trained: Trained, records: list[Record]) -> torch.Tensor:
    """The loop that a competent user writes: sorted by length, padded batches, PEFT's own layers."""
    data, body = trained.config.data, trained.backbone.body
    rows = encode(records, trained.tokenizer, data, trained.layout, num_classes=len(trained.classes))
    order = np.argsort([-len(tokens) for tokens in rows.tokens], kind="stable")
    pooled: list[torch.Tensor] = []
    body.eval()
    for start in range(0, len(order), BATCH):
        chosen = [torch.from_numpy(rows.tokens[row]).long() for row in order[start : start + BATCH]]
        ids = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in chosen], batch_first=True)
        states = body(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        pooled.append(states[torch.arange(len(chosen)), mask.sum(dim=1) - 1])
    return torch.cat(pooled)


def spent(work: Callable[[], object]) -> float:
    """CPU seconds of a call, of all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measured(options: argparse.Namespace, runs: list[FinishedRun], source: Path) -> dict[str, list[float]]:
    """CPU seconds of each arm, in alternation; the first round warms up."""
    records = list(read_unlabelled(runs[0].config.data, source))
    taken: dict[str, list[float]] = {}
    made: dict[str, Any] = {}
    settings: dict[str, Any] = {"swap": False, "batch_rows": BATCH}

    def note(name: str, work: Callable[[], object]) -> None:
        taken.setdefault(name, []).append(spent(work))

    note("load pack", lambda: made.update(pack=load_pack(runs, CPU)))
    note("load one by one", lambda: made.update(one=[load(run, CPU) for run in runs]))
    made["peft"] = load(runs[0], CPU, by_peft=True)
    for number in range(options.rounds + 1):
        if number == 1:
            taken = {name: values for name, values in taken.items() if name.startswith("load")}
        note("pack", lambda: joint_predictions(made["pack"].members, made["pack"].states, records, **settings))
        note("one by one", lambda: [predictions(one, records, **settings) for one in made["one"]])
        note("one", lambda: predictions(made["one"][0], records, **settings))
        note("plain loop", lambda: plain(made["peft"], records))
    return taken


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rounds", 3), ("rows", 96), ("hidden", 256), ("blocks", 8), ("last-k", 2), ("members", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--precision", default="fp32,nf4")
    options = parser.parse_args(arguments)
    quiet_libraries()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_csv(generate(options.rows, seed=9, noise=0.0), folder / "new.csv")
        print(f"{options.rows} rows, {options.blocks} blocks {options.hidden} wide, the last {options.last_k} adapted")
        for precision in options.precision.split(","):
            taken = measured(options, trained(options, folder, precision), folder / "new.csv")
            middle = {arm: statistics.median(values) for arm, values in taken.items()}
            print(", ".join(f"{arm} {value:.2f} s" for arm, value in middle.items()))
            pack = middle["one by one"] / middle["pack"]
            alone = middle["plain loop"] / middle["one"]
            print(f"{precision}: {options.members} as a pack against one by one: {pack:.2f}x (target {PACK}x)")
            print(f"{precision}: one against the plain loop: {alone:.2f}x (target at least {ALONE}x)")


if __name__ == "__main__":
    main()
