"""Probes: what they measure is kept, read by plans and packs, and never changes what a trial computes."""

import io
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, compose
from rich.console import Console
from test_planned_device import BUS, CARDS, NAMED, UNKNOWN

from danube_sweep.cli import main
from danube_sweep.cli.device_table import _devices
from danube_sweep.composer import Composer
from danube_sweep.config.schema import Config, Device, Sweep
from danube_sweep.errors import ConfigError
from danube_sweep.planner import present_gpu, probe_record
from danube_sweep.planner.pack_plan import plan_packs
from danube_sweep.planner.planned_device import planned_device, probe_key
from danube_sweep.planner.probe_record import Probe, read_probe, record_of, write_probe
from danube_sweep.planner.trial_plan import plan_of
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.sweeping.dry_run import grid_table
from danube_sweep.training.probe import measure, probe_once

Smi = Callable[..., None]

RECORDED = Probe.read(json.loads((ROOT / "tests/planner/probes/epyc_without_bf16.json").read_text())["probe"])
FAST = Probe((9.0, 12.0, 14.0), (80.0, 120.0, 140.0), 700.0, 250.0, 4.0)
"""No recording: the figures that a large card with a fast host might show."""
CPU = Device(accelerator="cpu", threads=1)
RATES = {
    "tflops_fp32", "tflops_16bit", "efficiency", "attention_efficiency", "bandwidth_gb_s", "dequantised_g_s",
    "launch_us", "figures",
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """A cache without probes, and a driver that is asked again."""
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(present_gpu, "NVML", "/nowhere/libnvidia-ml.so")
    yield
    present_gpu.present_gpu.cache_clear()
    present_gpu.count_gpus.cache_clear()


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Smi:
    """An nvidia-smi that describes one GPU, and lists the processes that compute on it."""

    def answer(line: str, pids: str = "") -> None:
        script = tmp_path / "nvidia-smi"
        script.write_text(f"#!/bin/sh\ncase \"$*\" in *compute-apps*) echo '{pids}';; *) echo '{line}';; esac\n")
        script.chmod(0o755)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        present_gpu.present_gpu.cache_clear()

    return answer


def keep(device: Device, probe: Probe) -> None:
    key = probe_key(device)
    assert key is not None
    write_probe(key, probe)


def card(name: str = "Tesla T4", watts: str = "70.00", driver: str = "550.1") -> str:
    return f"{name}, 15360, 7.5, 1590, 5001, {BUS}, {watts}, {driver}"


def test_a_recorded_probe_replaces_the_rates_and_nothing_else() -> None:
    before = planned_device(CPU)
    keep(CPU, RECORDED)
    after = planned_device(CPU)
    assert {one.name for one in fields(Device) if getattr(before, one.name) != getattr(after, one.name)} == RATES
    assert (after.tflops_16bit, after.tflops_fp32) == (RECORDED.tflops_16bit[1], RECORDED.tflops_fp32[1])
    assert (after.bandwidth_gb_s, after.launch_us) == (RECORDED.bandwidth_gb_s, RECORDED.launch_us)
    assert planned_device(replace(CPU, threads=2)) == replace(before, threads=2)  # another number of threads


def test_a_recorded_probe_plans_a_slow_type_as_slow() -> None:
    """By flags a CPU computes bf16 at .11 TFLOP/s. Measured, this one is 200 times slower, and slower than in fp32."""

    def step_s(compute: str) -> float:
        return plan_of(
            compose(["device=cpu", "device.threads=1", "precision=nf4", f"precision.compute={compute}"])
        ).step_s

    by_flags = step_s("bf16")
    keep(CPU, RECORDED)
    assert step_s("bf16") > 20 * by_flags and step_s("bf16") > 5 * step_s("fp32")


def test_a_probe_changes_no_arithmetic(smi: Smi) -> None:
    """Types, memory, micro-batches and layouts: the composed trial is the same before and after."""
    smi(card())

    def composed() -> list[Config]:
        words = ["model=danube3_500m", "trainer.micro_batch=auto", "data.max_length=512"]
        return [compose([*words, f"precision={name}"]) for name in ("nf4", "fp16", "fp32")]

    before, device = composed(), planned_device(Device())
    keep(Device(), FAST)
    assert composed() == before
    probed = planned_device(Device())
    assert {one.name for one in fields(Device) if getattr(device, one.name) != getattr(probed, one.name)} <= RATES
    assert probed.tflops_16bit == 120 and probed.efficiency == 1.0 and probed.dequantised_g_s == 250
    assert probed.tflops_16bit * probed.attention_efficiency == pytest.approx(65 * 0.08)  # attention was not probed


def test_a_probe_decides_packs(smi: Smi) -> None:
    smi(card("NVIDIA Whatever", "300", "550.1"))
    trial = compose(["model=danube3_500m", "precision=nf4", "trainer.micro_batch=1", "data.max_length=4096"])
    trials = [replace(trial, seed=seed) for seed in range(8)]
    guessed = [len(pack.trials) for pack in plan_packs(trials)]
    keep(Device(), replace(FAST, launch_us=0.5))
    measured = [len(pack.trials) for pack in plan_packs(trials)]
    assert max(guessed) > 1 and max(measured) == 1  # by memory; and as nothing is gained


def test_what_a_config_states_counts_before_a_probe(smi: Smi) -> None:
    smi(card())
    keep(Device(), FAST)
    told = planned_device(compose(["device.tflops_16bit=20"]).device)
    assert (told.tflops_16bit, told.efficiency, told.launch_us) == (20, 0.3, 4.0)
    assert planned_device(compose(["device.launch_us=80"]).device).launch_us == 80
    named = compose(["device=kaggle_t4"]).device
    assert probe_key(named) is None and planned_device(named) == named


@pytest.mark.parametrize(
    "other", [card(watts="50.00"), card(driver="560.2"), card(name="NVIDIA L4")], ids=["power", "driver", "card"]
)
def test_a_probe_holds_for_its_card_power_limit_and_driver(other: str, smi: Smi) -> None:
    smi(card())
    keep(Device(), FAST)
    assert planned_device(Device()).figures == probe_record.MEASURED
    smi(other)
    assert planned_device(Device()).figures != probe_record.MEASURED


def test_a_probe_of_another_host_decides_nothing_here(smi: Smi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login node and a cluster's nodes share a home, and so a cache."""
    smi(card())
    keep(Device(), FAST)
    probe_record._of_this_host.cache_clear()
    monkeypatch.setattr("platform.node", lambda: "node17")
    assert planned_device(Device()).figures != probe_record.MEASURED
    probe_record._of_this_host.cache_clear()


@pytest.mark.parametrize("damage", ["{", "[]", '{"key": 1}', "zero", "other"])
def test_a_damaged_record_is_told_once_and_not_used(damage: str, caplog: pytest.LogCaptureFixture) -> None:
    before = planned_device(CPU)
    keep(CPU, RECORDED)
    key = probe_key(CPU)
    assert key is not None
    record = record_of(key)
    text = record.read_text()
    changed = {"zero": text.replace(str(RECORDED.launch_us), "0.0"), "other": text.replace("AMD", "Intel")}
    record.write_text(changed.get(damage, damage) if changed.get(damage) != text else text.replace("seal", "zeal"))
    with caplog.at_level(logging.WARNING):
        assert planned_device(CPU) == planned_device(CPU) == before
    [said] = [one.getMessage() for one in caplog.records]
    assert f"{record} is damaged" in said and "danube-sweep device --probe makes it again" in said
    keep(CPU, RECORDED)
    assert planned_device(CPU).figures == probe_record.MEASURED


def test_a_cache_that_cannot_be_written_keeps_no_probe(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("a file where the folder belongs")
    keep(CPU, RECORDED)
    assert "the probe was not kept" in caplog.text and planned_device(CPU).figures != probe_record.MEASURED


@pytest.mark.skipif(torch.cuda.is_available(), reason="here the probe of a GPU works")
def test_a_probe_that_fails_leaves_a_note_and_the_other_figures(smi: Smi) -> None:
    smi(card())
    before, said = planned_device(Device()), list[str]()
    probe_once(Device(), said.append)
    assert len(said) == 1 and said[0].startswith("the probe of Tesla T4 failed: ")
    assert "predicted seconds follow from its other figures (the maker's" in said[0]
    assert planned_device(Device()) == before


def test_a_gpu_that_others_use_is_not_probed(smi: Smi) -> None:
    smi(card(), pids="4711")
    said = list[str]()
    probe_once(Device(), said.append)
    assert said[0].startswith("Tesla T4 is not probed: 1 other process uses it;")


def test_neither_a_cpu_nor_a_named_device_nor_a_known_one_is_probed_unasked(smi: Smi, tmp_path: Path) -> None:
    said = list[str]()
    probe_once(CPU, said.append)
    probe_once(compose(["device=h200"]).device, said.append)
    smi(card())
    keep(Device(), FAST)
    probe_once(Device(), said.append)
    assert said == [] and len([*(tmp_path / "cache" / "probes").glob("*.json")]) == 1


def test_what_is_said_of_a_device_by_hand_counts_with_auto_too(smi: Smi) -> None:
    asked = Device(memory_gib=8.0, threads=1)
    smi(card())
    gpu, cpu = _devices(asked)
    assert (gpu.accelerator, cpu.accelerator) == ("cuda", "cpu")
    assert all((one.memory_gib, one.threads) == (8.0, 1) for one in (gpu, cpu))


def test_a_cpu_is_probed_in_a_child_on_request_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["device", "device=cpu", "device.threads=1"]
    assert main.main(words) == 0
    assert "not probed; danube-sweep device --probe measures it" in capsys.readouterr().out
    assert main.main([*words, "--probe"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "measured here by a probe" in shown and "billion weights dequantised a second" in shown
    key = probe_key(CPU)
    assert key is not None
    found = read_probe(key)
    assert found is not None and found == measure(CPU, key)  # read, not measured again
    assert 1e-4 < found.tflops_fp32[1] < 10 and 0.1 < found.bandwidth_gb_s < 1000 and 1 < found.launch_us < 5000
    assert planned_device(CPU).tflops_fp32 == found.tflops_fp32[1]


def test_the_device_command_shows_how_a_gpu_is_recognised(smi: Smi, capsys: pytest.CaptureFixture[str]) -> None:
    smi(card())
    keep(Device(), FAST)
    assert main.main(["device"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in ("a T4", "device=kaggle_t4", "power limit 70 W", "driver 550.1", "80, 120, 140 TFLOP/s", "a CPU"):
        assert part in shown
    smi(card("NVIDIA Whatever"))
    assert main.main(["device", "device=cuda"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "none: its figures are a guess" in shown and "not probed" in shown and "a CPU" not in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["device=rtx4080"], "device=rtx4080: no such option; did you mean device=rtx4090?"),
        (["device=cpu", "device.index=1"], "device.index=1 counts GPUs, and device.accelerator=cpu uses none"),
        (["device=h200", "device.tflops_16bit=0"], "device.tflops_16bit must be above 0, got 0"),
        (["device.dequantised_g_s=-1"], "device.dequantised_g_s must be above 0, got -1"),
        (["--probe", "device=h200"], "an H200 cannot be probed: its figures are stated, or it is not here"),
        (["--probe", "device=cuda"], "cannot be probed: its figures are stated, or it is not here"),
        (["lora.rank=3"], "lora.rank=3: only the device can be chosen here"),
    ],
)
def test_what_cannot_be_shown_or_probed_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["device", *words]) == 2
    said = capsys.readouterr().err
    assert message in " ".join(said.split()) and said.count("\n") == 1


def test_without_a_driver_there_is_one_line_about_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["device"]) == 0
    assert "GPU: none (no driver answers here); trials run on the CPU" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["no child", "no answer"])
def test_a_probe_whose_child_says_nothing_is_one_line(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = ("/nowhere/python",) if how == "no child" else (str(shutil.which("true")),)
    monkeypatch.setattr("danube_sweep.training.probe.PROBE", other)
    key = probe_key(CPU)
    assert key is not None
    with pytest.raises(ConfigError, match=r"^the probe of .* failed: (FileNotFoundError|IndexError): [^\n]*$"):
        measure(CPU, key)


KINDS = {**{name: NAMED[stem] for stem, name in CARDS}, **{known[0]: None for known in UNKNOWN}}


SWEPT = ["model=danube3_500m", "model.init=random", "precision=nf4", "data.max_length=128", "trainer.micro_batch=1"]


def as_driver_says(name: str, smi: Smi) -> None:
    unknown = next((one for one in UNKNOWN if one[0] == name), None)
    if unknown is not None:
        smi(f"{', '.join(map(str, unknown[:5]))}, {BUS}")
        return
    described = KINDS[name]
    assert described is not None
    smi(f"{name}, {described['memory_gib'] * 1024 / 0.985}, 8.0, 1500, 1500, {BUS}")


@pytest.fixture(scope="module")
def composer() -> Composer:
    """One for all cards: Hydra composes once."""
    return Composer()


@pytest.mark.parametrize("name", [*KINDS])
def test_eight_trials_in_4_bits_pack_on_every_card(name: str, smi: Smi, tmp_path: Path, composer: Composer) -> None:
    """In the table of --dry-run, by what a driver says: the cards of our table, and three of none."""
    as_driver_says(name, smi)
    cells = [[*SWEPT, f"seed={seed}"] for seed in range(8)]
    trials = [(composer.trial(cell), cell) for cell in cells]
    console = Console(width=200, file=io.StringIO())
    console.print(grid_table(SweepFolder(tmp_path / "none"), trials, [], set(SWEPT), Sweep()))
    shown = console.file.getvalue()
    packs = [line for line in shown.splitlines() if line.startswith("p1: ")]
    assert packs and int(packs[0].split()[1]) > 1 and "8 trials, 0 done; nothing was started" in shown


@pytest.mark.parametrize("name", [UNKNOWN[0][0]])
def test_the_command_line_shows_the_same_packs(
    name: str, smi: Smi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_driver_says(name, smi)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    assert main.main(["-m", "--dry-run", *SWEPT, "seed=0,1,2,3,4,5,6,7", "tracking=none"]) == 0
    assert "p1: 8 trials: " in capsys.readouterr().out and not [*tmp_path.glob("multirun*")]


def test_every_recording_can_be_read() -> None:
    recordings = sorted((ROOT / "tests/planner/probes").glob("*.json"))
    table = (ROOT / "tests/planner/probes/README.md").read_text()
    assert recordings and all(f"`{file.name}`" in table for file in recordings)
    for file in recordings:
        Probe.read(yaml.safe_load(file.read_text())["probe"])
