"""The folder of sockets, where a W&B agent's trials meet their executor."""

from pathlib import Path

import pytest

from danube_sweep.errors import ConfigError
from danube_sweep.sweeping.share.meeting_place import socket_of


def test_a_folder_that_others_may_enter_is_removed_or_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = tmp_path / "danube-sweep"
    folder.mkdir()
    folder.chmod(0o755)
    said = r"is not a folder of this user alone \(mode 0700\); remove it or set XDG_RUNTIME_DIR$"
    with pytest.raises(ConfigError, match=said):
        socket_of(tmp_path / "sweep")
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "other"))
    assert socket_of(tmp_path / "sweep").parent == tmp_path / "other" / "danube-sweep"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder.rmdir()
    assert socket_of(tmp_path / "sweep").parent == folder and folder.stat().st_mode & 0o777 == 0o700
