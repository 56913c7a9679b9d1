"""A sweep as a competent user writes it without this tool: transformers, PEFT, bitsandbytes and transformers.Trainer.

    python benchmarks/baseline_hf.py [--quick] [--device cuda]   # beside this tool: the same losses? and the seconds
    python benchmarks/baseline_hf.py --task FOLDER --log FILE    # alone, over what sides.write_task left

No straw man. One warm process trains all trials, one after the other: the libraries are imported, the rows encoded and
the backbone loaded and quantised once, and only the adapter and the head change. Batches are grouped by length (blocks
of 50 batches, as Trainer's own `group_by_length` has them) and evaluation is sorted by length; the optimizer is
Trainer's default, fused; nothing is saved. It knows of bitsandbytes' repacking on CPUs with AVX512-BF16, without which
4-bit training would quietly go wrong. The comparison is about training: rows, tokens and the order of the batches are
this tool's, made before the clock starts, so that both sides see the same batches and must reach the same losses.

With a folder of arena_human.csv (`--data`, or DANUBE_SWEEP_DATA) the rows are the arena's, else generated ones.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parent))

from readings import Log

from danube_sweep.data.batches import Batch, collate, epoch_steps, eval_batches
from danube_sweep.data.encoded import Encoded, load

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Task:
    """What the trials of a sweep have in common."""

    model: str
    storage: str
    compute: str
    double_quant: bool
    pooling: str
    classes: int
    pad_id: int
    batch: int
    eval_batch: int
    bucketed: bool
    steps: int
    validate_every: int
    clip_norm: float
    device: str = "cpu"


@dataclass(frozen=True)
class Trial:
    """What a trial is to PEFT and to Trainer; `rank` 0 trains the head alone."""

    name: str
    order_seed: int
    seed: int
    rank: int
    alpha: float
    targets: list[str]
    last_k: int | None
    lr: float
    weight_decay: float
    schedule: str
    warmup_steps: int
    label_smoothing: float


# --------------------------------------------------------------------------------------------------- the user's script


def load_body(task: Task) -> nn.Module:
    """The frozen backbone, stored and computing as asked."""
    from transformers import AutoModel, BitsAndBytesConfig
    from transformers.utils import logging

    from danube_sweep.model.precision import keep_weights_as_loaded

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    compute = DTYPES[task.compute]
    options: dict[str, Any] = {"dtype": compute, "device_map": {"": task.device}}
    if task.storage in ("nf4", "fp4"):
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=task.storage,
            bnb_4bit_compute_dtype=compute,
            bnb_4bit_use_double_quant=task.double_quant,
        )
    elif task.storage == "int8":
        options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    body = AutoModel.from_pretrained(task.model, **options)
    body.config.use_cache = False
    if task.storage in ("nf4", "fp4") and task.device == "cpu":
        keep_weights_as_loaded(body)
    return body.requires_grad_(False).train()


def adapted(body: nn.Module, trial: Trial) -> nn.Module:
    """The backbone with a fresh adapter in fp32; `unload()` gives the backbone back."""
    from peft import LoraConfig, get_peft_model

    if trial.rank == 0:
        return body
    layers = int(body.config.num_hidden_layers)
    chosen = None if trial.last_k is None else list(range(layers - trial.last_k, layers))
    description = LoraConfig(
        r=trial.rank,
        lora_alpha=trial.alpha,
        target_modules=trial.targets,
        layers_to_transform=chosen,
        layers_pattern=None if chosen is None else "layers",
    )
    model = get_peft_model(body, description)
    torch.manual_seed(trial.seed)
    for layer in model.modules():
        if hasattr(layer, "lora_A"):
            # PEFT's own start, drawn once instead of twice: the numbers that this tool has.
            weight = layer.lora_A["default"].weight
            weight.data.copy_(nn.init.kaiming_uniform_(torch.empty(weight.shape), a=math.sqrt(5)))
    return model


class Classifier(nn.Module):
    """The backbone, a pooling and a linear layer.

    `last` takes the last token, `mean` the mean over all. `pair` takes the difference of the means over the two answers
    and how much longer the first one is, and the absolute value of both.
    """

    def __init__(self, body: nn.Module, task: Task, trial: Trial) -> None:
        super().__init__()
        self.body, self.pooling, self.smoothing = body, task.pooling, trial.label_smoothing
        hidden = int(body.config.hidden_size)
        torch.manual_seed(trial.seed)
        self.score = nn.Linear(
            2 * hidden + 2 if task.pooling == "pair" else hidden, task.classes, task.pooling != "last"
        )
        nn.init.normal_(self.score.weight, std=0.02)
        if self.score.bias is not None:
            nn.init.zeros_(self.score.bias)
        self.score.to(task.device)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        spans: torch.Tensor,
        sizes: torch.Tensor,
        labels: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        states = self.body(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        if self.pooling == "last":
            states = states[torch.arange(len(states)), attention_mask.sum(dim=1) - 1].float()
        elif self.pooling == "mean":
            states = torch.einsum("bt,bth->bh", attention_mask.float(), states.float())
            states = states / attention_mask.sum(dim=1, keepdim=True)
        else:
            states = self._pair(states.float(), spans, sizes)
        logits = self.score(states)
        return {"loss": F.cross_entropy(logits, labels, label_smoothing=self.smoothing), "logits": logits}

    def _pair(self, states: torch.Tensor, spans: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
        places = torch.arange(states.shape[1], device=states.device)
        read = []
        for text in (-2, -1):
            inside = ((places >= spans[:, text, :1]) & (places < spans[:, text, 1:])).to(states.dtype)
            mean = torch.einsum("bt,bth->bh", inside, states) / inside.sum(dim=1, keepdim=True).clamp(min=1)
            length = sizes[:, text, None].to(states.dtype).log1p() * states.shape[2] ** 0.5
            read.append(torch.cat([mean, length], dim=1))
        difference = read[0] - read[1]
        both = torch.split(difference, [states.shape[2], 1], dim=1)
        return torch.cat([piece for part in both for piece in (part, part.abs())], dim=1)


def inputs_of(batch: Batch) -> dict[str, torch.Tensor]:
    """A padded batch under the names that `Classifier.forward` has for it."""
    assert batch.labels_BC is not None
    return {
        "input_ids": batch.input_ids_BT,
        "attention_mask": batch.mask_BT.long(),
        "spans": batch.spans_BK2,
        "sizes": batch.sizes_BK,
        "labels": batch.labels_BC,
    }


class Epochs:
    """Trainer asks for an epoch at a time: the rows of its batches, in the order of the trial."""

    def __init__(self, rows: Encoded, task: Task, trial: Trial) -> None:
        self._lengths, self._task, self._trial, self._epoch = rows.lengths, task, trial, 0

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._task.batch)

    def __iter__(self) -> Iterator[list[int]]:
        size, seed, bucketed = self._task.batch, self._trial.order_seed, self._task.bucketed
        steps = epoch_steps(
            self._lengths,
            micro_batch=size,
            effective_batch=size,
            seed=seed,
            epoch=self._epoch,
            bucketed=bucketed,
        )
        self._epoch += 1
        yield from (rows.tolist() for (rows,) in steps)


def train_all(task: Task, trials: Sequence[Trial], parts: dict[str, Encoded], file: Path) -> None:
    """Trains every trial that the log in `file` does not have whole; its events are those of `readings.Log`.

    The test part, if there is one, is read with the weights of the best validation, after the trial's `end`, and only
    where that is the best of all trials so far: nobody scores the others.
    """
    log = Log(file)
    known = log.courses("cpu")
    lowest = min((course.best for course in known.values()), default=math.inf)
    left = [trial for trial in trials if trial.name not in known]
    for library in ("peft", "transformers.trainer"):  # so that the first trial costs no more than another in its place
        import_module(library)
    body = load_body(task) if left else nn.Module()
    for trial in left:
        note = partial(_note, log, trial)
        note("start")
        model = adapted(body, trial)
        whole = Classifier(model, task, trial)
        best = Best(whole, note)
        trainer = _trainer(whole, task, trial, parts, best)
        trainer.train()
        note("end")
        leads = best.loss < lowest and "test" in parts
        note("test", losses=best.test(trainer, parts["test"], task) if leads else [])
        lowest = min(lowest, best.loss)
        body = body if trial.rank == 0 else model.unload()


def _note(log: Log, trial: Trial, event: str, **fields: Any) -> None:
    log.append(event, time.time(), time.process_time(), trial=trial.name, **fields)


class Best:
    """The trained weights at the best validation so far, as `load_best_model_at_end` has them, but in memory."""

    def __init__(self, model: nn.Module, note: Callable[..., None]) -> None:
        self._model, self._note = model, note
        self.loss, self._weights = math.inf, dict[str, torch.Tensor]()

    def validated(self, step: int, loss: float) -> None:
        self._note("validation", step=step, log_loss=loss)
        if loss < self.loss:
            trained = {name: one for name, one in self._model.named_parameters() if one.requires_grad}
            self.loss, self._weights = loss, {name: one.detach().clone() for name, one in trained.items()}

    def test(self, trainer: Any, rows: Encoded, task: Task) -> list[float]:
        """The log losses of the rows."""
        self._model.load_state_dict(self._weights, strict=False)
        found = trainer.predict(range(len(rows.ids)))
        losses_N = np.empty(len(rows.ids))
        losses_N[np.concatenate(eval_batches(rows.lengths, task.eval_batch))] = _log_losses(found)
        return [float(loss) for loss in losses_N]


def _trainer(model: nn.Module, task: Task, trial: Trial, parts: dict[str, Encoded], best: Best) -> Any:
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    def loader(part: str, batches: Any) -> DataLoader[Any]:
        def padded(rows: list[int]) -> dict[str, torch.Tensor]:
            return inputs_of(collate(parts[part], np.array(rows), task.pad_id))

        return DataLoader(range(len(parts[part].ids)), batch_sampler=batches, collate_fn=padded)  # type: ignore[arg-type]

    def longest_first(part: str) -> DataLoader[Any]:
        return loader(part, [rows.tolist() for rows in eval_batches(parts[part].lengths, task.eval_batch)])

    class OurTrainer(Trainer):
        def get_train_dataloader(self) -> DataLoader[Any]:
            return loader("train", Epochs(parts["train"], task, trial))

        def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
            return longest_first("validation")

        def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
            return longest_first("test")

    class Writer(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **more: Any) -> None:
            best.validated(state.global_step, metrics["eval_log_loss"])

    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(),
        use_cpu=task.device == "cpu",
        seed=trial.seed,
        max_steps=task.steps,
        per_device_train_batch_size=task.batch,
        per_device_eval_batch_size=task.eval_batch,
        learning_rate=trial.lr,
        weight_decay=trial.weight_decay,
        lr_scheduler_type=trial.schedule,
        warmup_steps=trial.warmup_steps,
        max_grad_norm=task.clip_norm,
        bf16=task.compute == "bf16",
        fp16=task.compute == "fp16",
        eval_strategy="steps",
        eval_steps=task.validate_every,
        save_strategy="no",
        logging_strategy="no",
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to="none",
    )
    rows = {
        f"{name}_dataset": range(len(parts[part].ids)) for name, part in (("train", "train"), ("eval", "validation"))
    }
    trainer = OurTrainer(model, arguments, compute_metrics=_log_loss, callbacks=[Writer()], **rows)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _log_losses(found: Any) -> Any:
    logits = found.predictions[0] if isinstance(found.predictions, tuple) else found.predictions
    shares = torch.from_numpy(logits).float().softmax(dim=1).double().clamp(min=1e-15)
    return -(torch.from_numpy(found.label_ids) * shares.log()).sum(dim=1).numpy()


def _log_loss(found: Any) -> dict[str, float]:
    return {"log_loss": float(_log_losses(found).mean())}


def read_task(folder: Path) -> tuple[Task, list[Trial], dict[str, Encoded]]:
    """What `sides.write_task` wrote."""
    described = json.loads((folder / "task.json").read_text())
    parts = {file.stem: load(file) for file in folder.glob("*.npz")}
    return Task(**described["task"]), [Trial(**one) for one in described["trials"]], parts


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", type=Path, help="train the task in this folder and do nothing else")
    parser.add_argument("--log", type=Path, help="where its evaluations go")
    parser.add_argument("--quick", action="store_true", help="a model of two blocks 64 wide instead of eight of 768")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DANUBE_SWEEP_DATA", "data")))
    options = parser.parse_args(arguments)
    if options.task is not None:
        torch.set_num_threads(1)
        task, trials, parts = read_task(options.task)
        train_all(task, trials, parts, options.log)
        return
    from sides import side_by_side

    with tempfile.TemporaryDirectory() as temporary:
        side_by_side(options, Path(temporary))


if __name__ == "__main__":
    main()
