"""`danube-sweep show`: facts and rows on the terminal, and nothing on disk but caches."""

import json
from pathlib import Path

import pytest
from conftest import TINY

from danube_sweep.cli import main
from danube_sweep.cli.help import USAGE


def written(file: Path) -> str:
    rows = [{"text": f"a\x1b[31m red\ntext \u202e{n} " + "long " * (n * 3), "label": n % 2} for n in range(20)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"data.path={file}"


def test_rows_are_shown_with_facts_and_without_control_signs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    table = ["data=table", written(tmp_path / "a.jsonl"), "head=sequence", *TINY, "data.max_length=40"]
    assert main.main(["show", *table]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].startswith("data: 16 training rows and 4 validation rows")
    assert lines[1] == "classes: 2: 0 (10), 1 (10)"
    assert lines[2].startswith("lengths: training median ")
    assert len([line for line in lines if line.startswith("row ")]) == 3
    assert "tokens cut ...]" in out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\\x1b[31m red" in out
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]
    assert main.main(["show", "--rows", "1", *table]) == 0
    assert capsys.readouterr().out.count("\nrow ") == 1


def test_show_is_in_the_help_and_refuses_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "danube-sweep show" in USAGE
    for arguments, said in [
        (["--rows", "-1"], "--rows must be at least 0"),
        (["data=table", "data.path=none.csv", "head=sequence"], "no such file"),
        (["data=table", "head=sequence"], "data.path is required"),
    ]:
        assert main.main(["show", *arguments]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
