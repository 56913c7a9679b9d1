"""The commands of docs/kaggle.md over a tiny model, with every connection refused."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, TINY
from nbclient import NotebookClient
from workbench import save_base

from danube_sweep.config.schema import Config
from danube_sweep.data.kinds.generated import generate, write_csv

TEXT = (ROOT / "docs" / "kaggle.md").read_text(encoding="utf-8")
NOTEBOOK = ROOT / "docs" / "kaggle.ipynb"
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", TEXT, re.S) for line in block.splitlines()]

NO_NETWORK = """
import socket

def refuse(*arguments, **named):
    raise OSError("no network here")

class Local(socket.socket):
    def connect(self, address):
        return super().connect(address) if self.family == socket.AF_UNIX else refuse()

socket.socket, socket.create_connection, socket.getaddrinfo = Local, refuse, refuse
"""


ALL = """
import json, sys
from danube_sweep.cli import main

if __name__ == "__main__":
    for words in json.loads(sys.argv[1]):
        print(f"\\n$ {words[0]}", flush=True)
        if main.main(words) != 0:
            sys.exit(f"{words} failed")
"""
"""One process for all commands: their imports cost more than what they do here."""


TEMPLATE = (
    "{% for message in messages %}{{ '<|prompt|>' + message['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|answer|>' }}{% endif %}"
)
"""Danube's markup, which its own tokenizer renders."""


ASKS = """
import socket
try:
    socket.create_connection(("127.0.0.1", 9))
except OSError as error:
    print(error)
"""
"""A cell that shows that the network is refused."""


@pytest.fixture
def place(tiny: Callable[..., Config], tmp_path: Path) -> Path:
    """A folder like Kaggle's with a tiny model and forty rows, and a module that refuses connections."""
    for name in ("lmsys-chatbot-arena", "h2o-danube3-500m-chat"):
        (tmp_path / "input" / name).mkdir(parents=True)
    (tmp_path / "working").mkdir()
    save_base(tiny(), tmp_path / "input" / "h2o-danube3-500m-chat")
    (tmp_path / "input" / "h2o-danube3-500m-chat" / "chat_template.jinja").write_text(TEMPLATE)
    for name in ("train", "test"):
        write_csv(generate(40, seed=len(name), noise=0.0), tmp_path / "input" / "lmsys-chatbot-arena" / f"{name}.csv")
    with (tmp_path / "input" / "lmsys-chatbot-arena" / "test.csv").open(newline="") as stream:
        ids = [row["id"] for row in csv.DictReader(stream)]
    lines = ["id,winner_model_a,winner_model_b,winner_tie", *(f"{name},0.3,0.3,0.4" for name in ids)]
    (tmp_path / "input" / "lmsys-chatbot-arena" / "sample_submission.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK)
    return tmp_path


@pytest.fixture
def kaggle(place: Path, tmp_path: Path) -> Callable[[list[str]], list[str]]:
    """What the document's commands print, their places moved into that folder."""
    (place / "all.py").write_text(ALL)

    def moved(line: str) -> list[str]:
        words = line.replace("/kaggle/", f"{tmp_path}/").split()[1:]
        small = [word for word in TINY if not word.startswith("model.")]
        small += ["trainer.max_steps=2", "precision.compute=fp32"]
        return words if words[0] in ("predict", "oof") else [*words, *small]

    def run(lines: list[str]) -> list[str]:
        done = subprocess.run(
            [sys.executable, "all.py", json.dumps([moved(line) for line in lines])],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\n$ ")[1:]

    return run


@pytest.mark.full
def test_every_command_of_the_document_works_without_a_network(
    kaggle: Callable[[list[str]], list[str]], tmp_path: Path
) -> None:
    plan, _, sweep, predict, _, oof = kaggle(COMMANDS)
    assert "verdict" in plan and "4 trials: 4 finished" in sweep
    assert json.loads((tmp_path / "working" / "run" / "result.json").read_text())["state"] == "finished"
    assert "40 rows" in predict and "40 rows" in oof
    header = (tmp_path / "working" / "submission.csv").read_text().splitlines()[0]
    assert header == "id,winner_model_a,winner_model_b,winner_tie"


def test_the_notebook_runs_without_a_network(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = nbformat.read(NOTEBOOK, as_version=4)
    small = [*(word for word in TINY if not word.startswith("model.")), "trainer.max_steps=2", "sweep.baseline=none"]
    for cell in book.cells:
        cell.source = cell.source.replace("/kaggle/", f"{place}/")
        cell.source = re.sub(r"SMALLER = .*", f"SMALLER = {[*small, 'precision.compute=fp32']!r}", cell.source)
        cell.source = cell.source.replace('"seed=0,1", ', "")  # two trials are enough here
    book.cells.append(nbformat.v4.new_code_cell(ASKS))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("IPYTHONDIR", str(place / "ipython"))
    NotebookClient(book, timeout=280, resources={"metadata": {"path": str(place)}}).execute()
    assert book.cells[-1].outputs[0].text == "no network here\n"
    with (place / "working" / "submission.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 40
    assert all(abs(sum(float(value) for name, value in row.items() if name != "id") - 1) < 1e-4 for row in rows)


def test_the_notebook_follows_the_document() -> None:
    book = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(book)
    told = "\n".join(cell.source for cell in book.cells)
    assert not any(cell.get("outputs") for cell in book.cells)
    for name in ("preference_danube3_500m_t4", "h2o-danube3-500m-chat", "lmsys-chatbot-arena", "lora.rank=16,64"):
        assert name in told and name in TEXT
