"""Folders that others made: known whatever they state, and asked about before anything outside them is read."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import TINY, compose

from danube_sweep.errors import CheckpointError
from danube_sweep.storage import received
from danube_sweep.storage.made_here import made_here
from danube_sweep.storage.sweep_folder import SweepFolder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep of one trial and a cell that is none, over a file that lies outside it."""
    (tmp_path / "rows.csv").write_text("text,label\na,x\nb,y\nc,x\nd,y\n")
    words = ["data=table", f"data.path={tmp_path / 'rows.csv'}", "head=sequence"]
    folder = SweepFolder(tmp_path / "sweep")
    with folder.locked():
        folder.write({"search": None, "settings": {}})
        folder.add([(compose([*TINY, *words]), words, None)])
        folder.add_invalid([(["lora.rank=0"], "no")])
    return folder.path


@pytest.fixture
def elsewhere(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as another user sees it."""
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(sweep.parent / "other"))
    return sweep


def edited(file: Path, **fields: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_a_folder_that_was_made_here_may_read_what_its_maker_gave_it(sweep: Path) -> None:
    assert received.check(sweep, trust=False) == []
    [run] = [one.parent for one in sweep.glob("*/config.yaml")]
    assert received.check(run, trust=False) == [] == received.note_on_links(sweep)
    moved = Path(shutil.move(sweep, sweep.with_name("moved")))
    assert received.check(moved, trust=False) == []


def test_a_folder_from_elsewhere_lists_what_it_reads_and_asks(elsewhere: Path) -> None:
    said = "was not made here, or was edited since, and goes outside itself"
    listed = f"sweep {said}: data.path={elsewhere.parent / 'rows.csv'}"
    with pytest.raises(CheckpointError, match=f"{listed}; if you mean it, --trust"):
        received.check(elsewhere, trust=False)
    assert received.check(elsewhere, trust=True) == [f"{elsewhere.parent}/{listed}"]


@pytest.mark.parametrize("name", ["config.yaml", "trial.json"])
def test_a_file_that_others_changed_makes_a_folder_theirs(sweep: Path, name: str) -> None:
    [file] = sweep.glob(f"001*/{name}")
    file.write_text(file.read_text() + "\n")
    with pytest.raises(CheckpointError, match="was not made here"):
        received.check(sweep, trust=False)


@pytest.mark.parametrize("place", ["trials", "refit/trials", "wandb"])
def test_runs_deeper_in_a_folder_are_asked_about_too(elsewhere: Path, place: str) -> None:
    """Those of a refit of several models and of a night, and whatever has the name of another's folder."""
    [file] = elsewhere.glob("*/config.yaml")
    (deeper := elsewhere.parent / "received" / place).mkdir(parents=True)
    shutil.copytree(file.parent, deeper / "000_x") if place != "wandb" else shutil.copy(file, deeper)
    with pytest.raises(CheckpointError, match=r"goes outside itself: data\.path="):
        received.check(elsewhere.parent / "received", trust=False)


def test_the_files_of_wandbs_client_are_none_of_a_run(sweep: Path) -> None:
    [run] = [one.parent for one in sweep.glob("*/config.yaml")]
    (files := run / "wandb" / "run-20261130_120000-abc" / "files").mkdir(parents=True)
    (files / "config.yaml").write_text("data:\n  value:\n    path: /elsewhere\n")
    assert received.check(sweep, trust=False) == []


def test_a_night_of_others_lists_its_files_and_models(tmp_path: Path) -> None:
    asked = {"train": "/elsewhere/a.csv", "test": str(tmp_path / "b.csv"), "models": ["danube3_500m", "/a/model"]}
    (tmp_path / "night.json").write_text(json.dumps({"asked": {**asked, "overrides": ["hydra.callbacks.x=y"]}}))
    with pytest.raises(CheckpointError, match=r"hydra\.callbacks\.x belongs to Hydra"):
        received.check(tmp_path, trust=False)
    (tmp_path / "night.json").write_text(json.dumps({"asked": {**asked, "overrides": []}}))
    with pytest.raises(CheckpointError, match=r"itself: data\.path=/elsewhere/a\.csv, model\.path=/a/model; if"):
        received.check(tmp_path, trust=False)


def test_data_inside_the_folder_and_names_on_the_hub_are_not_outside(elsewhere: Path) -> None:
    [file] = elsewhere.glob("*/config.yaml")
    inside = shutil.copy(elsewhere.parent / "rows.csv", elsewhere / "rows.csv")
    text = file.read_text().replace(str(elsewhere.parent / "rows.csv"), str(inside))
    file.write_text(text.replace("\n  path: null", "\n  path: h2oai/h2o-danube3-500m-base"))
    [trial] = elsewhere.glob("001*/trial.json")
    edited(trial, overrides=[f"data.path={inside}"])
    assert received.check(elsewhere, trust=False) == []


def test_without_a_cache_every_folder_counts_as_made_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(tmp_path / "file" / "cache"))
    folder = SweepFolder(tmp_path / "sweep")
    with folder.locked():
        folder.write({"search": None})
    assert not made_here(folder.path)


def test_links_that_lead_outside_are_listed_and_those_inside_are_not(elsewhere: Path) -> None:
    [run] = [one.parent for one in elsewhere.glob("*/config.yaml")]
    (run / "config.yaml").unlink()
    edited(run / "trial.json", overrides=[])
    (run / "a").symlink_to("trial.json")
    (run / "b").symlink_to("../../rows.csv")
    (logs := run / "wandb" / "run-20261130_120000-abc" / "logs").mkdir(parents=True)
    (logs / "debug-core.log").symlink_to("/var/log/of-wandb.log")
    assert received.links_outside(elsewhere) == [f"{run.name}/b -> ../../rows.csv"]
    [line] = received.note_on_links(elsewhere)
    assert line.endswith(
        f"was not made here, or was edited since, and its links lead outside: {run.name}/b -> ../../rows.csv"
    )
    with pytest.raises(CheckpointError, match=r"goes outside itself: .*/b -> \.\./\.\./rows\.csv; if you mean it"):
        received.check(elsewhere, trust=False)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["++hydra.callbacks.x._target_=os.system"], "hydra.callbacks.x._target_ belongs to Hydra"),
        (["hydra/job_logging=none"], "hydra/job_logging belongs to Hydra"),
        (["name='${oc.env:MY_TOKEN}'"], "name: '${oc.env:MY_TOKEN}' reads more than DANUBE_SWEEP_"),
        (["name='${oc.env:${oc.decode:A}}'"], "reads more than"),
        (["name='${oc.env:HOME}${hydra:runtime.cwd}'"], "reads more than"),
    ],
)
def test_some_things_a_folder_from_elsewhere_may_not_even_ask_for(
    elsewhere: Path, overrides: list[str], said: str
) -> None:
    [trial] = elsewhere.glob("002*/trial.json")
    edited(trial, overrides=overrides)
    with pytest.raises(CheckpointError) as caught:
        received.check(elsewhere, trust=True)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "listed"),
    [
        (["data={path:/x.csv}"], "data={path:/x.csv}"),
        (["model.path=~/models/x"], "model.path=~/models/x"),
        (["data.validation_path=${oc.env:HOME}/x.csv"], "data.validation_path=${oc.env:HOME}/x.csv"),
        (["+data.path=[a.csv,/b.csv]"], "data.path=[a.csv,/b.csv]"),
        (["data.path=../x.csv"], "data.path=../x.csv"),
    ],
)
def test_paths_in_overrides_are_found_however_they_are_written(
    elsewhere: Path, overrides: list[str], listed: str
) -> None:
    [trial] = elsewhere.glob("002*/trial.json")
    edited(trial, overrides=overrides)
    [line] = received.check(elsewhere, trust=True)
    assert listed in line
