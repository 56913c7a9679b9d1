"""The memory of a trial from its config: bytes by kind and the peak they make. docs/memory.md derives it."""

from dataclasses import asdict, dataclass

from danube_sweep.adapters import QUANTISED
from danube_sweep.architecture import Architecture
from danube_sweep.planner.activations import checkpoints, live_block, whole_body
from danube_sweep.planner.walk import FP32, Pass
from danube_sweep.planner.weights import (
    adapter_tensors,
    allocation_bytes,
    head_tensors,
    paged_bytes,
    parameters,
    reads_lm_head,
    state_bytes,
    stored_bytes,
)
from danube_sweep.schema import AdamW, Compute, Config, Dora, LMHead, ScheduleFree
from danube_sweep.trial import is_random

GIB = 2**30
END_OF_NET, BACKWARD_OF_BLOCK = 20, 8
"""Bytes per token and hidden unit that come and go at the last norm and the head, and in a block's backward pass."""
BACKWARD_OF_MLP = {False: 2.0, True: 1.75}
"""The same in numbers of the compute type per unit of the feed-forward layer: without and with checkpointing."""
PER_LOGIT = 12
"""Bytes per predicted token and word of the vocabulary: fp32 logits, their softmax and its gradient."""
EVALUATION = 16, 4
"""Without gradients: bytes per token and hidden unit, numbers per token and unit of the feed-forward layer."""
SCORES, SCORES_EVALUATED, SCORES_OF_POSITIONS = 10, 12, 24
"""Where scores are a matrix: bytes per token, head and key in a backward pass, without gradients, and there with
DeBERTa's positions.
"""
DORA_WEIGHTS = 4
"""Copies of a linear's weights that DoRA makes to take their norm."""
CUDA_CONTEXT_BYTES, PROCESS_BYTES, BITSANDBYTES_BYTES = 0.5 * GIB, 0.55 * GIB, 0.3 * GIB
"""Margins: what CUDA keeps for itself and its kernels; on a CPU, where the whole process counts, what it has before any
tensor, and what bitsandbytes adds.
"""
SLACK, CPU_SLACK = 0.04, 0.25
"""Margin: the share of the peak that the allocator holds and cannot use; on a CPU freed blocks are kept on purpose."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of training, by kind; `context` and `slack` are margins and no tensors."""

    weights: float
    trained: float
    """Adapter and head; with lora=full the trained weights are `weights`."""
    gradients: float
    optimizer: float
    paged: float
    """Optimizer states that lie in host memory when the GPU is full; not part of the peak."""
    activations: float
    """Kept for the backward pass."""
    workspace: float
    """What comes and goes: gradients of activations, dequantised weights, logits, an update's temporaries."""
    context: float
    slack: float
    moment: str = "training"
    """When the peak is: in training (forward and backward), update, evaluation or drawing (of random weights)."""

    @property
    def peak(self) -> float:
        """All tensors: what torch's max_memory_allocated counts on a GPU."""
        kinds = (self.weights, self.trained, self.gradients, self.optimizer, self.activations, self.workspace)
        return sum(kinds)

    @property
    def total(self) -> float:
        """What the device must have: the peak and the margins."""
        return self.peak + self.context + self.slack

    def plain(self) -> dict[str, int]:
        """Whole bytes by name, for a file."""
        sizes = {**asdict(self), "peak": self.peak, "total": self.total}
        return {name: round(size) for name, size in sizes.items() if name != "moment"}


def walk_of(config: Config, model: Architecture, length: int) -> Pass:
    """The forward pass of one full micro-batch of rows of `length` tokens."""
    padded = config.trainer.micro_batch * config.head.passes > 1
    on_cpu = config.device.accelerator == "cpu"
    has_bf16 = "bf16" in config.device.types or not config.device.types  # compute capability 8.0, and flash attention
    grouped = on_cpu or (has_bf16 and config.precision.compute is not Compute.fp32)
    return Pass(model, config.precision, config.lora, length, padded=padded, cpu=on_cpu, grouped=grouped)


def memory_of(config: Config, model: Architecture, *, classes: int = 3, longest: int | None = None) -> Memory:
    """The peak of training on micro-batches that are full, of rows of `longest` tokens (data.max_length by default)."""
    walk = walk_of(config, model, longest or config.data.max_length)
    body, head = adapter_tensors(walk, config.head), head_tensors(model, config.head, classes)
    each = walk.weight_bytes if walk.full else FP32
    trained = (0 if walk.full else body.elements * FP32) + head.elements * FP32
    gradients = body.elements * each + head.elements * FP32
    states = allocation_bytes(config.lora, body)
    states += state_bytes(config.optimizer, body, each) + state_bytes(config.optimizer, head, FP32)
    paged = 0.0 if walk.cpu else paged_bytes(config.optimizer, body, each) + paged_bytes(config.optimizer, head, FP32)
    kept, passing = _step(config, walk)
    # torch's AdamW updates all tensors together and holds the roots of all second moments; on a CPU one by one.
    # Schedule-free AdamW does the same everywhere.
    together = ScheduleFree if walk.cpu else AdamW | ScheduleFree
    updating = float(gradients) if isinstance(config.optimizer, together) else 0.0
    stored = stored_bytes(walk, config.head)
    # Random weights are drawn in fp32 in host memory, output layer included, before they are stored as asked.
    drawing = (model.body + model.embedding) * FP32 if walk.cpu and is_random(config.model) else 0
    moments = {
        "training": kept + passing,
        "update": updating,
        "evaluation": _evaluating(config, walk),
        "drawing": drawing - trained - gradients - states,
    }
    moment = max(moments, key=lambda name: moments[name])
    varying = moments[moment]
    kept = kept if moment == "training" else 0.0
    peak = stored + trained + gradients + states - paged + varying
    return Memory(
        weights=stored,
        trained=trained,
        gradients=gradients,
        optimizer=states - paged,
        paged=paged,
        activations=kept,
        workspace=varying - kept,
        context=_context(config) if walk.cpu else CUDA_CONTEXT_BYTES,
        slack=(CPU_SLACK if walk.cpu else SLACK) * peak,
        moment=moment,
    )


def _context(config: Config) -> float:
    uses_bitsandbytes = config.precision.storage in QUANTISED or not isinstance(config.optimizer, AdamW)
    return PROCESS_BYTES + (BITSANDBYTES_BYTES if uses_bitsandbytes else 0.0)


def counted(config: Config, model: Architecture, classes: int = 3) -> tuple[int, int]:
    """Parameters of backbone, adapter and head together, and how many of them train."""
    walk = walk_of(config, model, config.data.max_length)
    head = head_tensors(model, config.head, classes).elements
    trained = adapter_tensors(walk, config.head).elements
    return parameters(model, config.head) + head + (0 if walk.full else trained), trained + head


def _step(config: Config, walk: Pass) -> tuple[float, float]:
    # What is kept for the backward pass at the moment of the peak, and what comes and goes then.
    tokens, model = config.trainer.micro_batch * config.head.passes * walk.length, walk.model
    trains = walk.trains
    at_the_end = tokens * (END_OF_NET * model.hidden if trains else EVALUATION[0] * model.hidden)
    if isinstance(config.head, LMHead):
        at_the_end = max(at_the_end, tokens * model.vocab * PER_LOGIT)
    mlp = BACKWARD_OF_MLP[config.precision.gradient_checkpointing] * model.intermediate * walk.compute_bytes
    weights = _unpacked(walk)
    scores = model.heads * walk.length if model.family.eager else 0
    if not config.precision.gradient_checkpointing or not trains:
        mlp = mlp + SCORES * scores if trains else _evaluated(walk) - EVALUATION[0] * model.hidden
        in_a_block = tokens * mlp
        return whole_body(walk).bytes(tokens), max(at_the_end, in_a_block) + weights
    inputs, block = checkpoints(walk).bytes(tokens), live_block(walk).bytes(tokens)
    in_a_block = tokens * (max(BACKWARD_OF_BLOCK * model.hidden, mlp) + SCORES * scores) + weights
    if block + in_a_block >= at_the_end:
        return inputs + block, in_a_block
    return inputs, at_the_end


def _unpacked(walk: Pass) -> float:
    # The largest linear, dequantised, or its gradient before it is added to the others.
    model = walk.model
    largest = max(linear.weights for linear in model.linears)
    if isinstance(walk.adapter, Dora):
        return DORA_WEIGHTS * largest * walk.compute_bytes
    if walk.full:
        largest = max(largest, model.embedding)
    if walk.precision.storage in QUANTISED:
        return largest * walk.compute_bytes
    return largest * walk.weight_bytes if walk.full else 0.0


def _evaluated(walk: Pass) -> float:
    # Bytes per token that a pass without gradients has at a time.
    model, (of_hidden, of_mlp) = walk.model, EVALUATION
    each = SCORES_OF_POSITIONS if model.family.encoder else SCORES_EVALUATED
    scores = each * model.heads * walk.length if model.family.eager else 0
    return of_hidden * model.hidden + of_mlp * model.intermediate * walk.compute_bytes + scores


def _evaluating(config: Config, walk: Pass) -> float:
    tokens = (config.trainer.eval_batch or config.trainer.micro_batch) * config.head.passes * walk.length
    body = _evaluated(walk)
    logits = walk.model.vocab * PER_LOGIT if reads_lm_head(config.head) and isinstance(config.head, LMHead) else 0
    return tokens * max(body, logits) + _unpacked(walk)
