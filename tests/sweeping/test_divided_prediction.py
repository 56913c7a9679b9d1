"""Several devices divide a prediction: to the last bit the answers of one, and nobody is left behind."""

import csv
import io
import multiprocessing
import os
import signal
import time
from contextlib import redirect_stdout
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import runs
import sweeps

from danube_sweep.cli import main
from danube_sweep.config.schema import Sweep
from danube_sweep.errors import ConfigError, DataError, OutOfMemory, TrialFailed
from danube_sweep.inference.deadline import Cost
from danube_sweep.inference.divided import Devices
from danube_sweep.inference.predict import Place
from danube_sweep.inference.predict_ensemble import (
    Part,
    answer_together,
    checked_requests,
    fingerprint,
    open_ensemble,
)
from danube_sweep.inference.prediction_table import Form
from danube_sweep.storage.ensemble_folder import EnsembleFolder, Weighted
from danube_sweep.storage.prediction_parts import held_parts
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.sweeping.execute import divided_prediction
from danube_sweep.sweeping.execute.divided_prediction import SeveralDevices
from danube_sweep.sweeping.execute.messages import Job
from danube_sweep.sweeping.execute.slots import find_slots, slots_to_predict

pytestmark = pytest.mark.usefixtures("cache_of_the_file")

ROWS = 24


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory, cache_of_the_file: None) -> EnsembleFolder:
    """Two runs that answer in one pass, and one that reads other tokens and answers after them."""
    place = tmp_path_factory.mktemp("three")
    cells = [["lora.rank=2"], ["lora.rank=4"], ["lora.rank=2", "data.max_length=40"]]
    ran = sweeps.run(sweeps.planned(place / "sweep", cells, "trainer.max_steps=2"))
    paths = [ran[number].path for number in (2, 1, 3)]  # the smaller rank is second: a pack has it first
    hashes = [str((RunFolder(path).read_result() or {})["trial"]) for path in paths]
    ensemble = EnsembleFolder(place / "best")
    shares = zip((0.5, 0.3, 0.2), (2.0, 1.0, 1.0), paths, hashes, strict=True)
    ensemble.write([Weighted(path.name, share, heat, [path], [one]) for share, heat, path, one in shares], {})
    return ensemble


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("rows") / "test.csv"
    with file.open("w", newline="") as stream:
        turns = [[f'["{k}?{" so" * (k % 5)}"]', '["far"]', f'["{"near " * (k % 7)}"]'] for k in range(ROWS)]
        writer = csv.writer(stream)
        writer.writerow(["id", "prompt", "response_a", "response_b"])
        writer.writerows([[k, *texts] for k, texts in enumerate(turns)])
    return file


@pytest.fixture(scope="module")
def whole(best: EnsembleFolder, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The answers of one device, in several forward passes. Without a GPU that is what `all` are."""
    out = tmp_path_factory.mktemp("whole") / "out.csv"
    with redirect_stdout(io.StringIO()) as said:
        assert main.main(words(best, rows, out, "--devices", "all")) == 0
    assert "--devices all: no GPU here, and a CPU is one device" in " ".join(said.getvalue().split())
    return out.read_bytes()


def words(best: EnsembleFolder, rows: Path, out: Path, *more: str) -> list[str]:
    """The command for all members, with both orders."""
    given = [str(best.path), str(rows), "-o", str(out), "--accelerator", "cpu", "--swap", "--batch-rows", "2"]
    return ["predict", *given, *more]


def two() -> Devices:
    return SeveralDevices(find_slots(Sweep(slots=2), {"cpu"}))


def test_two_devices_answer_as_one_to_the_last_bit(
    best: EnsembleFolder, rows: Path, whole: bytes, tmp_path: Path
) -> None:
    assert main.main(words(best, rows, tmp_path / "two.csv", "--devices", "2", "--deadline-h", "5")) == 0
    assert (tmp_path / "two.csv").read_bytes() == whole
    assert not (tmp_path / "two.csv.parts").exists() and not multiprocessing.active_children()


def test_more_devices_than_forward_passes_and_soft_labels(best: EnsembleFolder, rows: Path, tmp_path: Path) -> None:
    command = ["label", str(best.read()[0].runs[0]), str(rows), "--accelerator", "cpu", "-o"]
    assert main.main([*command, str(tmp_path / "one.csv")]) == 0
    assert main.main([*command, str(tmp_path / "two.csv"), "--devices", "2", "--batch-rows", "64"]) == 0
    one, other = ((tmp_path / name).read_text().splitlines() for name in ("one.csv", "two.csv"))
    assert [line.split(",")[:4] for line in one] == [line.split(",")[:4] for line in other]
    for line, same in zip(one[1:], other[1:], strict=True):
        wanted = [float(word) for word in line.split(",")[-3:]]
        assert [float(word) for word in same.split(",")[-3:]] == pytest.approx(wanted, abs=1e-6)


def test_a_process_that_dies_ends_the_others_and_the_parts_stay(
    best: EnsembleFolder, rows: Path, whole: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    parts, place, told = open_ensemble(best), Place(runs.CPU), list[int]()
    requests = checked_requests(parts, rows, out, Form(swap=True))
    met: set[int] = set()

    def done(count: int) -> None:
        told.append(count)
        met.update(one.pid for one in multiprocessing.active_children() if one.pid)
        if sum(told) > 2 * 2 * ROWS:  # the second pack's turn
            os.kill(multiprocessing.active_children()[-1].pid or 0, signal.SIGKILL)

    with held_parts(out) as kept, pytest.raises(TrialFailed, match="its process was ended by SIGKILL") as raised:
        kept.begin(fingerprint(parts, requests, place))
        answer_together(parts, requests, place, batch_rows=2, done=done, kept=kept, devices=two())
    assert raised.value.exit_code == 1 and "\n" not in str(raised.value)
    assert len(met) == 4 and not sweeps.left_over([str(pid) for pid in met])
    assert (tmp_path / "out.csv.parts" / "000-000000.safetensors").is_file() and not out.exists()
    assert main.main(words(best, rows, out)) == 0  # one device goes on from what two have left
    assert out.read_bytes() == whole


def test_a_process_that_the_kernel_ended_while_nobody_listened_ran_out_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kills = 0
    monkeypatch.setattr(divided_prediction, "kernel_kills", lambda: kills)
    with SeveralDevices(find_slots(Sweep(slots=1), {"cpu"}))._processes([sleep_task]) as (process,):
        kills = 1
        os.kill(process.child.process.pid or 0, signal.SIGKILL)
        with pytest.raises(OutOfMemory, match="device 1 of 1: the kernel ended its process: out of memory"):
            while True:
                divided_prediction._listen([process], lambda _rows: None)


def sleep_task(_job: Job, _link: Connection) -> None:
    time.sleep(60)


def test_ctrl_c_ends_all_and_another_number_of_devices_goes_on(
    best: EnsembleFolder, rows: Path, whole: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    command = words(best, rows, out)
    with runs.start(*command, "--devices", "2", cwd=tmp_path) as process:
        while not (tmp_path / "out.csv.parts" / "000-000000.safetensors").is_file() and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "keeps the finished parts; the same command goes on" in " ".join(said.split())
    assert not sweeps.left_over([str(process.pid)])
    again = runs.command(*command, cwd=tmp_path)
    assert "an earlier prediction was interrupted; this one continues it" in " ".join(again.stdout.split())
    assert out.read_bytes() == whole


def test_an_error_of_a_process_is_raised_as_it_is(best: EnsembleFolder, rows: Path, tmp_path: Path) -> None:
    source, part = tmp_path / "rows.csv", Part(open_ensemble(best)[0].run, 1.0, 1.0)
    source.write_bytes(rows.read_bytes())
    requests = checked_requests([part], source, tmp_path / "out.csv", Form())
    source.write_bytes(rows.read_bytes() + b'99,"[""a""]","[""b""]","[""c""]"\n')
    with pytest.raises(DataError, match="was changed while it was read"):
        answer_together([part], requests, Place(runs.CPU), devices=two())
    assert not (tmp_path / "out.csv").exists() and not multiprocessing.active_children()


def test_a_deadline_divides_the_rows_time_by_the_devices() -> None:
    assert Cost(10, 600, 200).on(2) == Cost(10, 300, 100)


@pytest.mark.parametrize(
    ("visible", "asked", "found"),
    [("4,5,7", 2, ["4", "5"]), ("4,5,7", "all", ["4", "5", "7"]), ("4", "all", ["4"]), ("", "all", [None])],
)
def test_each_device_is_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, visible: str, asked: int | str, found: list[str | None]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    environments = slots_to_predict("auto", asked).environments
    assert [one.get("CUDA_VISIBLE_DEVICES") for one in environments] == found


@pytest.mark.parametrize(
    ("visible", "accelerator", "asked", "message"),
    [
        ("0,1", "auto", 3, "--devices 3: torch sees 2 GPUs here; use --devices 2"),
        ("0", "cuda", 2, "--devices 2: torch sees 1 GPU here; use --devices 1"),
        ("", "cuda", "all", "--devices all: torch sees no GPU here; use --accelerator cpu"),
        ("0,1", "cpu", 5000, "--devices 5000: without a GPU, "),
    ],
)
def test_more_devices_than_there_are_is_one_line(
    monkeypatch: pytest.MonkeyPatch, visible: str, accelerator: str, asked: int | str, message: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(ConfigError) as raised:
        slots_to_predict(accelerator, asked)
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_devices_that_cannot_be_is_refused_before_anything_is_read(
    given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", str(tmp_path / "none"), str(tmp_path / "no.csv"), "-o", str(tmp_path / "out.csv")]
    assert main.main([*command, f"--devices={given}"]) == 2
    assert f"--devices must be a number from 1 on or all, got {given}".rstrip() in capsys.readouterr().err
