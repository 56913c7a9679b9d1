"""What newcomers type first, and the one line that each mistake gets: field, value and the way out.

Every line of the table was typed and read. The commands run in this process, and none of them trains.
"""

import json
import os
import shlex
from pathlib import Path

import pytest

from danube_sweep.cli import main

TABLE = "data=table head=sequence"
TRAIN = f"{TABLE} data.path=train.csv"

MISTAKES = [
    # names that other tools use
    ("lr=1e-4", "lr: no such field; write optimizer.lr=1e-4"),
    ("batch_size=8", "batch_size: no such field; write trainer.micro_batch=8 (rows per forward pass"),
    ("load_in_4bit=true", "load_in_4bit: no such field; write precision=nf4"),
    ("lora.r=8", "lora.r: no such field; write lora.rank=8"),
    ("lora.target_modules=[q_proj,v_proj]", "lora.target_modules: no such field; write lora.targets=[q_proj,v_proj]"),
    ("optimizer.learning_rate=1e-4", "optimizer.learning_rate: no such field; write optimizer.lr=1e-4"),
    ("trainer.devices=2", "trainer.devices: no such field; write device.count=2 (GPUs that train each trial together"),
    ("trainer.epoch=3", "trainer.epoch: no such field; write trainer.epochs=3"),
    ("trainer.num_train_epochs=3", "trainer.num_train_epochs: no such field; write trainer.epochs=3"),
    (f"{TRAIN} data.label=topic", "data.label: no such field; write data.label_column=topic"),
    ("train train.csv", "train: no such command; training needs none; give danube-sweep GROUP=OPTION"),
    ("--lora.rank=8", "--lora.rank: no such flag; options have no dashes: write lora.rank=8"),
    ("--epochs 3", "--epochs: no such flag; options have no dashes: write trainer.epochs=3"),
    # options that there are not
    ("model=h2oai/h2o-danube3-500m-base", "is an option here; write model=danube3_500m"),
    ("model=danube3", "model=danube3: no such option; did you mean model=danube3_4b?"),
    ("model=gpt2", "model=gpt2: no such option; for another model write model=auto model.path=gpt2"),
    ("precision=4bit", "precision=4bit: no such option; write precision=nf4; there are bf16, fp16"),
    ("precision=int4", "precision=int4: no such option; write precision=nf4"),
    ("precision=fp61", "precision=fp61: no such option; did you mean precision=fp16?"),
    ("lora=qlora", "lora=qlora: no such option; write precision=nf4 lora=lora"),
    ("optimizer=adam", "optimizer=adam: no such option; write optimizer=adamw"),
    ("schedule=cosine_with_warmup", "schedule=cosine_with_warmup: no such option; write schedule=cosine"),
    ("head=classification", "head=classification: no such option; write head=sequence"),
    ("head=sequnce", "head=sequnce: no such option; did you mean head=sequence?"),
    ("device=t4", "device=t4: no such option; write device=kaggle_t4"),
    ("data=csv data.path=train.csv", "data=csv: no such option; write data=table"),
    # values
    ("lora.rank=8.5", "lora.rank must be a whole number, got 8.5"),
    ("lora.rank=-1", "lora.rank must be at least 1, got -1; for no adapter use lora=none"),
    ("lora.dropout=1.5", "lora.dropout must be at least 0 and under 1, got 1.5"),
    ("optimizer.lr=fast", "optimizer.lr must be a number, got fast"),
    ("optimizer.lr=-1", "optimizer.lr must be above 0 and under 1e38, got -1.0"),
    ("schedule.warmup=100", "schedule.warmup must be at least 0 and under 1, got 100.0: it is a share of all steps"),
    ("trainer.epochs=0", "trainer.epochs must be above 0, got 0.0"),
    ("trainer.max_steps=many", "trainer.max_steps must be a whole number, got many"),
    ("trainer.micro_batch=3", "trainer.effective_batch must be a multiple of trainer.micro_batch=3, got 16"),
    (f"trainer.best_by=f1 {TRAIN}", "trainer.best_by=f1: this head does not report that metric; it reports log_loss"),
    ("seed=a", "seed must be a whole number, got a"),
    ("sed=3", "sed: no such field; did you mean seed?"),
    # how words are written
    ("lora.rank 8", "lora.rank: not an override; write GROUP=OPTION or FIELD=VALUE"),
    ("seed=0,1", "seed=0,1 names several values: give -m to sweep over them"),
    # data and files
    ("data.path=train.csv", "for its columns (text, label) write data=table head=sequence data.path=train.csv"),
    (TABLE, "data.path is required: give data.path=…"),
    (f"{TABLE} data.path=nowhere.csv", "nowhere.csv: no such file (looked in"),
    (f"{TABLE} data.path=bare", "bare: a folder, not a file; give one file in it"),
    (f"{TABLE} data.path=book.xlsx", "book.xlsx: a workbook of a spreadsheet; save its sheet as CSV UTF-8"),
    (f"{TABLE} data.path=notes.txt", "notes.txt: its name must end in .csv, .tsv, .jsonl"),
    (f"{TABLE} data.path=semi.csv", "semi.csv, line 1: separated by semicolons: 'text;label'; save it with commas"),
    (f"{TABLE} data.path=empty.csv", "empty.csv: the file is empty; give one with the columns text, label"),
    (f"{TABLE} data.path=header.csv", "header.csv: the file has no rows; give one with rows"),
    (f"{TABLE} data.path=one.csv", "one.csv: its only class is 'a'; give rows of at least two classes"),
    (f"{TABLE} data.path=nan.jsonl", "nan.jsonl: 1 row (line 4) without a value in 'label'; fill it in or drop the"),
    (f"{TABLE} data.path=ragged.csv", "ragged.csv, line 2: 3 fields, but the header has 2; quote texts that hold"),
    (f"{TABLE} data.path=broken.jsonl", "broken.jsonl, line 1: not valid JSON (Expecting ',' delimiter"),
    (f"{TABLE} data.path=latin.csv", "latin.csv, line 2: not UTF-8; save the file as UTF-8"),
    (f"{TRAIN} data.text_column=txt", "no column 'txt'; did you mean 'text'?"),
    ("head=regression data=table data.path=train.csv", "without a finite number in 'label'; correct them, or name"),
    ("head=ordinal data=table data.path=words.csv", "'high' is not a number; list the order in data.classes"),
    ("head=token data=table data.path=train.csv", "head=token needs data=tokens"),
    ("head=preference data=table data.path=train.csv", "compare two answers; use data=arena, data=pairs"),
    # models
    (f"model.path=bare {TRAIN}", "bare: the folder has no model.safetensors; give a complete copy"),
    (f"model=auto model.path=bare {TRAIN}", "model.path=bare: it has no usable config.json (there is none)"),
    (f"model=auto {TRAIN}", "model.path is required: model=auto reads a folder or a hub name; give model.path=…"),
    # subcommands
    ("predict run train.csv", "the following arguments are required: -o/--output"),
    ("resume", "no folder is given, and there is no sweep"),
    ("init", "the following arguments are required: FILE;"),
    ("init semi.csv", "separated by semicolons"),
    ("init book.xlsx", "a workbook of a spreadsheet"),
    ("init train.csv optimizer.lr=1e-3,2e-3", "names several values: init starts from one"),
    ("init train.csv --test bodies.csv", "--test=bodies.csv: no column 'text' (it has 'body'); call its texts as"),
    ("tonight train.csv --hours 8", "tonight train.csv: --test FILE is missing, the rows to predict"),
    ("tonight train.csv --test texts.csv", "--hours H is missing, the time that it may take"),
    ("tonight train.csv --test texts.csv --hours 8 --models", "argument --models: expected one argument"),
    ("tonight train.csv --test bodies.csv --hours 8", "--test=bodies.csv: no column 'text' (it has 'body')"),
    ("tonight train.csv --test texts.csv --hours 8 model=danube3_4b", "give models by --models danube3_4b"),
    ("tonight train.csv --test texts.csv --hours 8 -m", "unrecognized arguments: -m; see danube-sweep tonight --help"),
    (
        "tonight train.csv --test texts.csv --hours 8 optimizer.lr=1e-3,2e-3",
        "optimizer.lr=1e-3,2e-3 names several values: give one, or leave it out, then tonight chooses the values",
    ),
    ("tonight train.csv --test texts.csv --hours 8 lr=1e-3", "lr: no such field; write optimizer.lr=1e-3"),
    ("tonight nowhere --hours 8", "tonight nowhere: --test FILE is missing"),
    ("init train.csv data.label_column=topic", "data.label_column=topic: train.csv: no column 'topic'"),
]
"""The words of a command, and what its line says."""
TYPED = MISTAKES if os.environ.get("DANUBE_SWEEP_TEST_FULL") else MISTAKES[::4]
"""`make test-full` types them all, `make test` every fourth: each is a composition."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the commands name."""
    place = tmp_path_factory.mktemp("typed")
    for name, labels in {"train.csv": "ab", "one.csv": "a", "words.csv": ["low", "high"]}.items():
        rows = "".join(f"query {n} on cards,{labels[n % len(labels)]}\n" for n in range(24))
        (place / name).write_text(f"text,label\n{rows}")
    rows = [{"text": f"query {n}", "label": float("nan") if n == 3 else n % 2} for n in range(24)]
    (place / "nan.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "texts.csv").write_text("text\nquery on cards\n")
    (place / "bodies.csv").write_text("body\nquery on cards\n")
    (place / "semi.csv").write_text("text;label\nquery;a\n")
    (place / "book.xlsx").write_bytes(b"PK\x03\x04")
    (place / "empty.csv").write_text("")
    (place / "header.csv").write_text("text,label\n")
    (place / "ragged.csv").write_text("text,label\na, b,x\n")
    (place / "broken.jsonl").write_text('{"text": "a", "label": 1\n')
    (place / "latin.csv").write_bytes("text,label\ncafé,a\n".encode("latin-1"))
    (place / "notes.txt").write_text("hello\n")
    (place / "bare").mkdir()
    return place


@pytest.mark.parametrize(("typed", "said"), TYPED, ids=[typed for typed, _ in TYPED])
def test_a_mistake_gets_one_line_with_the_way_out(
    typed: str, said: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    assert main.main(shlex.split(typed)) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("danube-sweep: error: ") and err.count("\n") == 1
    assert said in err
    assert sorted(folder.rglob("*")) == before
