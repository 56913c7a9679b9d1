"""The stock client's whole life: sweeps of each method, points that fail, agents and sweeps that are stopped."""

import json
import os
import signal
from collections.abc import Iterator

import pytest
import runs
from conftest import TINY
from wandb_client import Client, client, until
from wandb_controller import Received

FIXED = ["data.rows=40", *TINY, "tracking=wandb", "tracking.timeout_s=20", "trainer.validate_every=1"]
SHORT = [*FIXED, "trainer.max_steps=2"]
LOSS = "validation/log_loss"
pytestmark = [pytest.mark.timeout(600), pytest.mark.full]
RANKS = {"lora.rank": {"values": [2, 4]}}
FOREVER = {"trainer.max_steps": 100_000}
OOM = {"lora.rank": 2_000_000_000}
"""Adapters of 512 GB each."""


class Life:
    """Several sweeps of one user, as many at the same time as do not wait for each other."""

    def __init__(self, client: Client) -> None:
        self.client, self.server = client, client.server
        self.grid = client.sweep(SHORT, name="a grid", parameters=RANKS)
        uniform = {"lora.rank": {"min": 2, "max": 5}, "optimizer.lr": {"min": 1e-4, "max": 1e-2}}
        self.random = client.sweep(SHORT, name="at random", method="random", run_cap=2, parameters=uniform)
        self.bayes = client.sweep(
            FIXED,
            name="learning",
            method="bayes",
            run_cap=3,
            early_terminate={"type": "hyperband", "min_iter": 2},
            parameters={
                "optimizer.lr": {"values": [0.001, 0.002, 0.003]},
                "lora.rank": {"min": 2, "max": 5},
                "trainer.max_steps": {"values": [3]},
            },
        )
        drawn = (self.grid, self.random, self.bayes)
        for sweep in drawn:
            client.handed(sweep).draws = True
        self.failing = client.sweep(SHORT, name="bad luck", parameters=RANKS)
        bad = [("missing", {"data.generator": "nowhere"}), ("oom", OOM), ("diverged", {"optimizer.lr": 1e30})]
        client.handed(self.failing).waiting = [*bad, ("never", {"lora.rank": 2})]
        away = [*SHORT, "tracking.log_adapter=true", "tracking.mode=offline"]
        self.away = client.sweep(away, name="away", parameters=RANKS)
        client.handed(self.away).waiting = [("away", {"lora.rank": 2})]
        agents = [client.agent(sweep) for sweep in (*drawn, self.away)]
        # The stock rule of three failures counts in the first minute alone; this one, of all failures.
        agents.append(client.agent(self.failing, WANDB_AGENT_MAX_INITIAL_FAILURES="3"))
        for agent in agents:
            agent.wait()
        self._sync()
        self._stop_early()
        self._stop_all()

    def _sync(self) -> None:
        (unsent,) = (self.client.place / "multirun" / self.away).glob("*/wandb/offline-run-*")
        self.before_the_sync = "away" in self.server.runs
        self.client.wandb("sync", str(unsent))

    def _stop_early(self) -> None:
        # A point that gets worse, and does not end by itself, for the server's hyperband.
        handed = self.client.handed(self.bayes)
        worse = {"optimizer.lr": 0.1, "schedule.warmup": 0, **FOREVER}
        handed.config["run_cap"], handed.waiting = 4, [("hopeless", worse)]
        assert self.client.agent(self.bayes).wait() == 0

    def _stop_all(self) -> None:
        client, server = self.client, self.server
        self.long = client.sweep(FIXED, name="long", parameters=RANKS)
        handed = client.handed(self.long)
        handed.waiting = [("orphan", {"lora.rank": 2, **FOREVER})]
        first = client.agent(self.long)
        until(lambda: "orphan" in server.runs and server.runs["orphan"].history)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        # Its child goes on. Another agent that is given the same point finds it taken.
        handed.waiting = [("twin", {"lora.rank": 2, **FOREVER}), ("killed", {"lora.rank": 4, **FOREVER})]
        second = client.agent(self.long)
        until(lambda: "killed" in server.runs and server.runs["killed"].history)
        handed.ended = True  # the sweep is stopped on its page
        assert second.wait() == 0
        self.orphan_lived = client.door.ended("lora.rank=2", "trainer.max_steps=100000") == [2]  # the twin alone


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    with client(tmp_path_factory, "life") as user:
        yield Life(user)


def of(life: Life, sweep: str) -> dict[str, Received]:
    return {name: life.server.runs[name] for name in life.client.handed(sweep).given}


def test_no_request_was_one_that_the_clients_package_does_not_define(life: Life) -> None:
    assert life.server.refused == []
    assert {"UpsertSweep", "Heartbeat", "UpsertBucket", "GetSweep"} <= {*life.server.operations}


@pytest.mark.parametrize("kind", ["grid", "random", "bayes"])
def test_every_method_and_its_cap_are_followed(life: Life, kind: str) -> None:
    sweep = getattr(life, kind)
    finished = {name: run for name, run in of(life, sweep).items() if name != "hopeless"}
    assert len(finished) == {"grid": 2, "random": 2, "bayes": 3}[kind]
    for name, run in finished.items():
        assert (run.exit_code, run.sweep, run.group) == (0, sweep, life.client.handed(sweep).config["name"])
        folder = life.client.trial(sweep, **life.client.handed(sweep).given[name])
        result = json.loads(folder.result.read_text())
        assert run.summary[LOSS] == pytest.approx(result["validation"]["log_loss"], abs=1e-12)
        assert len([row for row in run.history if LOSS in row]) == result["steps"]


def test_bayes_learns_from_the_values_that_came_and_hyperband_stops_by_them(life: Life) -> None:
    assert life.client.handed(life.bayes).seen == [0, 1, 2]
    assert life.client.handed(life.bayes).to_stop == {"hopeless"}
    assert life.client.door.ended("optimizer.lr=0.1") == [143]
    folder = life.client.trial(life.bayes, **FOREVER)
    assert folder.has_checkpoints and not folder.result.is_file()


def test_a_point_that_fails_tells_the_server_how_and_three_stop_the_agent(life: Life) -> None:
    server, door = life.server, life.client.door
    assert [name for name, _ in life.client.handed(life.failing).waiting] == ["never"]
    for name, state, code, said in (
        ("missing", "invalid", 2, "data.generator"),
        ("oom", "oom", 1, "memory"),
        ("diverged", "diverged", 1, "loss"),
    ):
        run = server.runs[name]
        assert (run.exit_code, run.summary["state"], run.sweep) == (code, state, life.failing)
        assert said in run.summary["error"]
    assert door.ended("optimizer.lr=1e+30") == [1] and door.ended("lora.rank=2000000000") == [1]
    assert door.ended("data.generator=nowhere") == [2]
    assert "never" not in server.runs


def test_what_was_logged_offline_arrives_with_sync(life: Life) -> None:
    run, folder = life.server.runs["away"], life.client.trial(life.away, **{"lora.rank": 2})
    assert not life.before_the_sync
    assert (run.exit_code, run.sweep, run.group) == (0, life.away, life.away)  # nobody was asked for the name
    assert [row["_step"] for row in run.history if LOSS in row] == [1, 2]
    assert run.summary["state"] == "finished"
    assert [name for name in life.server.files["away"] if "predictions" in name], life.server.files.keys()
    artifact = life.server.files["adapter-away"]
    weights = {name: data for name, data in artifact.items() if name.endswith(".safetensors")}
    assert weights and all((folder.path / "adapter" / name).read_bytes() == data for name, data in weights.items())


def test_a_killed_agents_trial_goes_on_alone_and_its_twin_is_refused(life: Life) -> None:
    server = life.server
    assert (server.runs["twin"].exit_code, server.runs["twin"].summary["state"]) == (2, "preempted")
    assert "trained by another process" in server.runs["twin"].summary["error"]
    assert life.orphan_lived and server.runs["orphan"].exit_code is None


def test_a_run_of_a_sweep_that_is_stopped_on_its_page_keeps_its_checkpoint(life: Life) -> None:
    assert life.client.door.ended("lora.rank=4", "trainer.max_steps=100000") == [-9]
    killed = life.client.trial(life.long, **{"lora.rank": 4})
    assert killed.has_checkpoints and not killed.result.is_file()


def test_what_agents_left_is_ranked_reported_and_resumed(life: Life) -> None:
    client, folder = life.client, life.client.folder(life.grid)
    for command in ("rank", "report", "resume"):
        done = runs.command(command, str(folder.path), cwd=client.place)
        assert done.returncode == 0, done
    ranking = (folder.path / "ranking.csv").read_text()
    assert all(entry.hash is not None and entry.hash[:8] in ranking for entry in folder.entries())
    assert (folder.path / "report.html").is_file()
    failed = runs.command("resume", str(life.client.folder(life.failing).path), cwd=client.place)
    assert failed.returncode == 1 and "did not finish" in failed.stderr, failed
