"""device.sharding=full: ranks that divide the weights train the trial that one process trains."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hostile
import pytest
import runs
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from sweeps import numbers, on_ranks, planned, run, seeds
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoModel

from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Config
from danube_sweep.errors import ConfigError
from danube_sweep.model.backbone import architecture
from danube_sweep.model.sharded import gathered, own_part
from danube_sweep.planner.memory import memory_of
from danube_sweep.planner.planned_architecture import planned_architecture
from danube_sweep.storage.files import read_json
from danube_sweep.sweeping.execute.asked_devices import asked_count, with_devices

Tiny = Callable[..., Config]

TRIAL = [
    "precision=fp32", "data.rows=40", "data.max_length=32", "trainer.max_steps=4", "trainer.validate_every=2",
    "trainer.log_every=1", "trainer.micro_batch=2", "trainer.effective_batch=6", "head=sequence", "head.dropout=0.2",
    "model.lr=0.003", "trainer.eval_batch=3",
]  # fmt: skip
SHARDED = ["device.count=2", "device.sharding=full"]
FULL = ["lora=full", "trainer.clip_norm=0.5", "data.test_fraction=0.2", "trainer.score_test=true"]


def whole(config: Config) -> Config:
    return with_devices(config, ["device.count=1", "device.sharding=none"])


def body_bytes(config: Config) -> int:
    """Bytes of a body's fp32 weights, as transformers counts them."""
    with torch.device("meta"):
        return 4 * int(AutoModel.from_config(architecture(config.model)).num_parameters())


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A trial with lora=full and its run by one process."""
    from conftest import tiny_config

    config, folder = tiny_config(*TRIAL, *FULL, *SHARDED), tmp_path_factory.mktemp("alone")
    runs.train(whole(config), folder)
    return config, folder


def test_a_trial_over_divided_weights_is_the_trial_over_whole_ones(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(*TRIAL, "lora.dropout=0.2", "precision.gradient_checkpointing=true", *SHARDED)
    assert trial_hash(config) == trial_hash(whole(config))
    runs.train(whole(config), tmp_path / "one")
    assert on_ranks(config, tmp_path / "run", 2) == 0, (tmp_path / "log.txt").read_text()
    assert numbers(tmp_path / "run") == pytest.approx(numbers(tmp_path / "one"), abs=1e-5)
    found, wanted = (read_json(tmp_path / name / "result.json") for name in ("run", "one"))
    assert (found["trial"], found["parameters"]) == (wanted["trial"], wanted["parameters"])
    assert found["measured"]["backbone_bytes"] == body_bytes(config) // 2  # the tensors have even numbers of rows
    assert "backbone_bytes" not in wanted["measured"]


def test_a_pack_over_divided_weights_fills_its_places_again(tmp_path: Path) -> None:
    trial = [one for one in TRIAL if not one.startswith("head")]
    own = [
        *trial,
        "head=causal",
        "head.words=[A,B,tie]",
        "data.max_length=40",
        "trainer.max_steps=2",
        "trainer.validate_every=1",
    ]
    cells = [[f"seed={seed}", f"trainer.effective_batch={batch}"] for seed, batch in ((1, 6), (2, 4), (3, 6))]
    together = run(planned(tmp_path / "ranks", cells, *own, *SHARDED, "sweep.pack=2"))
    assert together.error is None and together.states() == ["finished"] * 3, together.said
    assert {trial["pack"] for number in (1, 2, 3) for trial in [vars(together.attempts(number)[-1])]} == {"p001"}
    single = run(planned(tmp_path / "one", cells, *own, "sweep.pack=3"))
    for number in (1, 2, 3):
        assert numbers(together[number].path) == pytest.approx(numbers(single[number].path), abs=1e-5)


def test_full_training_over_divided_weights_is_that_over_whole_ones(full: tuple[Config, Path], tmp_path: Path) -> None:
    config, one = full
    assert on_ranks(config, tmp_path / "run", 3) == 0, (tmp_path / "log.txt").read_text()
    assert numbers(tmp_path / "run") == pytest.approx(numbers(one), abs=1e-5)
    norms = [[float(row["grad_norm"]) for row in runs.metrics(folder, "train")] for folder in (tmp_path / "run", one)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4) and max(norms[0]) > 0.5  # some are clipped
    trained, wanted = (load_file(folder / "model" / "model.safetensors") for folder in (tmp_path / "run", one))
    assert trained.keys() == wanted.keys()
    apart = {name: float((trained[name] - wanted[name]).abs().max()) for name in wanted}
    assert max(apart.values()) < 3e-4, apart  # a tenth of one of AdamW's steps, which small gradients make too
    kinds = [read_json(folder / "model" / "config.json")["architectures"] for folder in (tmp_path / "run", one)]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("rank", [0, 1])
def test_only_the_first_rank_keeps_what_the_ranks_gather(rank: int) -> None:
    dist.init_process_group("fake", rank=rank, world_size=2, store=FakeStore())
    try:
        mesh = init_device_mesh("cpu", (2,))
        divided = distribute_tensor(torch.ones(5, 2), mesh, [Shard(0)], src_data_rank=None)
        found = gathered(own_part(divided), divided)
    finally:
        dist.destroy_process_group()
    assert found.shape == (torch.Size([5, 2]) if rank == 0 else torch.Size([0]))
    assert found.untyped_storage().nbytes() == found.nbytes  # no padding, which safetensors refuses


def test_a_checkpoint_moves_between_divided_and_whole_weights(full: tuple[Config, Path], tmp_path: Path) -> None:
    config, one = full
    folder = tmp_path / "run"
    assert on_ranks(config, folder, 2, stop_at=1) != 0 and not (folder / "result.json").exists()
    with pytest.raises(Exception, match="go on with: danube-sweep resume"):
        runs.train(whole(config), folder, stop=runs.StopAfter(1))
    refused = runs.command("resume", "run", "device.count=1", "device.sharding=full", cwd=tmp_path)
    assert refused.returncode == 2 and "device.sharding=full divides the weights among" in refused.stderr
    done = runs.command("resume", "run", "device.count=2", "device.sharding=full", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found, wanted = read_json(folder / "result.json"), read_json(one / "result.json")
    assert "backbone_bytes" in found["measured"] and found["test"] == pytest.approx(wanted["test"], abs=1e-5)
    assert numbers(folder) == pytest.approx(numbers(one), abs=1e-5)


def test_a_rank_with_divided_weights_that_dies_ends_its_trial_once(tmp_path: Path) -> None:
    plan = planned(tmp_path, [["seed=1"]], *TRIAL, *SHARDED)
    ran = run(plan, hostile.others_are_killed, stall_s=30.0, retry=[])
    assert ran.states() == ["killed"] and ran.attempts(1)[-1].reason == "killed by SIGKILL"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (["device.sharding=half"], "device.sharding must be none or full, got half"),
        (["device.sharding=full"], "device.sharding=full divides the weights among device.count GPUs, got device.cou"),
        ([*SHARDED, "precision=nf4"], "device.sharding=full: precision.storage=nf4 cannot be divided"),
        ([*SHARDED, "precision=int8"], "device.sharding=full: precision.storage=int8 cannot be divided"),
        ([*SHARDED, "lora=dora"], "device.sharding=full: this adapter (Dora) trains in PEFT's layers"),
        ([*SHARDED, "data.cache_prefix=true", "lora.last_k=1", "lora.dropout=0"], "device.sharding=full: data.cache_p"),
        ([*SHARDED, "trainer.benchmark=[arc_easy]"], "device.sharding=full: trainer.benchmark=['arc_easy'] is scored"),
        ([*SHARDED, "lora=full", "optimizer=muon"], "device.sharding=full with lora=full: this optimizer (Muon) reads"),
    ],
)
def test_what_cannot_be_divided_is_refused(tiny: Tiny, override: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        tiny("precision=fp32", *override)
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)


def test_one_device_holds_the_whole_backbone_and_a_line_tells(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(*TRIAL, "device.count=all", "device.sharding=full", "trainer.max_steps=1")
    runs.train(config, tmp_path)
    assert "device.sharding=full divides nothing here" in (tmp_path / "log.txt").read_text()


def test_a_sweep_over_divided_weights_goes_on_with_one_device(tmp_path: Path) -> None:
    plan = planned(tmp_path, seeds(1), *TRIAL, *SHARDED, "trainer.max_steps=1")
    assert asked_count(plan.folder, ["device.count=1"]) == {1}
    ran = run(replace(plan, counts=frozenset({1})))
    assert ran.states() == ["finished"]
    assert "device.sharding=full divides nothing here" in (ran[1].path / "log.txt").read_text()


def test_the_plan_has_the_bytes_of_a_rank(tiny: Tiny) -> None:
    config = tiny("precision=fp32", "lora=full", *SHARDED, "device.count=4")
    model, shape = planned_architecture(config.model), config.model.shape
    plan, alone = memory_of(config, model), memory_of(whole(config), model)
    largest = 4 * (2 * 64 * (64 + 32) + 3 * 64 * 128)  # the linears of a block, more than the embeddings here
    assert alone.weights == body_bytes(config)
    gathered = 2 * largest + 2 * largest  # twice; its gradients, and those gradients to be added up
    assert plan.weights == pytest.approx(body_bytes(config) / 4 + gathered)
    assert plan.optimizer == pytest.approx(alone.optimizer / 4, rel=0.02)  # the head's are whole
    kept = tiny("precision=fp32", "head=causal", "head.words=[A,B,tie]", *SHARDED)
    output_layer = 4 * shape.vocab_size * shape.hidden_size
    assert memory_of(kept, model).weights == pytest.approx(body_bytes(kept) / 2 + output_layer + 2 * largest)
