"""What was found in a file is kept until the file changes, and never for longer."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from danube_sweep.config import kept_digests
from danube_sweep.config.kept_digests import kept


class Reader:
    """Reads a file and counts how often."""

    def __init__(self, file: Path) -> None:
        self.file, self.times = file, 0

    def __call__(self) -> list[str]:
        self.times += 1
        return [self.file.read_text()]


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """Of a file that counts as old; the cache is empty."""
    monkeypatch.setattr(kept_digests, "FRESH_NS", 0)
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "file").write_text("one")
    return Reader(tmp_path / "file")


@pytest.fixture
def ask(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Asks as a process of its own would."""

    def ask() -> list[str]:
        monkeypatch.setattr(kept_digests, "_known", {})
        return list(kept(reader.file, "rule", reader))

    return ask


def record(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "cache" / "digests").glob("*.json")
    return found


def test_a_record_is_synced_before_it_is_there_and_leaves_nothing_behind_after_ctrl_c(
    tmp_path: Path, ask: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), sync(handle)))
    monkeypatch.setattr(Path, "replace", lambda path, target: (calls.append("replace"), replace(path, target)))
    ask()
    assert calls == ["fsync", "replace"] and record(tmp_path).is_file()
    record(tmp_path).unlink()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask()
    assert not [file for file in (tmp_path / "cache" / "digests").iterdir() if file.suffix != ".lock"]


def test_a_file_is_read_once_a_machine(reader: Reader, ask: Callable[[], list[str]]) -> None:
    assert [ask(), ask(), ask()] == [["one"]] * 3 and reader.times == 1
    assert kept(reader.file, "another rule", reader) == ["one"] and reader.times == 2


def test_a_changed_file_is_read_again_though_size_and_time_are_as_before(
    reader: Reader, ask: Callable[[], list[str]]
) -> None:
    ask()
    times = reader.file.stat()
    reader.file.write_text("two")
    os.utime(reader.file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert reader.file.stat().st_mtime_ns == times.st_mtime_ns
    assert ask() == ["two"] and ask() == ["two"] and reader.times == 2


def test_a_file_that_has_just_changed_is_not_kept(
    reader: Reader, ask: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_digests, "FRESH_NS", 10**12)
    assert [ask(), ask()] == [["one"]] * 2 and reader.times == 2
    assert not (tmp_path / "cache").exists()


def forge(file: Path) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), "value": ["forged"]}))


@pytest.mark.parametrize("damage", [lambda file: file.write_text("{"), lambda file: file.write_bytes(b"\xff"), forge])
def test_a_damaged_record_is_dropped_with_a_note(
    reader: Reader,
    ask: Callable[[], list[str]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], object],
) -> None:
    ask()
    damage(record(tmp_path))
    assert [ask(), ask()] == [["one"]] * 2 and reader.times == 2
    assert caplog.text.count(f"is damaged; reading {reader.file} again") == 1


def test_a_cache_that_cannot_be_written_is_done_without(
    reader: Reader, ask: Callable[[], list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("no folder")
    with caplog.at_level(logging.WARNING):
        assert ask() == ["one"]
    assert f"the digest of {reader.file} was not cached" in caplog.text
    assert kept(reader.file, "rule", reader) == ["one"] and reader.times == 1
