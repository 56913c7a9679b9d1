"""The identity of a trial: what changes it and what does not."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from danube_sweep.composer import compose
from danube_sweep.config.fingerprints import file_digest, weights_fingerprint
from danube_sweep.config.identity import is_random, trial_hash
from danube_sweep.config.schema import Config
from danube_sweep.errors import DataError, ModelError

Tiny = Callable[..., Config]


def weights(folder: Path, content: bytes = b"w" * 500_000, **described: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"hidden_size": 64, **described}))
    (folder / "model.safetensors").write_bytes(content)
    return folder


def test_the_hash_of_the_default_trial_does_not_change_by_accident() -> None:
    """If it must change, raise HASH_VERSION: finished sweeps are found again by it."""
    assert trial_hash(compose()) == trial_hash(compose(["experiment=embedded"]))
    assert len(trial_hash(compose())) == 32
    assert int(trial_hash(compose()), 16)


def test_a_value_given_at_its_default_changes_nothing(tiny: Tiny) -> None:
    assert trial_hash(tiny()) == trial_hash(tiny("lora.rank=16", "head.label_smoothing=0", "data.noise=0.1"))


def test_a_random_model_is_told_by_shape_and_seed_and_a_named_one_by_name_and_revision() -> None:
    assert is_random(compose().model)
    named = compose(["model=danube3_500m"])
    assert not is_random(named.model)
    assert is_random(compose(["model=danube3_500m", "model.init=random"]).model)
    main = trial_hash(named)
    assert trial_hash(replace(named, model=replace(named.model, revision="main"))) == main
    assert trial_hash(replace(named, model=replace(named.model, revision="abc"))) != main
    assert trial_hash(replace(named, model=replace(named.model, start="<s>"))) != main
    reshaped = replace(named.model, shape=replace(named.model.shape, hidden_size=8))
    assert trial_hash(replace(named, model=reshaped)) == main  # the checkpoint's own shape counts


def test_the_fingerprint_reads_bytes_all_over_the_weights(tmp_path: Path) -> None:
    content = bytearray(os.urandom(5_000_000))
    one = weights_fingerprint(weights(tmp_path / "one", bytes(content)))
    assert weights_fingerprint(weights(tmp_path / "copy", bytes(content), transformers_version="9", _name="x")) == one
    assert weights_fingerprint(weights(tmp_path / "shape", bytes(content), rope_theta=1)) != one
    for name, place in [("start", 3), ("end", len(content) - 1), ("middle", len(content) // 2)]:
        changed = bytearray(content)
        for offset in range(-100_000, 100_000):
            changed[min(max(place + offset, 0), len(content) - 1)] ^= 1
        assert weights_fingerprint(weights(tmp_path / name, bytes(changed))) != one


@pytest.mark.parametrize("text", ["{ not json", "[1]", "3", ""])
def test_a_damaged_model_config_is_said(tmp_path: Path, text: str) -> None:
    folder = weights(tmp_path / "model")
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json is damaged"):
        weights_fingerprint(folder)


def test_a_missing_file_is_named_by_its_field(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.test_path=.*: no such file"):
        file_digest(tmp_path / "t.csv", "data.test_path")
    with pytest.raises(DataError, match="no such file"):
        file_digest(tmp_path)
