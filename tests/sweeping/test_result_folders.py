"""Every command gets a place of its own, and a command that writes nothing leaves none."""

import re
from pathlib import Path

import pytest
from conftest import TINY, compose

from danube_sweep.config.identity import trial_hash
from danube_sweep.errors import ConfigError, DiskError
from danube_sweep.sweeping.entry.result_folders import _without_flags, fresh_sweep_dir, placed

DIR = "hydra.sweep.dir="


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def words_of(*arguments: str) -> list[str]:
    with placed(list(arguments)) as complete:
        return complete


# ------------------------------------------------------------------------------------------------------- sweeps


@pytest.mark.parametrize("flag", ["-m", "--multirun"])
def test_a_sweep_gets_a_fresh_folder_by_date_and_time(flag: str) -> None:
    with placed([flag, "seed=0,1"]) as words:
        assert words[:2] == [flag, "seed=0,1"] and len(words) == 3
        folder = Path(words[2].removeprefix(DIR))
        assert re.fullmatch(r"multirun/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d", str(folder)) and folder.is_dir()
        (folder / "sweep.json").write_text("{}")
    assert folder.is_dir()


def test_flags_may_follow_the_overrides_and_a_folder_may_have_a_sign() -> None:
    with placed(["-m", "seed=0,1", "--config-dir=mine", "--dry-run"]) as words:
        assert words[:2] == ["-m", "seed=0,1"] and words[3:] == ["sweep.dry_run=true", "--config-dir=mine"]
        assert words[2].startswith(DIR)  # in one row with the other overrides, as Hydra takes them
    assert words_of("-m", "seed=0,1", f"++{DIR}mine") == ["-m", "seed=0,1", f"++{DIR}mine"]


def test_under_an_agent_the_trial_is_that_of_hydras_flags() -> None:
    assert _without_flags(["--config-dir", "mine", "-cn=other", "seed=1", "-x"]) == ("mine", "other", ["seed=1"])
    assert _without_flags(["seed=1"]) == (None, None, ["seed=1"])


def test_sweeps_of_the_same_second_have_folders_of_their_own() -> None:
    with fresh_sweep_dir() as first, fresh_sweep_dir() as second, fresh_sweep_dir() as third:
        assert len({first, second, third}) == 3
        assert all(folder.is_dir() for folder in (first, second, third))
        assert sorted([first, second, third])[0].name in third.name or first.name != third.name
    assert not Path("multirun").exists()


def test_a_fresh_folder_that_stayed_empty_is_removed_and_its_parents_too() -> None:
    with pytest.raises(RuntimeError), placed(["-m", "seed=0,1"]):
        raise RuntimeError
    assert not Path("multirun").exists()


def test_what_lies_beside_an_empty_folder_stays() -> None:
    Path("multirun").mkdir()
    Path("multirun/README.md").write_text("keep")
    with fresh_sweep_dir():
        pass
    assert [path.name for path in Path("multirun").iterdir()] == ["README.md"]


def test_a_given_folder_is_left_alone() -> None:
    given = ["-m", "seed=0,1", f"{DIR}mine"]
    with placed(given) as words:
        assert words == given
    assert list(Path.cwd().iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line() -> None:
    Path("multirun").write_text("a file")
    with pytest.raises(DiskError, match=r"hydra\.sweep\.dir: .*multirun.* cannot be made"), placed(["-m", "seed=0,1"]):
        pass


def test_a_single_run_is_left_as_it_is() -> None:
    for given in ([], ["seed=0"], ["hydra.run.dir=here", "lora=none"], ["--cfg", "job"]):
        assert words_of(*given) == given
    assert list(Path.cwd().iterdir()) == []


# ------------------------------------------------------------------------------------------------------ dry runs


def test_a_dry_run_makes_no_folder() -> None:
    with placed(["-m", "--dry-run", "seed=0,1"]) as words:
        assert words[:2] == ["-m", "seed=0,1"] and words[-1] == "sweep.dry_run=true"
        assert words[2].startswith(f"{DIR}multirun/")
        assert list(Path.cwd().iterdir()) == []
    assert words_of("--dry-run", "-m", f"{DIR}mine") == ["-m", f"{DIR}mine", "sweep.dry_run=true"]
    assert list(Path.cwd().iterdir()) == []


def test_a_dry_run_is_of_a_sweep() -> None:
    with pytest.raises(ConfigError, match="--dry-run shows the trials of a sweep; give -m too, or --cfg job"):
        words_of("--dry-run", "seed=0")


# -------------------------------------------------------------------------------------------- under a W&B agent


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc123")


@pytest.mark.usefixtures("agent")
def test_an_agent_starts_one_trial_at_a_time() -> None:
    with pytest.raises(ConfigError, match="-m: the agent of sweep abc123 starts one trial at a time"):
        words_of("-m", "seed=0,1")
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.usefixtures("agent")
def test_a_trial_of_an_agent_goes_to_the_folder_of_its_hash() -> None:
    given = [*TINY, "data.rows=60", "seed=3"]
    words = words_of(*given)
    assert words[:-1] == given
    folder = Path(words[-1].removeprefix("hydra.run.dir="))
    assert folder.parent == Path("multirun/abc123") and folder.name.endswith(trial_hash(compose(given))[:8])
    assert words_of(*given, "device.threads=2")[-1] == words[-1]


@pytest.mark.usefixtures("agent")
def test_a_trial_of_an_agent_with_a_mistake_leaves_nothing() -> None:
    with pytest.raises(ConfigError, match=r"lora\.rank must be at least 1"):
        words_of("lora.rank=0")
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize(
    "given",
    [["hydra.run.dir=here"], ["--cfg", "job"], ["-c", "job"], ["--cfg=job"], ["--info"], ["-i"], ["--hydra-help"],
     ["-h"], ["--shell-completion", "install=bash"], ["-sc", "install=bash"]],
    ids=" ".join,
)  # fmt: skip
def test_what_trains_nothing_or_has_its_place_needs_none(given: list[str]) -> None:
    assert words_of(*given, "lora.rank=3") == [*given, "lora.rank=3"]
    assert list(Path.cwd().iterdir()) == []
