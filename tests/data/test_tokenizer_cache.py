"""A kept tokenizer that is damaged is trained again, and one that cannot be kept is done without."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from conftest import tiny_config
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from danube_sweep.data.tokenizer import build_tokenizer

TEXTS = ["the river runs to the delta", "a boat on the water in the evening", "stone bridge, 2 fish"] * 5


def built() -> PreTrainedTokenizerBase:
    return build_tokenizer(tiny_config("model.shape.vocab_size=300").model, TEXTS)


def same(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    texts = [*TEXTS, "something new \N{EURO SIGN} 42"]
    ids = [[tokenizer.encode(text) for text in texts] for tokenizer in (one, other)]
    return ids[0] == ids[1] and one.all_special_ids == other.all_special_ids and one.get_vocab() == other.get_vocab()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("harm", ["empty", "cut", "nuls", "a bit", "gone"])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "checkpoint.json"])
def test_a_damaged_tokenizer_is_trained_again_with_a_note(
    cache: Path, caplog: pytest.LogCaptureFixture, name: str, harm: str
) -> None:
    wanted = built()
    (entry,) = (path for path in (cache / "tokenizers").iterdir() if path.is_dir())
    good = (entry / name).read_bytes()
    half = len(good) // 2
    bad = {"empty": b"", "cut": good[:half], "nuls": bytes(len(good))}
    bad["a bit"] = good[:half] + bytes([good[half] ^ 1]) + good[half + 1 :]
    (entry / name).unlink()
    if harm != "gone":
        (entry / name).write_bytes(bad[harm])
    assert same(built(), wanted)
    assert caplog.text.count(f"{entry} is damaged; training the tokenizer again") == 1
    caplog.clear()
    assert same(built(), wanted) and caplog.text == ""


def test_a_tokenizer_that_cannot_be_kept_is_done_without(
    cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = built()
    shutil.rmtree(cache)
    cache.write_text("a file where the folder should be")
    assert same(built(), wanted) and "the tokenizer is not kept: " in caplog.text
    cache.unlink()

    def full(*_: object, **__: object) -> None:
        raise Exception(f"{os.strerror(errno.ENOSPC)} (os error {errno.ENOSPC})")  # as tokenizers raises it

    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedTokenizerFast, "save_pretrained", full)
        caplog.clear()
        assert same(built(), wanted) and "the tokenizer is not kept: " in caplog.text
        assert "No space left on device" in caplog.text
    assert not any((cache / "tokenizers").glob("[!.]*[!k]")), "neither half an entry nor a temporary folder is left"
