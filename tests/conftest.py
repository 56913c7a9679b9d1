"""Tiny real models and data; nothing of ours is replaced by a mock."""

import copy
import gc
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or every process of a test compiles the package again

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts background jobs so, and trials respect it
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
import warm
from filelock import FileLock

from danube_sweep.composer import Composer
from danube_sweep.config.schema import Config
from danube_sweep.planner import planned_device

COMPOSER = Composer()
FULL = bool(os.environ.get("DANUBE_SWEEP_TEST_FULL"))

ROOT = Path(__file__).resolve().parent.parent

TINY = [
    "model.shape.hidden_size=64",
    "model.shape.intermediate_size=128",
    "model.shape.num_hidden_layers=2",
    "model.shape.num_attention_heads=2",
    "model.shape.num_key_value_heads=1",
    "model.shape.vocab_size=512",
    "data.max_length=96",
    "trainer.micro_batch=4",
    "trainer.effective_batch=8",
    "device=cpu",
    "device.threads=1",
    "tracking=none",
]
"""Overrides that make a model of two blocks 64 wide, the smallest that every storage type takes."""


def compose(overrides: Sequence[str] = ()) -> Config:
    """As `danube_sweep.composer.compose`, in a tenth of its time: Hydra composes each choice of options once."""
    return COMPOSER.trial(overrides)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """The workers import nothing that one process has imported for all."""
    warm.fork_workers()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is marked `full` is skipped, unless the whole products are asked for."""
    for item in items:
        if not FULL and item.get_closest_marker("full"):
            item.add_marker(pytest.mark.skip(reason="runs in make test-full"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests that share something made once for their file share a worker; others are dealt one by one."""
    from dealing import ByFixture

    return ByFixture(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says where the seconds of a run of several folders went; CONTRIBUTING.md keeps the table."""
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds["/".join(report.nodeid.split("::")[0].split("/")[1:2])] += report.duration
    if len(seconds) > 3:
        told = (f"{name} {spent:.0f}" for name, spent in seconds.most_common())
        terminalreporter.write_line(f"seconds of tests, of all workers: {', '.join(told)}")


def pytest_collection_finish() -> None:
    """What is imported by now stays: every trial collects garbage first, and would look through all of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def own_surroundings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same home, locale, caches and CPU on every machine; no W&B account, and no GPU outside tests/gpu."""
    place = tmp_path_factory.getbasetemp()
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(place / "cache"))
    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    host_cpu(place, monkeypatch, "avx2 avx512f")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


@pytest.fixture(scope="session", autouse=True)
def warm_sweeps() -> Iterator[None]:
    """What this process starts as parent of trials, or to weigh a report's keys, is forked from the one of `warm`."""
    with warm.warm_forkserver(), warm.warm_importance():
        yield


def host_cpu(folder: Path, monkeypatch: pytest.MonkeyPatch, flags: str) -> None:
    """Makes the planner see a host with these CPU flags, whatever the machine."""
    file = folder / "cpuinfo"
    file.write_text(f"flags\t\t: fpu sse2 {flags}\n")
    monkeypatch.setattr(planned_device, "CPU_INFO", str(file))


@pytest.fixture
def bf16_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CPU with native bf16, where 4 and 8 bits compute in it; elsewhere they take fp32, in half of the time."""
    host_cpu(tmp_path, monkeypatch, "avx2 avx512f avx512_bf16")
    _composed.cache_clear()
    yield
    _composed.cache_clear()


@pytest.fixture
def tiny() -> Callable[..., Config]:
    """Composes a tiny trial on 60 generated records: `tiny("head=sequence", "seed=1")`."""

    return tiny_config


def tiny_config(*overrides: str) -> Config:
    # Composing costs a fifth of a second and the tests ask for the same few configs; what names a path is not kept,
    # since relative ones depend on the working directory.
    named_path = any("path" in item for item in overrides)
    return copy.deepcopy((_composed.__wrapped__ if named_path else _composed)(overrides))


@lru_cache(maxsize=256)
def _composed(overrides: tuple[str, ...]) -> Config:
    generated = [] if any(item.startswith("data=") for item in overrides) else ["data.rows=60"]
    return compose([*generated, *TINY, *overrides])


@pytest.fixture
def data_dir() -> Path:
    """The folder of real data, from DANUBE_SWEEP_DATA or beside the checkout; skips where there is none."""
    named = os.environ.get("DANUBE_SWEEP_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data here: set DANUBE_SWEEP_DATA to its folder")
    return folder


@pytest.fixture(scope="module")
def cache_of_the_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For files whose runs are trained in fixtures, before a test's own surroundings are set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DANUBE_SWEEP_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="session")
def real_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of 12 trials, trained once for all processes of the test run; to be read, not written."""
    place = tmp_path_factory.getbasetemp()
    place = (place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / "real"
    place.mkdir(exist_ok=True)
    with FileLock(place / ".lock"):
        if not (place / "sweep" / "ranking.csv").is_file():
            varied = ["lora.rank=4,16", "optimizer.lr=1e-3,3e-2", "seed=0,1,2", "data.rows=150", "trainer.max_steps=6"]
            words = ["-m", *varied, *TINY, "hydra.sweep.dir=sweep", "sweep.slots=2", "data.max_length=64"]
            environment = {**os.environ, "DANUBE_SWEEP_CACHE": str(place / "cache")}
            warm.run("-m", "danube_sweep", *words, cwd=place, env=environment).check_returncode()
    return place / "sweep"
