"""An upload to the hub is one commit or one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import Hub, serving
from huggingface_hub import constants

from danube_sweep.cli import main


def pushed(hub: Hub | None, folder: Path, *, private: bool = False) -> tuple[str, str]:
    """What `push` prints in a process whose hub this is, and the last line of its error."""
    script = (
        "from pathlib import Path\nfrom danube_sweep.inference.export.push_to_hub import check_push, push\n"
        f"check_push('me/export')\nprint(push(Path({str(folder)!r}), 'me/export', private={private}))\n"
    )
    address = "http://127.0.0.1:9" if hub is None else hub.address
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_TOKEN": "hf_none", "HF_HOME": str(folder.parent / "home")}
    del environment["HF_HUB_OFFLINE"]
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    return done.stdout.strip(), (done.stderr.strip().splitlines() or [""])[-1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "out"
    made.mkdir()
    (made / "README.md").write_text("---\nlibrary_name: peft\n---\n\n# small\n")
    (made / "config.json").write_text("{}\n")
    return made


def test_a_push_is_one_commit_with_every_file(folder: Path) -> None:
    with serving(Hub(private=True)) as hub:
        address, error = pushed(hub, folder, private=True)
    assert address == f"{hub.address}/me/export", error
    assert {name: content.decode() for name, content in hub.files.items()} == {
        file.name: file.read_text() for file in folder.iterdir()
    }
    assert "private" in (hub.asked.get("visibility"), "private" if hub.asked.get("private") else None)


def test_a_hub_that_refuses_or_is_not_there_is_one_line(folder: Path) -> None:
    for status, said in [(403, "the token may not write there"), (409, "the hub answered 409")]:
        with serving(Hub(status=status)) as hub:
            assert f"HubError: --push me/export: {said}; {folder} is whole" in pushed(hub, folder)[1]
    assert "the hub cannot be reached" in pushed(None, folder)[1]
    with serving(Hub(private=False)) as hub:
        assert "ConfigError: --private: me/export exists and is public" in pushed(hub, folder, private=True)[1]
        assert hub.files == {}


def test_what_would_stop_a_push_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(name: str) -> str:
        assert main.main(["export", "nowhere", str(tmp_path / "out"), "--push", name]) == 2
        assert list(tmp_path.iterdir()) == []
        return capsys.readouterr().err

    assert "--push a b: no name for the hub; write OWNER/NAME" in said("a b")
    assert "--push me/export: HF_HUB_OFFLINE is set" in said("me/export")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert "--push me/export: no Hugging Face token; log in by hf auth login, or set HF_TOKEN" in said("me/export")
