"""Workers in jobs of a cluster: submitit's local executor, a scheduler's commands in shell, and a real SLURM."""

import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from omegaconf import OmegaConf
from runs import command, start
from sweeps import planned, seeds

from danube_sweep import paths
from danube_sweep.errors import CheckpointError, ConfigError, DiskError
from danube_sweep.storage.sweep_folder import SweepFolder, attempts
from danube_sweep.sweeping.cluster import cluster_worker
from danube_sweep.sweeping.cluster.cluster_fields import ClusterOptions, from_plain
from danube_sweep.sweeping.cluster.cluster_jobs import ClusterJobs, remembered, submit
from danube_sweep.sweeping.cluster.cluster_options import check_named_device, cluster_options, state_folder
from danube_sweep.sweeping.cluster.cluster_worker import Worker
from hydra_plugins.danube_sweep.slurm import SlurmLauncherConf

LOCAL = ["hydra/launcher=slurm", "hydra.launcher.cluster=local"]
LONG = [*TINY, "data.rows=40", "trainer.max_steps=20", "trainer.validate_every=2", "sweep.pack=1"]
LONG += ["sweep.baseline=none"]


def until(true: Callable[[], Any], within_s: float = 120.0) -> Any:
    end_s = time.monotonic() + within_s
    while not (found := true()):
        assert time.monotonic() < end_s, "it never happened"
        time.sleep(0.02)
    return found


def options(**given: Any) -> ClusterOptions:
    return cluster_options(OmegaConf.structured(SlurmLauncherConf(**given)))


# --------------------------------------------------------------------------------------- a sweep in a local job


def task_of(controller: str) -> int | None:
    """The process that submitit's local controller runs as the job, once its worker trains."""
    for file in Path(f"/proc/{controller}/task").glob("*/children"):
        for pid in file.read_text().split():
            if any(one.read_text().split() for one in Path(f"/proc/{pid}/task").glob("*/children")):
                return int(pid)
    return None


def test_a_preempted_worker_is_queued_again_and_the_command_may_leave_and_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    submitting = start("-m", *LOCAL, "seed=0,1", "hydra.sweep.dir=sweep", *LONG, cwd=tmp_path)
    jobs = until(lambda: remembered(tmp_path / "sweep"))
    submitting.send_signal(signal.SIGINT)
    submitting.wait(timeout=120)
    assert submitting.stderr is not None
    said = os.read(submitting.stderr.fileno(), 65536).decode()  # the job keeps the pipe open
    assert submitting.returncode == 130 and "the jobs go on: danube-sweep watch sweep shows them" in said

    folder = SweepFolder(tmp_path / "sweep")
    first, second = folder.entries()
    until(lambda: first.folder.result.is_file() and second.folder.has_checkpoints)
    task = until(lambda: task_of(jobs.ids[0]))
    os.kill(task, signal.SIGUSR2)  # as SLURM does before it preempts a job, or ends it for its time
    back = command("resume", "sweep", cwd=tmp_path)
    assert back.returncode == 0, back.stderr
    assert f"still in the queue: job {jobs.ids[0]}; none is added" in back.stdout + back.stderr

    assert [len(attempts(one.folder)) for one in (first, second)] == [1, 2]
    assert [one.state for one in attempts(second.folder)] == ["interrupted", "finished"]
    logs = [jobs.folder / f"{jobs.ids[0]}_0_log.{end}" for end in ("out", "err")]
    assert any("Requeued job" in log.read_text() for log in logs)
    assert not list((tmp_path / "sweep").rglob("*.pkl")), "what a job unpickles lies outside the sweep's folder"
    assert (tmp_path / "sweep" / "ranking.csv").is_file()


# --------------------------------------------------------------------------- what a scheduler is asked and answers


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """sbatch and squeue in shell: they keep the script, and list the job until `listed` says otherwise."""
    place = tmp_path / "bin"
    place.mkdir()
    kept = tmp_path / "asked.sh"
    scripts = {
        "sbatch": f'if [ -e "{tmp_path}/refused" ]; then echo "sbatch: error: invalid partition specified: nope" >&2; '
        f'exit 1; fi\ncp "$1" "{kept}"; echo "Submitted batch job 77"',
        "squeue": f'cat "{tmp_path}/listed"',
        "srun": "exit 0",
    }
    for name, text in scripts.items():
        (place / name).write_text(f"#!/bin/sh\n{text}\n")
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_sbatch_is_asked_for_what_the_options_say(scheduler: Path) -> None:
    plan = planned(scheduler / "sweep", seeds(0))
    asked = options(
        jobs=4,
        partition="gpu",
        qos="night",
        account="lab",
        nodes=2,
        gpus_per_node="a100:4",
        cpus_per_task=8,
        mem_gb=32.0,
        timeout_min=90,
        array_parallelism=2,
        setup=["module load cuda"],
        signal_delay_s=300,
        additional_parameters={"reservation": "tonight"},
    )
    jobs = submit(plan.folder, asked, [])
    assert jobs.ids == ("77_0", "77_1", "77_2", "77_3")
    lines = (scheduler / "asked.sh").read_text().splitlines()
    flags = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines if line.startswith("#SBATCH"))
    expected = {
        "array": "0-3%2",
        "partition": "gpu",
        "qos": "night",
        "account": "lab",
        "nodes": "2",
        "ntasks-per-node": "1",
        "gpus-per-node": "a100:4",
        "cpus-per-task": "8",
        "mem": "32768M",
        "time": "90",
        "signal": "USR2@300",
        "requeue": "",
        "reservation": "tonight",
        "job-name": "danube_sweep",
        "open-mode": "append",
    }
    assert {name: flags.get(name, "absent").strip("'") for name in expected} == expected
    assert "module load cuda" in lines

    (scheduler / "listed").write_text("12_0\n77_1\n77_3\n")
    found = remembered(plan.folder.path)
    assert found is not None and found.options == asked and found.alive() == ["77_1", "77_3"]
    (scheduler / "listed").unlink()
    assert found.alive() is None, "no answer is not the answer that there is none"


def test_what_the_scheduler_refuses_is_one_line(scheduler: Path) -> None:
    plan = planned(scheduler / "sweep", seeds(0))
    (scheduler / "refused").touch()
    with pytest.raises(
        ConfigError, match=r"hydra\.launcher: the scheduler refuses the jobs: .*invalid partition.*nope"
    ):
        submit(plan.folder, options(partition="nope"), [])
    assert remembered(plan.folder.path) is None


# ------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "sbatch, squeue, srun not found on this machine; run the command on a login node"),
        ({"cluster": "pbs"}, r"hydra\.launcher\.cluster=pbs: give slurm, or local"),
        ({"jobs": 0}, r"hydra\.launcher\.jobs must be at least 1, got 0"),
        ({"cluster": "local", "partition": "gpu"}, r"hydra\.launcher\.partition: only a scheduler keeps to it"),
        ({"timeout_min": 2}, r"hydra\.launcher\.signal_delay_s=120 is no less than the whole job"),
    ],
)
def test_a_mistake_in_the_options_is_one_line(
    given: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=said):
        options(**given)


def test_an_option_that_does_not_exist_and_a_device_that_is_not_named_write_nothing(tmp_path: Path) -> None:
    unknown = command("-m", *LOCAL, "hydra.launcher.partion=gpu", "seed=0,1", "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert unknown.returncode == 2 and "did you mean hydra.launcher.partition?" in unknown.stderr
    unnamed = command("-m", *LOCAL, "seed=0,1", "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert unnamed.returncode == 2
    assert "device=auto would be planned for this machine, not for the cluster's nodes" in unnamed.stderr
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("accelerator", "figures", "swept", "said"),
    [
        ("cuda", "the maker's", [], None),
        ("auto", "a guess", ["a100_80gb", "h200"], None),
        ("auto", "a guess", ["a100_80gb", "cuda:1"], "device=cuda:1 would be planned for this machine"),
        ("cuda", "a guess", [], "device=cuda would be planned for this machine"),
    ],
)
def test_auto_values_follow_a_device_of_the_config(
    accelerator: str, figures: str, swept: list[str], said: str | None
) -> None:
    device = OmegaConf.create({"accelerator": accelerator, "figures": figures})
    if said is None:
        assert check_named_device(device, swept) is None
        return
    with pytest.raises(ConfigError, match=said):
        check_named_device(device, swept)


def test_a_folder_that_the_node_does_not_see_is_told_by_the_worker_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster_worker, "SEEN_S", 0.0)
    worker = Worker(tmp_path / "elsewhere", "001_seed-0_12345678", tmp_path, [], 120)
    assert worker._train(leads=True) == 2
    said = capfd.readouterr().err
    assert "elsewhere of the submitting machine is not seen on" in said and "all nodes share" in said

    jobs = ClusterJobs(tmp_path, ClusterOptions(), ("7_0", "7_1", "7_2"))
    (tmp_path / "7_0_0.code").write_text("0\n")
    (tmp_path / "7_1_0.code").write_text("2\n")
    (tmp_path / "7_1_0_log.err").write_text(said)
    (tmp_path / "7_2_0_log.err").write_text("slurmstepd: error: killed\n")
    unseen, killed = jobs.unsuccessful(excused=True)
    assert unseen.startswith("job 7_1: hydra.sweep.dir: ") and "all nodes share" in unseen
    (tmp_path / "7_0_0.code").write_text("1\n")
    assert len(jobs.unsuccessful(excused=True)) == 2
    broken, *_ = jobs.unsuccessful(excused=False)  # as in a search whose workers cannot even import
    assert broken.startswith("job 7_0: ended with exit code 1; its log is ")
    assert killed == f"job 7_2: ended without a report; its log is {tmp_path / '7_2_0_log.err'}"


def test_what_jobs_unpickle_is_private_and_outside_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(tmp_path / "cache"))
    sweep = tmp_path / "sweep"
    with pytest.raises(ConfigError, match="is inside the sweep's folder"):
        state_folder(sweep, str(sweep / "jobs"), paths.cache_dir())
    place = state_folder(sweep, None, paths.cache_dir())
    place.mkdir(parents=True)
    (place / "jobs.json").write_text("{}")
    place.chmod(stat.S_IRWXU | stat.S_IRWXG)
    with pytest.raises(DiskError, match="can be written by others, and jobs run what is in it"):
        remembered(sweep)
    place.chmod(stat.S_IRWXU)
    with pytest.raises(CheckpointError, match="is damaged; delete it"):
        remembered(sweep)


def test_a_damaged_record_of_jobs_is_deleted_and_the_sweep_submitted_again(scheduler: Path) -> None:
    plan = planned(scheduler / "sweep", seeds(0))
    submit(plan.folder, options(), [])
    (record,) = (scheduler / "cache").rglob("jobs.json")
    record.write_text("{")
    with pytest.raises(CheckpointError, match=rf"{record} is damaged; delete it and give the sweep's command again"):
        remembered(plan.folder.path)
    record.unlink()
    assert remembered(plan.folder.path) is None
    submitted = submit(plan.folder, options(), [])
    assert remembered(plan.folder.path) == submitted


def test_the_options_of_hydra_are_those_of_the_object_with_its_defaults() -> None:
    theirs = OmegaConf.to_container(OmegaConf.structured(SlurmLauncherConf()))
    assert isinstance(theirs, dict)
    theirs.pop("_target_")
    assert (
        theirs == ClusterOptions().plain() and from_plain({**ClusterOptions().plain(), "later": 1}) == ClusterOptions()
    )
