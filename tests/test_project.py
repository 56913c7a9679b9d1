"""What the project says about itself: its dependencies, its licence, its version."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from importlib.metadata import packages_distributions

import pytest
from conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"danube_sweep", "hydra_plugins"}

USED_BY_OTHERS = {"accelerate"}
"""transformers loads quantised weights by it; nothing of ours imports it."""


def named(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=\[; ]", one)[0].lower() for one in requirements}


def imported(*folders: str) -> set[str]:
    """The distributions behind every import of the files in these folders, at the top or inside functions."""
    found: set[str] = set()
    for file in (file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Import(names=names):
                    found |= {alias.name.partition(".")[0] for alias in names}
                case ast.ImportFrom(module=str(module), level=0):
                    found.add(module.partition(".")[0])
    local = {file.stem for folder in ("tests", "benchmarks") for file in (ROOT / folder).rglob("*.py")}
    known = packages_distributions()
    others = found - OURS - local - set(sys.stdlib_module_names)
    return {known.get(name, [name])[0].lower().replace("_", "-") for name in others}


def test_the_package_declares_what_it_imports_and_nothing_else() -> None:
    extras = PROJECT["optional-dependencies"]
    used = imported("danube_sweep", "hydra_plugins")
    assert used - named(PROJECT["dependencies"]) == set().union(
        *(named(extras[one]) for one in ("hub", "benchmark", "slurm", "ray"))
    )
    assert named(PROJECT["dependencies"]) - used == USED_BY_OTHERS


def test_the_tests_import_what_is_declared() -> None:
    extras = PROJECT["optional-dependencies"]  # Ray is large, and its tests are skipped without it
    declared = named([*PROJECT["dependencies"], *extras["dev"], *extras["ray"]])
    assert imported("tests", "benchmarks") <= declared


def test_what_the_tests_ran_with_is_within_what_is_declared() -> None:
    pinned = named([line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] != "#"])
    declared = named([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]])
    assert pinned <= declared | {"python-dateutil"}


def test_the_licence_is_the_one_that_is_declared() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    assert PROJECT["license-files"] == ["LICENSE"]
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


def test_no_two_files_of_the_tests_have_one_name() -> None:
    # pytest imports them by name alone, and ends before the first test otherwise.
    names = Counter(file.name for file in (ROOT / "tests").rglob("test_*.py"))
    assert not [name for name, count in names.items() if count > 1]


FIGURE = re.compile(r"[±+-]?[\d.,]+( ?(%|s|ms|GiB))?")
COMMIT = re.compile(r"`([0-9a-f]{7})`")


def parts(page: str) -> list[tuple[str, list[list[str]]]]:
    """The tables of a page, each with the text since the heading or table before it."""
    found: list[tuple[str, list[list[str]]]] = []
    before = ""
    for block in (ROOT / page).read_text().split("\n\n"):
        if block.startswith("#"):
            before = ""
        elif block.startswith("|"):
            cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in block.splitlines()]
            found.append((before, cells))
            before = ""
        else:
            before += block
    return found


def test_every_table_of_figures_about_speed_names_its_commit() -> None:
    tables = parts("docs/speed.md")
    measured = [
        (before, rows) for before, rows in tables if any(FIGURE.fullmatch(cell) for row in rows for cell in row)
    ]
    assert len(measured) >= 12
    assert [rows[0] for before, rows in measured if not COMMIT.search(before)] == []


def test_every_figure_among_the_claims_names_its_commit() -> None:
    ((_, claims),) = [one for one in parts("README.md") if one[1][0][0] == "claim"]
    assert claims[0][-1] == "recorded at" and len({len(row) for row in claims}) == 1
    figures = [row for row in claims[2:] if re.search(r"\d\.\d|\d %", row[0])]
    assert len(figures) >= 3 and [row for row in figures if not COMMIT.match(row[-1])] == []


def test_the_commits_of_figures_are_in_the_history() -> None:
    git = ["git", "-C", str(ROOT)]
    shallow = subprocess.run([*git, "rev-parse", "--is-shallow-repository"], capture_output=True, text=True)
    if shallow.stdout.strip() != "false":
        pytest.skip("the whole history is not here")
    named = {one for page in ("README.md", "docs/speed.md") for one in COMMIT.findall((ROOT / page).read_text())}
    asked = "".join(f"{one}^{{commit}}\n" for one in sorted(named))
    known = subprocess.run([*git, "cat-file", "--batch-check"], input=asked, capture_output=True, text=True).stdout
    assert len(named) > 5 and [line for line in known.splitlines() if " commit " not in line] == []
