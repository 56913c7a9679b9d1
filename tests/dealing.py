"""Which worker gets which test: those of a file that makes something once for all its tests stay on one.

xdist's own groups (3.8) are a suffix of a test's id, which pytest 9.2 no longer lets it set: it groups nothing, in
silence, and each worker makes everything.
"""

from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parent.parent


class ByFixture(LoadScopeScheduling):
    """Deals files with a fixture of `scope="module"` whole, and all other tests one by one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if makes_something_once(file) else nodeid


@cache
def makes_something_once(file: str) -> bool:
    """Whether a file of tests, named from the root, has a fixture of its own that is made once."""
    return 'scope="module"' in (ROOT / file).read_text(encoding="utf-8")
