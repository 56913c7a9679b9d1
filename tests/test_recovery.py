"""One damaged file costs one trial at most: it is repaired from the others or set aside, and that is said."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sweeps import planned

from danube_sweep import recovery
from danube_sweep.cli.main import main
from danube_sweep.config.stored import load_config
from danube_sweep.errors import CheckpointError
from danube_sweep.recovery import mend
from danube_sweep.results.rank import rank_sweep
from danube_sweep.results.refit_settings import find_chosen
from danube_sweep.results.rows import Ranking, winner
from danube_sweep.results.trial_results import DAMAGED
from danube_sweep.results.winning_run import winning_run
from danube_sweep.storage import files as json_files
from danube_sweep.storage.files import write_json
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.sweep_folder import Entry, SweepFolder
from danube_sweep.sweeping.propose.next_trial import FolderSource

CELLS = [[f"lora.rank={rank}", f"seed={seed}"] for rank in (2, 4) for seed in (0, 1)]
LOSSES = (0.5, 0.6, 0.3, 0.4)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep over two ranks and two seeds, all finished; its last two trials are the best row."""
    path = tmp_path_factory.mktemp("damage") / "sweep"
    folder = planned(path, CELLS).folder
    for entry, loss in zip(folder.entries(), LOSSES, strict=True):
        validation = {"log_loss": loss, "accuracy": 0.5}
        write_json(entry.folder.result, {"trial": entry.hash, "state": "finished", "validation": validation})
    return path


@pytest.fixture
def sweep(original: Path, tmp_path: Path) -> SweepFolder:
    return SweepFolder(Path(shutil.copytree(original, tmp_path / "sweep")))


def mended(sweep: SweepFolder) -> list[str]:
    notes: list[str] = []
    with sweep.locked():
        mend(sweep, notes.append)
    return notes


def files(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def means(ranking: Ranking) -> list[tuple[object, float | None, int]]:
    return [(row.values["lora.rank"], row.mean, row.count) for row in ranking.rows]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut_at_a_line(file: Path) -> None:
    """What is left is YAML, without the last lines."""
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[: len(lines) // 2]))


def zero(file: Path) -> None:
    file.write_bytes(b"\0" * file.stat().st_size)


# ----------------------------------------------------------------------------------------------------------- mending


def test_a_whole_sweep_is_left_alone(sweep: SweepFolder) -> None:
    before = files(sweep.path)
    assert mended(sweep) == [] and files(sweep.path).items() >= before.items()


@pytest.mark.parametrize("damage", [cut, cut_at_a_line, empty, zero])
@pytest.mark.parametrize("name", ["trial.json", "config.yaml"])
def test_a_damaged_file_is_written_anew_from_the_other_one(
    sweep: SweepFolder, name: str, damage: Callable[[Path], None]
) -> None:
    place = sweep.entries()[1].path
    before = files(sweep.path)
    damage(place / name)
    broken = (place / name).read_bytes()
    [note] = mended(sweep)
    assert note.startswith(f"{place.name}: {name} was damaged") and f"{name}.damaged" in note
    after = files(sweep.path)
    assert after.pop(f"{place.name}/{name}.damaged") == broken
    after.pop(".lock", None), before.pop(".lock", None)
    assert after == before


def test_all_files_of_a_kind_may_be_damaged(sweep: SweepFolder) -> None:
    before = [load_config(entry.folder.config) for entry in sweep.entries()]
    for entry in sweep.entries():
        cut(entry.folder.config)
    assert len(mended(sweep)) == 4
    assert [load_config(entry.folder.config) for entry in sweep.entries()] == before


def test_without_words_a_trial_is_still_known_by_its_config(sweep: SweepFolder) -> None:
    """With no other trial to learn the words from there are none; the trial trains on all the same."""
    hashes = [entry.hash for entry in sweep.entries()]
    for entry in sweep.entries():
        empty(entry.folder.trial)
    assert sweep.entries() == [] and len(mended(sweep)) == 4
    assert [(entry.hash, entry.overrides) for entry in sweep.entries()] == [(identity, []) for identity in hashes]


def test_a_trial_that_nothing_describes_is_set_aside_and_the_command_adds_it_again(sweep: SweepFolder) -> None:
    lost, *others = sweep.entries()
    empty(lost.folder.trial)
    zero(lost.folder.config)
    [note] = mended(sweep)
    assert note.startswith(f"{lost.path.name}: trial.json was damaged") and "adds the trial again" in note
    assert f"hydra.sweep.dir={sweep.path}" in note
    assert sweep.entries() == others and sweep.damaged() == [] and lost.folder.result.is_file()
    assert any(line.startswith(f"{lost.path.name} is left out") for line in rank_sweep(sweep.path).notes)
    again = planned(sweep.path, CELLS).folder.entries()
    assert [entry.hash for entry in again] == [*(other.hash for other in others), lost.hash]
    assert again[-1].number == 5 and again[-1].overrides == lost.overrides


def test_the_commands_own_words_add_no_trial_twice_after_damage(sweep: SweepFolder) -> None:
    cut(sweep.entries()[2].folder.trial)
    assert len(planned(sweep.path, CELLS).folder.entries()) == 4


def test_a_damaged_micro_batch_is_that_of_the_config_again_and_steps_of_another_are_not_continued(
    sweep: SweepFolder,
) -> None:
    entry = sweep.entries()[0]
    entry.folder.result.unlink()
    entry.folder.adjusted.write_text('{"trainer.micro_batch": "2"}')
    (entry.folder.checkpoints / "step-00000002").mkdir(parents=True)
    [note] = mended(sweep)
    assert "adjusted.json was damaged" in note and "begins again; its checkpoints are in " in note
    assert entry.folder.micro_batch(load_config(entry.folder.config)) == 4
    assert (
        not entry.folder.checkpoints.exists()
        and (entry.path / "checkpoints-of-another-micro-batch" / "step-00000002").is_dir()
    )


def test_what_killed_processes_left_half_written_is_gone_and_a_users_file_is_not(sweep: SweepFolder) -> None:
    entry = sweep.entries()[0]
    ours = [sweep.path / ".ranking.csv.4194305-0a1b2c.tmp", entry.path / ".result.json.4194305-ffffff.tmp"]
    ours.append(entry.path / ".adapter.4194305-000000.tmp" / "model")
    ours[-1].parent.mkdir()
    theirs = [sweep.path / ".notes.tmp", entry.path / "my.4194305-0a1b2c.tmp"]
    for file in (*ours, *theirs):
        file.write_text("half")
    assert mended(sweep) == []
    assert not any(file.exists() for file in ours) and all(file.is_file() for file in theirs)


# ------------------------------------------------------------------------------------------------------------ advice


def advised(sweep: SweepFolder, read: Callable[[], object]) -> str:
    with pytest.raises(CheckpointError) as caught:
        read()
    return str(caught.value)


def test_deleting_a_damaged_result_runs_the_trial_again(sweep: SweepFolder) -> None:
    entry = sweep.entries()[0]
    cut(entry.folder.result)
    assert advised(sweep, entry.folder.read_result).endswith("delete it to run the trial again")
    entry.folder.result.unlink()
    claim = FolderSource(sweep).claim()
    assert claim is not None and claim.entry == entry
    claim.release()


def test_a_damaged_result_is_kept_beside_and_the_trial_runs_again(sweep: SweepFolder) -> None:
    entry = sweep.entries()[3]
    entry.folder.result.write_text('{"state": "finished", "validation": {"log_loss": "low"}}')
    source = FolderSource(sweep)
    claim = source.claim()
    assert claim is not None and claim.entry == entry
    claim.release()
    assert source.notes == [
        f"{entry.path.name}: its result.json was damaged; the trial is run again (result.json.damaged)"
    ]
    assert "low" in (entry.path / "result.json.damaged").read_text() and not entry.folder.result.exists()


def test_deleting_a_damaged_sweep_json_and_giving_the_command_again_keeps_the_trials(sweep: SweepFolder) -> None:
    cut(sweep.file)
    said = advised(sweep, sweep.read)
    assert "delete it and give the sweep's command again" in said and f"hydra.sweep.dir={sweep.path}" in said
    before = sweep.entries()
    sweep.file.unlink()
    planned(sweep.path, CELLS)
    assert sweep.entries() == before and sweep.read()["settings"]["sweep"]["baseline"] == "none"
    assert all(entry.folder.result.is_file() for entry in before)


# ----------------------------------------------------------------------------------------------------------- ranking


@pytest.mark.parametrize("name", ["trial.json", "config.yaml"])
def test_a_ranking_is_the_same_when_the_other_file_says_what_a_trial_is(sweep: SweepFolder, name: str) -> None:
    whole = means(rank_sweep(sweep.path))
    place = sweep.entries()[2].path
    cut(place / name)
    before = files(sweep.path)
    ranking = rank_sweep(sweep.path)
    assert means(ranking) == whole == [(4, 0.35, 2), (2, 0.55, 2)]
    assert any(line.startswith(f"{place.name}/{name} is damaged") for line in ranking.notes)
    assert files(sweep.path) == before


def change_the_varied_field(file: Path) -> None:
    file.write_text(file.read_text().replace("rank: 4", "rank: 6"))


def lose_the_newline(file: Path) -> None:
    file.write_text(file.read_text().rstrip())


@pytest.mark.parametrize("damage", [change_the_varied_field, lose_the_newline])
def test_a_config_that_contradicts_its_overrides_or_is_cut_is_damaged(
    sweep: SweepFolder, damage: Callable[[Path], None]
) -> None:
    whole = means(rank_sweep(sweep.path))
    place = sweep.entries()[2].path
    damage(place / "config.yaml")
    ranking = rank_sweep(sweep.path)
    assert means(ranking) == whole and f"{place.name}/config.yaml is damaged" in " ".join(ranking.notes)


def leave_no_words(entry: Entry) -> None:
    cut(entry.folder.trial)
    cut(entry.folder.config)


def change_words(entry: Entry) -> None:
    text = entry.folder.trial.read_text()
    entry.folder.trial.write_text(text.replace("lora.rank=4", "lora.rank=8"))
    cut(entry.folder.config)


@pytest.mark.parametrize("damage", [leave_no_words, change_words])
def test_a_trial_that_nobody_knows_is_left_out_and_nothing_rests_on_it(
    sweep: SweepFolder, damage: Callable[[Entry], None]
) -> None:
    lost = sweep.entries()[2]
    damage(lost)
    ranking = rank_sweep(sweep.path)
    assert any(line.startswith(f"{lost.path.name} is left out") for line in ranking.notes)
    used = [name for row in ranking.rows for name in row.used]
    assert lost.path.name not in used and len(used) == 3
    assert next(one.state for one in ranking.trials if one.trial == lost.path.name) == DAMAGED
    best = winner(ranking)
    assert best is not None and (best.mean, best.count) == (0.4, 1)


def test_the_command_ranks_a_sweep_with_every_kind_of_damage(
    sweep: SweepFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, three, _ = sweep.entries()
    leave_no_words(one)
    zero(two.folder.result)
    empty(three.folder.config)
    assert main(["rank", str(sweep.path)]) == 0
    said = "".join(capsys.readouterr().out.split())
    for name in (one.path.name, two.path.name, three.path.name):
        assert name in said
    assert "Traceback" not in said


# --------------------------------------------------------------------------------------------------------- single run


def test_a_damaged_environment_costs_nothing_where_the_trial_is_known(sweep: SweepFolder) -> None:
    entry = sweep.entries()[0]
    entry.folder.environment.write_text('{"trial": ')
    folder = RunFolder(entry.path)
    config = load_config(folder.config)
    assert folder.hash_of(config) == entry.hash and folder.hash_version() == entry.hash_version


def test_a_config_that_is_beyond_repair_is_said_and_the_others_train(sweep: SweepFolder) -> None:
    first, second, *_ = sweep.entries()
    for entry in (first, second):
        entry.folder.result.unlink()
    change = first.folder.trial.read_text().replace("lora.rank=2", "lora.rank=16")
    first.folder.trial.write_text(change)
    cut(first.folder.config)
    source = FolderSource(sweep)
    claim = source.claim()
    assert claim is not None and claim.entry == second
    claim.release()
    assert len(source.notes) == 1 and source.notes[0].startswith(f"{first.path.name} is left out: ")


def test_a_claim_writes_a_damaged_config_anew(sweep: SweepFolder) -> None:
    entry = sweep.entries()[0]
    entry.folder.result.unlink()
    before = load_config(entry.folder.config)
    entry.folder.config.write_text("lora: {kind: linear}\n")  # still YAML
    source = FolderSource(sweep)
    claim = source.claim()
    assert claim is not None and claim.config == before == load_config(entry.folder.config)
    claim.release()
    assert source.notes[0].startswith(f"{entry.path.name}: config.yaml was damaged and is written anew")


def test_a_result_that_the_system_does_not_give_is_no_reason_to_choose_another_trial(
    sweep: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert winning_run(sweep.path)[0] == sweep.entries()[2].path
    best, read = sweep.entries()[2].folder.result, json_files.json_of
    best.write_text(best.read_text()[:-5])
    chosen, said = winning_run(sweep.path)
    assert chosen == sweep.entries()[3].path
    assert said.endswith(f"without {best.parent.name}, whose result or config is damaged")

    def fails_once(file: Path) -> object:
        if file == best:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(file))
        return read(file)

    monkeypatch.setattr(json_files, "json_of", fails_once)
    assert any("result.json cannot be read (Input/output error)" in note for note in rank_sweep(sweep.path).notes)
    for choose in (winning_run, lambda path: find_chosen(path, 1)):
        with pytest.raises(CheckpointError, match="cannot be read: Input/output error; its trial may be the best"):
            choose(sweep.path)


@pytest.mark.parametrize("name", ["trial.json", "config.yaml", "sweep.json"])
def test_a_file_that_the_system_does_not_give_may_be_whole_and_nothing_is_changed(
    sweep: SweepFolder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    place = sweep.path if name == "sweep.json" else sweep.entries()[1].path
    before, whole = files(sweep.path), sweep.entries()

    def refused(read: Callable[[Path], object]) -> Callable[[Path], object]:
        def reads(file: Path) -> object:
            if file == place / name:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
            return read(file)

        return reads

    with monkeypatch.context() as patched:
        patched.setattr(json_files, "json_of", refused(json_files.json_of))
        patched.setattr(recovery, "yaml_of", refused(recovery.yaml_of))
        os.utime(place / name)  # so that it is read again
        folder = SweepFolder(sweep.path)
        with pytest.raises(CheckpointError, match=rf"{name}.* cannot be read: Permission denied") as caught:
            if name == "sweep.json":
                folder.read()
            mended(folder)
    assert "delete" not in str(caught.value) and files(sweep.path) == before
    assert SweepFolder(sweep.path).entries() == whole  # and not as it was while it could not be read
