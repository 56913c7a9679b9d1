"""The tokenizer: the checkpoint's own, or for random weights a BPE trained on the run's own text."""

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from danube_sweep import paths
from danube_sweep.config.identity import is_random
from danube_sweep.config.schema import Model
from danube_sweep.errors import ModelError
from danube_sweep.model.hub_download import local_folder, unusable
from danube_sweep.storage import checkpoint
from danube_sweep.storage.caches import alone

log = logging.getLogger(__name__)

UNK, BOS, EOS = "<unk>", "<s>", "</s>"
"""Ids 0, 1 and 2, as in every Danube; padding is the unknown token."""


def build_tokenizer(model: Model, texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """The tokenizer of a backbone; `texts` are read only for random weights. Raises ModelError."""
    if is_random(model):
        return _trained(list(texts), model.shape.vocab_size)
    return load_tokenizer(model)


def load_tokenizer(model: Model) -> PreTrainedTokenizerBase:
    """The tokenizer of a hub name or local folder, with a padding token. Raises ModelError."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(local_folder(model), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise error if isinstance(error, ModelError) else unusable(model, "tokenizer", error) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def _trained(texts: list[str], vocab_size: int) -> PreTrainedTokenizerBase:
    digest = hashlib.sha256(f"bpe-2 {vocab_size} ".encode())
    for text in texts:
        digest.update(text.encode("utf-8", "replace") + b"\0")
    folder = paths.cache_dir() / "tokenizers" / digest.hexdigest()[:32]
    if (found := _kept(folder)) is not None:
        return found
    with alone(folder):
        if (found := _kept(folder, note=True)) is not None:
            return found
        return _keep(_train(texts, vocab_size), folder)


def _kept(folder: Path, *, note: bool = False) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a cache entry; None for one that is not there or damaged, which is noted."""
    try:
        checkpoint.read_manifest(folder)
        found: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(folder)
        return found
    except Exception:  # tokenizers raises nothing more exact
        if note and folder.exists():
            log.warning("%s is damaged; training the tokenizer again", folder)
        return None


def _keep(tokenizer: PreTrainedTokenizerBase, folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer as the cache holds it from now on; where it cannot be kept, as it is, with a note."""

    def write_files(place: Path) -> None:
        tokenizer.save_pretrained(place)

    try:
        checkpoint.write_checkpoint(folder, {}, write_files)
    except Exception as error:  # tokenizers raises nothing more exact for a full disk
        log.warning("the tokenizer is not kept: %s", error)
    found = _kept(folder)
    return tokenizer if found is None else found


def _train(texts: list[str], vocab_size: int) -> PreTrainedTokenizerBase:
    bpe = Tokenizer(models.BPE(unk_token=UNK))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[UNK, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, unk_token=UNK, pad_token=UNK, bos_token=BOS, eos_token=EOS, padding_side="right"
    )
