"""Override strings: whatever is typed, a trial or one of our own errors. Hypothesis draws and shortens them.

What was found once is in corpus/words/, a list of overrides in each file, and comes first.
"""

import contextlib
import hashlib
import json
import time
from pathlib import Path
from typing import Any

from bounds import LONGEST_S, TooLong, memory, on_disk, seconds
from hour import HOUR
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from danube_sweep.composer import Composer
from danube_sweep.config.options import OPTIONS, SWEEP_OPTIONS
from danube_sweep.errors import DanubeSweepError

CORPUS = Path(__file__).parent / "corpus" / "words"
FIELDS = [
    *("seed", "name", "data.rows", "data.max_length", "data.path", "data.columns", "lora.rank", "lora.alpha"),
    *("lora.targets", "lora.layers", "optimizer.lr", "trainer.max_steps", "trainer.micro_batch", "model.path"),
    *("model.shape", "model.shape.hidden_size", "head.metrics", "sweep.metric", "sweep.slots", "device.threads"),
]
VALUES = [
    *("0", "-1", "1e999", "nan", "inf", "true", "null", "auto", "''", "[]", "[1,2]", "{}", "{a:1}", "~", "2024-02-31"),
    *("${seed}", "${oc.env:HOME}", "${a.b}", "${", "\\", "'", '"', "a,b", "choice(1,2)", "range(1,3)", "interval(0,1)"),
    *("tag(log,1)", "9" * 400, "x" * 5000, "../..", "\U0001f600", "\x00", "\x1b[2J", "a=b", "1:2:3", "0x1f", "1_000"),
]


def overrides() -> st.SearchStrategy[list[str]]:
    """Lists of one to three overrides: known fields and options with odd values, and anything else."""
    groups = [*OPTIONS, *SWEEP_OPTIONS, "experiment", "hydra/launcher", "nope"]
    values = st.one_of(st.sampled_from(VALUES), st.text(max_size=12), st.integers().map(str), st.floats().map(str))
    known = st.tuples(st.sampled_from(["", "+", "++", "~"]), st.sampled_from([*FIELDS, *groups]), values)
    one = st.one_of(known.map(lambda parts: f"{parts[0]}{parts[1]}={parts[2]}"), st.text(max_size=20))
    return st.lists(one, min_size=1, max_size=3)


def compose(composer: Composer, words: Any, found: Path, longest_s: float = LONGEST_S) -> None:
    """Composes a trial, or is refused by an error of ours; raises what escapes, and keeps the words in `found` then."""
    content = json.dumps(words).encode()
    try:
        with (
            on_disk(found / f"{hashlib.sha256(content).hexdigest()[:8]}.json", content),
            seconds(longest_s),
            contextlib.suppress(DanubeSweepError),
        ):
            composer.trial(words)
    except TooLong as error:  # Hypothesis shortens no BaseException
        raise TimeoutError(f"{words} {error}") from None


def attack(count: int, found: Path) -> str | None:
    """Composes what was found before and so many lists of overrides; returns what escaped first, at its shortest."""
    composer = Composer()

    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(overrides())
    def composes(words: Any) -> None:
        if not HOUR.over():
            compose(composer, words, found)

    try:
        with memory():
            for file in sorted(CORPUS.glob("*.json")):
                compose(composer, json.loads(file.read_text()), found)
            composes()
    except Exception as error:
        notes = " ".join(getattr(error, "__notes__", []))
        return f"{type(error).__name__}: {error} {notes}"
    return None


def siege(scale: float, place: Path) -> int:
    """10,000 lists at scale 1."""
    count, began_s = max(1, round(10_000 * scale)), time.monotonic()
    escaped = attack(count, place / "found")
    HOUR.begins(f"the last of {count} lists of overrides")
    print(f"{count} lists of overrides, {time.monotonic() - began_s:.0f} s: {escaped or 'none escaped'}", flush=True)
    if escaped:
        print(f"the shortest of {place}/found belongs in {CORPUS}, to be tried first from now on", flush=True)
    return int(escaped is not None)
