"""An option of our own is a file: those that docs/extending.md shows are added to a copy of the package, and train."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, TINY

DOCUMENT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8").split("\n## In danube_sweep itself")[1]
FILES = dict(re.findall(r"in `([\w./]+\.(?:py|yaml))`[^\n]*\n\n```\w+\n(.*?)```", DOCUMENT, re.S))
ADDED = {"data": "lines", "head": "tempered", "optimizer": "radam"}
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with the document's files and nothing else changed."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("danube_sweep", "hydra_plugins", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    yamls = {
        f"conf/{group}/{name}.yaml": f"defaults:\n  - /schema/{group}/{name}@_here_\n" for group, name in ADDED.items()
    }
    for name, text in {**FILES, **yamls}.items():
        assert not (folder / name).exists()
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def command(copy: Path, tmp_path: Path) -> Command:
    """Runs the copy's command line in an empty folder."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(copy)}
        line = [sys.executable, "-m", "danube_sweep", *words]
        return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def test_the_document_shows_a_file_for_each() -> None:
    assert set(FILES) >= {
        *(f"danube_sweep/{group}/kinds/{name}.py" for group, name in ADDED.items()),
        "conf/device/a40.yaml",
    }


def test_what_is_added_trains_together_and_predicts(command: Command, tmp_path: Path) -> None:
    lines = [f"{('sun', 'rain')[number % 2]}\tday {number} was {('bright', 'wet')[number % 2]}" for number in range(40)]
    (tmp_path / "days.tsv").write_text("\n".join(lines))
    data = ["data=lines", "data.path=days.tsv", "data.classes=[sun,rain]"]
    added = ["head=tempered", "head.temperature=3", "optimizer=radam", "trainer.max_steps=3", "hydra.run.dir=run"]
    trained = command(*TINY, *data, *added)
    assert trained.returncode == 0, trained.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["state"] == "finished"
    predicted = command("predict", "run", "days.tsv", "-o", "out.csv")
    assert predicted.returncode == 0, predicted.stderr
    assert (tmp_path / "out.csv").read_text().startswith("id,sun,rain\n1,")


def test_what_is_added_is_explained_planned_and_checked(command: Command, tmp_path: Path) -> None:
    assert "divisor of the last layer's initial weights" in command("--help", "head").stdout
    words = [
        "model=danube3_500m",
        "head=tempered",
        "optimizer=radam",
        "device=a40",
        "data=hub",
        "data.path=a/b",
        "--json",
    ]
    planned = command("plan", *words[:3], "device=a40", "--json")
    assert planned.returncode == 0, planned.stderr
    assert "an A40" in planned.stdout
    (tmp_path / "bad.tsv").write_text("snow\twhite\n")
    refused = command(*TINY, "data=lines", "data.path=bad.tsv", "data.classes=[sun,rain]", "head=tempered")
    assert refused.returncode == 2
    assert "data.path=" in refused.stderr and "line 1: no class of sun, rain before a tab" in refused.stderr
