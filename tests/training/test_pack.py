"""Adapters in a pack: every trial trains as it would alone, whoever trains beside it."""

import gc
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_config
from peft import PeftModel
from rich.console import Console
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, get_scheduler
from workbench import Staying, load, losses, packed, save_base, train, train_pack

from danube_sweep.config.schema import Config
from danube_sweep.config.schema.states import Verdict
from danube_sweep.errors import Dismissed, Diverged, Interrupted
from danube_sweep.optimizer.kinds.adamw import AdamW
from danube_sweep.optimizer.kinds.muon import Muon
from danube_sweep.storage.checkpoint import load_tensors
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.terminal.screen import Terminal
from danube_sweep.training.lightning_loop import PackModule, fit
from danube_sweep.training.run import run_pack
from danube_sweep.training.setup import Entrant
from danube_sweep.training.trial import ActiveTrial, Phase

Tiny = Callable[..., Config]

STEPS = ["trainer.max_steps=12", "trainer.validate_every=6", "model.lr=0.003"]
SHORT = ["trainer.max_steps=6", "trainer.validate_every=3", "model.lr=0.003"]
PRECISIONS = {
    "fp32": ([*STEPS, "precision=fp32"], 1e-5),
    "nf4": ([*SHORT, "precision=nf4", "precision.compute=fp32"], 1e-5),
    "bf16": ([*SHORT, "precision=bf16"], 2e-2),
}
"""Overrides, and how far the losses of every step may be from those of the trial alone."""
DIFFERENT = [
    ["lora.rank=4"],
    ["lora.rank=64", "optimizer=sgd", "optimizer.lr=0.1", "schedule=linear", "seed=1"],
    ["lora.rank=8", "optimizer=adamw_8bit", "schedule=constant", "head=sequence", "head.pooling=mean"],
    ["lora.rank=16", "lora.targets=qv", "lora.rslora=true", "lora.alpha=16", "trainer.clip_norm=null", "seed=3"],
    ["lora.rank=5", "lora.alpha=7", "lora.plus_ratio=4", "optimizer=muon", "optimizer.lr=${model.lr}"],
    ["lora.rank=32", "lora.last_k=1", "head.label_smoothing=0.1", "data.order_seed=2"],
    ["lora=none", "head=sequence", "optimizer=schedulefree", "schedule=constant"],
    ["lora.rank=12", "lora.dropout=0.3", "optimizer.weight_decay=0.3", "trainer.effective_batch=12", "seed=5"],
]
"""Trials that differ in rank, targets, blocks, head, loss, optimizer, schedule, clipping, batches and seed."""


def different(count: int, *overrides: str) -> list[Config]:
    return [tiny_config(*overrides, *own) for own in DIFFERENT[:count]]


@dataclass
class Followed:
    """What must not depend on who trains beside a trial."""

    train: list[float]
    validation: list[float]
    tokens: int

    def check(self, trial: ActiveTrial, within: float) -> None:
        assert trial.phase is Phase.finished and trial.error is None
        assert losses(trial) == pytest.approx(self.train, abs=within)
        assert losses(trial, "validation") == pytest.approx(self.validation, abs=within)
        assert trial.done.tokens == self.tokens


def followed(trial: ActiveTrial) -> Followed:
    return Followed(losses(trial), losses(trial, "validation"), trial.done.tokens)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Followed]]:
    """Every one of the different trials, trained alone, by precision."""
    known: dict[str, list[Followed]] = {}

    def trained(precision: str) -> list[Followed]:
        if precision not in known:
            configs = different(8 if precision == "fp32" else 4, *PRECISIONS[precision][0])
            known[precision] = [followed(train(one, tmp_path_factory.mktemp("alone"))) for one in configs]
        return known[precision]

    return trained


# ------------------------------------------------------------------------------------------------------ like alone


@pytest.mark.parametrize(
    ("precision", "count"),
    [
        ("fp32", 8),
        *(pytest.param(precision, count, marks=pytest.mark.full) for precision, count in (("fp32", 2), ("bf16", 4))),
        ("nf4", 4),
    ],
)
def test_a_trial_follows_its_losses_alone(
    tmp_path: Path, alone: Callable[[str], list[Followed]], precision: str, count: int
) -> None:
    overrides, within = PRECISIONS[precision]
    trials = train_pack(different(count, *overrides), tmp_path)
    for trial, wanted in zip(trials, alone(precision), strict=False):
        # torch's Muon takes its matrix products in bf16, whatever the weights are in.
        wanted.check(trial, max(within, 1e-3) if isinstance(trial.config.optimizer, Muon) else within)
        assert trial.most_companions == count


@pytest.mark.parametrize("more", [["precision.gradient_checkpointing=true"], ["data.batching=packed"]])
def test_checkpointing_and_flat_batches_change_nothing_of_that(tiny: Tiny, tmp_path: Path, more: list[str]) -> None:
    configs = [tiny("precision=fp32", *SHORT, *more, *own) for own in (DIFFERENT[0], DIFFERENT[7], DIFFERENT[5])]
    for number, trial in enumerate(train_pack(configs, tmp_path / "pack")):
        followed(train(configs[number], tmp_path / str(number))).check(trial, 1e-5)


def test_dropout_is_the_same_however_rows_are_laid(tiny: Tiny, tmp_path: Path) -> None:
    """A pack lays the rows of all its trials as those of its first."""
    one = ["precision=fp32", *SHORT, "lora.dropout=0.5"]
    padded, flat = (train(tiny(*one, f"data.layout={name}"), tmp_path / name) for name in ("padded", "flat"))
    assert flat.model.backbone.flat and not padded.model.backbone.flat
    followed(padded).check(flat, 1e-5)


def test_what_schedulefree_saves_is_its_average_also_where_no_rows_validate(tiny: Tiny, tmp_path: Path) -> None:
    modes = ["optimizer=schedulefree", "schedule=constant", "optimizer.lr=0.01"]
    trial = train(tiny(*SHORT, *modes, "data.validation_fraction=0"), tmp_path)
    (kept,) = tmp_path.rglob("step-00000006/head.safetensors")
    trial.optimizer.eval()
    saved, average = load_tensors(kept), dict(trial.model.head.named_parameters())
    assert all(torch.allclose(saved[name], average[name], atol=1e-7) for name in saved)
    trial.optimizer.train()
    assert not all(torch.allclose(saved[name], average[name], atol=1e-4) for name in saved)


def test_the_last_block_alone_is_trained_over_a_prefix_that_runs_once(tiny: Tiny, tmp_path: Path) -> None:
    configs = [
        tiny(
            *("precision=fp32", *SHORT, "lora.last_k=1", f"lora.rank={rank}"),
            *("model.shape.num_hidden_layers=3", "trainer.eval_batch=4"),
        )
        for rank in (4, 8, 16)
    ]
    pack, trials = packed(configs, tmp_path / "pack")
    rows: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}
    for number, block in enumerate(pack.backbone.body.layers):
        block.register_forward_pre_hook(lambda _block, given, number=number: rows[number].add(len(given[0])))
    fit(PackModule(pack, trials, Staying()), accelerator="cpu")
    assert max(rows[0]) == max(rows[1]) == 4 and max(rows[2]) == 12
    for number, trial in enumerate(trials):
        followed(train(configs[number], tmp_path / str(number))).check(trial, 1e-5)


@pytest.mark.parametrize("adapter", [["lora=none"], ["lora.last_k=1", "lora.rank=4"], ["lora.last_k=1", "lora=dora"]])
@pytest.mark.parametrize("batching", ["bucketed", "packed"])
def test_a_prefix_kept_on_disk_is_never_run_again(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: list[str], batching: str
) -> None:
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(tmp_path / "cache"))
    own = ["precision=fp32", *SHORT, *adapter, f"data.batching={batching}", "trainer.eval_batch=4"]
    wanted = followed(train(tiny(*own), tmp_path / "run"))
    for place in ("first", "again"):
        pack, trials = packed([tiny(*own, "data.cache_prefix=true")], tmp_path / place)
        calls: list[int] = []
        pack.backbone.body.layers[0].mlp.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        fit(PackModule(pack, trials, Staying()), accelerator="cpu")
        wanted.check(trials[0], 1e-5)
        assert bool(calls) == (place == "first")


def test_a_kept_prefix_is_never_fatal(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(cache))
    own = ["precision=fp32", *SHORT, "lora.last_k=1", "lora.rank=4"]
    wanted = followed(train(tiny(*own), tmp_path / "run"))

    def check(said: str, times: int) -> None:
        caplog.clear()
        (trial,) = train_pack([tiny(*own, "data.cache_prefix=true")], tmp_path / said / str(times))
        wanted.check(trial, 1e-5)
        assert caplog.text.count(said) == times

    check("is damaged", 0)
    files = sorted((cache / "prefix").glob("*.states"))
    files[0].write_bytes(files[0].read_bytes()[:-1] + b"!")
    files[1].with_suffix(".sha256").unlink()
    check("is damaged; its states are computed again", 2)
    check("is damaged;", 0)
    shutil.rmtree(cache / "prefix")
    (cache / "prefix").write_text("a file where the folder should be")
    check("the states below the adapted blocks are not kept but computed in every step", 2)


def test_trials_that_read_the_same_rows_share_a_kept_prefix(tiny: Tiny, tmp_path: Path) -> None:
    own = ["precision=nf4", "precision.compute=fp32", *SHORT, "data.cache_prefix=true", "lora.last_k=1"]
    configs = [tiny(*own, f"seed={seed}", f"data.order_seed={seed % 2}") for seed in range(3)]
    for number, trial in enumerate(train_pack(configs, tmp_path / "pack")):
        followed(train(configs[number], tmp_path / str(number))).check(trial, 1e-5)


# ------------------------------------------------------------------------------------------------- like plain PEFT


def plain_losses(config: Config, base: Path, adapter: Path, trial: ActiveTrial) -> Iterator[float]:
    """The losses of a trial by transformers, PEFT and torch alone, from the same first weights."""
    body = PeftModel.from_pretrained(AutoModel.from_pretrained(base, dtype=torch.float32), adapter, is_trainable=True)
    head = nn.Linear(body.config.hidden_size, 3)
    start = dict(trial.model.head.named_parameters())
    head.load_state_dict({name.rpartition(".")[2]: value.detach().clone() for name, value in start.items()})
    trained = [one for one in [*body.parameters(), *head.parameters()] if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.optimizer.lr, weight_decay=0.0)
    schedule = get_scheduler("linear", optimizer, 0, trial.plan.total_steps)
    from danube_sweep.training.step_plan import Collator

    step = 0.0
    for micro in trial.plan.micro_batches(0, Collator(torch.device("cpu"))):
        batch = micro.batch
        hidden = body(input_ids=batch.input_ids_BT, attention_mask=batch.mask_BT.long()).last_hidden_state
        mean = (hidden * batch.mask_BT.unsqueeze(2)).sum(dim=1) / batch.mask_BT.sum(dim=1, keepdim=True)
        loss = F.cross_entropy(head(mean), batch.labels_BC) * micro.share
        loss.backward()
        step += loss.item()
        if micro.last:
            nn.utils.clip_grad_norm_(trained, config.trainer.clip_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            yield step
            step = 0.0


def test_a_trial_of_a_pack_follows_plain_peft(tiny: Tiny, tmp_path: Path) -> None:
    base = tmp_path / "base"
    save_base(tiny(), base)
    own = ["precision=fp32", *STEPS, f"model.path={base}", "head=sequence", "head.pooling=mean", "schedule=linear",
           "schedule.warmup=0", "optimizer.weight_decay=0"]  # fmt: skip
    configs = [tiny(*own, f"lora.rank={rank}", f"seed={rank}") for rank in (4, 6, 32)]
    pack, trials = packed(configs, tmp_path / "pack")
    wanted = []
    for trial in trials:
        assert trial.model.packed is not None
        adapter = tmp_path / f"start-{trial.model.packed.config.rank}"
        trial.model.packed.description().save_pretrained(str(adapter))
        from safetensors.torch import save_file

        state = {name: value.detach().clone() for name, value in trial.model.packed.state(pack.backbone).items()}
        save_file(state, adapter / "adapter_model.safetensors")
        wanted.append(list(plain_losses(trial.config, base, adapter, trial)))
    fit(PackModule(pack, trials, Staying()), accelerator="cpu")
    for trial, plain in zip(trials, wanted, strict=True):
        assert losses(trial) == pytest.approx(plain, abs=1e-5)


def test_plain_peft_loads_an_adapter_from_a_pack(tiny: Tiny, tmp_path: Path) -> None:
    base = tmp_path / "base"
    save_base(tiny(), base)
    door = Visitors()
    own = ["precision=fp32", *SHORT, f"model.path={base}"]
    entrants = [entrant(tiny(*own, f"lora.rank={rank}", f"seed={rank}"), tmp_path / str(rank)) for rank in (4, 16)]
    run_pack(entrants, door)
    assert [error for _, error in door.ends] == [None, None]
    for one in entrants:
        plain = PeftModel.from_pretrained(AutoModel.from_pretrained(base, dtype=torch.float32), one.path / "adapter")
        moved = [value for name, value in plain.named_parameters() if "lora_B" in name]
        assert len(moved) == 14 and all(float(value.abs().sum()) > 0 for value in moved)
        assert moved[0].shape[1] == one.config.lora.rank


# ------------------------------------------------------------------------------------------------ others' misfortune


def test_a_trial_that_diverges_changes_no_bit_of_another(tiny: Tiny, tmp_path: Path) -> None:
    together = ["precision=fp32", *SHORT, "trainer.log_every=100", "trainer.validate_every=6", "lora.rank=4"]
    healthy, other = tiny(*together), tiny(*together, "seed=1")
    wild = tiny(*together, "seed=1", "optimizer=sgd", "optimizer.lr=1e30", "schedule.warmup=0")
    with_wild, with_other = train_pack([healthy, wild], tmp_path / "a"), train_pack([healthy, other], tmp_path / "b")
    assert losses(with_wild[0]) == losses(with_other[0])
    assert losses(with_wild[0], "validation") == losses(with_other[0], "validation")
    for name, parameter in with_wild[0].model.parameters.items():
        assert torch.equal(parameter, with_other[0].model.parameters[name])
    assert with_wild[1].phase is Phase.failed and isinstance(with_wild[1].error, Diverged)
    assert not all(map(math.isfinite, losses(with_wild[1])))


# ---------------------------------------------------------------------------------------------- coming, going, stops


@dataclass
class Visitors:
    """The door of a pack: who waits outside, and what became of those who left."""

    waiting: list[Entrant] = field(default_factory=list)
    unwanted: dict[str, int] = field(default_factory=dict)
    """Folder -> the border at which its trial is to leave."""
    ends: list[tuple[str, BaseException | None]] = field(default_factory=list)

    def next(self) -> Entrant | None:
        return self.waiting.pop(0) if self.waiting else None

    def dismisses(self, entrant: Entrant) -> str | None:
        left = self.unwanted[entrant.path.name] = self.unwanted.get(entrant.path.name, 10**6) - 1
        return "its time is over" if left <= 0 else None

    def left(self, entrant: Entrant, error: BaseException | None) -> None:
        self.ends.append((entrant.path.name, error))


def entrant(config: Config, path: Path, **more: Any) -> Entrant:
    return Entrant(config, path, Terminal(Console(quiet=True)), **more)


def result_of(path: Path) -> dict[str, Any]:
    result = RunFolder(path).read_result()
    assert result is not None
    return {key: value for key, value in result.items() if key not in ("measured", "predicted")}


def alike(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            alike(one[key], other[key])
    else:
        assert one == (pytest.approx(other, abs=1e-5) if isinstance(one, float) else other)


def prune_after_the_first(validations: int) -> Verdict:
    return Verdict.prune if validations == 1 else Verdict.go_on


def test_a_trial_that_leaves_gives_its_place_to_one_that_waits(tiny: Tiny, tmp_path: Path) -> None:
    own = [["precision=fp32", *SHORT, *more] for more in (*DIFFERENT[:4], ["lora.rank=6", "trainer.max_steps=2"])]
    entrants = [entrant(tiny(*more), tmp_path / "pack" / str(number)) for number, more in enumerate(own)]
    entrants[0] = entrant(
        entrants[0].config,
        entrants[0].path,
        judge=prune_after_the_first,
    )
    door = Visitors([entrants[4], entrants[2]])
    run_pack([entrants[0], entrants[1], entrants[3]], door)
    assert [error for _, error in door.ends] == [None] * 5 and not door.waiting
    assert {name for name, _ in door.ends[:2]} == {"0", "4"}
    for number, one in enumerate(entrants):
        solo = entrant(one.config, tmp_path / "solo" / str(number), judge=one.judge)
        run_pack([solo], Visitors())
        alike(result_of(one.path), result_of(solo.path))
    assert result_of(entrants[0].path)["state"] == "pruned"


def test_places_that_were_refused_are_all_filled_later(tiny: Tiny, tmp_path: Path) -> None:
    first, *later = [entrant(tiny(*SHORT, f"seed={seed}"), tmp_path / str(seed)) for seed in range(6)]

    class Slow(Visitors):
        def next(self) -> Entrant | None:
            return super().next() if len(self.ends) == 3 else None

    run_pack([first, *later[:2]], door := Slow(later[2:]))
    assert len(door.ends) == 6
    results = [RunFolder(tmp_path / str(seed)).read_result() or {} for seed in range(6)]
    assert [result["measured"]["packed"] for result in results] == [3] * 6


def test_a_trial_moves_between_a_pack_and_a_run_of_its_own(tiny: Tiny, tmp_path: Path) -> None:
    first, second = (tiny("precision=fp32", *SHORT, f"lora.rank={rank}", "lora.dropout=0.2") for rank in (4, 9))
    run_pack([entrant(first, tmp_path / "whole")], Visitors())
    for start_in_pack in (True, False):
        path = tmp_path / f"moved-{start_in_pack}"
        beside = [entrant(second, tmp_path / f"beside-{start_in_pack}")]
        halfway = Visitors(unwanted={path.name: 2})
        run_pack([entrant(first, path), *(beside if start_in_pack else [])], halfway)
        assert isinstance(dict(halfway.ends)[path.name], Dismissed)
        run_pack([entrant(first, path), *([] if start_in_pack else beside)], Visitors())
        alike(result_of(path), result_of(tmp_path / "whole"))


def test_a_trial_whose_run_is_stopped_on_its_page_leaves_alone(tiny: Tiny, tmp_path: Path) -> None:
    import wandb

    def stop_the_other(_validations: int) -> Verdict:
        wandb.setup().most_recent_active_run.settings.stop_fn()  # what W&B calls when its server says so
        return Verdict.go_on

    own = [*SHORT, "precision=fp32", "tracking=wandb", "tracking.mode=offline"]
    first = entrant(tiny(*own), tmp_path / "0", judge=stop_the_other)
    run_pack([first, entrant(tiny(*own, "seed=1"), tmp_path / "1")], (door := Visitors()))
    ends = dict(door.ends)
    assert ends["0"] is None and isinstance(ends["1"], Interrupted) and "at step 4 of 6" in str(ends["1"])
    assert [path.name for path in (tmp_path / "1" / "checkpoints").iterdir()] == ["step-00000003", "step-00000004"]


def test_one_mistake_keeps_one_trial_out_of_a_pack(tiny: Tiny, tmp_path: Path) -> None:
    good = [entrant(tiny("precision=fp32", *SHORT, f"seed={seed}"), tmp_path / str(seed)) for seed in (0, 1)]
    bad = entrant(tiny("precision=fp32", *SHORT, "lora.layers=[1]"), tmp_path / "bad")
    bad.config.lora.layers = [7]
    door = Visitors()
    run_pack([good[0], bad, good[1]], door)
    assert "lora.layers must be under 2" in str(dict(door.ends)["bad"])
    assert dict(door.ends)["0"] is None and dict(door.ends)["1"] is None
    assert not (tmp_path / "bad" / "config.yaml").exists()
    run_pack(good, (again := Visitors()))
    assert [error for _, error in again.ends] == [None, None]


def test_results_say_how_many_trained_together(tiny: Tiny, tmp_path: Path) -> None:
    from danube_sweep.storage.run_folder import RunFolder

    entrants = [entrant(tiny("precision=fp32", *SHORT, f"seed={seed}"), tmp_path / str(seed)) for seed in (0, 1, 2)]
    run_pack(entrants, Visitors())
    for one in entrants:
        measured = (RunFolder(one.path).read_result() or {})["measured"]
        assert measured["packed"] == 3 and measured["seconds"]["train"] > 0 and measured["tokens_per_s"] > 0


def test_parameters_are_views_of_stacks_without_gaps(tiny: Tiny, tmp_path: Path) -> None:
    ranks = [4, 64, 8, 4, 32, 4]
    pack, trials = packed([tiny("precision=fp32", f"lora.rank={rank}") for rank in ranks], tmp_path)
    pack.arrange(trials)
    layer: Any = pack.backbone.body.layers[0].self_attn.q_proj
    assert sorted(tuple(group.a_nRI.shape[:2]) for group in layer._groups) == [(1, 8), (1, 32), (1, 64), (3, 4)]
    for trial in trials:
        for name, parameter in trial.model.adapter.items():
            assert parameter.shape[0 if "lora_A" in name else 1] == trial.config.lora.rank
            assert parameter.is_contiguous()  # an 8-bit optimizer steps on memory
    with torch.no_grad():
        trials[0].model.adapter["model.layers.0.self_attn.q_proj.lora_A.default.weight"].fill_(7.0)
    assert any(bool((group.a_nRI == 7.0).any()) for group in layer._groups)


def test_one_optimizer_that_cannot_be_built_keeps_one_trial_out(tiny: Tiny, tmp_path: Path) -> None:
    good, bad = (entrant(tiny("precision=fp32", *SHORT, f"seed={seed}"), tmp_path / str(seed)) for seed in (0, 1))
    assert isinstance(bad.config.optimizer, AdamW)
    bad.config.optimizer.beta1 = 2.0
    run_pack([good, bad], (door := Visitors()))
    assert dict(door.ends)["0"] is None and "Invalid beta parameter" in str(dict(door.ends)["1"])


def test_a_trial_with_other_targets_enters_an_int8_pack(tiny: Tiny, tmp_path: Path) -> None:
    own = ["precision=int8", *SHORT]
    first = entrant(tiny(*own, "lora.targets=qv", "trainer.max_steps=3"), tmp_path / "0")
    second = entrant(tiny(*own, "lora.targets=qv", "seed=1"), tmp_path / "1")
    door = Visitors([entrant(tiny(*own, "lora.targets=all_linear"), tmp_path / "2")])
    run_pack([first, second], door)
    assert dict(door.ends) == {"0": None, "1": None, "2": None}


def test_who_has_left_is_let_go(tiny: Tiny, tmp_path: Path) -> None:
    configs = [tiny("precision=fp32", *SHORT, f"seed={seed}", "trainer.max_steps=2") for seed in range(4)]
    entrants = [entrant(config, tmp_path / str(number)) for number, config in enumerate(configs)]
    held: list[int] = []

    def counting(_validations: int) -> Verdict:
        gc.collect()
        held.append(sum(isinstance(one, ActiveTrial) for one in gc.get_objects()))
        return Verdict.go_on

    last = entrant(tiny("precision=fp32", *SHORT, "seed=9"), tmp_path / "9", judge=counting)
    run_pack(entrants[:2], Visitors([*entrants[2:], last]))
    assert held[-1] - held[0] <= 0 and held[-1] <= 3


def test_a_prefix_written_in_an_evaluation_leaves_it_an_evaluation(tiny: Tiny, tmp_path: Path) -> None:
    own = ["precision=fp32", *SHORT, "lora=dora", "lora.last_k=1", "lora.dropout=0.5", "data.cache_prefix=true"]
    seen = []
    for place in ("first", "again"):
        trial = train(tiny(*own), tmp_path / place)
        seen.append(losses(trial, "validation"))
    assert seen[0] == seen[1]


def test_the_backbone_is_as_it_was_when_all_have_left(tiny: Tiny, tmp_path: Path) -> None:
    configs = [tiny("precision=nf4", *SHORT, f"lora.rank={rank}") for rank in (4, 8)]
    pack, trials = packed(configs, tmp_path)
    ids_BT, mask_BT = torch.tensor([[1, 5, 6, 7]]), torch.ones(1, 4, dtype=torch.bool)
    fit(PackModule(pack, trials, Staying()), accelerator="cpu")
    pack.adapters.expect([], {})
    assert torch.equal(pack.backbone.hidden(ids_BT, mask_BT), load(configs[0]).hidden(ids_BT, mask_BT))
