"""kill -9 at random moments, against sweeps that nobody disturbed: is any trial lost, done twice or different?

A sweep of real tiny trials is run by several processes of `danube-sweep resume` while a killer picks, again and again,
one of the sweep's processes, of their warm parents or of their trials. Sweeps that died are started again; what was
killed is run again at the end. Results, predictions and the rows of metrics.csv must be those of the undisturbed sweep,
where trials train in packs within 1e-5.

    python benchmarks/siege/kills.py [--kills 50] [--seeds 3] [--processes 1,2,4] [--trials 24] [--only SETUP,…]
                                     [OVERRIDE…]

The undisturbed sweep trains one trial after the other to its end, whatever the setup (SETUPS). With a pruner the
disturbed sweeps pause trials: what is finished must be the same, and of what is pruned every row must be one of the
undisturbed trial's first ones. With CUDA_VISIBLE_DEVICES= (empty) processes are forked from one that has imported the
stack, which makes a start ten times cheaper.
"""

import argparse
import csv
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import pyarrow as pa
import pyarrow.parquet as parquet
from hour import HOUR
from living import KINDS, SEEN_S, still_there, victims, warm
from rich.console import Console

from danube_sweep.composer import Composer
from danube_sweep.config.schema.states import COMPLETE
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.sweep_folder import Entry, SweepFolder, attempts
from danube_sweep.sweeping.start_sweep import plan_grid
from danube_sweep.terminal.screen import Terminal

SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
TRIAL = [
    *(f"model.shape.{name}={value}" for name, value in {**SHAPE, "num_key_value_heads": 1, "vocab_size": 512}.items()),
    *("data.rows=50", "data.max_length=96", "lora.dropout=0.1", "precision=fp32", "tracking=none"),
    *(f"trainer.{name}" for name in ("micro_batch=4", "effective_batch=8", "max_steps=12", "validate_every=3")),
    *("trainer.log_every=1", "device=cpu", "device.threads=1", "sweep.slots=1", "sweep.stagger_s=0"),
]
"""Twelve steps with a checkpoint after every third; dropout, so that a lost generator state would show."""
OPTIMIZERS = (
    ["optimizer=adamw"],
    ["optimizer=muon", "optimizer.lr=0.002"],
    ["optimizer=schedulefree", "schedule=constant"],
    ["optimizer=adafactor"],
    ["optimizer=adamw_8bit", "lora.targets=all_linear"],
    ["optimizer=sgd"],
)
"""Each has a state of another form in its checkpoints. Two trials have one, and the next two the next one."""
LONGEST_S = 1800.0
NEAR, NEAR_IN_BF16 = 1e-5, 1e-2
"""What packs may differ by: which trials trained together varies from run to run. Muon multiplies in bf16."""
SETUPS: dict[str, list[str]] = {
    "single": [],
    "packs": ["sweep.pack=4"],
    "paused": ["pruner=asha"],
    "paused-packs": ["pruner=asha", "sweep.pack=4"],
    "leases": ["sweep.workers=4", "sweep.lock=lease", "sweep.lease_s=10"],
    "ranks": ["device.count=2"],
}
"""The kinds of sweep that are disturbed, by what they add to the undisturbed one."""
EXACT = ("single", "paused", "leases")
"""Those whose results are the undisturbed ones to the last bit."""


# --------------------------------------------------------------------------------------------------------- campaign


@dataclass
class Campaign:
    """A sweep in `folder`, run by `count` processes and disturbed by `quota` kills at moments that `seed` draws."""

    folder: Path
    seed: int
    count: int
    quota: int
    kills: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    crashes: list[str] = field(default_factory=list)
    """What sweeps said that ended in a way of their own: neither killed nor with exit code 0 or 1."""
    running: list[tuple[subprocess.Popen[str], Path]] = field(default_factory=list)
    """The sweep's processes, each with its log."""

    def run(self) -> None:
        """Returns when every trial has finished, or when a round without a kill has not achieved it."""
        self.random = random.Random(f"{self.folder.name}/{self.seed}/{self.count}")
        self.end_s = time.monotonic() + LONGEST_S
        self._round(self.count, retry=False)
        while not self._complete():
            last = self.kills.total() >= self.quota
            self._round(1 if last else self.count, retry=True)
            if last:
                return

    def _complete(self) -> bool:
        return all(state(entry) in COMPLETE for entry in SweepFolder(self.folder).entries())

    def _round(self, count: int, *, retry: bool) -> None:
        try:
            for _ in range(count):
                self._start(retry)
            self._disturb()
            self._wait(lambda: False)
        finally:
            for one, _ in self.running:
                one.kill()
                one.wait()
            self.running.clear()

    def _disturb(self) -> None:
        # Most kills come within three seconds of a trial's next row, since start-up takes longer than a trial; the
        # others at any time.
        while self.kills.total() < self.quota:
            rows, wait_s = self._rows(), self.random.uniform(0, 3)
            if self.random.random() < 0.3:
                wait_s *= 3
            elif not self._wait(lambda rows=rows: self._rows() != rows):
                return
            due_s = time.monotonic() + wait_s
            if not self._wait(lambda due_s=due_s: time.monotonic() > due_s):
                return
            self._kill()

    def _start(self, retry: bool) -> None:
        self.starts += 1
        command = ["-m", "danube_sweep", "resume", self.folder, *(["--retry", "killed"] if retry else [])]
        log = self.folder.with_name(f"{self.folder.name}-{self.starts}.log")
        with log.open("wb") as stream:
            self.running.append((warm.popen(*command, stdout=stream, stderr=subprocess.STDOUT), log))

    def _kill(self) -> None:
        present = {kind: pids for kind, pids in victims([one.pid for one, _ in self.running]).items() if pids}
        kind = self.random.choice(sorted(present))
        with suppress(ProcessLookupError):
            os.kill(self.random.choice(sorted(present[kind])), signal.SIGKILL)
            self.kills[kind] += 1

    def _wait(self, ready: Callable[[], bool]) -> bool:
        """Waits, and starts sweeps that were killed again; False if none runs any more."""
        while time.monotonic() < self.end_s:
            for ended in [one for one in self.running if one[0].poll() is not None]:
                self.running.remove(ended)
                self._ended(*ended)
            if not self.running:
                return False
            if ready():
                return True
            time.sleep(SEEN_S)
        raise TimeoutError(f"{self.folder} is not complete after {LONGEST_S:.0f} s; see the logs beside it")

    def _ended(self, one: subprocess.Popen[str], log: Path) -> None:
        said = log.read_text(errors="replace")
        if one.returncode == -signal.SIGKILL:
            self._start(retry=True)
        elif one.returncode not in (0, 1) or "Traceback" in said:  # 1: not every trial has finished
            self.crashes.append(f"{log} (exit code {one.returncode}): {said[-2000:]}")

    def _rows(self) -> int:
        """Bytes of all metrics.csv: they change with every row."""
        sizes = 0
        for file in self.folder.glob("*/metrics.csv"):
            with suppress(OSError):
                sizes += file.stat().st_size
        return sizes


# ------------------------------------------------------------------------------------------------------ comparison


def state(entry: Entry) -> str | None:
    return (entry.folder.read_result() or {}).get("state")


def meaning(folder: RunFolder) -> tuple[Any, ...]:
    """What must be the same however often the trial was killed: result, every row of metrics.csv, and predictions.

    A soup has no rows, and a refit no predictions.
    """
    result = {
        key: value
        for key, value in (folder.read_result() or {}).items()
        if key not in ("measured", "adjusted", "predicted")
    }
    text = folder.metrics.read_text() if folder.metrics.is_file() else ""
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(text.splitlines())]
    return result, rows, parquet.read_table(folder.predictions) if folder.predictions.is_file() else None


def same(one: Any, other: Any, near: float) -> bool:
    """Whether two values, or what they consist of, are equal; numbers, and texts of numbers, as near as `near`."""
    if one == other or near == 0.0:
        return bool(one == other)
    match one, other:
        case dict(), dict():
            return one.keys() == other.keys() and all(same(one[key], other[key], near) for key in one)
        case ((list() | tuple()), (list() | tuple())):
            return len(one) == len(other) and all(same(*pair, near) for pair in zip(one, other, strict=True))
        case pa.Table(), pa.Table():
            return same(one.to_pydict(), other.to_pydict(), near)
    with suppress(TypeError, ValueError):
        return math.isclose(float(one), float(other), abs_tol=near)
    return False


def compare(folder: Path, undisturbed: Path, near: float = 0.0) -> dict[str, int]:
    """Counts: attempts, and trials that are lost, were done twice, or differ from the undisturbed ones."""
    counts = Counter({"attempts": 0, "lost": 0, "twice": 0, "different": 0})
    for entry, other in zip(SweepFolder(folder).entries(), SweepFolder(undisturbed).entries(), strict=True):
        tried = attempts(entry.folder)
        counts["attempts"] += len(tried)
        counts["twice"] += sum(attempt.state == "finished" for attempt in tried) > 1
        found = state(entry)
        lost = found not in COMPLETE
        counts["lost"] += lost
        # Two processes that train a trial at the same time would leave rows of both.
        ours, theirs = (meaning(one.folder) for one in (entry, other)) if not lost else ((), ())
        if found == "pruned":
            ours, theirs = ours[1], theirs[1][: len(ours[1])]
        loose = NEAR_IN_BF16 if near and "optimizer=muon" in entry.overrides else near
        counts["different"] += not lost and not same(ours, theirs, loose)
    return dict(counts)


# -------------------------------------------------------------------------------------------------------- the whole


@dataclass(frozen=True)
class Asked:
    """How much is played: at least so many kills, with so many seeds and numbers of processes."""

    kills: int
    seeds: int
    processes: list[int]


def plan(folder: Path, trials: int, settings: Sequence[str] = ()) -> None:
    """A sweep of `trials` trials that differ in seed, rank and optimizer."""
    cells = [
        [*TRIAL, "sweep.pack=1", *settings, f"seed={number // 2}", f"lora.rank={4 if number % 2 else 8}"]
        + OPTIMIZERS[number // 2 % len(OPTIMIZERS)]
        for number in range(trials)
    ]
    plan_grid(folder, cells, Composer(), Terminal(Console(quiet=True)))


def reference(place: Path, trials: int) -> Path:
    """Plans the sweep in `place`/planned and runs it undisturbed in `place`/undisturbed, which is returned."""
    plan(place / "planned", trials)
    plan(place / "undisturbed", trials)
    undisturbed = Campaign(place / "undisturbed", seed=0, count=1, quota=0)
    undisturbed.run()
    if undisturbed.crashes or set(map(state, SweepFolder(undisturbed.folder).entries())) != {"finished"}:
        raise RuntimeError(f"the undisturbed sweep did not finish: {undisturbed.crashes}")
    return undisturbed.folder


BAD = ("lost", "twice", "different", "crashed", "left")
"""Columns that must be 0: trials without a result, with two, or with another one than undisturbed; sweeps that ended in
a way of their own; processes that outlived their sweep."""
COLUMNS = ("seed", "processes", *KINDS, "starts", "attempts", *BAD, "seconds")


def campaign(
    place: Path, seed: int, count: int, quota: int, near: float = 0.0, planned: str = "planned"
) -> dict[str, int]:
    """Disturbs a copy of a planned sweep and compares it; returns a row of the table."""
    began_s = time.monotonic()
    copy = shutil.copytree(place / planned, place / f"{planned}-seed-{seed}-processes-{count}")
    one = Campaign(Path(copy), seed, count, quota)
    one.run()
    for crash in one.crashes:
        print(crash, file=sys.stderr)
    counts = compare(one.folder, place / "undisturbed", near)
    killed = {kind: one.kills[kind] for kind in KINDS}
    ends = {"crashed": len(one.crashes), "left": len(still_there(one.folder))}
    seconds = round(time.monotonic() - began_s)
    return {"seed": seed, "processes": count, **killed, "starts": one.starts, **counts, **ends, "seconds": seconds}


def campaigns(place: Path, name: str, settings: Sequence[str], trials: int, asked: Asked) -> list[dict[str, int]]:
    """Every seed with every number of processes, and more seeds until there were `asked.kills` kills."""
    print(f"{name}: {' '.join(settings) or 'one trial at a time'}", flush=True)
    print(line(list(COLUMNS)), flush=True)
    plan(place / name, trials, settings)
    rows: list[dict[str, int]] = []
    near, whole = 0.0 if name in EXACT else NEAR, asked.seeds * len(asked.processes)
    while len(rows) < whole or killed(rows) < asked.kills:
        if not HOUR.begins(f"kills: {name} after {killed(rows)} of {asked.kills} kills"):
            break
        seed, which = divmod(len(rows), len(asked.processes))
        quota = max(1, -(-(asked.kills - killed(rows)) // max(1, whole - len(rows))))
        rows.append(campaign(place, seed, asked.processes[which], quota, near, name))
        print(line(list(map(str, rows[-1].values()))), flush=True)
    bad = {column: sum(row[column] for row in rows) for column in BAD}
    said = ", ".join(f"{number} {column}" for column, number in bad.items())
    print(f"{name}: {killed(rows)} kills, {sum(row['attempts'] for row in rows)} attempts: {said}", flush=True)
    return rows


def killed(rows: list[dict[str, int]]) -> int:
    return sum(row[kind] for row in rows for kind in KINDS)


def line(cells: list[str]) -> str:
    return "  ".join(cell.rjust(len(name)) for cell, name in zip(cells, COLUMNS, strict=True))


def found(rows: list[dict[str, int]]) -> int:
    return sum(row[name] for row in rows for name in BAD)


def siege(scale: float, place: Path) -> int:
    """At scale 1 at least 15 kills over each of the setups, by 1, 2 and 4 processes."""
    trials = max(4, round(12 * min(scale, 1.0)))
    processes = [1, 2, 4] if scale >= 0.5 else [2]
    asked = Asked(max(2, round(15 * scale)), max(1, round(scale)), processes)
    print(f"{trials} trials, first undisturbed", flush=True)
    reference(place, trials)
    harm = 0
    for turn, (name, settings) in enumerate(SETUPS.items()):
        with HOUR.part(1 / (len(SETUPS) - turn)):
            harm += found(campaigns(place, name, settings, trials, asked))
    return harm


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="at least so many, over all campaigns of a setup")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", default="1,2,4", help="numbers of processes that share a sweep")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--only", default=",".join(SETUPS), help="some of the setups")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="more settings of the disturbed sweeps")
    options = parser.parse_args()
    if unknown := sorted(set(options.only.split(",")) - SETUPS.keys()):
        parser.error(f"--only {unknown[0]}: no such setup; there are {', '.join(SETUPS)}")
    asked = Asked(options.kills, options.seeds, [int(count) for count in options.processes.split(",")])
    place = Path(tempfile.mkdtemp(prefix="kills-"))
    os.environ["DANUBE_SWEEP_CACHE"] = str(place / "cache")
    print(f"{options.trials} trials in {place}; first undisturbed", flush=True)
    reference(place, options.trials)
    rows: list[dict[str, int]] = []
    for name in options.only.split(","):
        rows += campaigns(place, name, [*SETUPS[name], *options.overrides], options.trials, asked)
    if found(rows):
        return 1
    shutil.rmtree(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
