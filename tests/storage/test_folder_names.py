"""What folders of results are called: safe in any shell, and told apart by what varies."""

from datetime import datetime
from pathlib import Path

import pytest

from danube_sweep.storage.folder_names import slug, sweep_folder_name, trial_folder_name


def test_a_sweep_is_called_by_its_start_and_a_trial_by_number_values_and_hash() -> None:
    assert sweep_folder_name(datetime(2026, 11, 23, 8, 5, 9)) == Path("multirun/2026-11-23/08-05-09")
    assert trial_folder_name(7, ["lora.rank=16"], "3fa2b1c9d0") == "007_rank-16_3fa2b1c9"
    assert trial_folder_name(1234, [], "3fa2b1c9d0") == "1234_3fa2b1c9"


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], ""),
        (["lora.rank=16", "optimizer.lr=0.001"], "rank-16_lr-0.001"),
        (["optimizer.lr=0.00031622776601683794"], "lr-0.000316"),
        (["optimizer.lr=3.116645373273427e-05"], "lr-3.12e-05"),
        (["optimizer.lr=1.234567"], "lr-1.23"),
        (["seed=1234567"], "seed-1234567"),
        (["++lora.rank=4", "+name=x", "~tracking"], "rank-4_name-x_tracking"),
        (["data.path=/data/sets/train.csv"], "path-train.csv"),
        (["data.path=../../x"], "path-x"),
        (["data.path=../.."], "path"),
        (["name=../"], "name"),
        (["name=.."], "name"),
        (["name=a/b/../../../c"], "name-c"),
        (["lora.targets=[q_proj,v_proj]"], "targets--q_proj-v_proj"),
        (["name='a, b'"], "name--a-b"),
        (["""name="it's" """], "name--it-s"),
        (["name=a b;rm -rf *"], "name-a-b-rm--rf"),
        (["name='😀'"], "name"),
        (["name=größe"], "name-gr-e"),
        (["name=$(HOME)`x`"], "name--HOME-x"),
        (["name=a\nb\tc"], "name-a-b-c"),
        (["name="], "name"),
        (["head=causal", "head.words=[A,B]"], "head-causal_words--A-B"),
    ],
)
def test_a_folder_says_what_varies_in_signs_that_any_shell_takes(overrides: list[str], name: str) -> None:
    assert slug(overrides) == name
