"""The device as the planner sees it: the host's CPU, and a GPU by what its driver says of it."""

import io
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, compose, host_cpu
from rich.console import Console

from danube_sweep.cli import main
from danube_sweep.composer import choices
from danube_sweep.composer import compose as composed_by_hydra
from danube_sweep.config.schema import Device, Sampler, Sweep
from danube_sweep.config.schema.run_fields import FIGURES
from danube_sweep.config.stored import load_config, plain_config
from danube_sweep.planner import planned_device as devices
from danube_sweep.planner import present_gpu
from danube_sweep.planner.pack_plan import Corrections, choose_pack, pack_key, plan_packs
from danube_sweep.planner.planned_device import planned_device, slots_share
from danube_sweep.sweeping.dry_run import pack_lines, search_table
from danube_sweep.sweeping.propose.search_space import Number, Search

TABLE = {file.stem: yaml.safe_load(file.read_text()) for file in sorted((ROOT / "conf" / "device").glob("*.yaml"))}
NAMED = {stem: described for stem, described in TABLE.items() if "tflops_16bit" in described and stem != "cpu"}
BUS = "00000000:01:00.0"
NVML = """
#include <string.h>
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **handle) { return strcmp(bus, "BUS_ID"); }
int nvmlDeviceGetNumGpuCores(void *handle, unsigned int *cores) { *cores = CORES; return 0; }
int nvmlDeviceGetMemoryBusWidth(void *handle, unsigned int *bits) { *bits = BITS; return 0; }
"""
Driver = Callable[..., None]


@pytest.mark.parametrize(
    ("flags", "tflops"),
    [("avx2 avx512f avx512_bf16 amx_bf16 amx_tile", 0.6), ("avx2 avx512f avx512_bf16", 0.11), ("avx2", 0.03)],
)
def test_a_cpu_computes_bf16_as_fast_as_its_instructions_allow(
    flags: str, tflops: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_cpu(tmp_path, monkeypatch, flags)
    assert planned_device(Device(accelerator="cpu")).tflops_16bit == tflops


def test_a_host_that_says_nothing_of_its_cpu_counts_as_the_slowest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "CPU_INFO", "/nowhere/cpuinfo")
    assert planned_device(Device(accelerator="cpu")).tflops_16bit == 0.03


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """A driver that answers so: an nvidia-smi, and an NVML that knows cores and bits of the memory's bus."""
    shown = ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(shown))
    monkeypatch.setattr(present_gpu, "NVML", "/nowhere/libnvidia-ml.so")

    def answer(line: str, *, cores: int = 0, bits: int = 0, fails: bool = False) -> None:
        script = tmp_path / "nvidia-smi"
        script.write_text("#!/bin/sh\n" + ("exit 9\n" if fails else f"echo '{line}'\n"))
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        present_gpu.present_gpu.cache_clear()
        present_gpu.count_gpus.cache_clear()
        if not cores:
            return
        if shutil.which("cc") is None:
            pytest.skip("no C compiler here to make an NVML of")
        source, library = tmp_path / "nvml.c", tmp_path / f"libnvml{cores}.so"
        text = NVML.replace("BUS_ID", BUS).replace("CORES", str(cores)).replace("BITS", str(bits))
        source.write_text(text)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
        monkeypatch.setattr(present_gpu, "NVML", str(library))

    return answer


@pytest.fixture(autouse=True)
def forgets() -> object:
    """What a driver said in one test is not remembered in the next."""
    yield
    present_gpu.present_gpu.cache_clear()
    present_gpu.count_gpus.cache_clear()


CARDS = [(stem, name) for stem, described in NAMED.items() for name in described.get("drivers_names", [])]


@pytest.mark.parametrize(("stem", "name"), CARDS, ids=[name for _, name in CARDS])
def test_a_present_gpu_of_the_table_has_the_tables_figures(stem: str, name: str, driver: Driver) -> None:
    described = NAMED[stem]
    driver(f"{name}, {described['memory_gib'] * 1024 / 0.985}, 8.0, 1500, 1500, {BUS}")
    device = planned_device(Device(memory_limit_gib=8.0))
    assert device.memory_gib == pytest.approx(described["memory_gib"])
    figures = ("name", "types", "bandwidth_gb_s", "tflops_fp32", "tflops_16bit", "launch_us")
    assert {name: getattr(device, name) for name in figures} == {name: described[name] for name in figures}
    assert device.memory_limit_gib == 8.0 and not device.guessed


def test_a_card_of_a_known_name_with_another_memory_has_its_own(driver: Driver) -> None:
    driver(f"Tesla V100-SXM2-32GB, 32768, 7.0, 1530, 877, {BUS}")
    device = planned_device(Device())
    assert (device.name, device.bandwidth_gb_s) == ("a V100", 900) and device.memory_gib == pytest.approx(31.5, abs=0.1)


UNKNOWN = [
    # what a driver says of cards whose figures their maker publishes: name, MiB, capability, MHz, MHz of the memory,
    # cores, bits, TFLOP/s in 16 bits with fp32 sums, in fp32, GB/s
    ("NVIDIA RTX A6000", 49140, 8.6, 2100, 8001, 10752, 384, 155, 38.7, 768),
    ("NVIDIA GeForce RTX 4070", 12282, 8.9, 3105, 10501, 5888, 192, 58.3, 29.1, 504),
    ("NVIDIA B200", 183359, 10.0, 1965, 3996, 18944, 8192, 2250, 75, 8000),
]


@pytest.mark.parametrize("card", UNKNOWN, ids=[card[0] for card in UNKNOWN])
def test_a_gpu_of_no_table_is_planned_from_what_its_driver_says(card: tuple, driver: Driver) -> None:
    name, mebibytes, capability, clock, memory_clock, cores, bits, in_16_bits, in_fp32, bandwidth = card
    driver(f"{name}, {mebibytes}, {capability}, {clock}, {memory_clock}, {BUS}", cores=cores, bits=bits)
    device = planned_device(Device())
    assert device.guessed and f"{cores} cores" in device.figures and device.types == ["fp32", "bf16", "fp16"]
    figures = (device.tflops_16bit, device.tflops_fp32, device.bandwidth_gb_s)
    for guessed, published in zip(figures, (in_16_bits, in_fp32, bandwidth), strict=True):
        assert published / 2 < guessed < published * 2


@pytest.mark.parametrize(
    ("capability", "types", "cannot_run"),
    [("7.0", ["fp32", "fp16"], True), ("7.5", ["fp32", "fp16"], False),
     ("12.0", ["fp32", "bf16", "fp16"], False), ("[N/A]", [], False),
     ("6.1", ["fp32", "fp16"], True)],
)  # fmt: skip
def test_a_driver_that_says_little_is_guessed_from(
    capability: str, types: list[str], cannot_run: bool, driver: Driver
) -> None:
    driver(f"Quadro XYZ, 8192, {capability}")
    device = planned_device(Device())
    assert (device.name, device.types) == ("a Quadro XYZ", types) and device.guessed
    assert device.memory_gib == pytest.approx(7.9, abs=0.1)
    assert device.tflops_16bit > 1 and device.bandwidth_gb_s > 100
    assert (device.cannot_run is not None) is cannot_run


def sizes_of_packs(device: Device, tokens: int) -> list[int]:
    """The packs of eight trials over Danube3-500m in 4 bits, a row at a time."""
    config = compose(["model=danube3_500m", "precision=nf4", "trainer.micro_batch=1", f"data.max_length={tokens}"])
    return [len(pack.trials) for pack in plan_packs([replace(config, device=device, seed=seed) for seed in range(8)])]


@pytest.mark.parametrize("line", ["NVIDIA Whatever, 24576, 8.6, 1500, 5000", "NVIDIA Old, 24000"])
def test_trials_pack_by_memory_on_a_gpu_that_nobody_knows(line: str, driver: Driver) -> None:
    driver("NVIDIA A10G, 24576, 8.6, 1500, 5000")
    assert max(sizes_of_packs(Device(), 4096)) == 1  # it is known that nothing is gained
    driver(line)
    assert max(sizes_of_packs(Device(), 4096)) > 1 and max(sizes_of_packs(Device(), 128)) > 1


def test_the_first_steps_decide_packs_on_a_gpu_that_nobody_knows(driver: Driver) -> None:
    """The largest pack that fits is tried first. Measured slower than its trials alone, it is not taken again."""
    driver("NVIDIA Whatever, 24576, 8.6, 1500, 5000")
    config = compose(["model=danube3_500m", "precision=nf4", "trainer.micro_batch=1", "data.max_length=4096"])
    trials = [replace(config, seed=seed) for seed in range(8)]
    corrections, key = Corrections(), pack_key(config)
    first = choose_pack(trials, corrections=corrections)
    assert "trials by memory, for the rates of a NVIDIA Whatever are a guess" in first.why and key is not None
    corrections.observe(key, 1, predicted_s=1.0, measured_s=1.0)
    corrections.observe(key, len(first.trials), predicted_s=1.0, measured_s=1.2)
    again = choose_pack(trials, corrections=corrections)
    assert again.trials == (0,) and "together are predicted" in again.why
    corrections.observe(key, len(first.trials), predicted_s=1.0, measured_s=0.5)
    faster = choose_pack(trials, corrections=corrections)
    assert len(faster.trials) == len(first.trials) and faster.gain > 1.9


def test_trials_of_short_rows_pack_on_every_device_of_the_table() -> None:
    for stem, described in NAMED.items():
        device = Device(**{name: value for name, value in described.items() if name != "defaults"})
        assert max(sizes_of_packs(device, 128)) > 1, stem


def test_a_driver_that_does_not_answer_leaves_a_guess(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver("", fails=True)
    assert planned_device(Device()).accelerator == "cpu"  # nor is there a device node
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(present_gpu, "NODES", str(tmp_path / "nvidia[0-9]*"))
    present_gpu.present_gpu.cache_clear()
    device = planned_device(Device())
    assert (device.name, device.accelerator, device.memory_gib) == ("the GPU here", "cuda", None)
    assert device.figures == "a guess from nothing that its driver says"


STATED = {
    "efficiency": 0.5, "attention_efficiency": 0.5, "context_gib": 0.5, "bandwidth_gb_s": 20.0, "launch_us": 10.0,
    "tflops_16bit": 0.03, "tflops_fp32": 0.05, "cannot_run": None, "dequantised_g_s": None,
}  # fmt: skip


def test_what_is_stated_of_a_present_device_counts(driver: Driver) -> None:
    """Also where it equals the default of the field, or what the option's file says."""
    host = planned_device(compose(["device=cpu"]).device)
    told = planned_device(compose(["device=cpu", "device.memory_gib=0.5", "device.tflops_16bit=7"]).device)
    assert told == replace(host, memory_gib=0.5, tflops_16bit=7, stated=["tflops_16bit"])
    assert planned_device(compose(["device=cpu", "device.tflops_16bit=0.11"]).device).tflops_16bit == 0.11
    driver("Tesla T4, 15360, 7.5")
    found = planned_device(compose([]).device)
    words = [f"device.{name}={'null' if value is None else value}" for name, value in STATED.items()]
    for composed in (compose(words), composed_by_hydra(words)):
        assert planned_device(composed.device) == replace(found, **STATED, stated=sorted(STATED))
    assert found.name == "a T4" and STATED.keys() == set(FIGURES) == set(composed.device.stated)


def test_a_card_that_the_pinned_torch_cannot_run_on_runs_by_its_users_word(driver: Driver) -> None:
    driver(f"Tesla P100-PCIE-16GB, 16384, 6.0, 1328, 715, {BUS}")
    assert planned_device(compose([]).device).cannot_run is not None
    assert planned_device(compose(["device.cannot_run=null"]).device).cannot_run is None


def test_a_figure_that_a_run_was_given_is_kept_in_its_folder(tmp_path: Path) -> None:
    config = compose(["device.launch_us=10", "model.init=random"])
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(plain_config(config)))
    assert load_config(path).device == config.device != compose(["model.init=random"]).device


def test_gpu_cuda_and_a_place_among_several_are_understood(driver: Driver) -> None:
    assert compose(["device=gpu"]) == compose(["device=cuda"]) == compose(["device=cuda:0"])
    assert compose(["device=cuda:1"]).device == replace(compose(["device=cuda"]).device, index=1)
    assert choices(["device=cuda:0,gpu:1"]) == ["device=cuda", "device.index=0,1"]
    assert choices(["device=gpu,cpu"]) == ["device=cuda,cpu"] and choices(["device=l4,cpu"]) == ["device=l4,cpu"]
    driver("NVIDIA L4, 23034, 8.9")
    assert planned_device(compose(["device=cuda:1"]).device).name == "an L4"
    unknown = planned_device(compose(["device=cuda:2"]).device)
    assert unknown.accelerator == "cuda" and unknown.memory_gib is None


def test_both_t4s_of_a_machine_that_is_not_here_have_a_slot_each() -> None:
    device = planned_device(compose(["device=kaggle_t4x2"]).device)
    assert slots_share(device, 2) == device and slots_share(device, 4).memory_gib == device.memory_gib / 2


SEARCHED = ["model=danube3_500m", "precision=nf4", "data=generated", "data.rows=80", "data.max_length=128"]

SEARCH = Search([], {"seed": Number(0, 99, whole=True)})


def planned_lines(device: str, pack: str) -> list[str]:
    """The packs and hours of a grid of eight trials, and of a search for eight."""
    first = compose([*SEARCHED, "trainer.micro_batch=1", f"device={device}"])
    sweep = Sweep(trials=8, pack=pack, sampler=Sampler.random)
    console = Console(width=200, file=io.StringIO())
    console.print(search_table(SEARCH, sweep, [], first))
    return [*pack_lines([replace(first, seed=seed) for seed in range(8)], sweep), *console.file.getvalue().splitlines()]


@pytest.mark.parametrize(("pack", "runs"), [("1", 8), ("auto", 2)])
def test_two_gpus_that_are_here_take_the_time_of_two_that_are_named(pack: str, runs: int, driver: Driver) -> None:
    driver("Tesla T4, 15326, 7.5")
    found = planned_lines("auto", pack)
    assert found == planned_lines("kaggle_t4x2", pack)
    grid, search = (next(line for line in found if start in line) for start in ("runs of packs", "8 trials like that"))
    assert grid.startswith(f"{runs} runs of packs and single trials: about ")
    assert search == f"8 trials like that, in {runs} runs: about " + grid.partition("about ")[2]


def test_a_search_without_an_end_has_no_hours(driver: Driver) -> None:
    driver("Tesla T4, 15326, 7.5")
    first, console = compose([*SEARCHED, "device=auto"]), Console(width=200, file=io.StringIO())
    console.print(search_table(SEARCH, Sweep(trials=None), [], first))
    assert "how long it takes: sweep.trials is null, so it ends at sweep.deadline_h" in console.file.getvalue()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["device=mps"],
            "an Apple GPU can be planned for but cannot run: danube_sweep trains on CUDA's GPUs",
        ),
        (["device=cpu", "device.index=1"], "device.index=1 counts GPUs, and device.accelerator=cpu uses none"),
        (
            ["device=kaggle_t4x2", "device.accelerator=cpu"],
            "device.accelerator=cpu: a T4 has device.accelerator=cuda; leave it out, or use device=cpu",
        ),
        (["device=mi300x", "device.accelerator=cpu"], "an MI300X has device.accelerator=cuda"),
        (["device=mps", "device.accelerator=cpu"], "an Apple GPU has device.accelerator=mps"),
        (
            ["device=h200", "device.accelerator=mps"],
            "an H200 is a GPU of CUDA, as it has device.drivers_names; leave it out, or use device=mps",
        ),
        (["device=h200", "device.accelerator=auto"], "an H200 has device.accelerator=cuda"),
        (["device=cpu", "device.accelerator=cuda"], "a CPU has device.accelerator=cpu; leave it out, or use device=cu"),
        (["device=l4", "device.name=mine", "device.accelerator=mps"], "mine is a GPU of CUDA, as it has device.drive"),
        (["device.accelerator=mps"], "no figures to plan with, and cannot train; use device=mps to plan, device=cpu"),
        (["device=mps", "device.cannot_run=null"], "an Apple GPU can be planned for but cannot run: danube_sweep"),
        (["device=mi300x"], "the pinned torch is built for CUDA; use device=cpu, or device.cannot_run=null with a"),
        (["-m", "device=cuda:1", "seed=0,1"], "CUDA_VISIBLE_DEVICES=1"),
        (["-m", "device=cuda:0,cuda:1", "seed=0,1"], "CUDA_VISIBLE_DEVICES=1"),
        (
            ["-m", "device=cpu,cuda:1"],
            "cuda:N stands in a list with other GPUs of this machine alone; use device=cuda,cpu",
        ),
        (["device=rtx4080"], "device=rtx4080"),
    ],
)
def test_what_no_device_can_be_is_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main([*words, "tracking=none"]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_device_of_ones_own_is_planned_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "device").mkdir()
    text = (ROOT / "conf" / "device" / "l4.yaml").read_text().replace("an L4", "my card").replace("NVIDIA L4", "Mine")
    (tmp_path / "device" / "mine.yaml").write_text(text)
    assert main.main(["plan", "--config-dir", str(tmp_path), "device=mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["device"] == "my card"
    assert main.main(["device", "--config-dir", str(tmp_path), "device=mine"]) == 0
    assert "my card" in capsys.readouterr().out
    for command in ("plan", "device"):
        assert main.main([command, "--config-dir", str(tmp_path / "none"), "device=mine"]) == 2
        assert "none: no such folder" in capsys.readouterr().err


def test_every_device_of_the_table_states_what_a_plan_needs() -> None:
    for stem, described in NAMED.items():
        device = Device(**{name: value for name, value in described.items() if name != "defaults"})
        assert device.memory_gib and device.types and device.launch_us and not device.guessed, stem
        assert planned_device(device) == device
