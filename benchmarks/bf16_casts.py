"""Whose bf16 arithmetic over nf4 weights is nearer to fp32: this tool's or plain PEFT's, and which casts differ.

    python benchmarks/bf16_casts.py --model FOLDER --run RUN [--rows 200] [--data FOLDER]

RUN is a run of real_model.py over the same folder (`--run`). Every variant answers the same test rows over the same nf4
weights with the run's adapter and head. The reference computes in fp32 over them. docs/decisions/016 has the numbers.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
from real_model import Classifier, finished, load_body, padded
from torch.nn import functional as F

ROWS_AT_ONCE = 16
Rows = Sequence[Sequence[int]]


@torch.no_grad()
def logits_of(model: Callable[[Rows], torch.Tensor], rows: Rows) -> torch.Tensor:
    """Logits [N, C], rows of like length together."""
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    found = [
        model([rows[number] for number in order[first : first + ROWS_AT_ONCE]])
        for first in range(0, len(order), ROWS_AT_ONCE)
    ]
    return torch.cat(found)[torch.tensor(order).argsort()].double()


def ours(run: Path, compute: str) -> Callable[[Rows], torch.Tensor]:
    """This tool's forward pass over nf4 weights."""
    from danube_sweep.config.schema import Compute, Storage
    from danube_sweep.config.stored import load_config
    from danube_sweep.data.tokenizer import load_tokenizer
    from danube_sweep.lora import PackedAdapters
    from danube_sweep.storage import checkpoint
    from danube_sweep.training import trained_weights
    from danube_sweep.training.assemble import assemble, load_base

    config = load_config(run / "config.yaml")
    precision = replace(config.precision, storage=Storage.nf4, compute=Compute(compute))
    config = replace(config, precision=precision)
    backbone = load_base(config, torch.device("cpu"))
    adapters = PackedAdapters(backbone)
    classes = checkpoint.read_manifest(run / "adapter")["classes"]
    model = assemble(config, backbone, classes=classes, tokenizer=load_tokenizer(config.model), adapters=adapters)
    assert model.packed is not None
    adapters.put_alone(model.packed)
    trained_weights.load_trained(run / "adapter", model)
    backbone.body.eval()

    def forward(rows: Rows) -> torch.Tensor:
        ids_BT, mask_BT = padded(rows, "right")
        states_BTH = backbone.hidden(ids_BT, mask_BT.bool())
        last_B = mask_BT.sum(dim=1) - 1
        return model.head.layers.linear(states_BTH[torch.arange(len(last_B)), last_B].float())

    return forward


def plain(run: Path, folder: Path, *, autocast: bool) -> Callable[[Rows], torch.Tensor]:
    """Plain PEFT over nf4 weights, which computes in bf16."""
    from peft import PeftModel
    from safetensors.torch import load_file

    (score_CH,) = load_file(run / "adapter" / "head.safetensors").values()
    body = PeftModel.from_pretrained(load_body(folder, "nf4", "bf16"), str(run / "adapter"))
    model = Classifier(body, score_CH, "bf16" if autocast else "fp32").eval()
    return lambda rows: model(rows, "right")


@contextmanager
def products_in_fp32_registers() -> Iterator[None]:
    """bf16 products summed in fp32 and rounded once, as a GPU does; a CPU without bf16 instructions takes 8 times as
    long for the same.
    """
    linear = F.linear

    def summed(given: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        if torch.is_autocast_enabled("cpu"):
            given, weight = given.bfloat16(), weight.bfloat16()
        if given.dtype is not torch.bfloat16:
            return linear(given, weight, bias)
        with torch.autocast("cpu", enabled=False):
            return linear(given.float(), weight.float(), None if bias is None else bias.float()).bfloat16()

    F.linear = summed
    try:
        yield
    finally:
        F.linear = linear


@contextmanager
def adapter_in_fp32() -> Iterator[None]:
    """The packed operation's products in fp32, which autocast would take in bf16; the sum is rounded once."""
    from danube_sweep.lora import packed_adapters

    types, update = packed_adapters.DTYPES, packed_adapters.update

    def wide(*given: Any) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return update(*given)

    packed_adapters.DTYPES, packed_adapters.update = dict.fromkeys(types, torch.float32), wide
    try:
        yield
    finally:
        packed_adapters.DTYPES, packed_adapters.update = types, update


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DANUBE_SWEEP_DATA", "data")))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    _, _, rows = finished(options.run, options.data / "banking77_test.csv", options.rows)
    run, folder = options.run, options.model

    def wide() -> Callable[[Rows], torch.Tensor]:
        with adapter_in_fp32():
            forward = ours(run, "bf16")

        def within(rows: Rows) -> torch.Tensor:
            with adapter_in_fp32():
                return forward(rows)

        return within

    variants: dict[str, Callable[[], Callable[[Rows], torch.Tensor]]] = {
        "fp32": lambda: ours(run, "fp32"),
        "this tool": lambda: ours(run, "bf16"),
        "this tool, adapter in fp32": wide,
        "plain PEFT": lambda: plain(run, folder, autocast=False),
        "plain PEFT under autocast": lambda: plain(run, folder, autocast=True),
    }
    found: dict[str, torch.Tensor] = {}
    for name, build in variants.items():
        start = time.process_time()
        with products_in_fp32_registers():
            found[name] = logits_of(build(), rows)
        print(describe(name, found, time.process_time() - start), flush=True)


def describe(name: str, found: dict[str, torch.Tensor], seconds: float) -> str:
    """How far a variant is from the fp32 reference, and from this tool."""
    lines = [f"{name:28} {seconds:6.0f} s"]
    for other in ("fp32", "this tool"):
        if other not in found or other == name:
            continue
        logits, shares = (one - two for one, two in zip(_both(found[name]), _both(found[other]), strict=True))
        flipped = int((found[name].argmax(1) != found[other].argmax(1)).sum())
        lines.append(
            f"from {other}: logits rms {float(logits.pow(2).mean().sqrt()):.4f}, probabilities mean "
            f"{float(shares.abs().mean()):.2e} most {float(shares.abs().max()):.4f}, {flipped} other answers"
        )
    return "; ".join(lines)


def _both(logits_NC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return logits_NC, logits_NC.softmax(dim=1)


if __name__ == "__main__":
    main()
