"""The faults of `make mutate` can still be put in: each line is there exactly once, and what it becomes is Python."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT
from mutate import FAULTS, Fault, first_failure, put_into


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_still_has_its_line_and_its_tests(fault: Fault) -> None:
    text = (ROOT / "danube_sweep" / fault.file).read_text()
    assert text.count(fault.right) == 1
    ast.parse(text.replace(fault.right, fault.wrong))
    for test in fault.tests:
        file, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / "tests" / file).read_text()


def test_a_fault_is_put_in_for_a_while_and_only_over_the_line_it_knows(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("x = 1\n")
    with put_into(tmp_path, Fault("", "a.py", "1", "2", ())):
        assert file.read_text() == "x = 2\n"
    assert file.read_text() == "x = 1\n"
    with pytest.raises(ValueError, match="has 0 times, and not once: y"):
        put_into(tmp_path, Fault("", "a.py", "y", "2", ())).__enter__()


def test_a_caught_fault_is_told_by_the_test_and_one_that_survives_by_nothing(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_one.py").write_text("def test_a(): pass\ndef test_b(): assert False\n")
    (tmp_path / "tests" / "test_two.py").write_text("def test_c(): pass\n")
    assert first_failure(tmp_path, ["test_one.py"]) == "test_one.py::test_b"
    assert first_failure(tmp_path, ["test_two.py"]) == ""
    assert first_failure(tmp_path, ["test_none.py"]).startswith("pytest ends with")
