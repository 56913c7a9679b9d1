"""The folder of sockets, where a W&B agent's trials meet their executor."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from danube_sweep.errors import ConfigError
from danube_sweep.sweeping.share.meeting_place import socket_of


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's."""
    with tempfile.TemporaryDirectory(prefix="ds-") as folder:
        yield Path(folder)


def test_a_folder_that_others_may_enter_is_removed_or_another_is_named(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    folder = short / "danube-sweep"
    folder.mkdir()
    folder.chmod(0o755)
    said = r"is not a folder of this user alone \(mode 0700\); remove it or set XDG_RUNTIME_DIR$"
    with pytest.raises(ConfigError, match=said):
        socket_of(short / "sweep")
    (short / "other").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short / "other"))
    assert socket_of(short / "sweep").parent == short / "other" / "danube-sweep"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    folder.rmdir()
    assert socket_of(short / "sweep").parent == folder and folder.stat().st_mode & 0o777 == 0o700
