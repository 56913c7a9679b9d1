"""The code that loads an export: printed in its README, and run by the check. It never imports this package."""

import json
from dataclasses import dataclass

from danube_sweep.config.schema import Compute, Precision
from danube_sweep.inference.export.how_to_read import (
    HiddenStates,
    LabelWordLogits,
    LoadedSequenceClassifier,
    LoadedTokenClassifier,
    NextToken,
    Reading,
)
from danube_sweep.model.precision import DTYPES, UNQUANTISED, quantization_config, weight_dtype


@dataclass(frozen=True)
class Base:
    """The base of the folder: a model named elsewhere, with or without an adapter over it."""

    name: str
    revision: str | None
    precision: Precision
    adapted: bool


@dataclass(frozen=True)
class Whole:
    """The folder is the model."""

    compute: Compute


Weights = Base | Whole

_KINDS = {
    LoadedSequenceClassifier: "AutoModelForSequenceClassification",
    LoadedTokenClassifier: "AutoModelForTokenClassification",
    HiddenStates: "AutoModel",
    LabelWordLogits: "AutoModelForCausalLM",
    NextToken: "AutoModelForCausalLM",
}


def loading_code(reading: Reading, weights: Weights) -> str:
    """Python that reads `folder` and ends in `logits(input_ids, attention_mask, …)`, rows padded on the right."""
    kind = _KINDS[type(reading)]
    general = isinstance(reading, HiddenStates)
    match weights:
        case Whole(compute):
            lines = [f"model = {kind}.from_pretrained(folder, dtype={DTYPES[compute]}).to(device).eval()"]
        case Base():
            lines = _over_base(kind, reading, weights)
    parts = [
        ["import sys", ""] if general else [],
        ["import torch"],
        _imports(kind, reading, weights),
        ["", "sys.path.insert(0, folder)", "from head import ExportedHead"] if general else [],
        ["", 'device = "cuda" if torch.cuda.is_available() else "cpu"'],
        lines,
        ["", "", "@torch.no_grad()", *_logits(reading, weights)],
    ]
    return "\n".join(line for part in parts for line in part) + "\n"


def _imports(kind: str, reading: Reading, weights: Weights) -> list[str]:
    if isinstance(weights, Whole):
        return [f"from transformers import {kind}"]
    quantised = ["BitsAndBytesConfig"] if quantization_config(weights.precision) is not None else []
    biased = isinstance(reading, LoadedSequenceClassifier) and reading.biased
    return [
        *(["from peft import PeftModel"] if weights.adapted else []),
        f"from transformers import {', '.join(sorted([kind, 'AutoConfig', *quantised]))}",
        *(["from transformers.pytorch_utils import Conv1D"] if biased else []),
    ]


def _over_base(kind: str, reading: Reading, base: Base) -> list[str]:
    quantised = _quantisation(base.precision)
    revision = f", revision={json.dumps(base.revision)}" if base.revision else ""
    where = ', quantization_config=quantised, device_map={"": device}' if quantised else ""
    lines = [
        f"base = {json.dumps(base.name)}",
        "config = AutoConfig.from_pretrained(folder)",
        *quantised,
        f"model = {kind}.from_pretrained(",
        f"    base{revision}, config=config, dtype={weight_dtype(base.precision)}{where}",
        ")",
    ]
    if isinstance(reading, LoadedSequenceClassifier) and reading.biased:
        lines += [
            "# The last layer has a bias, which transformers' own lacks. Without this line PEFT stops with an error.",
            "model.score = Conv1D(config.num_labels, config.hidden_size).to(device)",
        ]
    lines += ["model = PeftModel.from_pretrained(model, folder)"] if base.adapted else []
    return [*lines, "model = model.eval()" if quantised else "model = model.to(device).eval()"]


def _quantisation(precision: Precision) -> list[str]:
    found = quantization_config(precision)
    if found is None:
        return []
    skip = f"llm_int8_skip_modules={[*UNQUANTISED, 'score']}".replace("'", '"')
    if found.load_in_8bit:
        return [f"quantised = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0, {skip})"]
    return [
        "quantised = BitsAndBytesConfig(",
        f'    load_in_4bit=True, bnb_4bit_quant_type="{found.bnb_4bit_quant_type}",',
        f"    bnb_4bit_compute_dtype={DTYPES[precision.compute]},",
        f"    bnb_4bit_use_double_quant={precision.double_quant}, {skip},",
        ")",
    ]


def _logits(reading: Reading, weights: Weights) -> list[str]:
    texts = ", spans, sizes" if isinstance(reading, HiddenStates) and reading.reads_texts else ""
    call = "model(input_ids=input_ids, attention_mask=attention_mask)"
    forward = [f"    output = {call}"]
    if isinstance(weights, Base) and weights.precision.compute is not Compute.fp32:
        dtype = DTYPES[weights.precision.compute]
        forward = [f"    with torch.autocast(device, dtype={dtype}):", f"        output = {call}"]
    return [f"def logits(input_ids, attention_mask{texts}):", *forward, *_answer(reading, texts)]


def _answer(reading: Reading, texts: str) -> list[str]:
    last = ["    last = attention_mask.sum(dim=1) - 1", "    rows = torch.arange(len(last), device=last.device)"]
    match reading:
        case LoadedSequenceClassifier() | NextToken():
            return ["    return output.logits"]
        case LoadedTokenClassifier():
            return [*last, "    return output.logits[rows, last]"]
        case LabelWordLogits(word_ids):
            return [
                f"    words = {word_ids}  # a token per class",
                *last,
                "    return output.logits[rows, last][:, words]",
            ]
        case HiddenStates():
            return [f"    return ExportedHead(folder)(output.last_hidden_state, attention_mask{texts})"]
