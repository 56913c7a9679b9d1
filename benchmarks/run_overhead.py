"""This path against a plain loop of transformers + PEFT + bitsandbytes on the same batches, and bucketed batches
against batches padded to their longest row. Both sides run in alternation in one process; the ratio of medians counts.

    python benchmarks/run_overhead.py [--rounds 5] [--steps 30] [--data FOLDER] [--only overhead|bucketing]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, get_scheduler

from danube_sweep.composer import compose
from danube_sweep.config.schema import Compute, Config, Lora
from danube_sweep.model.backbone import architecture
from danube_sweep.model.precision import DTYPES, keep_weights_as_loaded, quantization_config, weight_dtype
from danube_sweep.terminal.quiet_libraries import quiet_libraries
from danube_sweep.terminal.screen import Terminal
from danube_sweep.training.prepare import prepare
from danube_sweep.training.run import run_trial
from danube_sweep.training.step_plan import Collator, StepPlan

HERE = ["device=cpu", "device.threads=1", "tracking=none"]


def plain_loop(config: Config) -> float:
    """Steps per second of the loop that a competent user would write; batches made by the same plan."""
    prepared = prepare(config)
    plan = StepPlan(config, prepared.parts["train"], prepared.pad_id)
    torch.manual_seed(config.model.init_seed)
    arch = architecture(config.model)
    drawn = AutoModelForCausalLM.from_config(arch, dtype=torch.float32).model
    quantised = quantization_config(config.precision)
    options = {"dtype": weight_dtype(config.precision), "quantization_config": quantised, "device_map": {"": "cpu"}}
    body = type(drawn).from_pretrained(None, config=arch, state_dict=drawn.state_dict(), **options)
    if quantised is not None:
        keep_weights_as_loaded(body)
    for parameter in body.parameters():
        parameter.requires_grad_(False)
    adapter = config.lora
    assert isinstance(adapter, Lora)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    description = LoraConfig(r=adapter.rank, lora_alpha=adapter.used_alpha, target_modules=targets)
    body = get_peft_model(body, description)
    head = nn.Linear(arch.hidden_size, len(prepared.classes))
    trained = [p for p in [*body.parameters(), *head.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.optimizer.lr)
    schedule = get_scheduler("cosine", optimizer, 0, plan.total_steps)
    body.train()
    dtype = DTYPES[config.precision.compute]
    start = time.perf_counter()
    for micro in plan.micro_batches(0, Collator(torch.device("cpu"))):
        batch = micro.batch
        with torch.autocast("cpu", dtype=dtype, enabled=config.precision.compute is not Compute.fp32):
            hidden = body(input_ids=batch.input_ids_BT, attention_mask=batch.mask_BT.long(), use_cache=False)[0]
        last = batch.mask_BT.sum(dim=1) - 1
        logits = head(hidden[torch.arange(len(last)), last].float())
        (F.cross_entropy(logits, batch.labels_BC) * micro.share).backward()
        if micro.last:
            nn.utils.clip_grad_norm_(trained, config.trainer.clip_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return plan.total_steps / (time.perf_counter() - start)


def this_path(config: Config) -> float:
    """Steps per second of `danube-sweep`, Lightning's loop, guards and metrics.csv included, validation not."""
    with tempfile.TemporaryDirectory() as folder, Terminal(Console(quiet=True)) as terminal:
        result = run_trial(config, Path(folder) / "run", terminal)
        return float(result["steps"] / result["measured"]["seconds"]["train"])


def ratio(name: str, ours: list[float], theirs: list[float], target: float) -> None:
    """Prints both medians, their spread and the ratio."""
    mine, other = statistics.median(ours), statistics.median(theirs)
    spread = f"{min(ours):.2f}-{max(ours):.2f} against {min(theirs):.2f}-{max(theirs):.2f}"
    print(f"{name:<44} {mine:8.2f} {other:8.2f}   {mine / other:5.2f}x (target {target}x)   {spread}", flush=True)


def overhead(precision: list[str], name: str, rounds: int, steps: int, hidden: int) -> None:
    """The overhead of this path over the plain loop, for one precision."""
    short = [f"trainer.max_steps={steps}", f"trainer.validate_every={steps}", "schedule.warmup=0"]
    shape = [f"model.shape.hidden_size={hidden}", f"model.shape.intermediate_size={3 * hidden}"]
    config = compose([*HERE, "head=sequence", "data.rows=200", *shape, *precision, *short])
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(this_path(config))
        theirs.append(plain_loop(config))
    ratio(f"steps/s, {name}: ours, plain loop", ours, theirs, 0.95)


def bucketing(data: Path, rounds: int) -> None:
    """Rows per second over arena_human.csv: bucketed batches, batches padded to their longest."""
    common = [*HERE, "data=arena", f"data.path={data}/arena_human.csv"]
    # A whole epoch: a part of one would compare different rows.
    common += ["data.max_rows=400", "data.validation_fraction=0.05", "trainer.epochs=1", "trainer.validate_every=999"]
    speeds: dict[str, list[float]] = {"bucketed": [], "shuffled": []}
    for number in range(rounds):
        for batching in speeds:
            config = compose([*common, f"data.batching={batching}", f"data.order_seed={number}"])
            speeds[batching].append(this_path(config) * config.trainer.effective_batch)
    ratio("rows/s, arena_human: bucketed, shuffled", speeds["bucketed"], speeds["shuffled"], 1.4)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--hidden", type=int, default=256, help="width of the model of the first comparison")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DANUBE_SWEEP_DATA", "data")))
    parser.add_argument("--only", choices=["overhead", "bucketing"], help="one of the two comparisons")
    options = parser.parse_args(arguments)
    quiet_libraries()
    torch.set_num_threads(1)
    print(f"{'':<44} {'ours':>8} {'base':>8}   ratio of medians")
    if options.only != "bucketing":
        overhead(["precision=fp32"], "fp32", options.rounds, options.steps, options.hidden)
        overhead(
            ["precision=nf4", "precision.compute=fp32"],
            "nf4, fp32 compute",
            options.rounds,
            options.steps,
            options.hidden,
        )
        overhead(["precision=nf4"], "nf4, bf16 compute", options.rounds, options.steps, options.hidden)
    if options.only == "overhead":
        return
    if not (options.data / "arena_human.csv").is_file():
        parser.error(f"no arena_human.csv in {options.data}: give --data or set DANUBE_SWEEP_DATA")
    bucketing(options.data, options.rounds)


if __name__ == "__main__":
    main()
