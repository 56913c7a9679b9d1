"""The identity of a trial: what changes it and what does not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import compose

from danube_sweep.config.fingerprints import file_digest
from danube_sweep.config.identity import is_random, trial_hash
from danube_sweep.config.schema import Config
from danube_sweep.errors import DataError, ModelError

Tiny = Callable[..., Config]


def test_the_hash_of_the_default_trial_does_not_change_by_accident() -> None:
    """If it must change, raise HASH_VERSION: finished sweeps are found again by it."""
    assert trial_hash(compose()) == trial_hash(compose(["experiment=embedded"]))
    assert len(trial_hash(compose())) == 32
    assert int(trial_hash(compose()), 16)


def test_a_value_given_at_its_default_changes_nothing(tiny: Tiny) -> None:
    assert trial_hash(tiny()) == trial_hash(tiny("lora.rank=16", "head.label_smoothing=0", "data.noise=0.1"))


def test_a_random_model_is_told_by_shape_and_seed_and_a_named_one_by_name_and_commit() -> None:
    assert is_random(compose().model)
    named = compose(["model=danube3_500m"])
    assert not is_random(named.model)
    assert is_random(compose(["model=danube3_500m", "model.init=random"]).model)
    with pytest.raises(ModelError, match=r"model\.path=h2oai/.*: the hub cannot be reached"):
        trial_hash(named)
    named.model.commit = "1" * 40
    main = trial_hash(named)
    assert trial_hash(replace(named, model=replace(named.model, revision="main"))) == main
    assert trial_hash(replace(named, model=replace(named.model, commit="2" * 40))) != main
    assert trial_hash(replace(named, model=replace(named.model, start="<s>"))) != main
    chat = compose(["model=danube3_500m", "model.variant=chat", f"model.revision={'1' * 40}"])
    own = replace(chat, model=replace(chat.model, own_template=True))
    assert trial_hash(own) != trial_hash(chat) and trial_hash(own, version=1) == trial_hash(chat, version=1)
    reshaped = replace(named.model, shape=replace(named.model.shape, hidden_size=8))
    assert trial_hash(replace(named, model=reshaped)) == main  # the checkpoint's own shape counts


def test_a_missing_file_is_named_by_its_field(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.test_path=.*: no such file"):
        file_digest(tmp_path / "t.csv", "data.test_path")
    with pytest.raises(DataError, match=r"data\.path=.*: a folder, not a file"):
        file_digest(tmp_path)


def test_the_rows_of_a_forward_pass_are_no_part_of_a_trial_since_version_2(tiny: Tiny) -> None:
    small, large = tiny("trainer.micro_batch=2"), tiny("trainer.micro_batch=4")
    assert trial_hash(small) == trial_hash(large) != trial_hash(tiny("trainer.effective_batch=16"))
    assert trial_hash(small, version=1) != trial_hash(large, version=1)
