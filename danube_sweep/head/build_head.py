"""Config in, head out."""

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from danube_sweep.config import extension
from danube_sweep.config.schema import (
    AnswerPooling,
    BradleyTerryHead,
    CausalHead,
    LMHead,
    MultilabelHead,
    OrdinalHead,
    PairPooling,
    Pooling,
    PreferenceHead,
    RegressionHead,
    SequenceHead,
    TokenHead,
)
from danube_sweep.config.schema import Head as HeadConfig
from danube_sweep.head.base_head import Head
from danube_sweep.head.bradley_terry import BradleyTerry
from danube_sweep.head.classify import Classifier
from danube_sweep.head.language import LabelWords, LanguageModel, word_ids
from danube_sweep.head.multilabel import Multilabel
from danube_sweep.head.ordinal import Ordinal
from danube_sweep.head.pooling import AnswerPooler, PairPooler, Pooler
from danube_sweep.head.regression import Regression
from danube_sweep.head.token import TokenClassifier


def needs_lm_head(config: HeadConfig) -> bool:
    """Whether the head reads the backbone's own output layer."""
    return isinstance(config, CausalHead | LMHead)


def build_head(
    config: HeadConfig,
    *,
    hidden_size: int,
    classes: list[str],
    tokenizer: PreTrainedTokenizerBase,
    lm_head: nn.Module | None,
    seed: int,
) -> Head:
    """The head of a trial, its weights drawn from `seed` alone. Raises ConfigError for label words that clash."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = _built(config, hidden_size, classes, tokenizer, lm_head)
    head.target, head.classes = config.target, classes
    return head


def _built(
    config: HeadConfig,
    hidden_size: int,
    classes: list[str],
    tokenizer: PreTrainedTokenizerBase,
    lm_head: nn.Module | None,
) -> Head:
    match config:
        case SequenceHead():
            return Classifier(Pooler(config.pooling, hidden_size), len(classes), config)
        case PreferenceHead():
            return Classifier(_of_pairs(config.pooling, hidden_size), len(classes), config)
        case BradleyTerryHead():
            return BradleyTerry(_of_answers(config.pooling, hidden_size), len(classes), config)
        case OrdinalHead():
            return Ordinal(Pooler(config.pooling, hidden_size), len(classes), config)
        case RegressionHead():
            return Regression(Pooler(config.pooling, hidden_size), config)
        case MultilabelHead():
            return Multilabel(Pooler(config.pooling, hidden_size), len(classes), config)
        case TokenHead():
            return TokenClassifier(hidden_size, len(classes), config)
        case CausalHead():
            assert lm_head is not None
            return LabelWords(word_ids(config, classes, tokenizer), lm_head, config)
        case LMHead():
            assert lm_head is not None
            return LanguageModel(lm_head)
        case _:
            given = {"hidden_size": hidden_size, "classes": classes, "tokenizer": tokenizer}
            return extension.build(config, Head, **given)  # type: ignore[type-abstract]


def _of_pairs(pooling: PairPooling, hidden_size: int) -> PairPooler | Pooler:
    if pooling is PairPooling.pair:
        return PairPooler(hidden_size)
    return Pooler(Pooling(pooling.value), hidden_size)


def _of_answers(pooling: AnswerPooling, hidden_size: int) -> AnswerPooler | Pooler:
    if pooling is AnswerPooling.answer:
        return AnswerPooler(hidden_size)
    return Pooler(Pooling(pooling.value), hidden_size)
