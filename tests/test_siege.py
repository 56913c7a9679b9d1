"""The short form of benchmarks/siege: some inputs of every kind, and that an escape would be seen."""

import sys
from pathlib import Path

import pytest
from conftest import ROOT

from danube_sweep.errors import CheckpointError

sys.path.insert(0, str(ROOT / "benchmarks" / "siege"))

import fuzz
import words


def test_no_damaged_file_raises_anything_but_an_error_of_ours(tmp_path: Path) -> None:
    kinds = fuzz.kinds(tmp_path / "good")
    counts = {kind.name: 2 if kind.name.startswith("sweep ") and kind.file != "sheet.yaml" else 25 for kind in kinds}
    found = [fuzz.attack(kind, counts[kind.name], tmp_path) for kind in kinds]
    assert [wrong for one in found for wrong in one.escaped] == []
    assert sum(one.refused for one in found) > sum(counts.values()) / 4


def test_no_words_raise_anything_but_an_error_of_ours() -> None:
    assert words.attack(25) is None


@pytest.mark.parametrize(("error", "escaped"), [(CheckpointError("damaged"), 0), (KeyError("state"), 20)])
def test_what_escapes_is_seen_and_kept(tmp_path: Path, error: Exception, escaped: int) -> None:
    def read(_place: Path) -> None:
        raise error

    kind = fuzz.Kind("run config.yaml", fuzz.KEPT / "stopped", "config.yaml", read)
    found = fuzz.attack(kind, 20, tmp_path)
    assert (found.inputs, len(found.escaped), found.refused) == (20, escaped, 20 - escaped)
    assert len(list((tmp_path / "found").glob("*/*"))) == escaped
