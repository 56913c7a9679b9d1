"""Data sets of the hub and of folders, by `datasets`; there is no network here, so nothing is downloaded."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
import runs
from conftest import TINY, compose
from datasets import ClassLabel, Dataset, Features, List, Value

from danube_sweep.cli import main
from danube_sweep.config.facts.hub_commits import commit
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.stored import load_config
from danube_sweep.data.kinds.hub import HubData
from danube_sweep.data.parts import load_parts, load_undivided, read_unlabelled
from danube_sweep.errors import ConfigError, DanubeSweepError, DataError
from danube_sweep.storage.run_folder import RunFolder

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def jsonl(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def rows(count: int, **columns: Any) -> list[dict[str, Any]]:
    return [{"text": f"text {n}", "label": "ab"[n % 2], **columns} for n in range(count)]


def folder(path: Path, **counts: int) -> str:
    """A folder with a jsonl file a split."""
    for split, count in counts.items():
        jsonl(path / f"{split}.jsonl", rows(count, split=split))
    return str(path)


def classed(path: Path, labels: list[int]) -> str:
    """A folder with a parquet file whose labels are numbers of the classes no and yes."""
    path.mkdir()
    features = Features({"text": Value("string"), "label": ClassLabel(names=["yes", "no"]), "n": Value("int64")})
    columns = {"text": [f"t{n}" for n in range(len(labels))], "label": labels, "n": list(range(len(labels)))}
    Dataset.from_dict(columns, features=features).to_parquet(path / "train.parquet")
    return str(path)


# ---------------------------------------------------------------------------------------------------- rows


def test_numbers_of_classes_become_their_names(tmp_path: Path) -> None:
    parts = load_parts(HubData(path=classed(tmp_path / "d", [0, 1] * 10), id_column="n"))
    assert parts.classes == ["no", "yes"]
    records = sorted(parts.train + parts.validation, key=lambda record: int(record.id))
    assert [record.texts[0] for record in records] == [f"t{n}" for n in range(20)]
    assert [record.label for record in records[:2]] == [(0.0, 1.0), (1.0, 0.0)]


def test_classes_inside_lists_become_names_too(tmp_path: Path) -> None:
    from danube_sweep.data.kinds.hub import reader

    features = Features({"tags": List(ClassLabel(names=["O", "B-x"]))})
    Dataset.from_dict({"tags": [[0, 1], []]}, features=features).to_parquet(tmp_path / "d" / "train.parquet")
    read = reader(HubData(path=str(tmp_path / "d")), "train")
    assert list(read("x", ["tags"], "data.path")) == [(1, {"tags": ["O", "B-x"]}), (2, {"tags": []})]


def test_a_row_without_a_class_is_refused_by_number(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.split=train: 1 row \(line 3\) without a value in 'label'"):
        load_parts(HubData(path=classed(tmp_path / "d", [0, 1, -1, 0])))


def test_parts_come_from_splits_or_are_cut_off_the_training_split(tmp_path: Path) -> None:
    path = folder(tmp_path / "d", train=20, validation=7, test=5)
    cut = load_parts(HubData(path=path, test_fraction=0.1))
    assert (len(cut.train), len(cut.validation), len(cut.test)) == (14, 4, 2)
    own = load_parts(HubData(path=path, validation_split="validation", test_split="test", test_fraction=0.5))
    assert (len(own.train), len(own.validation), len(own.test)) == (20, 7, 5)
    other = load_parts(HubData(path=path, split="validation", max_rows=3))
    assert (len(other.train), len(other.validation)) == (3, 2)
    dealt = [load_parts(HubData(path=path, folds=4, fold=fold, stratified=True)) for fold in range(4)]
    assert sorted(int(record.id) for part in dealt for record in part.validation) == list(range(1, 21))
    assert len(load_undivided(HubData(path=path, folds=4, fold=0))) == 20


def test_what_save_to_disk_has_written_is_read_too(tmp_path: Path) -> None:
    whole = Dataset.from_list(rows(20))
    whole.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=whole, test=whole.select(range(5))).save_to_disk(tmp_path / "both")
    assert len(load_undivided(HubData(path=str(tmp_path / "one")))) == 20
    parts = load_parts(HubData(path=str(tmp_path / "both"), test_split="test"))
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (16, 4, 5)
    with pytest.raises(DataError, match=r"Unknown split \"nope\"\. Should be one of \['train', 'test'\]"):
        load_parts(HubData(path=str(tmp_path / "both"), split="nope"))
    with pytest.raises(DataError, match="has no subsets"):
        load_parts(HubData(path=str(tmp_path / "one"), subset="x"))


def test_new_rows_are_predicted_from_a_file_with_the_same_columns(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text\nhello\n")
    assert [record.texts for record in read_unlabelled(HubData(path="a/b"), tmp_path / "new.csv")] == [("hello",)]


def test_a_trial_trains_on_a_folder_and_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "d", train=24, test=6)
    monkeypatch.chdir(tmp_path)
    small = ["head=sequence", "data.test_split=test", "trainer.score_test=true", "trainer.max_steps=1"]
    config = compose([*TINY, "data=hub", "data.path=d", *small])
    assert config.data.path == str(tmp_path / "d")  # type: ignore[attr-defined]
    result = runs.train(config, tmp_path / "run")
    assert result["rows"] == {"train": 19, "validation": 5, "test": 6}
    assert result["test"]["log_loss"] > 0
    again = load_config(RunFolder(tmp_path / "run").config)
    assert trial_hash(again) == result["trial"]


# ------------------------------------------------------------------------------------------------ identity


def test_a_folder_counts_by_its_files_and_the_splits_count(tmp_path: Path) -> None:
    def identity(path: str, *more: str) -> str:
        return trial_hash(compose(["data=hub", f"data.path={path}", "head=sequence", *more]))

    path = folder(tmp_path / "d", train=20, test=5)
    shutil.copytree(path, tmp_path / "copy")
    jsonl(tmp_path / "copy" / ".git" / "x.json", rows(3))
    assert identity(path) == identity(str(tmp_path / "copy"))
    assert identity(path, "data.split=test") != identity(path) != identity(path, "data.test_split=test")
    jsonl(tmp_path / "copy" / "test.jsonl", rows(4))
    assert identity(path) != identity(str(tmp_path / "copy"))


def test_a_commit_stands_for_itself_and_a_branch_without_network_or_cache_is_one_line() -> None:
    assert commit("owner/name", COMMIT) == COMMIT
    config = compose(["data=hub", "data.path=owner/name", f"data.revision={COMMIT}", "head=sequence"])
    assert trial_hash(config)
    with pytest.raises(
        DataError, match=r"data\.path=owner/name: the hub cannot be reached and the cache does not know"
    ):
        trial_hash(compose(["data=hub", "data.path=owner/name", "head=sequence"]))


OFFLINE = """
import sys
from danube_sweep.composer import compose
from danube_sweep.data.parts import load_parts
from danube_sweep.errors import DanubeSweepError
from danube_sweep.config.identity import trial_hash
for overrides in sys.argv[1:]:
    try:
        config = compose(["data=hub", "head=sequence", *overrides.split()])
        print(config.data.revision, trial_hash(config), len(load_parts(config.data).train))
    except DanubeSweepError as error:
        print(f"{type(error).__name__}: {error}")
"""


def offline(home: Path, switch: str, *trials: str) -> list[str]:
    """What a process without a network says of each trial."""
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    command = [sys.executable, "-c", OFFLINE, *trials]
    environment |= {"HF_HOME": str(home), switch: "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()


def cached(home: Path, name: str, subset: str) -> Path:
    """A data set of 20 rows in the cache as `datasets` and the hub's client lay it out."""
    repository = home / "hub" / f"datasets--Owner--{name}"
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    (repository / "snapshots" / COMMIT / "README.md").write_text("# A data set\n")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    loaded = datasets.load_dataset(folder(home / name, train=20), split="train")
    copy = home / "datasets" / f"Owner___{name}" / subset / "0.0.0" / COMMIT
    shutil.copytree(Path(loaded.cache_files[0]["filename"]).parent, copy)
    information = copy / "dataset_info.json"
    information.write_text(information.read_text().replace('"config_name": "default"', f'"config_name": "{subset}"'))
    return copy


def test_a_cached_data_set_is_read_offline_at_the_commit_that_was_loaded(tmp_path: Path) -> None:
    cached(tmp_path, "plain", "default")
    cached(tmp_path, "other", "second")
    first, main, older, branch, unnamed, named = offline(
        tmp_path,
        "HF_HUB_OFFLINE",
        "data.path=Owner/plain",
        "data.path=Owner/plain data.revision=main",
        f"data.path=Owner/plain data.revision={COMMIT[::-1]}",
        "data.path=Owner/plain data.revision=old",
        "data.path=Owner/other",
        "data.path=Owner/other data.subset=second",
    )
    assert (first.split()[0], first.split()[2]) == (COMMIT, "16")
    assert main == first
    assert older.startswith("DataError: data.path=Owner/plain: the hub cannot be reached and the cache has no copy of")
    assert "the cache does not know old; " in branch
    assert "the cache has second; give data.subset" in unnamed
    assert named.endswith(" 16")
    assert offline(tmp_path, "HF_DATASETS_OFFLINE", "data.path=Owner/plain") == [first]


# ------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"split": "nope"}, r"split nope: cannot be read \(Unknown split \"nope\"\. Should be one of \['train'\]"),
        ({"validation_split": "nope"}, "split nope: cannot be read"),
        ({"subset": "german"}, r"BuilderConfig 'german' not found.*check data\.path, data\.subset"),
        ({"label_column": "lable"}, r"data\.split=train: no column 'lable'; did you mean 'label'"),
        ({"path": "owner/name"}, "the hub cannot be reached and the cache does not know its main branch; load it once"),
        ({"path": "owner/name", "revision": COMMIT}, "the hub cannot be reached and the cache has no copy; load it"),
        ({"path": "./nowhere"}, r"data\.path=\./nowhere: no such folder; give a hub name"),
        ({"path": "json"}, "data.path=json: no such folder; give a hub name"),
        ({"path": "/etc/no/such"}, "no such folder"),
        ({"path": "https://a.b/c"}, "no such folder"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, fields: dict[str, str], said: str) -> None:
    data = HubData(**{"path": folder(tmp_path / "d", train=20), **fields})  # type: ignore[arg-type]
    with pytest.raises(DataError, match=said) as caught:
        load_parts(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["empty", "cut", "bytes", "script"])
def test_a_folder_that_is_no_data_set_is_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "d"
    match damage:
        case "empty":
            path.mkdir()
        case "cut":
            folder(path, train=3)
            (path / "train.jsonl").write_text('{"text": "x", "label": "a"}\n{"text": \n')
        case "bytes":
            path.mkdir()
            (path / "train.parquet").write_bytes(b"no parquet")
        case "script":
            path.mkdir()
            (path / "d.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(DataError, match=r"cannot be read \(.+\); check data\.path") as caught:
        load_parts(HubData(path=str(path)))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_without_the_package_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"data=hub needs the package datasets: pip install 'danube_sweep\[hub\]'"):
        load_parts(HubData(path=folder(tmp_path / "d", train=4)))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.revision=main"], r"data\.revision=main: a folder has no revisions"),
        (
            ["data.validation_split=test", "data.folds=3", "data.fold=0"],
            r"data\.validation_split and data\.folds=3 both choose the validation rows",
        ),
        (["data.classes=[a]"], r"data\.classes needs at least two"),
        (["trainer.score_test=true"], "needs a test part"),
        (["data.validation_path=x.csv"], r"data\.validation_path: no such field; did you mean data\.validation_split"),
        (["data.trust_remote_code=true"], "no such field"),
    ],
)
def test_a_combination_that_cannot_work_is_refused(tmp_path: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(DanubeSweepError, match=said):
        compose(["data=hub", f"data.path={folder(tmp_path / 'd', train=4)}", "head=sequence", *overrides])


def test_the_command_line_says_it_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main([*TINY, "data=hub", "data.path=owner/name", "head=sequence"]) == 2
    assert "danube-sweep: error: data.path=owner/name: the hub cannot be reached" in capsys.readouterr().err
    assert main.main(["plan", *TINY, "data=hub", "data.path=owner/name", "head=sequence"]) == 0
    assert "an epoch is unknown: its data are no file here" in " ".join(capsys.readouterr().out.split())
    assert not [path for path in tmp_path.iterdir() if path.name != "cache"]
