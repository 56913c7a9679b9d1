"""How another tool gets a run's logits: from a class of transformers alone, or by the head's formula."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from danube_sweep.config.facts.architectures import family_of
from danube_sweep.errors import ConfigError
from danube_sweep.head.base_head import Head
from danube_sweep.head.bradley_terry import BradleyTerry
from danube_sweep.head.head_layers import Layers
from danube_sweep.head.language import LabelWords, LanguageModel
from danube_sweep.head.pooling import AnswerPooler, PairPooler, Pooler
from danube_sweep.inference.predict import Trained

POOLINGS = {"last", "mean", "attention"}
"""The poolings that head.py computes itself. Several of them, joined by _, are concatenated."""


@dataclass(frozen=True)
class LoadedSequenceClassifier:
    """`AutoModelForSequenceClassification`; `layer` is the name of the head's only one.

    `biased` if it needs a bias, which transformers' own layer lacks.
    """

    layer: str
    biased: bool


@dataclass(frozen=True)
class LoadedTokenClassifier:
    """`AutoModelForTokenClassification`, whose last layer has a bias: the last token's logits are the row's."""

    layer: str


@dataclass(frozen=True)
class HiddenStates:
    """`AutoModel` and the formula in head.py; `described` is head.json."""

    described: dict[str, Any]

    @property
    def reads_texts(self) -> bool:
        """Whether it needs to know where each text stands."""
        return bool({"pair", "answer"} & set(self.described["pooling"].split("_")))


@dataclass(frozen=True)
class LabelWordLogits:
    """`AutoModelForCausalLM`: the last token's logits of one word per class."""

    word_ids: list[int]


@dataclass(frozen=True)
class NextToken:
    """`AutoModelForCausalLM` as it is."""


Reading = LoadedSequenceClassifier | LoadedTokenClassifier | HiddenStates | LabelWordLogits | NextToken


def reading_of(trained: Trained, *, whole: bool, peft_type: str | None) -> Reading:
    """How the run's logits are read from an adapter of PEFT's type `peft_type`, from a `whole` model, or from a base.

    Raises ConfigError for a head that has no plain form.
    """
    match trained.head:
        case LanguageModel():
            return NextToken()
        case LabelWords() as words:
            return LabelWordLogits(words.get_buffer("word_ids_C").tolist())
        case head:
            described = _described(head)
    match described:
        case {"pooling": "last", "layers": [{"kind": "linear", "name": layer}]}:
            biased = f"{layer}.bias" in head.state_dict()
            if whole and biased:
                return LoadedTokenClassifier(layer)
            if (whole or peft_type == "LORA") and _pools_alike(trained):
                return LoadedSequenceClassifier(layer, biased)
    return HiddenStates({**described, "classes": trained.classes})


def _pools_alike(trained: Trained) -> bool:
    # transformers takes the last token that is not the padding token; an encoder's classifier has more layers.
    tokenizer = trained.tokenizer
    after = tokenizer(trained.layout.after, add_special_tokens=False)["input_ids"] if trained.layout.after else []
    last = tokenizer.eos_token_id if trained.layout.ends_with_eos else after[-1] if after else None
    ends_with_padding = last == tokenizer.pad_token_id
    return not ends_with_padding and not family_of(trained.backbone.body.config.model_type).encoder


def _described(head: Head) -> dict[str, Any]:
    if isinstance(head, BradleyTerry) and head.features is not None:
        raise _no_plain_form(head, "what a tie depends on (head.tie_term=features)")
    children = dict(head.named_children())
    pooler = children.pop("pooler", None)
    layers = [found for name, child in children.items() for found in _layers(name, child, head)] + head.last_layers()
    known = {f"{layer['name']}.{leaf}" for layer in layers if "name" in layer for leaf in ("weight", "bias")}
    known |= {name for layer in layers for name in layer.get("weights", [])}
    unknown = sorted(head.state_dict().keys() - known - {"pooler.query_H"})
    if unknown:
        raise _no_plain_form(head, unknown[0])
    return {"pooling": _pooling(pooler, head), "layers": layers}


def _pooling(pooler: nn.Module | None, head: Head) -> str:
    match pooler:
        case None if head.reads_every_word:
            return "tokens"
        case AnswerPooler():
            return "answer"
        case PairPooler():
            return "pair"
        case Pooler(pooling=pooling) if set(pooling.value.split("_")) <= POOLINGS:
            return str(pooling.value)
    raise _no_plain_form(head, f"its {type(pooler).__name__}")


def _layers(name: str, layer: nn.Module, head: Head) -> list[dict[str, Any]]:
    match layer:
        case nn.Dropout() | nn.Identity():
            return []
        case Layers(inner=inner):
            hidden = [{"kind": "linear", "name": f"{name}.inner"}, {"kind": "gelu", "approximate": "none"}]
            return [*(hidden if inner is not None else []), {"kind": "linear", "name": f"{name}.linear"}]
        case nn.Linear():
            return [{"kind": "linear", "name": name}]
        case nn.LayerNorm(eps=eps):
            return [{"kind": "layer_norm", "name": name, "eps": eps}]
        case nn.GELU(approximate=approximate):
            return [{"kind": "gelu", "approximate": approximate}]
        case nn.ReLU() | nn.SiLU() | nn.Tanh():
            return [{"kind": type(layer).__name__.lower()}]
        case nn.Module() if children := list(layer.named_children()):  # one after the other, as the check will prove
            return [found for key, child in children for found in _layers(f"{name}.{key}", child, head)]
    raise _no_plain_form(head, name)


def _no_plain_form(head: Head, what: str) -> ConfigError:
    return ConfigError(
        f"this run's head ({type(head).__name__}) has no plain form to export: {what} is neither a pooling nor a layer "
        "that head.py knows; use danube-sweep predict"
    )
