"""A sweep on a real SLURM: slurmctld, slurmd and munge on the loopback, started here. Debian: slurm-wlm, munge."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import TINY
from runs import start
from test_cluster import until

from danube_sweep.storage.sweep_folder import SweepFolder, attempts
from danube_sweep.sweeping.cluster.cluster_jobs import remembered

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "srun", "scancel")
CONF = """
ClusterName=tiny
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 Boards=1 SocketsPerBoard=2 CoresPerSocket=1 ThreadsPerCore=1 RealMemory=1000
PartitionName=tiny Nodes={host} Default=YES MaxTime=600 State=UP
"""


def why_not() -> str | None:
    if os.environ.get("DANUBE_SWEEP_TEST_FULL") != "1":
        return "runs with DANUBE_SWEEP_TEST_FULL=1"
    if os.geteuid() != 0:
        return "slurmd starts jobs as root only"
    missing = [name for name in DAEMONS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    return f"not installed: {', '.join(missing)}" if missing else None


pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return found


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    place = tmp_path / "slurm"
    for folder in (place, place / "state", place / "spool"):
        folder.mkdir(mode=0o755)
    key = place / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    conf = place / "slurm.conf"
    conf.write_text(CONF.format(place=place, host=socket.gethostname().split(".")[0], ports=free_ports(2)))
    monkeypatch.setenv("SLURM_CONF", str(conf))
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")
    munge = ["--foreground", "--force", f"--key-file={key}", f"--socket={place}/munge.socket"]
    munge += [f"--{name}-file={place}/munged.{name}" for name in ("pid", "log", "seed")]
    commands = [["munged", *munge], ["slurmctld", "-D", "-f", str(conf)], ["slurmd", "-D", "-f", str(conf)]]

    def asked(*words: str) -> str:
        return subprocess.run(words, capture_output=True, text=True).stdout

    running = []
    with (place / "said.log").open("wb") as said:
        try:
            for command in commands:
                running.append(subprocess.Popen(command, stdout=said, stderr=said))
                until(lambda: (place / "munge.socket").exists())
            until(lambda: "idle" in asked("sinfo", "--noheader", "--format=%T"))
            yield asked
        finally:
            asked("scancel", "--me")
            for one in reversed(running):
                one.terminate()
                one.wait(timeout=60)


@pytest.mark.timeout(900)
def test_a_signalled_job_checkpoints_and_is_queued_again(
    tmp_path: Path, cluster: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    words = ["-m", "hydra/launcher=slurm", "hydra.launcher.jobs=2", "hydra.launcher.partition=tiny", *TINY]
    words += ["hydra.sweep.dir=sweep", "seed=0,1,2,3", "data.rows=40", "trainer.max_steps=100", "sweep.pack=1"]
    sweep = start(*words, "trainer.validate_every=2", "sweep.baseline=none", cwd=tmp_path)
    jobs = until(lambda: remembered(tmp_path / "sweep"))
    folder = SweepFolder(tmp_path / "sweep")
    until(lambda: any(entry.folder.has_checkpoints for entry in folder.entries()), 400.0)
    print(cluster("squeue", "--array"))
    for one in jobs.ids:
        cluster("scancel", "--signal=USR2", one)
    until(lambda: cluster("squeue", "--noheader", "--array", "--format=%T").split() == ["PENDING", "PENDING"])
    print(cluster("squeue", "--array"))
    for one in jobs.ids:  # SLURM lets a job wait two minutes before it starts again
        cluster("scontrol", "update", f"JobId={one}", "StartTime=now")
    _, err = sweep.communicate(timeout=600)
    assert sweep.returncode == 0, err
    states = [[attempt.state for attempt in attempts(entry.folder)] for entry in folder.entries()]
    assert [one[-1] for one in states] == ["finished"] * 4
    assert all(one.count("finished") == 1 for one in states), "each trial is trained once"
    assert any("interrupted" in one for one in states)
    logs = "".join(log.read_text() for log in jobs.folder.glob("*_log.*"))
    assert logs.count("Requeued job") == 2
