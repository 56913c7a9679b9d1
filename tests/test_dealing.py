"""Tests that share something made once stay on one worker."""

import subprocess
import sys
from pathlib import Path

from dealing import makes_something_once

TESTS = """
import os, pytest

@pytest.fixture(scope="module")
def made():
    open(f"{os.getpid()}.txt", "w").close()

@pytest.mark.parametrize("number", range(12))
def test_it(made, number):
    pass
"""
DEALT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import dealing
dealing.ROOT = Path({root!r})

def pytest_xdist_make_scheduler(config, log):
    return dealing.ByFixture(config, log)
"""


def test_a_file_with_something_made_once_is_dealt_whole(tmp_path: Path) -> None:
    assert makes_something_once("tests/test_recovery.py") and not makes_something_once("tests/test_covering.py")
    (tmp_path / "test_shared.py").write_text(TESTS)
    (tmp_path / "conftest.py").write_text(DEALT.format(tests=str(Path(__file__).parent), root=str(tmp_path)))
    words = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    assert len(list(tmp_path.glob("*.txt"))) == 1
