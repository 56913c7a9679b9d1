"""How long a benchmark takes over a model: prompts that are scored in forward passes, answers token by token."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from danube_sweep.config.facts.adapters import FOUR_BIT
from danube_sweep.config.facts.architectures import Architecture
from danube_sweep.config.schema import Compute, Config, NoAdapter
from danube_sweep.planner.joint_pass import walk_of
from danube_sweep.planner.planned_architecture import planned_architecture
from danube_sweep.planner.planned_device import planned_device
from danube_sweep.planner.step_seconds import LAUNCHES_OF_HEAD, Work, block_launches, weight_traffic
from danube_sweep.planner.symbolic_pass import FP32

LOGITS_MOVED = 4
"""How often the logits of a scored row are moved: written, read, and as log probabilities written and read."""


@dataclass(frozen=True)
class Requests:
    """What a task asks of a model: rows scored in one forward pass each, and answers that are generated."""

    scored: float = 0.0
    scored_tokens: float = 0.0
    """Mean tokens of such a row."""
    generated: float = 0.0
    prompt_tokens: float = 0.0
    answer_tokens: float = 0.0
    """Of the longest answer in a batch, which all its rows wait for."""

    @property
    def tokens(self) -> float:
        """Tokens of all scored rows and all prompts."""
        return self.scored * self.scored_tokens + self.generated * self.prompt_tokens


@dataclass(frozen=True)
class BenchmarkSeconds:
    """Predicted seconds of a benchmark, apart for its two kinds of requests."""

    likelihood: float = 0.0
    generation: float = 0.0

    @property
    def total(self) -> float:
        return self.likelihood + self.generation


def benchmark_seconds(config: Config, asked: Requests, *, batch_rows: int) -> BenchmarkSeconds:
    """The seconds of one pass over a task with the backbone of a trial, `batch_rows` rows at a time.

    Loading, tokenising and the adapter are not counted. Raises ModelError for a folder that the planner cannot read.
    """
    model, device = planned_architecture(config.model), planned_device(config.device)
    in_fp32 = config.precision.compute is Compute.fp32
    plain = replace(config, lora=NoAdapter(), device=device)

    def seconds(tokens: float, *, read: float = 0.0, logits: float) -> float:
        work = _forward(plain, model, batch_rows, tokens, read, batch_rows * logits)
        return work.seconds(device, in_fp32=in_fp32)

    likelihood = generation = 0.0
    if asked.scored:
        length = min(asked.scored_tokens, model.positions or math.inf)
        likelihood = asked.scored / batch_rows * seconds(length, logits=length)
    if asked.generated:
        prompt, answer = asked.prompt_tokens, asked.answer_tokens
        each = seconds(1, read=prompt + answer / 2, logits=1)
        generation = asked.generated / batch_rows * (seconds(prompt, logits=1) + answer * each)
    return BenchmarkSeconds(likelihood, generation)


def together(parts: Iterable[BenchmarkSeconds]) -> BenchmarkSeconds:
    """The seconds of several tasks, one after the other."""
    every = list(parts)
    return BenchmarkSeconds(sum(one.likelihood for one in every), sum(one.generation for one in every))


def _forward(config: Config, model: Architecture, rows: int, tokens: float, read: float, logits: float) -> Work:
    """One pass without gradients: `tokens` of each row, `read` tokens before them in the cache, `logits` in all."""
    walk = walk_of(config, model, max(1, round(tokens)))
    every = rows * tokens
    products = 2 * model.linear_weights * every + 2 * model.embedding * logits
    attention = 4 * model.layers * (tokens + read) * model.query * every
    widths = sum(linear.inputs + linear.outputs for linear in model.linears)  # each reads its input, writes its output
    moved = weight_traffic(walk) + float(model.embedding * walk.weight_bytes)
    moved += model.layers * widths * walk.compute_bytes * every
    moved += LOGITS_MOVED * FP32 * model.vocab * logits
    moved += 2 * model.kv * model.layers * walk.compute_bytes * rows * read
    unpacked = float(model.linear_weights) if walk.precision.storage in FOUR_BIT else 0.0
    launches = model.layers * block_launches(walk) + LAUNCHES_OF_HEAD
    return Work(products, attention, moved, launches, unpacked, 0.5 + walk.compute_bytes)
