"""Files and folders that are written whole, without secrets, or not at all."""

import ast
import errno
import os
import signal
import stat
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import pytest
from safetensors import SafetensorError

import danube_sweep
from danube_sweep.decoding import yaml_of
from danube_sweep.errors import ConfigError, DiskError, ModelError
from danube_sweep.storage.files import (
    read_json,
    remove_abandoned,
    remove_left_over,
    whole_file,
    whole_folder,
    write_json,
    write_text,
    write_yaml,
)

PACKAGE = Path(danube_sweep.__file__).parent


class Whole(Protocol):
    def __call__(self, target: Path, way_out: str = ...) -> AbstractContextManager[Path]: ...


def replaced(target: Path, way_out: str = "free some space") -> AbstractContextManager[Path]:
    return whole_folder(target, way_out, replace=True)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def fill(place: Path, text: str) -> None:
    """Writes a text to the file, or into the folder, that a writer gives."""
    (place / "part" if place.is_dir() else place).write_text(text)


def content(target: Path) -> str:
    return (target / "part" if target.is_dir() else target).read_text()


@pytest.fixture(params=[whole_file, replaced], ids=["file", "folder"])
def whole(request: pytest.FixtureRequest) -> Whole:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def older(whole: Whole, tmp_path: Path) -> Path:
    """A file or folder that has been written before."""
    with whole(tmp_path / "kept") as temporary:
        fill(temporary, "older")
    return tmp_path / "kept"


# ---------------------------------------------------------------------------------------------------- whole or not


def test_what_is_written_appears_at_the_end_and_not_before(whole: Whole, older: Path) -> None:
    with whole(older) as temporary:
        fill(temporary, "newer")
        assert temporary.parent == older.parent and content(older) == "older"
    assert content(older) == "newer" and names(older.parent) == ["kept"]


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), ConfigError("x"), ModelError("x")])
def test_an_error_in_the_middle_passes_and_leaves_the_older_content(
    whole: Whole, older: Path, error: BaseException
) -> None:
    with pytest.raises(type(error)) as caught, whole(older) as temporary:
        fill(temporary, "newer")
        raise error
    assert caught.value is error
    assert content(older) == "older" and names(older.parent) == ["kept"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("no number"), "no number"),
        (SafetensorError("I/O error"), "I/O error"),
    ],
)
def test_an_error_of_the_disk_names_the_target_and_the_way_out(
    whole: Whole, older: Path, error: Exception, said: str
) -> None:
    with pytest.raises(DiskError) as caught, whole(older, "try another disk") as temporary:
        fill(temporary, "newer")
        raise error
    assert str(caught.value) == f"{older} cannot be written: {said}; try another disk"
    assert caught.value.__cause__ is error
    assert content(older) == "older" and names(older.parent) == ["kept"]


def test_a_sync_that_fails_leaves_the_older_content(whole: Whole, older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match="kept cannot be written: No space left on device"), whole(older) as temporary:
        fill(temporary, "newer")
    assert content(older) == "older" and names(older.parent) == ["kept"]


def test_everything_is_synced_before_it_takes_its_place(
    whole: Whole, older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: dict[int, str] = {}
    monkeypatch.setattr(os, "fsync", lambda handle: synced.update({os.fstat(handle).st_ino: content(older)}))
    with whole(older) as temporary:
        fill(temporary, "newer")
        written = [temporary.stat().st_ino]
        if temporary.is_dir():
            (temporary / "deeper").mkdir()
            (temporary / "deeper" / "file").touch()
            written += [path.stat().st_ino for path in temporary.rglob("*")]
    assert {synced[inode] for inode in written} == {"older"}
    assert synced[older.parent.stat().st_ino] == "newer"


FULL = """
import pathlib, resource, signal, sys
from danube_sweep.errors import DiskError
from danube_sweep.storage.files import write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_text(pathlib.Path(sys.argv[1]), "newer" * 1000)
except DiskError as error:
    print(error)
"""


def test_a_disk_that_fills_up_leaves_the_older_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "older")
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path / "a.txt"], capture_output=True, text=True, check=True)
    said = f"{tmp_path / 'a.txt'} cannot be written: File too large; free some space or choose another folder"
    assert done.stdout.splitlines() == [said]
    assert (tmp_path / "a.txt").read_text() == "older" and names(tmp_path) == ["a.txt"]


KILLED = """
import os, pathlib, signal, sys
from danube_sweep.storage.files import whole_file, whole_folder
with whole_file(pathlib.Path(sys.argv[1])) as file, whole_folder(pathlib.Path(sys.argv[2])) as folder:
    file.touch()
    (folder / "part").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    file, folder = tmp_path / "a[1].txt", tmp_path / "b"
    done = subprocess.run([sys.executable, "-c", KILLED, file, folder], check=False)
    assert done.returncode == -signal.SIGKILL and len(names(tmp_path)) == 2
    (tmp_path / ".a1.txt.3.tmp").touch()
    remove_abandoned(file)
    remove_abandoned(folder)
    assert names(tmp_path) == [".a1.txt.3.tmp"]


def test_beside_an_output_only_what_dead_processes_left_is_removed(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    done = subprocess.run([sys.executable, "-c", KILLED, output, tmp_path / "out"], check=False)
    assert done.returncode == -signal.SIGKILL and len(names(tmp_path)) == 2
    with whole_file(output) as live:
        live.touch()
        (tmp_path / ".out.csv.tmp").touch()
        remove_left_over(output)
        assert live.exists() and len(names(tmp_path)) == 3
    remove_left_over(tmp_path / "out")
    assert names(tmp_path) == [".out.csv.tmp", "out.csv"]


def test_a_file_gets_the_permissions_that_the_user_gives_new_files(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_a_folder_takes_the_place_of_an_empty_one_but_of_no_other(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with whole_folder(tmp_path / "empty") as temporary:
        fill(temporary, "first")
    with (
        pytest.raises(DiskError, match="Directory not empty; elsewhere"),
        whole_folder(tmp_path / "empty", "elsewhere") as temporary,
    ):
        fill(temporary, "second")
    assert content(tmp_path / "empty") == "first" and names(tmp_path) == ["empty"]


def test_two_writers_of_one_file_do_not_disturb_each_other(whole: Whole, older: Path) -> None:
    with whole(older) as first:
        with whole(older) as second:
            fill(first, "first")
            fill(second, "second")
        assert content(older) == "second"
    assert content(older) == "first" and names(older.parent) == ["kept"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="cannot be written: No such file or directory"):
        write_text(tmp_path / "nowhere" / "a.txt", "text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DiskError, match="folder cannot be written"):
        write_text(tmp_path / "folder", "text")
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match=r"a\.txt cannot be written: Not a directory"):
        write_text(tmp_path / "file" / "a.txt", "text")
    assert names(tmp_path) == ["file", "folder"]


def test_only_one_file_of_the_package_renames_what_it_has_written() -> None:
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(attr="rename" | "renames")):
                    found.add(file.name)
                case ast.Call(func=ast.Attribute(attr="replace"), args=[_], keywords=[]):  # a text's own takes two
                    found.add(file.name)
                case ast.Call(func=ast.Attribute(attr="replace", value=ast.Name(id="os"))):
                    found.add(file.name)
                case ast.Constant(value=str(text)) if text.endswith(".tmp"):
                    found.add(file.name)
    assert found == {"files.py", "kept_digests.py"}, "config/ lies below storage/: its cache of digests writes itself"


# ---------------------------------------------------------------------------------------------------------- texts


def test_lone_surrogates_are_written_as_escapes(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "half \ud83d")
    assert (tmp_path / "a.txt").read_text() == "half \\ud83d"
    write_json(tmp_path / "a.json", {"text": "half \ud83d"})
    assert read_json(tmp_path / "a.json")


ODD = [
    "it's ü 漢字 🙂",
    "x " * 80,
    "- : # {",
    "NO",
    "1e3",
    "",
    "\n",
    "a\nb\n",
    " lead",
    "trail ",
    "\x85",
    "\u2028",
    "0x1f",
    "#x",
]


def test_yaml_comes_back_as_it_was_and_lone_surrogates_as_escapes(tmp_path: Path) -> None:
    value = {"texts": ODD, "numbers": [1, 1e-4, float("inf"), None, True], "nested": {"empty": {}, "list": []}}
    write_yaml(tmp_path / "value.yaml", value)
    assert yaml_of(tmp_path / "value.yaml") == value
    write_yaml(tmp_path / "value.yaml", {"path": "a\udc80b.csv"})
    assert "udc80b.csv" in (tmp_path / "value.yaml").read_text().lower()
