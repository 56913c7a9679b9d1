"""Attention on a CPU: torch's kernel in bf16 against the same kernel in fp32, and against plain products.

    python benchmarks/attention.py [--heads 9 3 64] [--tokens 1024] [--lengths 16,32,64,128,256,512,1024]

A row of the table is a length: so many rows that there are --tokens in all, causal, without a mask. CPU milliseconds of
one thread, forward and backward, the best of several turns in alternation; the ratio is that of bf16 to each other arm.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from danube_sweep.model.attention import widened_attention

Heads = Sequence[torch.Tensor]


def module(heads: Heads) -> SimpleNamespace:
    """What attention asks of its module."""
    return SimpleNamespace(is_causal=True, training=True, num_key_value_groups=heads[0].shape[1] // heads[1].shape[1])


def usual(heads: Heads) -> torch.Tensor:
    """torch's kernel in the type of the heads."""
    states: torch.Tensor = sdpa_attention_forward(module(heads), *heads, None)[0]
    return states


def widened(heads: Heads) -> torch.Tensor:
    """What danube_sweep computes up to the length of its table."""
    return widened_attention(module(heads), *heads, None)[0]


def plain(heads: Heads) -> torch.Tensor:
    """Two matrix products and a softmax, in fp32."""
    query, key, value = (one.float() for one in heads)
    groups, tokens = query.shape[1] // key.shape[1], query.shape[2]
    scores = query @ repeat_kv(key, groups).transpose(2, 3) * query.shape[3] ** -0.5
    allowed = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    mixed = scores.masked_fill(~allowed, float("-inf")).softmax(dim=-1) @ repeat_kv(value, groups)
    return mixed.to(heads[0].dtype).transpose(1, 2)


ARMS: dict[str, tuple[Callable[[Heads], torch.Tensor], torch.dtype]] = {
    "bf16": (usual, torch.bfloat16),
    "widened": (widened, torch.bfloat16),
    "plain": (plain, torch.bfloat16),
    "all fp32": (usual, torch.float32),
}


def milliseconds(arm: str, options: argparse.Namespace, length: int, *, backward: bool) -> float:
    """CPU milliseconds of one pass."""
    attend, dtype = ARMS[arm]
    heads, kv_heads, width = options.heads
    rows = max(1, options.tokens // length)
    generator = torch.Generator().manual_seed(0)
    shapes = [(rows, count, length, width) for count in (heads, kv_heads, kv_heads)]
    given = [torch.randn(shape, generator=generator).to(dtype).requires_grad_(backward) for shape in shapes]
    began = time.process_time()
    out = attend(given)
    if backward:
        out.backward(torch.ones_like(out))
    return (time.process_time() - began) * 1000


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, nargs=3, default=[9, 3, 64], metavar=("QUERY", "KEY", "WIDTH"))
    parser.add_argument("--tokens", type=int, default=1024, help="of all rows together")
    parser.add_argument("--lengths", default="16,32,64,128,256,512,1024")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for backward in (True, False):
        print(f"\n| tokens of a row, {'forward and backward' if backward else 'forward'} | " + " | ".join(ARMS) + " |")
        print("| --- " * (len(ARMS) + 1) + "|")
        for length in map(int, options.lengths.split(",")):
            turns = [
                {arm: milliseconds(arm, options, length, backward=backward) for arm in ARMS}
                for _ in range(options.rounds + 1)
            ]
            best = {arm: min(turn[arm] for turn in turns[1:]) for arm in ARMS}  # the first turn warms up
            cells = [f"{best['bf16']:.2f}"]
            cells += [f"{best[arm]:.2f} ({best['bf16'] / best[arm]:.1f})" for arm in list(ARMS)[1:]]
            print(f"| {length} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
