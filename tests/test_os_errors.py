"""The one boundary: what the operating system, parsers and decoders raise becomes an error of ours, in one line."""

import errno
import json
import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from drawn import Sketch, write_sweep
from tokenizers import Tokenizer, models

from danube_sweep import paths
from danube_sweep.cli.main import main
from danube_sweep.errors import DiskError, UserError
from danube_sweep.model.hub_download import _snapshot
from danube_sweep.os_errors import as_ours, is_full
from danube_sweep.storage.files import writing
from danube_sweep.training.failure import failure


def rust_error(target: Path) -> Exception:
    with pytest.raises(Exception) as caught:
        Tokenizer(models.BPE()).save(str(target / "tokenizer.json"))
    return caught.value


def test_a_tokenizer_that_cannot_be_saved_is_an_error_of_the_disk(tmp_path: Path) -> None:
    error = rust_error(tmp_path / "nowhere")
    assert type(error) is Exception and f"(os error {errno.ENOENT})" in str(error)
    with (
        pytest.raises(DiskError, match="adapter cannot be written: No such file"),
        writing(Path("adapter")),
    ):
        raise error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_known_however_it_is_told(number: int) -> None:
    told = Exception(f"{os.strerror(number)} (os error {number})")
    of_safetensors = RuntimeError(f"unable to open file </x>: {os.strerror(number)} ({number})")
    assert failure(told)["state"] == failure(of_safetensors)["state"] == "disk_full"
    assert not is_full(RuntimeError(f"a matrix of other columns ({number})"))
    assert failure(OSError(number, "full"))["state"] == "disk_full"
    with pytest.raises(DiskError) as caught, writing(Path("adapter")):
        raise told
    assert is_full(caught.value) and failure(caught.value)["state"] == "disk_full"
    assert not is_full(OSError(errno.EACCES, "denied"))


def decode(text: bytes) -> Exception:
    with pytest.raises(UnicodeDecodeError) as caught:
        text.decode()
    return caught.value


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (OSError(errno.EACCES, "x", "/data/a"), DiskError, "/data/a: Permission denied; check its permissions"),
        (OSError(errno.EIO, "x", "a" * 5000), DiskError, "…: Input/output error; check the disk"),
        (FileNotFoundError(errno.ENOENT, "x"), DiskError, "the working directory is gone; change to one that exists"),
        (OSError(errno.EMFILE, "x"), DiskError, "Too many open files; raise the limit of open files (ulimit -n)"),
        (json.JSONDecodeError("x", "", 0), UserError, "cannot be decoded: x: line 1 column 1 (char 0); HYDRA_FULL"),
        (yaml.YAMLError("x"), UserError, "cannot be decoded: x"),
        (decode(b"\xff"), UserError, "cannot be decoded"),
        (EOFError("ended before the end-of-stream marker"), UserError, "cannot be decoded: ended before"),
        (RecursionError("x"), UserError, "nested too deeply"),
        (RuntimeError("Could not determine home directory."), UserError, "begins with ~ needs a home directory; set"),
    ],
)
def test_the_line_says_what_and_the_way_out(error: Exception, kind: type, said: str) -> None:
    ours = as_ours(error)
    assert type(ours) is kind and said in str(ours) and "\n" not in str(ours) and len(str(ours)) < 300


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), ConnectionResetError(104, "x"), RuntimeError("x")])
def test_a_defect_of_ours_stays_what_it_is(error: Exception) -> None:
    assert as_ours(error) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([f"model={'x' * 5000}"], "no such option; its name has 5000 letters"),
        ([f"{'x' * 5000}=1"], "File name too long"),
        (["rank", "x" * 5000], "File name too long"),
        (["resume", "x" * 5000], "File name too long"),
    ],
    ids=lambda one: one[0][:6] if isinstance(one, list) else "",
)
def test_a_name_of_5000_letters_is_one_short_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    line = capsys.readouterr().err
    assert said in line and line.count("\n") == 1 and len(line) < 300


def test_a_working_directory_that_is_gone_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["plan"]) == 2
    assert capsys.readouterr().err == (
        "danube-sweep: error: the working directory is gone; change to one that exists\n"
    )


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files of a user without HOME and without an entry, as in a container; returns it."""

    def unknown(_: int) -> None:
        raise KeyError("getpwuid(): uid not found: 4711")

    for name in ("HOME", "XDG_CACHE_HOME", "DANUBE_SWEEP_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    paths._cache_without_home.cache_clear()
    return tmp_path


def test_without_a_home_caches_go_to_a_private_folder_with_a_note(
    homeless: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = write_sweep(homeless / "sweep", [Sketch(["lora.rank=4"]), Sketch(["lora.rank=8"])])
    file = sweep / "sweep.json"
    file.write_text(file.read_text().replace('"pruner": {}', '"pruner": {"kind": "none"}'))
    assert main(["rank", str(sweep)]) == 0
    folder = paths.cache_dir()
    assert folder.parent == homeless and folder.stat().st_mode & 0o777 == 0o700
    assert caplog.text.count("no home directory is known, so caches go to ") == 1
    paths._cache_without_home.cache_clear()
    folder.chmod(0o777)  # as another user may have made it
    with pytest.raises(UserError, match="is no private folder of this user; name one for caches by DANUBE_SWEEP_CACHE"):
        paths.cache_dir()
    folder.rename(homeless / "elsewhere")
    (homeless / "elsewhere").chmod(0o700)
    folder.symlink_to(homeless / "elsewhere")
    with pytest.raises(UserError, match="is no private folder"):
        paths.cache_dir()
    capsys.readouterr()
    assert main(["plan", "data=arena", 'data.path="~/rows.csv"']) == 2
    assert capsys.readouterr().err.endswith(
        "a path that begins with ~ needs a home directory; set HOME, or write it out\n"
    )


def test_a_reader_that_has_gone_is_no_error_to_print(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "danube_sweep", "--cfg", "job"]
    ended = subprocess.run(words, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, "")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EDQUOT, "model.path=me/m: no space left to download it; free some space or set HF_HOME"),
        (errno.EROFS, r"model.path=me/m: the cache cannot be written \(Read-only file system\); set HF_HOME"),
    ],
)
def test_a_download_that_cannot_be_kept_is_no_hub_that_cannot_be_reached(
    number: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
    with pytest.raises(DiskError, match=said):
        _snapshot.__wrapped__("me/m", None)
