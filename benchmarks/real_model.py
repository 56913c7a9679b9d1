"""A pretrained model trained twice: by this tool, and by a plain loop over transformers and PEFT.

    python benchmarks/real_model.py --model FOLDER [--steps 100] [--precision fp32] [--data FOLDER]

Both sides train LoRA and a classifier on banking77: the same rows in the same order, the same start, AdamW, a cosine
schedule and clipping. The plain side pads on the right, then on the left. Compared are the loss of every step, and the
probabilities of test rows by `predict` and by plain PEFT over the run's saved adapter. `--data`, or DANUBE_SWEEP_DATA,
names the folder with banking77_train.csv and banking77_test.csv.
"""

import argparse
import csv
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
from torch import nn
from torch.nn import functional as F

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LOSS_TOLERANCE, PROBABILITY_TOLERANCE = 1e-5, 1e-6
"""How far apart the two sides may be in fp32."""
PREDICTED_AT_ONCE = 16


@dataclass(frozen=True)
class Task:
    """What the plain side trains: rows of tokens, their classes, and which of them make a step."""

    model: Path
    storage: str
    compute: str
    tokens: list[list[int]]
    labels: list[int]
    classes: int
    steps: list[list[int]]
    rank: int
    alpha: float
    lr: float
    weight_decay: float
    warmup_steps: int
    clip_norm: float
    seed: int


# ------------------------------------------------------------------------------------------------- the plain side


def load_body(model: Path, storage: str, compute: str) -> nn.Module:
    """The pretrained body as transformers loads it, its linears in nf4 if asked."""
    from transformers import AutoModel, BitsAndBytesConfig

    dtype = DTYPES[compute]
    if storage != "nf4":
        return AutoModel.from_pretrained(model, dtype=DTYPES[storage])
    quantised = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return AutoModel.from_pretrained(model, dtype=dtype, quantization_config=quantised, device_map={"": "cpu"})


class Classifier(nn.Module):
    """A body and a linear layer over its last token's state."""

    def __init__(self, body: nn.Module, score_CH: torch.Tensor, compute: str) -> None:
        super().__init__()
        self.body, self.compute = body, compute
        self.score = nn.Linear(score_CH.shape[1], score_CH.shape[0], bias=False)
        self.score.weight.data.copy_(score_CH)

    def forward(self, rows: Sequence[Sequence[int]], side: str) -> torch.Tensor:
        """Logits [B, C] of rows that are padded on a side."""
        ids_BT, mask_BT = padded(rows, side)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.compute == "bf16"):
            states_BTH = self.body(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).last_hidden_state
        places_BT = torch.arange(mask_BT.shape[1]) * mask_BT
        last_B = places_BT.argmax(dim=1)
        logits_BC: torch.Tensor = self.score(states_BTH[torch.arange(len(last_B)), last_B].float())
        return logits_BC


def padded(rows: Sequence[Sequence[int]], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask [B, T] of rows, zeros on the `left` or the `right`."""
    width = max(map(len, rows))
    ids_BT = torch.zeros(len(rows), width, dtype=torch.long)
    mask_BT = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids_BT[number, place], mask_BT[number, place] = torch.tensor(row), 1
    return ids_BT, mask_BT


def plain_losses(task: Task, side: str, done: Callable[[], None] = lambda: None) -> list[float]:
    """The loss of every step of plain transformers and PEFT."""
    from transformers import get_cosine_schedule_with_warmup

    model = _fresh(task)
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=task.lr, weight_decay=task.weight_decay)
    schedule = get_cosine_schedule_with_warmup(optimizer, task.warmup_steps, len(task.steps))
    losses = []
    for rows in task.steps:
        logits_BC = model([task.tokens[row] for row in rows], side)
        loss = F.cross_entropy(logits_BC, torch.tensor([task.labels[row] for row in rows]))
        loss.backward()
        nn.utils.clip_grad_norm_(trained, task.clip_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        done()
    return losses


def _fresh(task: Task) -> Classifier:
    # PEFT's own start of A, drawn layer by layer from the seed; B is zero.
    from peft import LoraConfig, get_peft_model

    body = load_body(task.model, task.storage, task.compute)
    model = get_peft_model(body, LoraConfig(r=task.rank, lora_alpha=task.alpha, target_modules="all-linear"))
    torch.manual_seed(task.seed)
    for layer in model.modules():
        if hasattr(layer, "lora_A"):
            weight = layer.lora_A["default"].weight
            weight.data.copy_(nn.init.kaiming_uniform_(torch.empty(weight.shape), a=math.sqrt(5)))
    torch.manual_seed(task.seed)
    score_CH = nn.init.normal_(nn.Linear(int(body.config.hidden_size), task.classes, bias=False).weight, std=0.02)
    return Classifier(model, score_CH.detach(), task.compute).train()


@torch.no_grad()
def plain_probabilities(
    run: Path, task: Task, rows: Sequence[Sequence[int]], side: str, body: nn.Module | None = None
) -> torch.Tensor:
    """Probabilities [N, C] of plain PEFT over the adapter and the head that a run has saved."""
    from peft import PeftModel
    from safetensors.torch import load_file

    body = body or load_body(task.model, task.storage, task.compute)
    (score_CH,) = load_file(run / "adapter" / "head.safetensors").values()
    model = Classifier(PeftModel.from_pretrained(body, str(run / "adapter")), score_CH, task.compute).eval()
    found = [model(some, side).softmax(dim=1) for some in _batches(rows)]
    return torch.cat(found).double()


def _batches(rows: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    # In the order given, as many as fit into a batch.
    stream = iter(rows)
    while some := list(islice(stream, PREDICTED_AT_ONCE)):
        yield some


# --------------------------------------------------------------------------------------------------- this tool's


def task_of(config: Any) -> Task:
    """The rows, their order and the settings of a trial of this tool."""
    from danube_sweep.training.prepare import prepare
    from danube_sweep.training.step_plan import StepPlan

    prepared = prepare(config)
    train = prepared.parts["train"]
    plan = StepPlan(config, train, prepared.pad_id)
    steps = [micro.batch.rows.tolist() for micro in plan.micro_batches(0, _uncached)]
    precision, trainer = config.precision, config.trainer
    assert train.labels is not None and trainer.micro_batch == trainer.effective_batch
    return Task(
        model=Path(config.model.path),
        storage=precision.storage.value,
        compute=precision.compute.value,
        tokens=[row.tolist() for row in train.tokens],
        labels=train.labels.argmax(axis=1).tolist(),
        classes=len(prepared.classes),
        steps=steps,
        rank=config.lora.rank,
        alpha=config.lora.used_alpha,
        lr=config.optimizer.lr,
        weight_decay=config.optimizer.weight_decay,
        warmup_steps=min(round(config.schedule.warmup * plan.total_steps), plan.total_steps - 1),
        clip_norm=trainer.clip_norm,
        seed=config.seed,
    )


def _uncached(rows: Any, chosen: Any, pad_id: int) -> Any:
    from danube_sweep.data.batches import collate

    return collate(rows, chosen, pad_id)


def our_losses(config: Any, run: Path) -> list[float]:
    """The loss of every step as it stands in the run's metrics.csv."""
    from rich.console import Console

    from danube_sweep.terminal.quiet_libraries import quiet_libraries
    from danube_sweep.terminal.screen import Terminal
    from danube_sweep.training.run import run_trial

    quiet_libraries()
    run_trial(config, run, Terminal(Console(quiet=True)))
    with (run / "metrics.csv").open(newline="") as stream:
        return [float(row["loss"]) for row in csv.DictReader(stream) if row["part"] == "train"]


def our_probabilities(run: Path, file: Path, most: int) -> tuple[torch.Tensor, list[list[int]]]:
    """Probabilities [N, C] of `predict` on a file's first rows, and the rows' tokens."""
    from danube_sweep.inference.predict import predictions

    trained, records, rows = finished(run, file, most)
    return predictions(trained, records, swap=False, batch_rows=PREDICTED_AT_ONCE).answers_NA, rows


def finished(run: Path, file: Path, most: int) -> tuple[Any, list[Any], list[list[int]]]:
    """A finished run, a file's first records, and their tokens as the run reads them."""
    from danube_sweep.config.schema import Device
    from danube_sweep.data.encode import encode
    from danube_sweep.data.parts import read_unlabelled
    from danube_sweep.inference.predict import load_run

    trained = load_run(run, Device(accelerator="cpu", threads=torch.get_num_threads()))
    records = list(islice(read_unlabelled(trained.config.data, file), most))
    classes = len(trained.classes)
    rows = encode(records, trained.tokenizer, trained.config.data, trained.layout, num_classes=classes)
    return trained, records, [row.tolist() for row in rows.tokens]


# ------------------------------------------------------------------------------------------------------- compared


@dataclass(frozen=True)
class Compared:
    """How far apart the two sides are, for the plain side's padding on the `right` and on the `left`."""

    losses: dict[str, float]
    """The largest difference of a step's loss."""
    probabilities: dict[str, float]
    """The largest difference of a probability."""
    answers: dict[str, int]
    """Rows with another likeliest class."""
    first_and_last: tuple[float, float]
    """This tool's first and last loss."""


def compare(config: Any, run: Path, test: Path, most: int, say: Callable[[str], None] = lambda _line: None) -> Compared:
    """Trains and predicts on both sides, this tool's into `run`."""
    task = task_of(config)
    start = time.monotonic()
    ours = our_losses(config, run)
    say(f"this tool: {len(ours)} steps in {time.monotonic() - start:.0f} s, loss {ours[0]:.4f} to {ours[-1]:.4f}")
    found_NC, rows = our_probabilities(run, test, most)
    losses, probabilities, answers = {}, {}, {}
    for side in ("right", "left"):
        start = time.monotonic()
        theirs = plain_losses(task, side)
        seconds = time.monotonic() - start
        losses[side] = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
        wanted_NC = plain_probabilities(run, task, rows, side)
        probabilities[side] = float((found_NC - wanted_NC).abs().max())
        answers[side] = int((found_NC.argmax(1) != wanted_NC.argmax(1)).sum())
        say(
            f"plain, padded on the {side}: {seconds:.0f} s, losses within {losses[side]:.2e}; probabilities of "
            f"{len(rows)} rows within {probabilities[side]:.1e}, {answers[side]} with another likeliest class"
        )
    return Compared(losses, probabilities, answers, (ours[0], ours[-1]))


def overrides(model: Path, data: Path, options: argparse.Namespace) -> list[str]:
    """The trial of this tool."""
    return [
        *(options.option, f"model.path={model}", f"precision={options.precision}", "head=sequence"),
        *("data=table", f"data.path={data / 'banking77_train.csv'}", "data.max_length=48"),
        "data.validation_fraction=0.01",
        *(f"trainer.max_steps={options.steps}", f"trainer.validate_every={options.steps}", "trainer.log_every=1"),
        *(f"trainer.micro_batch={options.batch}", f"trainer.effective_batch={options.batch}"),
        *("optimizer.lr=2e-4", "optimizer.weight_decay=0.01", "device=cpu", "device.threads=1", "tracking=none"),
        *options.more,
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a folder with a pretrained decoder")
    parser.add_argument("--option", default="model=auto", help="the option of this tool that reads the folder")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DANUBE_SWEEP_DATA", "data")))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rows", type=int, default=200, help="test rows that are predicted")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "nf4", "bf16"])
    parser.add_argument("--run", type=Path, help="where this tool's run goes; by default nowhere that stays")
    parser.add_argument("more", nargs="*", help="more overrides of the trial")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)

    from danube_sweep.composer import compose

    with tempfile.TemporaryDirectory() as temporary:
        run = options.run or Path(temporary) / "run"
        config = compose(overrides(options.model.absolute(), options.data, options))
        found = compare(config, run, options.data / "banking77_test.csv", options.rows, print)
    if options.precision == "fp32" and (
        max(found.losses.values()) > LOSS_TOLERANCE or max(found.probabilities.values()) > PROBABILITY_TOLERANCE
    ):
        raise SystemExit("the two sides differ")


if __name__ == "__main__":
    main()
