"""The scale of an update follows the rank unless it is given."""

import math

import pytest
from conftest import compose

from danube_sweep.config.identity import trial_hash


@pytest.mark.parametrize(
    ("words", "alpha"),
    [
        ("lora.rank=4", 8.0),
        ("lora.rank=16", 32.0),  # as it was
        ("lora=dora lora.rank=8", 16.0),
        ("lora=olora lora.rank=8", 16.0),
        ("lora.rslora=true lora.rank=16", 32.0),  # as it was: 32 / sqrt(16) = 8
        ("lora.rslora=true lora.rank=64", 64.0),  # 64 / sqrt(64) = 8
        ("lora=adalora lora.rank=12 lora.target_rank=8", 16.0),
        ("lora.rank=4 lora.alpha=32", 32.0),
    ],
)
def test_alpha_follows_the_rank_unless_it_is_given(words: str, alpha: float) -> None:
    assert math.isclose(compose(words.split()).lora.used_alpha, alpha)


def test_the_number_that_follows_is_the_same_trial_as_the_number_given() -> None:
    assert trial_hash(compose(["lora.rank=4"])) == trial_hash(compose(["lora.rank=4", "lora.alpha=8"]))
    assert trial_hash(compose(["lora.rank=4"])) != trial_hash(compose(["lora.rank=4", "lora.alpha=16"]))
