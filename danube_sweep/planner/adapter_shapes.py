"""The shapes that an adapter trains in one linear, and its untrained tensors there."""

import math
from typing import Any

from danube_sweep.config.facts.architectures import LinearShape
from danube_sweep.config.schema import Adalora, Dora, FullFinetune, Ia3, LinearAdapter, Lora, NoAdapter, Peft, Vera
from danube_sweep.planner.symbolic_pass import FP32, INT64, Pass

Shape = tuple[int, ...]


def trained_shapes(adapter: LinearAdapter, linear: LinearShape, *, feedforward: bool = False) -> list[Shape]:
    """The tensors that train in an adapted linear; `feedforward`: it is the last one of the feed-forward."""
    inputs, outputs = linear.inputs, linear.outputs
    match adapter:
        case Dora(rank=r):
            return [(r, inputs), (outputs, r), (outputs,)]
        case Lora(rank=r):
            return [(r, inputs), (outputs, r)]
        case Adalora(rank=r):
            return [(r, inputs), (outputs, r), (r, 1)]
        case Ia3():
            return [(1, inputs)] if feedforward else [(outputs, 1)]
        case Vera(rank=r):
            return [(r,), (outputs,)]
        case Peft():
            return _of_peft(adapter.type, adapter.fields or {}, inputs, outputs)
    raise TypeError(f"no shapes for {adapter}")


def _of_peft(kind: str, fields: dict[str, Any], inputs: int, outputs: int) -> list[Shape]:
    r = int(fields.get("r", RANKS.get(kind, 8)))
    low_rank: list[Shape] = [(r, inputs), (outputs, r)]
    narrow = min(inputs, outputs)
    match kind:
        case "lora":
            return _of_lora(fields, low_rank, outputs)
        case "lokr" | "hira":
            return low_rank
        case "loha":
            return [*low_rank, *low_rank]
        case "delora":
            return [*low_rank, (1,)]
        case "hra":
            return [(inputs, r)]
        case "miss":
            return [(r, outputs)]
        case "randlora":
            bases = math.ceil(narrow / r)
            return [(r, bases), (bases, narrow)]
        case "gralora":
            return _of_gralora(fields, r, inputs, outputs)
        case "fourierft" | "waveft":
            return [(int(fields.get("n_frequency", FREQUENCIES[kind])),)]
        case "beft":
            return [(1, outputs)]
    return _of_blocks(kind, fields, inputs, outputs)


RANKS = {"randlora": 32, "gralora": 32, "hira": 32, "miss": 64}
FREQUENCIES = {"fourierft": 1000, "waveft": 2592}
"""PEFT's defaults; the others' rank is 8."""


def _of_lora(fields: dict[str, Any], low_rank: list[Shape], outputs: int) -> list[Shape]:
    if fields.get("init_lora_weights") == "mica":
        low_rank = low_rank[:1]
    return [*low_rank, (outputs,)] if fields.get("lora_bias") else low_rank


def _of_gralora(fields: dict[str, Any], r: int, inputs: int, outputs: int) -> list[Shape]:
    parts, hybrid = int(fields.get("gralora_k", 2)), int(fields.get("hybrid_r", 0))
    own: list[Shape] = [(parts, inputs // parts, r), (parts, r, outputs // parts)]
    return [*own, (hybrid, inputs), (outputs, hybrid)] if hybrid else own


def _of_blocks(kind: str, fields: dict[str, Any], inputs: int, outputs: int) -> list[Shape]:
    match kind:
        case "oft":
            count = int(fields.get("r", 0)) or inputs // int(fields.get("oft_block_size", 32))
            size = inputs // count
            return [(1 if fields.get("block_share") else count, size * (size - 1) // 2)]
        case "boft":
            count = int(fields.get("boft_block_num", 0)) or inputs // int(fields.get("boft_block_size", 4))
            return [(1, count, inputs // count, inputs // count), (outputs, 1)]
        case "road":
            sizes = {"road_1": outputs // 2, "road_2": outputs, "road_4": 2 * outputs}
            return [(sizes[fields.get("variant", "road_1")],)] * 2
        case "c3a":
            block = int(fields.get("block_size", 256))
            return [(outputs // block, inputs // block, block)]
    raise TypeError(f"no shapes for lora.type={kind}")


def frozen_bytes(walk: Pass) -> float:
    """Bytes of an adapter's drawn, untrained tensors: random projections, and the permutations of OFT and BOFT."""
    targets = walk.targets
    if not targets:
        return 0.0
    inputs, outputs = max(one.inputs for one in targets), max(one.outputs for one in targets)
    match walk.adapter:
        case Vera(rank=r):
            return float(r * (inputs + outputs) * walk.projection_bytes)
        case Peft(type="randlora", fields=fields):
            r = int((fields or {}).get("r", RANKS["randlora"]))
            wide, narrow = max(inputs, outputs), min(inputs, outputs)
            return float(r * (narrow + wide * math.ceil(narrow / r)) * walk.weight_bytes)
        case Peft(type="boft"):
            return len(walk.adapted) * sum(one.inputs**2 for one in targets) * FP32
        case Peft(type="oft"):  # where each trained number goes in its block, by row and by column
            places = sum(shape[1] for one in targets for shape in trained_shapes(walk.adapter, one))
            return len(walk.adapted) * places * 2.0 * INT64
        case Lora() | Adalora() | Ia3() | Peft() | NoAdapter() | FullFinetune():
            return 0.0
    raise TypeError(f"nothing is known of what {type(walk.adapter).__name__} draws")
