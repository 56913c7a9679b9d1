"""Damaged and hostile inputs for every reader of ours: whatever comes, an answer or one of our own errors, and soon.

The n-th input of a kind is the same on every machine. What was found once is in corpus/<kind>/ and comes first. An
input is in found/<kind>/ while it is read, and stays there if it escapes or ends the process.
"""

import csv
import gzip
import hashlib
import io
import json
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import yaml
from bounds import LONGEST_S, TooLong, memory, on_disk, seconds
from corrupt import mutated, other_values
from hour import HOUR

from danube_sweep.config.stored import load_config, load_sweep
from danube_sweep.data.read_files import read_rows
from danube_sweep.errors import DanubeSweepError
from danube_sweep.report.collect import gather
from danube_sweep.results.rank import rank_sweep
from danube_sweep.results.ranking_table import summary_lines
from danube_sweep.storage import checkpoint
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.sweep_folder import SweepFolder, attempts
from danube_sweep.sweeping.propose.next_trial import FolderSource
from danube_sweep.sweeping.propose.search_space import recognised
from danube_sweep.sweeping.wandb_file.read_sweep_file import read_sweep_file
from danube_sweep.terminal.screen import Log
from danube_sweep.tracking.metrics_file import MetricsFile
from danube_sweep.training.resume import of_a_trial

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
COLUMNS = ["step", "part", "epoch", "loss", "lr", "grad_norm", "tokens", "seconds"]
COLUMNS += ["log_loss", "accuracy", "macro_f1", "ece", "auroc"]
"""Of the kept run's metrics.csv."""
KEPT = HERE.parent.parent / "tests" / "kept"
"""A run, a stopped run and a sweep of an earlier version, as files."""


@dataclass(frozen=True)
class Kind:
    """What is read how: `file` inside a copy of `source`, or of a few good files of its own."""

    name: str
    source: Path
    file: str
    read: Callable[[Path], Any]
    """Called with the copy."""


@dataclass
class Found:
    """What came of the inputs of one kind."""

    kind: str
    inputs: int = 0
    refused: int = 0
    """Those answered by an error of ours; the others were read."""
    escaped: list[str] = field(default_factory=list)
    """Inputs that raised anything else, or took too long: which one, and the last lines of the traceback."""
    seconds: float = 0.0


# ---------------------------------------------------------------------------------------------------------- readers


def read_sweep(path: Path) -> None:
    """All that `rank`, `report` and `resume` read of a sweep before a trial begins; writes nothing."""
    folder = SweepFolder(path)
    summary_lines(rank_sweep(path))
    gather(path)
    for entry in folder.entries():
        entry.folder.result_fields()
        attempts(entry.folder)
        FolderSource(folder, ["all"])
    folder.damaged()
    if folder.file.is_file():
        stored = folder.read()
        load_sweep(stored.get("settings") or {})
        if stored.get("search") is not None:
            recognised(stored["search"]["space"])


def read_run(path: Path) -> None:
    """What a single run reads of its folder before it loads data."""
    run = RunFolder(path)
    run.hash_version()
    run.read_result()
    config = load_config(run.config)
    run.micro_batch(config)
    run.hash_of(config)
    MetricsFile(run.metrics, COLUMNS).resume(3)
    Log(run.log).write("more")


def read_checkpoint(path: Path) -> None:
    """A checkpoint's manifest, its tensors and the state that both hold."""
    manifest, tensors = checkpoint.read_manifest(path), checkpoint.load_tensors(path / "training.safetensors")
    with of_a_trial(path):
        checkpoint.unpack_state(manifest["state"], tensors)


def read_table(place: Path) -> None:
    """A table of examples, whatever its format."""
    (file,) = place.iterdir()
    for _ in read_rows(file, ["prompt", "label"]):
        pass


def read_sheet(place: Path) -> None:
    """A W&B sweep file."""
    (file,) = place.iterdir()
    read_sweep_file(file)


def kinds(place: Path) -> list[Kind]:
    """What is damaged; good files that the repository does not hold are written to `place`."""
    (ended,) = (KEPT / "sweep").glob("001_*")
    trial = [f"{ended.name}/{name}" for name in ("result.json", "trial.json", "config.yaml", "environment.json")]
    rest = [f"{ended.name}/{name}" for name in ("attempts.jsonl", "metrics.csv", "predictions.parquet")]
    sweep = [Kind(f"sweep {name.rpartition('/')[2]}", KEPT / "sweep", name, read_sweep) for name in (*trial, *rest)]
    run = ("config.yaml", "environment.json", "metrics.csv")
    saved = KEPT / "stopped" / "checkpoints" / "step-00000004"
    kept = ("checkpoint.json", "training.safetensors")
    return [
        *sweep,
        Kind("sweep paused.json", resting(place, ended), f"{ended.name}/paused.json", read_sweep),
        Kind("sweep sweep.json", KEPT / "sweep", "sweep.json", read_sweep),
        *(Kind(f"run {name}", KEPT / "stopped", name, read_run) for name in run),
        *(Kind(f"checkpoint {name}", saved, name, read_checkpoint) for name in kept),
        *(Kind(f"data {file.name}", file.parent, file.name, read_table) for file in tables(place)),
        Kind("sweep file", sheet(place), "sheet.yaml", read_sheet),
    ]


def resting(place: Path, ended: Path) -> Path:
    """The kept sweep with its first trial paused."""
    found = _folder(place, "paused")
    shutil.copytree(KEPT / "sweep", found, dirs_exist_ok=True)
    result = found / ended.name / "result.json"
    result.with_name("paused.json").write_text(json.dumps({**json.loads(result.read_text()), "state": "paused"}))
    result.unlink()
    return found


def tables(place: Path) -> list[Path]:
    """The same good rows in every format that is read."""
    rows = [{"prompt": f"Is {n} even?", "label": str(n % 2 == 0), "words": ["a", "b"][: n % 3]} for n in range(40)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    content = {
        "rows.csv": text.getvalue().encode(),
        "rows.jsonl": lines,
        "rows.json": json.dumps(rows).encode(),
        "rows.csv.gz": gzip.compress(text.getvalue().encode(), mtime=0),
        "rows.jsonl.gz": gzip.compress(lines, mtime=0),
    }
    files = []
    for name, written in content.items():
        files.append(_folder(place, name) / name)
        files[-1].write_bytes(written)
    files.append(_folder(place, "rows.parquet") / "rows.parquet")
    parquet.write_table(pa.Table.from_pylist(rows), files[-1])
    return files


def sheet(place: Path) -> Path:
    """A folder with a W&B sweep file."""
    folder = _folder(place, "sheet")
    (folder / "sheet.yaml").write_text(SHEET)
    return folder


SHEET = """program: danube-sweep
method: bayes
metric: {name: validation/log_loss, goal: minimize}
parameters:
  lora.rank: {values: [2, 4, 8]}
  optimizer.lr: {distribution: log_uniform_values, min: 0.0001, max: 0.01}
  seed: {value: 0}
run_cap: 20
early_terminate: {type: hyperband, min_iter: 3}
command: ['${env}', danube-sweep, '${args_no_hyphens}', data.rows=50]
"""


def _folder(place: Path, name: str) -> Path:
    folder = place / name.replace(".", "-")
    folder.mkdir(parents=True)
    return folder


# ---------------------------------------------------------------------------------------------------------- attacks


def inputs(content: bytes, kind: str, count: int) -> Iterator[tuple[str, bytes]]:
    """What was found before, then damaged copies of `content`, each with its name."""
    for file in sorted((CORPUS / kind.replace(" ", "-")).glob("*")):
        yield file.name, file.read_bytes()
    for number in range(count):
        random = Random(f"{kind}/{number}")
        if number % 2 and (structured := _structured(content, random)) is not None:
            yield str(number), structured
        else:
            yield str(number), mutated(content, random)


def _structured(content: bytes, random: Random) -> bytes | None:
    # A file that still parses and says something else.
    try:
        return json.dumps(other_values(json.loads(content), random), indent=1).encode("utf-8", "surrogatepass")
    except ValueError:
        pass
    try:
        loaded = yaml.safe_load(content)
        return None if not isinstance(loaded, dict) else yaml.safe_dump(other_values(loaded, random)).encode()
    except (yaml.YAMLError, UnicodeError, ValueError):
        return None


def attack(kind: Kind, count: int, place: Path, longest_s: float = LONGEST_S) -> Found:
    """Reads `count` damaged copies, and what was found before; what escapes stays in `place`/found."""
    found, began_s = Found(kind.name), time.monotonic()
    copy = Path(shutil.copytree(kind.source, place / "copy"))
    content = (copy / kind.file).read_bytes()
    with memory():
        for name, damaged in inputs(content, kind.name, count):
            _write(copy / kind.file, damaged)
            found.inputs += 1
            kept = place / "found" / kind.name.replace(" ", "-") / f"{name}-{hashlib.sha256(damaged).hexdigest()[:8]}"
            try:
                with on_disk(kept, damaged), seconds(longest_s):
                    found.refused += not _read(kind, copy)
            except (Exception, TooLong):
                found.escaped.append(f"{kind.name} {name}, kept as {kept}: {traceback.format_exc(limit=-3)}")
    shutil.rmtree(copy)
    found.seconds = time.monotonic() - began_s
    return found


def _read(kind: Kind, copy: Path) -> bool:
    """Whether an input was read; False if it was refused by an error of ours."""
    try:
        kind.read(copy)
    except DanubeSweepError:  # the command line prints it in one line
        return False
    return True


def _write(file: Path, content: bytes) -> None:
    file.unlink(missing_ok=True)  # a new inode, as every write of ours makes one
    file.write_bytes(content)


def siege(scale: float, place: Path) -> int:
    """10,000 inputs each of data, of sweep files, and of the files of runs, sweeps and checkpoints, at scale 1."""
    attacked = kinds(place / "good")
    families = Counter(_family(kind) for kind in attacked)
    escaped = 0
    for kind in attacked:
        if not HOUR.begins(f"files: {kind.name}"):
            continue
        found = attack(kind, max(1, round(10_000 * scale / families[_family(kind)])), place)
        print(
            f"{found.kind:28} {found.inputs:6} inputs  {found.refused:6} refused  {len(found.escaped):3} escaped  "
            f"{found.seconds:4.0f} s",
            flush=True,
        )
        for wrong in found.escaped:
            print(wrong, flush=True)
        escaped += len(found.escaped)
    if escaped:
        print(f"to have them tried first from now on: cp -r {place}/found/. {CORPUS}/", flush=True)
    return escaped


def _family(kind: Kind) -> str:
    return kind.name if kind.name == "sweep file" else "data" if kind.name.startswith("data") else "ours"
