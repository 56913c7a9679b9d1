"""A sweep in actors of a Ray cluster of several nodes on this machine, one of which dies. Needs danube_sweep[ray]."""

import importlib
import io
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import TINY
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from runs import command, start
from sweeps import planned, quiet, run, seeds
from test_cluster import until

from danube_sweep.errors import ConfigError, Interrupted, SweepFailed
from danube_sweep.storage.files import write_json
from danube_sweep.storage.sweep_folder import SweepFolder, attempts
from danube_sweep.sweeping.cluster import cluster_worker, ray_actors, ray_options
from danube_sweep.sweeping.cluster.ray_worker import RayWorker
from hydra_plugins.danube_sweep import ray as plugin
from hydra_plugins.danube_sweep.ray import RayLauncherConf

RAY = ["-m", "hydra/launcher=ray", "seed=0,1,2,3", "hydra.sweep.dir=sweep", "device=cpu"]


on_a_cluster = pytest.mark.skipif(find_spec("ray") is None, reason="not installed: ray")


# --------------------------------------------------------------------------------------------------- without Ray


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"workers": 0}, r"hydra\.launcher\.workers must be at least 1, got 0; null means one per GPU"),
        (
            {"gpus_per_worker": 0},
            r"workers=null means one per GPU; give a number with hydra\.launcher\.gpus_per_worker=0",
        ),
        ({"max_restarts": -2}, r"hydra\.launcher\.max_restarts must be at least -1, got -2"),
        (
            {"address": "ray://head:10001"},
            r"address=ray://head:10001: the command must run on a machine of the cluster",
        ),
    ],
)
def test_a_mistake_in_the_options_is_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ray_options.ray_options(OmegaConf.structured(RayLauncherConf(**given)))


def test_an_option_that_does_not_exist_writes_nothing(tmp_path: Path) -> None:
    unknown = command(*RAY, "hydra.launcher.worker=2", cwd=tmp_path)
    assert unknown.returncode == 2 and "did you mean hydra.launcher.workers?" in unknown.stderr
    assert not (tmp_path / "sweep").exists()


def test_the_launcher_of_hydra_ray_launcher_keeps_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    launchers = ConfigStore.instance().repo["hydra"]["launcher"]
    assert launchers["ray.yaml"].provider == launchers["ray_actors.yaml"].provider == "danube_sweep"
    monkeypatch.delitem(launchers, "ray.yaml")
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda _name: object())
        importlib.reload(plugin)
    assert "ray.yaml" not in launchers and "ray_actors.yaml" in launchers
    importlib.reload(plugin)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_options, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"hydra/launcher=ray needs Ray: pip install 'danube_sweep\[ray\]'"):
        ray_options.ray_options(OmegaConf.structured(RayLauncherConf()))


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_worker, "SEEN_S", 0.0)
    code, said = RayWorker(str(tmp_path / "elsewhere"), str(tmp_path), []).train()
    assert code == 2 and "elsewhere of the submitting machine is not seen on" in said


class FewAnswers:
    """As much of Ray as the command asks while it waits: returns that have come, and actors without a place."""

    def __init__(self, returns: list[tuple[int, str]], unplaced: int = 0) -> None:
        self.come: dict[object, Any] = {object(): one for one in returns}
        self.never = [object() for _ in range(unplaced)]
        self.killed: list[Any] = []
        self.waited_s: list[float] = []
        self.answer = self.stop = SimpleNamespace(remote=object)

    def wait(self, pending: list[object], num_returns: int = 1, timeout: float = 0.0) -> tuple[Any, Any]:
        ready = [one for one in pending if one in self.come]
        self.waited_s += [] if len(ready) >= num_returns else [timeout]
        return ready, [one for one in pending if one not in self.come]

    def get(self, one: object) -> tuple[int, str]:
        return self.come[one]  # type: ignore[no-any-return]

    def kill(self, worker: object) -> None:
        self.killed.append(worker)


def actors(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch, cluster: FewAnswers) -> tuple[Any, io.StringIO]:
    monkeypatch.setitem(sys.modules, "ray", cluster)
    terminal, said = quiet()
    workers = dict.fromkeys([*cluster.come, *cluster.never], cluster)
    found = ray_actors._Actors(folder, ray_options.RayOptions(), len(workers), terminal, training=workers)
    monkeypatch.setattr(found, "_start", lambda: None)
    return found, said


@pytest.mark.parametrize(("settled", "state"), [(True, "failed"), (True, "finished"), (False, "")])
def test_a_worker_that_could_not_go_on_leaves_the_others_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled: bool, state: str
) -> None:
    folder = planned(tmp_path / "sweep", seeds(1)).folder
    if settled:
        write_json(folder.entries()[0].folder.result, {"state": state})
    full = "the disk is full; go on with: danube-sweep resume sweep"
    command_, _ = actors(folder, monkeypatch, FewAnswers([(1, full), (0, "")]))
    if settled:
        command_.run(lambda: False)
        return
    with pytest.raises(SweepFailed, match="exit code 1: the disk is full; go on with the same command and hydra") as e:
        command_.run(lambda: False)
    assert "resume" not in str(e.value)


def test_a_worker_of_a_search_that_breaks_before_it_has_drawn_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command_, _ = actors(SweepFolder(tmp_path), monkeypatch, FewAnswers([(1, "no torch")]))
    with pytest.raises(SweepFailed, match="a worker ended with exit code 1: no torch"):
        command_.run(lambda: False)


def test_a_stop_does_not_wait_for_actors_without_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FewAnswers([], unplaced=2)
    command_, said = actors(planned(tmp_path / "sweep", seeds(1)).folder, monkeypatch, cluster)
    command_._stop()
    assert cluster.waited_s == [ray_actors.ANSWERS_S] and len(cluster.killed) == 2
    assert "2 workers had no place on the cluster when the command was stopped" in said.getvalue()


def test_a_sweep_that_is_stopped_elsewhere_is_ranked_and_names_the_same_command(tmp_path: Path) -> None:
    plan = planned(tmp_path / "sweep", seeds(1, 2))

    def stopped(folder: SweepFolder, _: Any) -> None:
        raise Interrupted("go on", 2)

    def ended(folder: SweepFolder, _: Any) -> None:
        write_json(folder.entries()[0].folder.result, {"state": "failed"})

    assert isinstance(run(replace(plan, submit=stopped, by_command=True)).error, Interrupted)
    assert (plan.folder.path / "ranking.csv").is_file()
    again = r"2 of 2 trials did not finish; go on with the same command and hydra\.sweep\.dir=.*'sweep\.retry=\[all\]'"
    assert re.search(again, str(run(replace(plan, submit=ended, by_command=True)).error))


# ---------------------------------------------------------------------------------------------------- on a cluster


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without room for workers."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(Path(cluster_worker.__file__).parents[3]))
    found = Cluster()
    try:
        found.add_node(num_cpus=0, num_gpus=0, object_store_memory=80_000_000, include_dashboard=False)
        yield found
    finally:
        found.shutdown()


def workers_of(sweep: Path) -> set[str]:
    """The processes that train the sweep in actors."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--worker" in words and str(sweep).encode() in words:
            found.add(file.parent.name)
    return found


@pytest.mark.full
@on_a_cluster
@pytest.mark.timeout(1800)
def test_a_node_that_dies_loses_no_trial_and_its_actor_comes_back_elsewhere(tmp_path: Path, cluster: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CUDA_VISIBLE_DEVICES")  # Ray counts its GPUs against it
        nodes = [cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=80_000_000) for _ in range(3)]
    words = [*RAY, f"hydra.launcher.address={cluster.address}", "hydra.launcher.workers=2", *TINY, "data.rows=40"]
    words += ["trainer.max_steps=40", "trainer.validate_every=2", "sweep.pack=1", "sweep.baseline=none"]
    sweep = start(*words, cwd=tmp_path)
    folder = SweepFolder(tmp_path / "sweep")
    until(lambda: any(entry.folder.has_checkpoints for entry in folder.entries()), 600.0)
    before = {raylet_of(pid): pid for pid in until(lambda: two(workers_of(folder.path)), 600.0)}
    assert None not in before and len(before) == 2, "an actor on each of two nodes"
    raylet = max(before)
    cluster.remove_node(
        next(node for node in nodes if node.all_processes["raylet"][0].process.pid == raylet), allow_graceful=False
    )
    until(lambda: {raylet_of(pid) for pid in workers_of(folder.path)} - {*before, None}, 600.0)
    out, err = sweep.communicate(timeout=900)
    assert sweep.returncode == 0, out + err
    ends = [[attempt.state for attempt in attempts(entry.folder)] for entry in folder.entries()]
    assert [one.count("finished") for one in ends] == [1] * 4, "none lost, none twice"
    assert "2 workers of Ray asked for; they share sweep" in out + err


def two(found: set[str]) -> set[str] | None:
    return found if len(found) == 2 else None


def raylet_of(pid: str) -> int | None:
    """The process of the Ray node that a worker's process belongs to; None for one that is gone."""
    with suppress(OSError):
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return next((int(one.partition(b"=")[2]) for one in environment if one.startswith(b"RAY_RAYLET_PID=")), None)
    return None


@pytest.mark.full
@on_a_cluster
def test_a_cluster_without_gpus_is_told_before_anything_is_written(tmp_path: Path, cluster: Any) -> None:
    refused = command(*RAY, f"hydra.launcher.address={cluster.address}", *TINY, cwd=tmp_path)
    assert refused.returncode == 2 and "the Ray cluster has no GPU; for a CPU give" in refused.stderr
    assert not (tmp_path / "sweep").exists()


@pytest.mark.full
@on_a_cluster
def test_no_cluster_is_one_line(tmp_path: Path) -> None:
    refused = command(*RAY, *TINY, cwd=tmp_path)
    assert refused.returncode == 2 and "no Ray cluster answers; start one with ray start --head" in refused.stderr
    assert not (tmp_path / "sweep").exists()
