"""Who may hand a trial to an executor of several agents, and what becomes of what is handed over."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from platform import node

import pytest
from conftest import TINY
from test_cluster import until

from danube_sweep.cli import main
from danube_sweep.config.schema import Config
from danube_sweep.errors import ConfigError, TrialFailed, UserError
from danube_sweep.storage.files import write_json
from danube_sweep.storage.sweep_folder import Entry, SweepFolder
from danube_sweep.sweeping.share import agent_command, handed_source, meeting_place
from danube_sweep.sweeping.share.agent_command import AgentCommand, TrialError, held_for, named_command, tell
from danube_sweep.sweeping.share.executor_settings import settings_among
from danube_sweep.sweeping.share.handed_source import HandedSource
from danube_sweep.sweeping.share.lines import LONGEST, Lines, is_ours
from danube_sweep.sweeping.share.meeting_place import EXECUTOR, named_socket, runtime_folder, socket_of
from danube_sweep.sweeping.share.shared_trial import SHARE, _SharedTrial

Tiny = Callable[..., Config]


@pytest.fixture(autouse=True)
def own_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


class Meeting:
    """A source of two trials, and the agents' ends of its socket."""

    def __init__(
        self, folder: SweepFolder, tiny: Tiny, place: socket.socket, path: Path, expected: int | None = 2
    ) -> None:
        overrides = [[f"lora.rank={rank}"] for rank in (2, 4)]
        with folder.locked():
            folder.write({"settings": {}})
            added = folder.add([(tiny(*words), words, None) for words in overrides], shared=[])
        self.entries: list[Entry] = [entry for entry, _ in added]
        self.source = HandedSource(folder, expected)
        self._path, self._ends = path, []  # type: tuple[Path, list[Lines]]
        threading.Thread(target=self.source.listen, args=(place,), daemon=True).start()

    def hand(self, name: str) -> Lines:
        end = socket.socket(socket.AF_UNIX)
        end.connect(str(self._path))
        lines = Lines(end)
        self._ends.append(lines)
        lines.send({"trial": name})
        return lines

    def handed(self, number: int) -> Lines:
        """The end of a trial's process, once the source has the trial."""
        before = len(self.source.waiting(lambda _: True, 9))
        lines = self.hand(self.entries[number].path.name)
        until(lambda: len(self.source.waiting(lambda _: True, 9)) > before, 30.0)
        return lines


@pytest.fixture
def meeting(tmp_path: Path, tiny: Tiny, request: pytest.FixtureRequest) -> Iterator[Meeting]:
    path = socket_of(tmp_path / "sweep")
    with socket.socket(socket.AF_UNIX) as place:
        place.bind(str(path))
        place.listen(5)
        yield Meeting(SweepFolder(tmp_path / "sweep"), tiny, place, path, getattr(request, "param", 2))
        place.shutdown(socket.SHUT_RDWR)


def answer(lines: Lines) -> dict[str, object]:
    found = lines.receive(30)
    assert len(found) == 1, found
    return found[0]


def test_an_executor_leaves_with_the_command_that_keeps_it_once_nothing_is_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with AgentCommand(tmp_path / "sweep") as command:
        (name,) = command.variable
        monkeypatch.setenv(name, command.variable[name])
        kept = named_command()
        assert kept is not None
        source = HandedSource(SweepFolder(tmp_path / "sweep"), 1, kept)
        executor = held_for(kept)
        assert source.pending()
        monkeypatch.setattr(agent_command, "GONE_WITHIN_S", 0.2)
        assert not command.dismiss(), "it is still there"
        assert not source.pending()
        os.close(executor)
        assert command.dismiss()
        with pytest.raises(FileNotFoundError):
            held_for(kept)


def test_a_command_hears_the_errors_of_its_trials_while_it_lives(tmp_path: Path) -> None:
    errors = [TrialError("lora.rank=0", "lora.rank must be at least 1, got 0\n", code) for code in (2, 1)]
    with AgentCommand(tmp_path / "sweep") as command:
        (path,) = map(Path, command.variable.values())
        for error in errors:
            tell(path, error)
        with path.open("a") as stream:
            stream.write("cut sh")
        assert command.errors() == errors
    tell(path, errors[0])
    assert not path.exists()


def test_as_many_trials_as_are_expected_start_together(meeting: Meeting) -> None:
    meeting.handed(0)
    assert meeting.source.claim() is None and meeting.source.pending()
    meeting.handed(1)
    claims = [meeting.source.claim(), meeting.source.claim()]
    assert [claim.entry.number for claim in claims if claim is not None] == [1, 2]
    assert meeting.source.claim() is None


def test_fewer_start_when_no_other_has_come_for_a_while(meeting: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handed_source, "GATHER_S", 0.0)
    meeting.handed(0)
    assert meeting.source.claim() is not None


@pytest.mark.parametrize("meeting", [None], indirect=True)
def test_where_nobody_knows_how_many_come_the_first_trials_wait_and_later_ones_for_as_many(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [entry.path.name for entry in meeting.entries]
    first, second = meeting.handed(0), meeting.handed(1)
    assert meeting.source.claim() is None
    with monkeypatch.context() as patch:
        patch.setattr(handed_source, "GATHER_S", 0.0)
        claims = [meeting.source.claim(), meeting.source.claim()]
    for claim, lines in zip(claims, (first, second), strict=True):
        assert claim is not None
        meeting.source.ended(claim, "preempted")
        assert answer(lines) == {"ended": "preempted"}
        claim.release()
    meeting.handed(1)
    assert meeting.source.claim() is None, "there were two before"
    meeting.handed(0)
    claims = [meeting.source.claim(), meeting.source.claim()]
    assert [claim.entry.path.name for claim in claims if claim is not None] == names[::-1]


def test_a_first_trial_that_cannot_be_read_is_told_so_and_nobody_waits_for_ever(meeting: Meeting) -> None:
    meeting.entries[0].folder.config.write_text("lora: {")
    lines = meeting.hand(meeting.entries[0].path.name)
    until(lambda: bool(meeting.source._handed), 30.0)
    assert meeting.source.first(lambda: not meeting.source._handed) is None
    assert answer(lines) == {"ended": "invalid"}
    assert meeting.source.notes[0].startswith(f"{meeting.entries[0].path.name} is left out: ")


def test_the_config_of_a_trial_that_waits_is_read_once(meeting: Meeting) -> None:
    meeting.handed(0)
    (config,) = meeting.source.waiting(lambda _: True, 9)
    meeting.entries[0].folder.config.unlink()
    (again,) = meeting.source.waiting(lambda _: True, 9)
    assert again is config


def test_a_trial_of_ones_own_agent_starts_an_executor_for_as_many_as_come_with_the_sweep_files_settings(
    tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tracking=wandb", "tracking.mode=disabled"]
    sweep, config = SweepFolder(tmp_path / "sweep"), tiny(*words)
    with sweep.locked():
        [(entry, _)] = sweep.add([(config, words, None)], shared=[])
    settings = settings_among([*words, "++sweep.pack=2", "sweep.deadline_h=8", "lora.rank=4"], ["lora.rank"])
    started: list[list[str]] = []
    monkeypatch.setattr("subprocess.Popen", lambda words, **_: started.append(words))
    for share, theirs in (None, []), ("--trials 8 sweep.pack=8", ["--trials", "8", "sweep.pack=8"]):
        monkeypatch.delenv(SHARE, raising=False)
        if share is not None:
            monkeypatch.setenv(SHARE, share)
        _SharedTrial(config, entry.folder, sweep, settings)._start()
        assert started.pop()[3:] == ["agent", "--serve", str(sweep.path), "sweep.pack=2", *theirs]
        assert "sweep.deadline_h=8: has no effect on agents" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "parameters", "said"),
    [
        (["sweep.pack=2"], ["sweep.pack"], "sweep.pack is the executor's, which trials share; take it from parameters"),
        (["sweep.pack=-1"], [], "sweep.pack"),
    ],
)
def test_a_setting_that_an_executor_cannot_follow_is_refused(
    words: list[str], parameters: list[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{said}"):
        settings_among(words, parameters)


def test_the_end_of_a_trial_is_told_to_its_process_and_a_failed_result_is_trained_again(meeting: Meeting) -> None:
    write_json(meeting.entries[0].folder.result, {"trial": meeting.entries[0].hash, "state": "failed"})
    first, _ = meeting.handed(0), meeting.handed(1)
    claim = meeting.source.claim()
    assert claim is not None and not claim.entry.folder.result.is_file()
    assert meeting.source.withdrawn(claim) is None
    meeting.source.ended(claim, "finished")
    assert answer(first) == {"ended": "finished"}
    assert meeting.source.progress() == (1, None)


def test_a_process_that_dies_or_stops_takes_its_own_trial_back(meeting: Meeting) -> None:
    first, second = meeting.handed(0), meeting.handed(1)
    claims = [claim for claim in (meeting.source.claim(), meeting.source.claim()) if claim is not None]
    first.close()
    until(lambda: meeting.source.withdrawn(claims[0]), 30.0)
    assert meeting.source.withdrawn(claims[0]) == "its agent's process is gone"
    assert meeting.source.withdrawn(claims[1]) is None
    second.send({"stop": True})
    until(lambda: meeting.source.withdrawn(claims[1]), 30.0)
    assert meeting.source.withdrawn(claims[1]) == "its W&B run was stopped"


def test_a_trial_that_waits_is_let_go_at_once_when_it_is_stopped(meeting: Meeting) -> None:
    waits = meeting.handed(0)
    waits.send({"stop": True})
    assert answer(waits) == {"ended": "preempted"}


@pytest.mark.parametrize("name", ["../sweep", "001_other_12345678", "", "None"])
def test_a_name_that_is_no_trial_of_the_sweep_is_refused(meeting: Meeting, name: str) -> None:
    assert "is no trial of this sweep" in str(answer(meeting.hand(name))["refused"])


def test_a_second_process_with_the_same_trial_is_refused(meeting: Meeting) -> None:
    meeting.handed(0)
    twin = meeting.hand(meeting.entries[0].path.name)
    assert "being trained by another process" in str(answer(twin)["refused"])


def test_a_mistake_in_the_executors_settings_is_told_to_all_trials(meeting: Meeting) -> None:
    first, second = meeting.handed(0), meeting.handed(1)
    meeting.source.refuse("sweep.slots=9: more than the GPUs")
    name = meeting.entries[0].path.name
    for lines in (first, second, meeting.hand(name)):
        assert answer(lines) == {"mistake": "sweep.slots=9: more than the GPUs"}
    assert meeting.source.claim() is None


def test_a_mistake_that_only_the_executors_child_finds_is_the_users(tmp_path: Path, tiny: Tiny) -> None:
    words = ["tracking=wandb", "tracking.mode=disabled"]
    sweep, config = SweepFolder(tmp_path / "sweep"), tiny(*words)
    with sweep.locked():
        [(entry, _)] = sweep.add([(config, words, None)], shared=[])
    trial = _SharedTrial(config, entry.folder, sweep)
    write_json(entry.folder.result, {"trial": entry.hash, "state": "invalid", "error": "data.path: no such file"})
    with pytest.raises(UserError, match=r"^data\.path: no such file$"):
        trial._conclude()
    write_json(entry.folder.result, {"trial": entry.hash, "state": "oom", "error": "no memory"})
    with pytest.raises(TrialFailed, match="oom: no memory"):
        trial._conclude()


def test_a_trial_that_starts_again_is_told(tmp_path: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tracking=wandb", "tracking.mode=disabled"]
    sweep, config = SweepFolder(tmp_path / "sweep"), tiny(*words)
    with sweep.locked():
        [(entry, _)] = sweep.add([(config, words, None)], shared=[])
    trial = _SharedTrial(config, entry.folder, sweep)
    for steps, said in ((2, ""), (3, ""), (1, "the trial starts again at an earlier step"), (2, "")):
        rows = "".join(f"{step},train,0.5\n" for step in range(1, steps + 1))
        entry.folder.metrics.write_text(f"step,part,loss\n{rows}")
        trial._log_rows()
        printed = capsys.readouterr().err
        assert said in printed and bool(said) == bool(printed)


def test_the_process_of_a_handed_trial_loads_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WANDB_SWEEP_ID", "s1"), ("WANDB_RUN_ID", "r1"), (SHARE, "--trials 1")):
        monkeypatch.setenv(name, value)
    heavy = "{'torch', 'transformers', 'peft', 'lightning', 'bitsandbytes'}"
    looks = "import sys; from danube_sweep.cli import main; code = main.main(sys.argv[1:])"
    words = [*(one for one in TINY if one != "tracking=none"), "tracking=wandb", "tracking.mode=disabled"]
    sweep = SweepFolder(tmp_path / "multirun" / "s1")
    with socket.socket(socket.AF_UNIX) as place:
        place.bind(str(socket_of(sweep.path)))
        place.listen(5)
        source = HandedSource(sweep, 1)
        threading.Thread(target=source.listen, args=(place,), daemon=True).start()
        # A process of its own, not one that is forked from the stack: its imports are the subject.
        started = [sys.executable, "-c", f"{looks}; print({heavy} & {{*sys.modules}}); sys.exit(code)", *words]
        child = subprocess.Popen(started, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        until(lambda: source.waiting(lambda _: True, 1) or child.poll() is not None, 120.0)
        claim = source.claim()
        assert claim is not None
        write_json(claim.entry.folder.result, {"trial": claim.entry.hash, "state": "finished", "best_step": 1})
        source.ended(claim, "finished")
        assert child.communicate(timeout=60) == ("set()\n", None) and child.returncode == 0
        claim.release()
        place.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(("host", "found"), [(node(), True), ("elsewhere", False)])
def test_an_executor_is_found_where_it_listens_whatever_the_login_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, found: bool
) -> None:
    before = socket_of(tmp_path)
    write_json(tmp_path / EXECUTOR, {"socket": str(before), "process": 1, "host": host})
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert socket_of(tmp_path) != before
    assert named_socket(tmp_path) == (before if found else None)


@pytest.mark.parametrize("sent", [b"\x80\x04K\x01.\n", b"[1]\n", b"x" * (2 * LONGEST)])
def test_what_is_no_line_of_json_ends_the_connection(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    threading.Thread(target=ours.sendall, args=(sent,), daemon=True).start()
    lines = Lines(theirs)
    found = []
    while not lines.closed:
        found += lines.receive(30)
    assert found == []
    ours.close()
    lines.close()


def test_only_processes_of_this_user_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert is_ours(ours)
        monkeypatch.setattr("os.getuid", lambda: 12345)
        assert not is_ours(ours)


def test_the_folder_of_sockets_is_this_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = runtime_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o750)
    with pytest.raises(ConfigError, match="not a folder of this user alone"):
        runtime_folder()
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="not a folder of this user alone"):
        runtime_folder()


def test_a_socket_whose_path_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with pytest.raises(ConfigError, match="too long for a socket"):
        socket_of(tmp_path)
    assert len(bytes(socket_of_default(tmp_path, monkeypatch))) <= meeting_place.MOST_BYTES


def socket_of_default(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    return socket_of(sweep)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give one sweep as ENTITY/PROJECT/ID"),
        (["me/p/s", "--serve", "x"], "--serve x runs the executor of that folder alone, and me/p/s names a W&B sweep"),
        (["me/p/s", "me/p/t"], "give one sweep as ENTITY/PROJECT/ID"),
        (["a/b/c/d"], "'a/b/c/d' is not the path of a sweep"),
        (["me/p/s", "--trials", "65"], "--trials must be between 1 and 64, got 65"),
        (["me/p/s", "lora.rank=4"], "lora.rank=4: only sweep.FIELD=VALUE"),
        (["me/p/s", "sweep.pack=-1"], "sweep.pack"),
        (["me/p/s", "sweep.packs=2"], "sweep.packs"),
        (["me/p/s", "sweep.deadline_h=8"], "sweep.deadline_h=8: has no effect on agents"),
        (["me/p/s", "sweep.pack=8", "sweep.metric=validation/accuracy"], "the executor takes sweep.slots, sweep.pack"),
    ],
)
def test_a_mistake_in_the_command_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["agent", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
