"""The one boundary: what the operating system, parsers and decoders raise becomes an error of ours, in one line."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tokenizers import Tokenizer, models

from danube_sweep.cli.main import main
from danube_sweep.errors import DiskError, UserError
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
    assert failure(told)["state"] == "disk_full"
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


def test_a_reader_that_has_gone_is_no_error_to_print(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "danube_sweep", "--cfg", "job"]
    ended = subprocess.run(words, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, "")
