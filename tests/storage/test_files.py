"""Files that are written whole, without secrets, or not at all."""

from pathlib import Path

import pytest

from danube_sweep.errors import DiskError
from danube_sweep.storage.files import read_json, redact, write_json, write_text


def test_a_file_that_cannot_be_written_keeps_its_older_content(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="cannot be written: No such file or directory"):
        write_text(tmp_path / "nowhere" / "a.txt", "text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DiskError, match="folder cannot be written"):
        write_text(tmp_path / "folder", "text")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_values_of_secret_variables_are_replaced_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("MY_TOKEN", "short")
    monkeypatch.setenv("HARMLESS", "not a secret")
    text = redact("key 0123456789abcdef, short, not a secret")
    assert text == "key <WANDB_API_KEY>, short, not a secret"


def test_lone_surrogates_are_written_as_escapes(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "half \ud83d")
    assert (tmp_path / "a.txt").read_text() == "half \\ud83d"
    write_json(tmp_path / "a.json", {"text": "half \ud83d"})
    assert read_json(tmp_path / "a.json")
