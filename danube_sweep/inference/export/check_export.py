"""An export's logits in a fresh process, compared with the run's own."""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from danube_sweep.config.schema import Compute, Data, Precision, Storage, Target
from danube_sweep.data.batches import Batch
from danube_sweep.data.encode import encode
from danube_sweep.data.parts import load_parts
from danube_sweep.data.records import Record
from danube_sweep.errors import ExportRefused
from danube_sweep.head.language import LanguageModel
from danube_sweep.inference.export.how_to_read import HiddenStates, NextToken, Reading
from danube_sweep.inference.predict import Trained
from danube_sweep.training.evaluate import forward

ROWS = 6
"""Validation rows, or training rows without them, that are compared, spread over the part."""
MOST_TOKENS = 128
"""In language modelling, where every token has a logit per word of the vocabulary, rows are cut to these."""

TOLERANCES = {Compute.fp32: 1e-4, Compute.fp16: 1e-2, Compute.bf16: 5e-2}
"""The largest difference of a logit, by the coarsest type that computes, for logits up to 1; above in proportion."""
INT8_MERGED = 5e-2
"""The same for merged int8: the run rounds the input of a layer to 8 bits, and the export does not."""


@dataclass(frozen=True)
class Reference:
    """The run's `logits` for some rows, whose encoded `inputs` are kept with them."""

    inputs: dict[str, torch.Tensor]
    logits: torch.Tensor
    rows: int
    words_P3: torch.Tensor | None = None
    """Sequence and position of every word, where words have the logits."""


@dataclass(frozen=True)
class Checked:
    """How far an export is from its run, of `rows` rows."""

    difference: float
    tolerance: float
    rows: int


def reference(trained: Trained, reading: Reading) -> Reference:
    """The run's own logits of a handful of its validation rows. Raises DataError if its data are gone."""
    data = trained.config.data
    if isinstance(reading, NextToken):
        data = replace(data, max_length=min(data.max_length, MOST_TOKENS))
    records = _handful(data, trained.config.head.target)
    rows = encode(records, trained.tokenizer, data, trained.layout, num_classes=len(trained.classes))
    pad_id = int(trained.tokenizer.pad_token_id)
    batch, output = next(forward(trained.backbone, trained.head, rows, batch_rows=ROWS, pad_id=pad_id))
    logits = trained.head.logits(output) if isinstance(trained.head, LanguageModel) else output
    answers = trained.head.answers(output)
    if trained.config.head.target is Target.number and answers is not None:  # its formula ends in the number
        logits = answers
    words_P3 = None if batch.words_P3 is None else batch.words_P3.cpu()
    return Reference(_inputs(batch, reading), logits.float().cpu(), len(batch.rows), words_P3)


def _handful(data: Data, target: Target) -> list[Record]:
    parts = load_parts(data, target)
    records = parts.validation or parts.train
    places = np.unique(np.linspace(0, len(records) - 1, ROWS).astype(int))
    return [records[place] for place in places]


def _inputs(batch: Batch, reading: Reading) -> dict[str, torch.Tensor]:
    named = {"input_ids": batch.input_ids_BT, "attention_mask": batch.mask_BT.long()}
    if isinstance(reading, HiddenStates) and reading.reads_texts:
        named |= {"spans": batch.spans_BK2, "sizes": batch.sizes_BK}
    return {name: value.cpu().contiguous() for name, value in named.items()}


def tolerance(precision: Precision, merged: Compute | None, largest: float) -> float:
    """The largest accepted difference of a logit if the largest logit is `largest`. `merged` is the type of a merged
    model.
    """
    allowed = max(TOLERANCES[one] for one in (precision.compute, merged) if one is not None)
    if merged is not None and precision.storage is Storage.int8:
        allowed = max(allowed, INT8_MERGED)
    return allowed * max(1.0, largest)


def check_export(
    folder: Path, code: str, expected: Reference, reading: Reading, allowed: float, device: str
) -> Checked:
    """Runs the loading `code` on the folder in a process of its own, on cpu or cuda.

    Raises ExportRefused, in one line, if it cannot be loaded or a logit differs by more than `allowed`.
    """
    with tempfile.TemporaryDirectory() as place:
        found = _in_a_process_of_its_own(Path(place), folder, code, expected, device)
    return compare(found, expected, reading, allowed)


def compare(found: torch.Tensor, expected: Reference, reading: Reading, allowed: float) -> Checked:
    """How far the logits `found` are from the expected. Raises ExportRefused for more than `allowed`."""
    if isinstance(reading, NextToken):
        mask_BT = expected.inputs["attention_mask"].bool()
        found = found[:, :-1][mask_BT[:, 1:] & mask_BT[:, :-1]]
    if expected.words_P3 is not None and found.ndim == 3:
        found = found[expected.words_P3[:, 0], expected.words_P3[:, 1]]
    if found.shape != expected.logits.shape:
        shapes = f"{list(found.shape)} logits for {list(expected.logits.shape)}"
        raise ExportRefused(f"the export does not answer as its run does: it gives {shapes}; nothing was written")
    difference = float((found - expected.logits).abs().max())
    if not difference <= allowed:  # NaN is neither
        raise ExportRefused(
            f"the export does not answer as its run does: a logit differs by {difference:.2g}, and {allowed:.2g} is "
            "allowed; nothing was written"
        )
    return Checked(difference, allowed, expected.rows)


def _in_a_process_of_its_own(place: Path, folder: Path, code: str, expected: Reference, device: str) -> torch.Tensor:
    script, inputs, output = place / "reload.py", place / "inputs.safetensors", place / "logits.safetensors"
    script.write_text(f"{_BEFORE}{code}{_AFTER}", encoding="utf-8")
    save_file(expected.inputs, inputs)
    # Bytecode of the export's head.py would be a folder inside the export.
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "PYTHONDONTWRITEBYTECODE": "1"}
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    words = [
        sys.executable,
        str(script),
        str(folder.absolute()),
        str(inputs),
        str(output),
        str(torch.get_num_threads()),
    ]
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = (lines[-1] if lines else f"exit code {done.returncode}")[:300]
        raise ExportRefused(f"the export cannot be loaded again: {reason}; nothing was written")
    return load_file(output)["logits"]


_BEFORE = "import sys\n\nfolder, inputs, output, threads = sys.argv[1:]\n"
_AFTER = """
from safetensors.torch import load_file, save_file

assert "danube_sweep" not in sys.modules
torch.set_num_threads(int(threads))
rows = {name: value.to(device) for name, value in load_file(inputs).items()}
save_file({"logits": logits(**rows).float().cpu().contiguous()}, output)
"""
