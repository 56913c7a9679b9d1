"""The tensors that a forward pass keeps for the backward pass, block by block; docs/memory.md derives them.

The blocks follow transformers' modules under autocast with PEFT's adapters.
"""

from collections import Counter
from dataclasses import replace

from danube_sweep.config.facts.adapters import is_packed
from danube_sweep.config.facts.architectures import RELATIVE_POSITIONS
from danube_sweep.config.schema import Adalora, Lora, Vera
from danube_sweep.planner.symbolic_pass import BOOL, FP32, INT64, Pass, Saved, Tape, Value


def whole_body(walk: Pass) -> Saved:
    """Everything kept between the token ids and the last hidden states, without checkpointing."""
    total = _ends(walk) + _rotary(walk)
    for number, count in _distinct(walk).items():
        total += block(walk, number).times(count)
    return total


def checkpoints(walk: Pass) -> Saved:
    """The tensors kept with gradient checkpointing: the inputs of the blocks, and those that int8 linears hold."""
    if not walk.trains:
        return Saved()
    kept = walk.model.layers - (0 if walk.full else walk.first_adapted)  # nothing below asks for a gradient
    total = _ends(walk) + Saved(walk.residual_bytes * walk.model.hidden * kept)
    for number, count in _distinct(walk).items():
        if number >= walk.model.layers - kept:
            total += _recorded(walk, number, live=walk.full or number > walk.first_adapted).held().times(count)
    return total


def live_block(walk: Pass) -> Saved:
    """The tensors kept while one checkpointed block is computed again: the block that keeps most."""
    blocks = [block(walk, number) for number in _distinct(walk)]
    return max(blocks, key=lambda saved: saved.per_token) + _rotary(walk)


def block(walk: Pass, number: int) -> Saved:
    """The tensors that one block keeps."""
    return _recorded(walk, number, live=walk.full or number > walk.first_adapted).saved()


def _recorded(walk: Pass, number: int, *, live: bool) -> Tape:
    tape = Tape(walk, walk.adapters_in(number))
    given = Value("input", walk.model.hidden, walk.residual_bytes, live)
    (_encoder_block if walk.model.family.encoder else _decoder_block)(tape, given)
    return tape


def _positions(tape: Tape, name: str) -> Value:
    # The table of positions through a linear and its adapter, repeated for every row of the batch.
    walk, model = tape.walk, tape.walk.model
    each, trains = walk.compute_bytes, tape.trains(name)
    if trains:
        # One tensor, unless each reader makes a copy.
        own = each < walk.autocast_bytes and not is_packed(tape.adapter)
        kept = RELATIVE_POSITIONS * model.hidden * (each if own else walk.autocast_bytes)
        tape.keep_bytes(f"{name if own else 'positions'} read", constant=kept)
    if walk.full:
        factor = each if walk.cpu else BOOL
        tape.keep_bytes("positions dropout", constant=RELATIVE_POSITIONS * model.hidden * factor)
    if trains and isinstance(tape.adapter, Lora | Adalora | Vera):
        tape.keep_bytes(f"{name} low positions", constant=RELATIVE_POSITIONS * tape.adapter.rank * each)
    return Value(f"{name} positions", model.hidden * RELATIVE_POSITIONS / walk.length, each, trains)


def _ends(walk: Pass) -> Saved:
    # The tensors that the embedding and the last norm keep.
    model, live = walk.model, walk.trains
    tape = Tape(walk)
    if walk.full:
        tape.keep_bytes("ids", INT64)
    if not model.family.encoder:
        given = Value("last", model.hidden, walk.residual_bytes, live)
        out = tape.rms_norm(given, "norm", in_fp32=model.family.unit_offset)
        if walk.flat and live:  # copied back into rows, from and to places
            tape.keep(out)
            tape.keep_bytes("places", 2 * INT64)
    elif walk.full:
        state = tape.layer_norm(Value("embedding", model.hidden, walk.residual_bytes, True), "norm")
        tape.dropout(state, "dropout")
    return tape.saved()


def _rotary(walk: Pass) -> Saved:
    # The angles' cosines and sines, shared by all blocks whose queries or keys have a gradient.
    rotates = walk.full or (walk.trains and walk.first_adapted < walk.model.layers - 1)
    rotates |= bool({"q_proj", "k_proj", "qkv_proj"} & {linear.name for linear in walk.targets})
    if walk.model.family.encoder or not rotates:
        return Saved()
    angles = 2 * walk.model.head_dim * walk.residual_bytes
    return Saved(angles) if walk.flat else Saved(constant=angles * walk.length)


def _distinct(walk: Pass) -> Counter[int]:
    # A block of each kind, with how many there are that keep alike: before the first adapted one, that one, and behind
    # it with each set of adapters that a block has.
    if not walk.trains:
        return Counter()
    kinds: dict[tuple[bool, tuple[int, ...]], list[int]] = {}
    for number in range(walk.model.layers):
        kind = number > walk.first_adapted, tuple(map(id, walk.adapters_in(number)))
        kinds.setdefault(kind, []).append(number)
    return Counter({numbers[-1]: len(numbers) for numbers in kinds.values()})


# ------------------------------------------------------------------------------------------------------- decoders


def _decoder_block(tape: Tape, given: Value) -> None:
    model = tape.walk.model
    family, in_fp32 = model.family, model.family.unit_offset
    normed = tape.rms_norm(given, "norm 1", in_fp32=in_fp32)
    if "qkv_proj" in family.attention:
        fused = tape.linear(normed, "qkv_proj")
        query, key, value = fused, fused, fused
    else:
        query, key, value = (tape.linear(normed, name) for name in ("q_proj", "k_proj", "v_proj"))
    mixed = _attention(tape, query, key, value)
    if "qkv_proj" in family.attention or tape.walk.flat:
        # Its values are a view, or its rows are computed one by one: attention's output is copied into place.
        mixed = mixed.named("attended in place")
    attended = tape.linear(mixed, "o_proj")
    if family.norms == 4:
        attended = tape.rms_norm(attended, "norm after attention", in_fp32=in_fp32)
    middle = given.plus(attended, "middle")
    normed = tape.rms_norm(middle, "norm 2", in_fp32=in_fp32)
    if "gate_up_proj" in family.mlp:
        fused = tape.linear(normed, "gate_up_proj")
        gate, up = fused, fused
    else:
        gate, up = tape.linear(normed, "gate_proj"), tape.linear(normed, "up_proj")
    activated = replace(tape.activation(gate, "activated"), width=model.intermediate)
    out = tape.linear(tape.product(activated, up, "gated", model.intermediate), "down_proj")
    if family.norms == 4:
        tape.rms_norm(out, "norm after mlp", in_fp32=in_fp32)


def _attention(tape: Tape, query: Value, key: Value, value: Value) -> Value:
    walk, model = tape.walk, tape.walk.model
    each, scores = walk.compute_bytes, model.heads * walk.length
    # Without a grouped-query kernel, as always under a mask, keys and values are repeated for every query head.
    repeated = (walk.masked or model.family.eager or not walk.grouped) and model.kv < model.query
    query = Value("query", model.query, each, query.live)
    key = Value("key", model.query if repeated else model.kv, each, key.live)
    value = Value("values", model.query, each, value.live) if repeated else value
    if model.family.eager:
        raw = tape.product(query, key, "scores", scores)
        if raw.live:
            tape.keep(raw.named("capped"), Value("softmax", scores, FP32, True))
        softmax = Value("softmax", scores, FP32, raw.live)
        return tape.product(tape.cast(softmax, each, "value"), value, "attended", model.query)
    out = Value("attended", model.query, each, query.live or key.live or value.live)
    if out.live:
        tape.keep(query, key, value, out)
        tape.keep_bytes("logsumexp", model.heads * FP32)
        tape.keep_bytes("mask", walk.length * each if walk.masked else 0)
    return out


# -------------------------------------------------------------------------------------------------------- DeBERTa


def _encoder_block(tape: Tape, given: Value) -> None:
    mixed = tape.linear(_disentangled(tape, given), "attention.output.dense")
    state = tape.dropout(mixed, "attention dropout").plus(given, "middle")
    state = tape.layer_norm(state, "norm 1")
    wide = tape.activation(tape.linear(state, "intermediate.dense"), "activated")
    out = tape.dropout(tape.linear(wide, "output.dense"), "output dropout")
    tape.layer_norm(out.plus(state, "sum"), "norm 2")


def _disentangled(tape: Tape, given: Value) -> Value:
    # Content to content, content to position and position to content; positions are a learned table of 512 rows.
    walk, model = tape.walk, tape.walk.model
    each, length, scores = walk.compute_bytes, walk.length, model.heads * walk.length
    query, key, value = (tape.linear(given, f"{name}_proj") for name in ("query", "key", "value"))
    raw = tape.product(query, key.named("scaled key"), "scores", scores)
    for content, reader in ((query, "key_proj"), (key, "query_proj")):
        positions = _positions(tape, reader)
        looked_up = tape.product(content, positions, f"{content.name} to position", model.heads * RELATIVE_POSITIONS)
        if looked_up.live:  # the source of a gather is kept whole
            tape.keep(looked_up)
    if raw.live or value.live:
        tape.keep_bytes("gathered", constant=2 * length**2 * INT64 if raw.live else 0)
        tape.keep_bytes("mask", length * BOOL if raw.live else 0)
        tape.keep(Value("softmax", scores, walk.autocast_bytes, True))
    probabilities = tape.dropout(Value("probabilities", scores, walk.autocast_bytes, raw.live), "probabilities dropout")
    return tape.product(replace(probabilities, each=each), value, "attended", model.query)
