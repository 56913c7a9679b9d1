"""The short form of benchmarks/siege: some inputs of every kind, and that an escape would be seen."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ROOT

from danube_sweep.errors import CheckpointError

sys.path.insert(0, str(ROOT / "benchmarks" / "siege"))

import bounds
import fuzz
import words


def test_no_damaged_file_raises_anything_but_an_error_of_ours(tmp_path: Path) -> None:
    kinds = fuzz.kinds(tmp_path / "good")
    counts = {kind.name: 2 if kind.name.startswith("sweep ") and kind.file != "sheet.yaml" else 25 for kind in kinds}
    found = [fuzz.attack(kind, counts[kind.name], tmp_path) for kind in kinds]
    assert [wrong for one in found for wrong in one.escaped] == []
    assert sum(one.refused for one in found) > sum(counts.values()) / 4


def test_no_words_raise_anything_but_an_error_of_ours(tmp_path: Path) -> None:
    assert words.attack(25, tmp_path) is None


@pytest.mark.parametrize(("error", "escaped"), [(CheckpointError("damaged"), 0), (KeyError("state"), 20)])
def test_what_escapes_is_seen_and_kept(tmp_path: Path, error: Exception, escaped: int) -> None:
    def read(_place: Path) -> None:
        raise error

    kind = fuzz.Kind("run config.yaml", fuzz.KEPT / "stopped", "config.yaml", read)
    found = fuzz.attack(kind, 20, tmp_path)
    assert (found.inputs, len(found.escaped), found.refused) == (20, escaped, 20 - escaped)
    assert len(list((tmp_path / "found").glob("*/*"))) == escaped


def hang(_place: Path) -> None:
    while True:
        with suppress(Exception):
            time.sleep(60)


def grow(_place: Path) -> None:
    bytearray(2 * bounds.MOST_BYTES)


@pytest.mark.parametrize(
    ("read", "longest_s", "said"), [(hang, 0.05, "took longer than 0.05 s"), (grow, 30.0, "MemoryError")]
)
def test_an_input_that_hangs_or_takes_too_much_memory_is_stopped_and_named(
    tmp_path: Path, read: Callable[[Path], None], longest_s: float, said: str
) -> None:
    kind = fuzz.Kind("run config.yaml", fuzz.KEPT / "stopped", "config.yaml", read)
    (wrong,) = fuzz.attack(kind, 1, tmp_path, longest_s).escaped
    (kept,) = (tmp_path / "found" / "run-config.yaml").iterdir()
    assert said in wrong and str(kept) in wrong


def test_an_input_that_ends_the_process_stays_on_disk(tmp_path: Path) -> None:
    code = f"""
import os, pathlib, sys
sys.path.insert(0, {str(ROOT / "benchmarks" / "siege")!r})
from bounds import on_disk
with on_disk(pathlib.Path("found/one"), b"guilty"):
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, check=False).returncode == 9
    assert (tmp_path / "found" / "one").read_bytes() == b"guilty"


def test_words_that_take_too_long_are_named_and_what_was_found_before_comes_first(tmp_path: Path) -> None:
    class Slow:
        def trial(self, words: list[str]) -> None:
            hang(tmp_path)

    known = [json.loads(file.read_text()) for file in words.CORPUS.glob("*.json")]
    assert ["lora.layers=${seed}"] in known
    with pytest.raises(TimeoutError, match=r"lora\.layers.* took longer than 0\.05 s"):
        words.compose(Slow(), known[0], tmp_path, 0.05)
    assert len(list(tmp_path.glob("*.json"))) == 1
