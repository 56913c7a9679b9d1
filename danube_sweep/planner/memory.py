"""The memory of a trial or pack, from the configs: bytes by kind and the peak they make. docs/memory.md derives it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from danube_sweep.config.facts.adapters import QUANTISED, is_packed
from danube_sweep.config.facts.architectures import Architecture
from danube_sweep.config.facts.evaluation import eval_tokens
from danube_sweep.config.identity import is_random
from danube_sweep.config.schema import Config, Dora
from danube_sweep.optimizer.kinds.adamw import AdamW
from danube_sweep.planner.activations import checkpoints, live_block, whole_body
from danube_sweep.planner.joint_pass import distinct_batches, joint_walk, walk_of
from danube_sweep.planner.parameter_bytes import (
    adapter_tensors,
    allocation_bytes,
    head_tensors,
    paged_bytes,
    parameters,
    state_bytes,
    stored_bytes,
)
from danube_sweep.planner.several_devices import exchange_bytes, on_each
from danube_sweep.planner.sharded_bytes import division
from danube_sweep.planner.symbolic_pass import FP32, INT64, Pass

GIB = 2**30
END_OF_NET, BACKWARD_OF_BLOCK = 20, 8
"""Bytes per token and hidden unit that come and go at the last norm and the head, and in a block's backward pass."""
BACKWARD_OF_MLP = {False: 2.0, True: 1.75}
"""The same in numbers of the compute type per unit of the feed-forward layer: without and with checkpointing."""
PER_LOGIT = {False: 12, True: 16}
"""Bytes per predicted token and word of the vocabulary: fp32 logits, their softmax and its gradient. Where logits are
capped, the bounded logits as well.
"""
EVALUATION = 16, 4
"""Without gradients: bytes per token and hidden unit, numbers per token and unit of the feed-forward layer."""
SCORES, SCORES_EVALUATED, SCORES_OF_POSITIONS = 10, 12, 24
"""Where scores are a matrix: bytes per token, head and key in a backward pass, without gradients, and there with
DeBERTa's positions.
"""
DORA_WEIGHTS = 4
"""Copies of a linear's weights that DoRA makes to take their norm."""
PROCESS_BYTES, BITSANDBYTES_BYTES = 0.55 * GIB, 0.3 * GIB
"""Margins on a CPU, where the whole process counts: what it has before any tensor, and what bitsandbytes adds."""
SLACK, CPU_SLACK = 0.04, 0.25
"""Margin: the share of the peak that the allocator holds and cannot use; on a CPU freed blocks are kept on purpose."""
SPREAD = {False: 0.12, True: 0.4}
"""Share of the predicted memory by which measured runs exceeded it, on a GPU and on a CPU (docs/memory.md)."""
CHECKPOINT_SLACK = 0.5
"""The same of checkpointed inputs, between which blocks come and go: as on T4s (benchmarks/published_t4.py)."""


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
    """Temporary tensors: gradients of activations, dequantised weights, logits, an update's temporaries."""
    context: float
    slack: float
    moment: str = "training"
    """When the peak is: in training (forward and backward), exchange (of gradients, with device.count), update,
    evaluation or drawing (of random weights).
    """

    @property
    def peak(self) -> float:
        """All tensors, as torch's max_memory_allocated counts them on a GPU."""
        kinds = (self.weights, self.trained, self.gradients, self.optimizer, self.activations, self.workspace)
        return sum(kinds)

    @property
    def total(self) -> float:
        """The memory that the device must have: the peak and the margins."""
        return self.peak + self.context + self.slack

    def plain(self) -> dict[str, int]:
        """Whole bytes by name, for a file."""
        sizes = {**asdict(self), "peak": self.peak, "total": self.total}
        return {name: round(size) for name, size in sizes.items() if name != "moment"}


def memory_of(config: Config, model: Architecture, *, classes: int = 3, longest: int | None = None) -> Memory:
    """The peak of training on micro-batches that are full, of rows of `longest` tokens (data.max_length by default)."""
    return pack_memory([config], model, classes=classes, longest=longest)


def pack_memory(
    configs: Sequence[Config], model: Architecture, *, classes: int = 3, longest: int | None = None
) -> Memory:
    """The peak of trials that train together: the backbone once, each trial's trained part, and all activations.

    `configs` have the same `pack_plan.pack_key`. With device.count it is the memory of one device.
    """
    first = configs[0]
    walk = joint_walk(configs, model, longest or first.data.max_length)
    whole = stored_bytes(walk, first.head) + _spare(configs, walk)
    divided = division(first, walk, whole)
    own = [_own(config, model, classes, lambda size: divided.trained(size, whole)) for config in configs]
    trained, gradients, states, paged = (
        sum(getattr(one, kind) for one in own) for kind in ("trained", "gradients", "states", "paged")
    )
    passes = on_each(configs, model, first.device)
    kept, passing = _step(passes, joint_walk(passes, model, walk.length))
    whole_step = first.trainer.micro_batch == first.trainer.effective_batch
    if walk.full and whole_step and not walk.precision.gradient_checkpointing:
        kept = max(kept - gradients, 0.0)  # a block's gradients appear as its activations are freed
    stored = divided.weights(whole)
    # Random weights are drawn in fp32 in host memory, output layer included, before they are stored as asked.
    drawing = (model.body + model.embedding) * FP32 if walk.cpu and is_random(first.model) else 0
    moments = {
        "training": kept + passing,
        "update": max(one.updating for one in own),
        "exchange": 0.0
        if divided.ranks > 1 and walk.full
        else exchange_bytes(
            gradients / (walk.weight_bytes if walk.full else FP32), first.device, model.embedding if walk.full else 0
        ),
        "evaluation": _evaluating(configs, walk),
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
        context=_context(configs) if walk.cpu else first.device.context_gib * GIB,
        slack=_slack(passes, walk, peak),
        moment=moment,
    )


def _spare(configs: Sequence[Config], walk: Pass) -> float:
    # The output layer that only a benchmark reads. Unread, and not loaded, if the trial leaves out all tasks.
    read = walk.model.tied or configs[0].head.reads_lm_head
    return 0.0 if read or not configs[0].trainer.benchmark else walk.model.embedding * walk.weight_bytes


@dataclass(frozen=True)
class _Own:
    # Bytes of one trial; `updating` is temporary, during its update.
    trained: float
    gradients: float
    states: float
    paged: float
    updating: float


def _own(config: Config, model: Architecture, classes: int, divided: Callable[[float], float]) -> _Own:
    walk, optimizer = walk_of(config, model, config.data.max_length), config.optimizer
    body, head = adapter_tensors(walk, config.head), head_tensors(model, config.head, classes)
    each = walk.weight_bytes if walk.full else FP32
    of_body, states = float(body.elements * each), state_bytes(optimizer, body, each)
    if walk.full:
        of_body, states = divided(of_body), divided(states)
    gradients = of_body + head.elements * FP32
    return _Own(
        (0 if walk.full else body.elements * FP32) + head.elements * FP32,
        gradients,
        allocation_bytes(config.lora, body) + states + state_bytes(optimizer, head, FP32),
        0.0 if walk.cpu else paged_bytes(optimizer, body, each) + paged_bytes(optimizer, head, FP32),
        optimizer.updating_bytes(gradients),
    )


def _slack(configs: Sequence[Config], walk: Pass, peak: float) -> float:
    if walk.cpu:
        return CPU_SLACK * peak
    if not walk.precision.gradient_checkpointing:
        return SLACK * peak
    tokens = _tokens(configs, configs[0].trainer.micro_batch, walk)
    return SLACK * peak + CHECKPOINT_SLACK * checkpoints(walk).bytes(tokens)


def _context(configs: Sequence[Config]) -> float:
    quantised = configs[0].precision.storage in QUANTISED
    uses_bitsandbytes = quantised or not all(isinstance(config.optimizer, AdamW) for config in configs)
    return PROCESS_BYTES + (BITSANDBYTES_BYTES if uses_bitsandbytes else 0.0)


def counted(config: Config, model: Architecture, classes: int = 3) -> tuple[int, int]:
    """Parameters of backbone, adapter and head together, and how many of them train."""
    walk = walk_of(config, model, config.data.max_length)
    head = head_tensors(model, config.head, classes).elements
    trained = adapter_tensors(walk, config.head).elements
    return parameters(model, config.head) + head + (0 if walk.full else trained), trained + head


def _tokens(configs: Sequence[Config], rows: int, walk: Pass) -> int:
    return len(configs) * rows * configs[0].head.passes * walk.length


def _step(configs: Sequence[Config], walk: Pass) -> tuple[float, float]:
    # The tensors kept for the backward pass at the moment of the peak, and the temporary ones.
    trainer, model, trains = configs[0].trainer, walk.model, walk.trains
    tokens = _tokens(configs, trainer.micro_batch, walk)
    checkpointing = walk.precision.gradient_checkpointing
    at_the_end: float = tokens * (END_OF_NET * model.hidden if trains else EVALUATION[0] * model.hidden)
    at_the_end = max(at_the_end, _logits(configs, walk, trainer.micro_batch, PER_LOGIT[model.family.capped]))
    weights = _unpacked(walk)
    if not trains:  # the backbone runs once for all trials that share a batch
        once = tokens // len(configs) * distinct_batches(configs)
        in_a_block = once * (_evaluated(walk) - EVALUATION[0] * model.hidden)
        return whole_body(walk).bytes(tokens), max(at_the_end, in_a_block + _distances(walk)) + weights
    mlp = BACKWARD_OF_MLP[checkpointing] * model.intermediate * walk.compute_bytes
    mlp += _dropped(configs, walk)
    scores = SCORES * (model.heads * walk.length if model.family.eager else 0)
    if not checkpointing:
        return whole_body(walk).bytes(tokens), max(at_the_end, tokens * (mlp + scores)) + weights
    inputs, block = checkpoints(walk).bytes(tokens), live_block(walk).bytes(tokens)
    in_a_block = tokens * (max(BACKWARD_OF_BLOCK * model.hidden, mlp) + scores) + weights
    if block + in_a_block >= at_the_end:
        return inputs + block, in_a_block
    return inputs, at_the_end


def _logits(configs: Sequence[Config], walk: Pass, rows: int, per_logit: int) -> float:
    # Bytes of the logits of predicted tokens. Chunks of any trial exist one at a time; the states that they are made of
    # stay, with their gradient.
    whole, chunk, states = 0.0, 0.0, 0.0
    for config in configs:
        if config.head.predicts_tokens:
            tokens = _tokens([config], rows, walk)
            at_once = float(config.head.logits_at_once(tokens))
            whole, chunk = (whole, max(chunk, at_once)) if config.head.in_chunks else (whole + at_once, chunk)
            states += 2 * tokens * walk.compute_bytes * walk.model.hidden if config.head.in_chunks else 0
    return (whole + chunk) * walk.model.vocab * per_logit + states


def _dropped(configs: Sequence[Config], walk: Pass) -> float:
    # Bytes per token of the packed operation's dropout: its input for all trials, and one trial's fp32 factors.
    dropping = any(is_packed(config.lora) and config.lora.dropout > 0 for config in configs)
    widest = max((linear.inputs for linear in walk.targets), default=0)
    return widest * (walk.compute_bytes + 2 * FP32 / len(configs)) if dropping else 0.0


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


def _distances(walk: Pass) -> float:
    # DeBERTa's distances between tokens, each way, for all rows of a batch at once.
    return 2 * INT64 * walk.length**2 if walk.model.family.encoder else 0.0


def _evaluating(configs: Sequence[Config], walk: Pass) -> float:
    # Trials that are at a border together go through together, or once for all where no block is adapted.
    together = configs if walk.trains else configs[:1]
    rows = configs[0].trainer.eval_batch or -(-eval_tokens(configs[0], walk.length, on_cpu=walk.cpu) // walk.length)
    tokens = _tokens(together, rows, walk)
    logits = _logits(together, walk, rows, PER_LOGIT[False])
    return max(tokens * _evaluated(walk), logits) + _distances(walk) + _unpacked(walk)
