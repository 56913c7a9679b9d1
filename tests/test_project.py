"""What the project says about itself: its dependencies, its licence, its version."""

import ast
import re
import sys
import tomllib
from collections import Counter
from importlib.metadata import packages_distributions

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
    assert pinned <= named([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]])


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
