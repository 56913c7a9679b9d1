"""Predictions come from the run folder alone, whole or not at all, and only from a run that is what it says."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from runs import CPU, StopAfter, train

from danube_sweep.cli import main
from danube_sweep.config.schema import Config
from danube_sweep.data.parts import read_unlabelled
from danube_sweep.errors import CheckpointError, ConfigError, DataError, DiskError, Interrupted
from danube_sweep.inference import predict
from danube_sweep.inference.predict import Form, load_run, predict_file, predictions

Tiny = Callable[..., Config]

ROWS = 11


@pytest.fixture(scope="module")
def test_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("input") / "test.csv"
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "prompt", "response_a", "response_b"])
        for k in range(ROWS):
            turns = [[f"how far is {k} times {j}?" for j in range(1 + k % 3)], ["far " * (k + 1)], ["near " * (12 - k)]]
            name = 'a "quoted", id' if k == 3 else str(1000 - k)
            writer.writerow([name, *(json.dumps(turn) for turn in turns)])
    return file


@pytest.fixture
def run(tiny: Tiny, tmp_path: Path) -> Path:
    train(tiny("trainer.max_steps=3", "optimizer.lr=0.01"), tmp_path / "run")
    return tmp_path / "run"


def read(file: Path) -> list[list[str]]:
    with file.open(newline="") as stream:
        return list(csv.reader(stream))


def test_a_row_of_probabilities_for_every_row_in_its_order(run: Path, test_csv: Path, tmp_path: Path) -> None:
    target = tmp_path / "submission.csv"
    assert predict_file(load_run(run, CPU), test_csv, target) == ROWS
    header, *rows = read(target)
    assert header == ["id", "winner_model_a", "winner_model_b", "winner_tie"]
    assert [row[0] for row in rows] == [row[0] for row in read(test_csv)[1:]]
    for row in rows:
        assert sum(map(float, row[1:])) == pytest.approx(1, abs=1e-6)
        assert all(0 < float(value) < 1 for value in row[1:])
    assert len({tuple(row[1:]) for row in rows}) == ROWS


def test_swapping_averages_the_two_orders(run: Path, test_csv: Path, tmp_path: Path) -> None:
    trained = load_run(run, CPU)
    turned_csv = tmp_path / "turned.csv"
    header, *rows = read(test_csv)
    with turned_csv.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *([name, prompt, b, a] for name, prompt, a, b in rows)])
    passes = {}
    for name, source, swap in [("plain", test_csv, False), ("turned", turned_csv, False), ("both", test_csv, True)]:
        predict_file(trained, source, tmp_path / name, form=Form(swap=swap))
        passes[name] = [[float(value) for value in row[1:]] for row in read(tmp_path / name)[1:]]
    for straight, turned, both in zip(passes["plain"], passes["turned"], passes["both"], strict=True):
        mean = [(straight[0] + turned[1]) / 2, (straight[1] + turned[0]) / 2, (straight[2] + turned[2]) / 2]
        assert both == pytest.approx(mean, abs=2e-9)
    assert passes["both"] != passes["plain"]


def test_a_file_longer_than_a_chunk_is_predicted_alike(
    run: Path, test_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = load_run(run, CPU)
    predict_file(trained, test_csv, tmp_path / "whole.csv")
    monkeypatch.setattr(predict, "CHUNK_ROWS", 3)
    assert predict_file(trained, test_csv, tmp_path / "chunks.csv") == ROWS
    for one, other in zip(read(tmp_path / "whole.csv")[1:], read(tmp_path / "chunks.csv")[1:], strict=True):
        assert one[0] == other[0]
        assert [float(value) for value in one[1:]] == pytest.approx([float(value) for value in other[1:]], abs=1e-6)


def test_the_batch_size_changes_no_prediction(run: Path, test_csv: Path) -> None:
    trained = load_run(run, CPU)
    records = list(read_unlabelled(trained.config.data, test_csv))
    alone, together = (predictions(trained, records, swap=False, batch_rows=rows).answers_NA for rows in (1, 64))
    assert (alone - together).abs().max() < 1e-6


def test_single_texts_are_predicted_by_the_columns_they_were_trained_on(tiny: Tiny, tmp_path: Path) -> None:
    training = tmp_path / "train.jsonl"
    rows = [{"query": f"where is card {k}", "intent": ["lost", "found"][k % 2]} for k in range(40)]
    training.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = ["data.text_column=query", "data.label_column=intent", "data.id_column=null"]
    train(
        tiny("data=table", f"data.path={training}", "head=sequence", "trainer.max_steps=2", *columns), tmp_path / "run"
    )
    source = tmp_path / "new.csv"
    source.write_text('query\n"where, please, is my card"\nnothing\n')
    trained = load_run(tmp_path / "run", CPU)
    predict_file(trained, source, tmp_path / "out.csv")
    assert [row[0] for row in read(tmp_path / "out.csv")] == ["id", "1", "2"]
    assert read(tmp_path / "out.csv")[0] == ["id", "found", "lost"]
    with pytest.raises(ConfigError, match="--swap needs two answers"):
        predict_file(trained, source, tmp_path / "swapped.csv", form=Form(swap=True))
    assert not (tmp_path / "swapped.csv").exists()


def test_labels_of_ordered_classes_are_the_medians_that_the_metric_counts(tiny: Tiny, tmp_path: Path) -> None:
    rows = "".join(f"{'good ' * (k % 5)}{k},{1 + k % 5}\n" for k in range(40))
    (tmp_path / "a.csv").write_text("text,stars\n" + rows)
    data = ["data=table", f"data.path={tmp_path / 'a.csv'}", "data.label_column=stars"]
    train(tiny("head=ordinal", "trainer.max_steps=2", *data), tmp_path / "run")
    trained = load_run(tmp_path / "run", CPU)
    predict_file(trained, tmp_path / "a.csv", tmp_path / "shares.csv")
    predict_file(trained, tmp_path / "a.csv", tmp_path / "labels.csv", form=Form(labels=True))
    header, *found = read(tmp_path / "labels.csv")
    shares = [[float(value) for value in row[1:]] for row in read(tmp_path / "shares.csv")[1:]]
    assert header == ["id", "stars"]
    assert [int(row[1]) for row in found] == [1 + sum(sum(row[: k + 1]) < 0.5 for k in range(4)) for row in shares]
    assert [int(row[1]) for row in found] != [1 + row.index(max(row)) for row in shares]


def test_a_bad_row_leaves_no_output_and_keeps_an_older_one(
    run: Path, test_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "CHUNK_ROWS", 2)
    source, target = tmp_path / "bad.csv", tmp_path / "out" / "submission.csv"
    target.parent.mkdir()
    source.write_text(test_csv.read_text() + "7,only two fields\n")
    trained = load_run(run, CPU)
    for older in (None, "an older submission\n"):
        if older:
            target.write_text(older)
        with pytest.raises(DataError, match=r"bad\.csv, line 13: 2 fields, but the header has 4"):
            predict_file(trained, source, target)
        assert [file.name for file in target.parent.iterdir()] == ([target.name] if older else [])
    assert target.read_text() == "an older submission\n"


def test_a_place_that_cannot_be_written_is_said(run: Path, test_csv: Path, tmp_path: Path) -> None:
    trained = load_run(run, CPU)
    with pytest.raises(DiskError, match="cannot be written: No such file or directory; choose another place by -o"):
        predict_file(trained, test_csv, tmp_path / "nowhere" / "submission.csv")
    with pytest.raises(DiskError, match="Is a directory"):
        predict_file(trained, test_csv, tmp_path)


@pytest.mark.parametrize("text", ["id,prompt,response_a,response_b\n", ""])
def test_an_input_without_rows_is_refused(run: Path, tmp_path: Path, text: str) -> None:
    source = tmp_path / "empty.csv"
    source.write_text(text)
    with pytest.raises(DataError, match=r"input=.*empty\.csv"):
        predict_file(load_run(run, CPU), source, tmp_path / "out.csv")


def test_a_moved_run_folder_still_predicts(run: Path, test_csv: Path, tmp_path: Path) -> None:
    predict_file(load_run(run, CPU), test_csv, tmp_path / "before.csv")
    moved = tmp_path / "another place" / "renamed"
    moved.parent.mkdir()
    shutil.move(run, moved)
    predict_file(load_run(moved, CPU), test_csv, tmp_path / "after.csv")
    assert (tmp_path / "before.csv").read_bytes() == (tmp_path / "after.csv").read_bytes()


def test_the_command_says_how_many_rows_it_wrote(
    run: Path, test_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "submission.csv"
    assert main.main(["predict", str(run), str(test_csv), "-o", str(target), "--swap", "--batch-rows", "3"]) == 0
    assert capsys.readouterr().out == f"{target}: {ROWS} rows\n"
    assert len(read(target)) == ROWS + 1


# ------------------------------------------------------------------------------------------ what is refused


def edit(run: Path, **changes: object) -> None:
    """Changes fields of the run's config.yaml: `edit(run, model_init_seed=7)`."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    for name, value in changes.items():
        group, _, field = name.partition("_")
        assert field in config[group]
        config[group][field] = value
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def test_another_backbone_is_refused(run: Path) -> None:
    edit(run, model_init_seed=7)
    with pytest.raises(CheckpointError, match="was trained over another backbone"):
        load_run(run, CPU)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lora_alpha", 64.0),
        ("lora_rank", 8),
        ("lora_rslora", True),
        ("head_pooling", "mean"),
        ("precision_compute", "bf16"),
        ("data_truncation", "right"),
        ("model_variants", ["base", "chat"]),
    ],
)
def test_an_edited_config_is_refused_where_it_would_change_an_answer(run: Path, name: str, value: object) -> None:
    edit(run, **{name: value})
    if name == "model_variants":  # says nothing about the weights; the variant does
        load_run(run, CPU)
        edit(run, model_variant="chat")
        name = "model_variant"
    field = name.replace("_", ".", 1) if name.startswith(("data", "model")) else name.partition("_")[0]
    with pytest.raises(CheckpointError, match=rf"config\.yaml: {field} was changed since the run"):
        load_run(run, CPU)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "head.safetensors"])
def test_a_changed_byte_is_refused(run: Path, name: str) -> None:
    content = bytearray((run / "adapter" / name).read_bytes())
    content[-3] ^= 1
    (run / "adapter" / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name} was changed or is missing"):
        load_run(run, CPU)


def test_an_unfinished_run_is_refused_with_the_command_that_finishes_it(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tiny("trainer.max_steps=4"), tmp_path / "run", stop=StopAfter(2))
    with pytest.raises(CheckpointError, match=f"danube-sweep resume {tmp_path / 'run'}"):
        load_run(tmp_path / "run", CPU)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not a run folder: it has no config\.yaml"):
        load_run(tmp_path, CPU)
    (tmp_path / "config.yaml").write_text("model: [unclosed")
    with pytest.raises(CheckpointError, match="is damaged or from another version"):
        load_run(tmp_path, CPU)


def test_a_language_model_predicts_no_classes(tiny: Tiny, test_csv: Path, tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": f"the river runs {k} miles"}) + "\n" for k in range(30)))
    train(tiny("head=lm", "data=text", f"data.path=[{file}]", "trainer.max_steps=2"), tmp_path / "run")
    with pytest.raises(ConfigError, match="head=lm predicts no classes"):
        predict_file(load_run(tmp_path / "run", CPU), test_csv, tmp_path / "out.csv")
