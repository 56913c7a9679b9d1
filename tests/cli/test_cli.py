"""The command line: one line and exit code 2 for a mistake, nothing left behind, no torch before it is needed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import warm
from conftest import TINY, compose
from runs import StopAfter, train

from danube_sweep import __version__
from danube_sweep.cli import main
from danube_sweep.cli.help import help_text
from danube_sweep.config.options import OPTIONS, SWEEP_OPTIONS
from danube_sweep.config.schema import Config
from danube_sweep.errors import Interrupted

Tiny = Callable[..., Config]
Refused = Callable[..., str]

ARENA_HEADER = "id,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie\n"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Runs the command, checks that it was refused in one line with no new file, and returns the line."""

    def run(*arguments: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert main.main(arguments) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.count("\n") == 1, err
        assert sorted(tmp_path.rglob("*")) == before
        start = "danube-sweep: error: "
        assert err.startswith(start)
        return err.removeprefix(start).rstrip("\n")

    return run


def write(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


# --------------------------------------------------------------------------------------- mistakes in the words


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["head=foo"], "head=foo: no such option; there are bradley_terry_ties, causal, lm"),
        (["nogroup=3"], "nogroup"),
        (["lora.rnak=3"], "lora.rnak: no such field; did you mean lora.rank?"),
        (["lora.rank=0"], "lora.rank must be at least 1, got 0; for no adapter use lora=none"),
        (["lora.rank=many"], "lora.rank must be a whole number, got many"),
        (["data=arena"], "data.path is required: give data.path=…"),
        (["head=lm"], "head=lm needs data=text"),
        (["nonsense"], "nonsense: not an override"),
        (["data.path=~/x.csv"], "not an override"),
        (["hydra.run.dir=x", "seed=-1"], "seed must be at least 0"),
        (
            ["--help", "nonsense"],
            "--help nonsense: no such group, and no field is called so; there are model, precision",
        ),
        (["--cfg", "job", "lora.rnak=3"], "did you mean lora.rank?"),
        (["resume", "nowhere"], "nowhere is not a run folder: there is no such folder"),
        (["predict", "nowhere", "in.csv", "-o", "out.csv"], "nowhere is not a run folder"),
        (["precision=fp16", *TINY], "precision.compute=fp16: a CPU does not support fp16; use precision=bf16"),
        (["lora.last_k=3", "data.rows=20", *TINY], "lora.last_k must be at most 2"),
        (["head=causal", "head.words=[a,a,b]", "data.rows=20", *TINY], "head.words must differ"),
        (["data.rows=10", "data.validation_fraction=0.95", *TINY], "are too few for every part"),
        (["model.path=nowhere/at/all", *TINY], "model.path=nowhere/at/all: no such folder"),
        (["model.path=someone/some-model", *TINY], "model.path=someone/some-model: the hub cannot be reached"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_leaves_nothing(refused: Refused, arguments: list[str], said: str) -> None:
    assert said in refused(*arguments)


def test_the_traceback_is_there_for_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match=r"lora\.rank must be at least 1"):
        main.main(["lora.rank=0"])
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_only_1_asks_for_the_traceback(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    assert "lora.rank" in refused("lora.rank=0")
    assert os.environ["HYDRA_FULL_ERROR"] == "0"


# ---------------------------------------------------------------------------------------- mistakes in the files


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such file"),
        ("", "the file is empty; give one with the columns prompt, response_a, response_b"),
        (ARENA_HEADER, "the file has no rows"),
        ("id,prompt,response_a,response_c,winner_model_a,winner_model_b,winner_tie\n", "did you mean 'response_c'?"),
        (ARENA_HEADER + "1,p,a,b,1,0,0\n2,p,a,b,1,1,0\n3,p,a,b,0,0,0\n", "2 rows (lines 3, 4) without a valid label"),
        (ARENA_HEADER + '1,p,"a,b,1,0,0\n2,p,a,b,1,0,0\n', "line 2: a quote opened in this row is never closed"),
        (ARENA_HEADER + "1,p,a,b,1,0,0\n2,p,a,b,c,1,0,0\n", "line 3: 8 fields, but the header has 7"),
        (ARENA_HEADER + "1,p,a,b,1,0,0\n", "are too few for every part"),
    ],
)
def test_a_bad_arena_file_is_named_with_its_lines(refused: Refused, text: str | None, said: str) -> None:
    if text is not None:
        write("train.csv", text)
    line = refused("data=arena", "data.path=train.csv", *TINY)
    assert said in line
    assert f"data.path={Path.cwd() / 'train.csv'}" in line or "no rows" in line or "too few" in line


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("text,label\na,x\nb,z\n", ["data.classes=[x,y]"], "line 3: the label 'z' is not one of the 2 classes (x, y)"),
        ("text,label\na,x\nb,x\n", [], "its only class is 'x'"),
        ("text,label\na,x\nb,\n", [], "1 row (line 3) without a value in 'label'"),
        ("text,p,q\na,0.5,0.5\nb,0.9,0.9\n", ["data.soft_label_columns=[p,q]"], "1 row (line 3) without a valid label"),
    ],
)
def test_a_bad_table_is_named_with_its_lines(refused: Refused, text: str, options: list[str], said: str) -> None:
    write("table.csv", text)
    assert said in refused("data=table", "data.path=table.csv", "head=sequence", *options, *TINY)


@pytest.mark.parametrize("field", ["validation_path", "test_path"])
def test_every_file_is_named_by_its_own_field(refused: Refused, field: str) -> None:
    write("train.csv", ARENA_HEADER + "".join(f"{k},p{k},a,b,1,0,0\n" for k in range(30)))
    line = refused("data=arena", "data.path=train.csv", f"data.{field}=nowhere.csv", *TINY)
    assert line.startswith(f"data.{field}={Path.cwd() / 'nowhere.csv'}: no such file")


def test_a_model_folder_that_lacks_something_is_refused(refused: Refused) -> None:
    folder = Path("weights")
    folder.mkdir()
    assert "model.path=" in refused("model.path=weights", *TINY)
    (folder / "config.json").write_text("{ not json")
    assert "config.json is damaged" in refused("model.path=weights", *TINY)


def test_a_run_folder_that_cannot_be_made_is_refused(refused: Refused) -> None:
    write("occupied", "a file\n")
    assert "hydra.run.dir" in refused("hydra.run.dir=occupied/run", *TINY)
    assert "hydra.run.dir" in refused("hydra.run.dir=/proc/nowhere", *TINY)


def test_a_refused_run_leaves_no_folder_outside_the_working_directory_either(
    refused: Refused, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    refused(f"hydra.run.dir={elsewhere / 'run'}", "lora.rank=0")
    assert list(elsewhere.iterdir()) == []


def test_a_refused_run_keeps_what_lies_in_its_folder(refused: Refused) -> None:
    Path("mine").mkdir()
    write("mine/notes.txt", "keep")
    refused("hydra.run.dir=mine", "lora.rank=0")
    assert Path("mine/notes.txt").read_text() == "keep"


# ------------------------------------------------------------------------------------------------------- runs


def test_a_run_prints_a_table_and_the_same_command_again_the_same_table(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["hydra.run.dir=here", "data.rows=60", "trainer.max_steps=2", *TINY]
    assert main.main(arguments) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert "validation log_loss" in out and "best step" in out
    before = Path("here/metrics.csv").read_bytes()
    assert main.main(arguments) == 0
    again, err = capfd.readouterr()
    assert out.endswith(again) and "best step" in again and err == ""
    assert main.main([*arguments, "sweep.pack=2", "+pruner=asha", "pruner.eta=3"]) == 2  # a wrong one is a mistake
    assert main.main([*arguments, "sweep.pack=2", "+pruner=asha", "sweep.slots=1"]) == 0
    told = capfd.readouterr().out
    assert told == f"sweep.pack=2, pruner=asha: without effect on a single run; they are for a sweep (-m)\n{again}"
    assert Path("here/metrics.csv").read_bytes() == before
    log = Path("here/log.txt").read_text()
    assert "step 2 validation" in log and "best step" in log


def test_results_go_to_a_folder_named_by_date_time_and_hash(capfd: pytest.CaptureFixture[str]) -> None:
    assert main.main(["data.rows=60", "trainer.max_steps=1", *TINY]) == 0
    (result,) = Path.cwd().glob("outputs/*/*/result.json")
    assert result.parent.name.endswith("-" + json.loads(result.read_text())["trial"][:8])


def test_a_failed_trial_is_one_line_and_exit_code_1(capfd: pytest.CaptureFixture[str]) -> None:
    bad = ["optimizer.lr=1e30", "trainer.clip_norm=null", "trainer.max_steps=5", "data.rows=60"]
    assert main.main(["hydra.run.dir=here", *bad, *TINY]) == 1
    _, err = capfd.readouterr()
    assert err.startswith("danube-sweep: error: the ") and "not finite" in err and err.count("\n") == 1
    assert json.loads(Path("here/result.json").read_text())["state"] == "diverged"


def test_another_trial_in_the_same_folder_is_refused(refused: Refused, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["hydra.run.dir=here", "data.rows=60", "trainer.max_steps=1", *TINY]
    assert main.main(arguments) == 0
    capfd.readouterr()
    assert "holds another trial" in refused(*arguments, "seed=1")


def test_a_run_whose_only_checkpoint_is_damaged_starts_again_and_says_so(
    tiny: Tiny, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Interrupted):
        train(tiny("trainer.max_steps=6"), Path("here"), stop=StopAfter(2))
    (file,) = Path("here/checkpoints").glob("step-*/adapter_model.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    capfd.readouterr()
    assert main.main(["resume", "here"]) == 0
    captured = capfd.readouterr()
    assert "adapter_model.safetensors was changed or is missing" in captured.out + captured.err
    assert json.loads(Path("here/result.json").read_text())["steps"] == 6


def test_a_full_disk_ends_the_trial_with_that_state(tiny: Tiny) -> None:
    """The limit on a file's size stands for the full disk: both refuse the bytes of a checkpoint."""
    arguments = ["hydra.run.dir=here", "data.rows=60", "trainer.max_steps=2", "lora.rank=64", *TINY]
    train(tiny("trainer.max_steps=1"), Path("warm"))  # fills the caches, whose files are not the matter here
    full = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
    done = warm.run("-c", full + "from danube_sweep.cli.main import main; sys.exit(main())", *arguments)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("danube-sweep: error: ") and "cannot be written" in lines[-1]
    assert "Traceback" not in done.stderr
    assert json.loads(Path("here/result.json").read_text())["state"] == "disk_full"
    assert [file.name for file in Path("here").rglob("*.tmp")] == []
    assert main.main(arguments) == 0
    assert json.loads(Path("here/result.json").read_text())["state"] == "finished"


# ------------------------------------------------------------------------------------------- help, config, argv


def test_help_lists_every_group_and_help_of_a_group_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("--help", "-h", "help"):
        assert main.main([word]) == 0
        out = capsys.readouterr().out
        assert all(f"\n  {group}" in out for group in [*OPTIONS, *SWEEP_OPTIONS])
        assert all(line == line.rstrip() for line in out.splitlines())
    for group, options in {**OPTIONS, **SWEEP_OPTIONS}.items():
        assert main.main(["--help", group]) == 0
        out = capsys.readouterr().out
        for kind in options.values():
            assert all(f"{group}.{name}" in out for name in (field.name for field in dataclasses.fields(kind))), group
    assert "lora.rank" in help_text("lora")
    rates = [line for line in help_text("optimizer.lr").splitlines() if line.startswith("  optimizer.lr ")]
    assert len(rates) == 4 and "adamw," in rates[0] and rates[2].endswith("(muon)")  # their defaults differ


def test_the_version_is_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"danube-sweep {__version__}\n"


@pytest.mark.parametrize("command", ["predict", "export", "resume", "rank", "sweep"])
def test_subcommands_explain_themselves(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main([command, "--help"])
    assert ended.value.code == 0
    assert f"danube-sweep {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict"],
        ["export"],
        ["export", "a", "b", "--dtype", "bf16"],
        ["export", "a", "b", "--private"],
        ["resume"],
        ["rank"],
        ["sweep"],
        ["--no-such-flag"],
        ["predict", "a", "b", "-o", "c", "--batch-rows", "0"],
    ],
)
def test_wrong_flags_end_with_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: object = main.main(arguments)
    except SystemExit as ended:  # Hydra's parser
        code = ended.code
    assert code == 2
    assert "error: " in capsys.readouterr().err
    assert list(Path.cwd().iterdir()) == []


def test_the_composed_config_is_shown_resolved(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--cfg", "job", "--resolve", "lora.rank=3"]) == 0
    out = capsys.readouterr().out
    assert "rank: 3" in out and f"lr: {compose().model.lr}" in out and "${" not in out
    assert list(Path.cwd().iterdir()) == []


def test_sys_argv_comes_back_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    before = list(sys.argv)
    main.main(["--cfg", "job"])
    assert sys.argv == before


HEAVY = ("torch", "transformers", "lightning", "wandb", "bitsandbytes", "peft", "sklearn", "pyarrow")


LATE = """
import atexit, os, signal, sys, time
atexit.register(lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(5)))
sys.argv = ["danube-sweep", "--version"]
from danube_sweep.cli.main import main
sys.exit(main())
"""


def test_a_ctrl_c_while_libraries_clear_up_is_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT and done.stderr == "" and done.stdout.startswith("danube-sweep ")


def test_no_heavy_library_is_loaded_before_a_run_needs_it() -> None:
    script = f"""
import sys
from danube_sweep.cli.main import main
calls = [["--help"], ["--help", "lora"], ["--version"], ["--cfg", "job", "--resolve"], ["head=foo"], ["lora.rank=0"]]
for call in calls:
    code = main(call)
    loaded = [name for name in {HEAVY!r} if name in sys.modules]
    print(*call, code, *loaded, sep="|", file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if "|" in line]
    assert said == [
        "--help|0",
        "--help|lora|0",
        "--version|0",
        "--cfg|job|--resolve|0",
        "head=foo|2",
        "lora.rank=0|2",
    ], done.stderr


def test_a_process_ends_without_a_last_collection_and_with_every_other_ending() -> None:
    script = """
import atexit, gc, sys, tempfile
folder = tempfile.TemporaryDirectory()
atexit.register(lambda: print("frozen", gc.get_freeze_count() > 1000))
sys.argv = ["danube-sweep", *sys.argv[1:]]
from danube_sweep.cli.main import main
print(folder.name)
raise SystemExit(main())
"""
    for arguments, code in ((["--version"], 0), (["--foo"], 2)):
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
        folder, *said = done.stdout.splitlines()
        assert done.returncode == code and said[-1] == "frozen True"
        assert not Path(folder).exists()
