"""Heads and optimizers of other packages: the one that docs/extending.md shows, installed; and broken ones."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT, TINY
from hydra.core.config_store import ConfigStore
from runs import StopAfter, command, train

from danube_sweep.cli import main
from danube_sweep.cli.help import help_text
from danube_sweep.composer import Composer, compose
from danube_sweep.config import offered_options
from danube_sweep.config.facts.architectures import architecture_of
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.options import OPTIONS
from danube_sweep.config.schema import Head as HeadConfig
from danube_sweep.config.stored import load_config, plain_config
from danube_sweep.data.kinds.generated import generate, write_csv
from danube_sweep.errors import CheckpointError, ConfigError, Interrupted
from danube_sweep.head.base_head import Head
from danube_sweep.head.build_head import build_head
from danube_sweep.optimizer.build_optimizer import build_optimizer
from danube_sweep.planner.trial_plan import plan_of
from danube_sweep.sweeping.wandb_file.read_sweep_file import read_sweep_file

DOCUMENT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8").split("\n## In danube_sweep itself")[0]
FILES = dict(re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)```", DOCUMENT, re.S | re.M))
SMALL = [*TINY, "data.rows=60", "trainer.max_steps=3"]
BOTH = ["head=prototypes", "head.scale=20", "optimizer=nadam"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed the package that the document shows."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name, text in FILES.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(text)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, *offline, "--target", str(target), str(source)], check=True, capture_output=True)
    return target


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """`fresh(folder)`: what is installed in `folder` is offered, in this process and those it starts."""
    modules = set(sys.modules)

    def install(folder: Path) -> None:
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}")
        offered_options.offers.cache_clear()

    yield install
    offered_options.offers.cache_clear()
    for group in offered_options.ENTRY_POINTS:  # Hydra keeps what it was told; our own options are files
        ConfigStore.instance().repo.pop(group, None)
    for name in set(sys.modules) - modules:
        if name.startswith(("danube_prototypes", "broken")):
            del sys.modules[name]


@pytest.fixture
def installed(site: Path, fresh: Callable[[Path], None]) -> None:
    """The document's package is installed."""
    fresh(site)


def offering(folder: Path, modules: dict[str, str], group: str = "head", **entries: str) -> Path:
    """A folder with modules and a package that offers options of a group: `name="module:NAME"`."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    about = folder / "broken_heads-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-heads\nVersion: 1.0\n")
    lines = [f"{name} = {target}" for name, target in entries.items()]
    (about / "entry_points.txt").write_text("\n".join([f"[danube_sweep.{group}s]", *lines]) + "\n")
    return folder


def built(config: HeadConfig, *, hidden_size: int, seed: int = 0) -> Head:
    given: dict[str, Any] = {"classes": ["a", "b", "c"], "tokenizer": None, "lm_head": None}
    return build_head(config, hidden_size=hidden_size, seed=seed, **given)


# ----------------------------------------------------------------------------------------- the document's package


def test_the_document_shows_a_whole_package_in_about_thirty_lines_of_python() -> None:
    assert list(FILES) == ["pyproject.toml", "danube_prototypes/__init__.py", "danube_prototypes/build.py"]
    python = [line for name, text in FILES.items() if name.endswith(".py") for line in text.splitlines() if line]
    assert len(python) <= 33


def test_a_sweep_trains_it_in_child_processes_and_its_runs_predict(installed: None, tmp_path: Path) -> None:
    done = command("-m", "head=sequence,prototypes", "optimizer=nadam", *SMALL, "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "sweep").glob("*prototypes*/")
    assert json.loads((run / "result.json").read_text())["state"] == "finished"
    assert json.loads((run / "environment.json").read_text())["versions"]["danube-prototypes"] == "0.1"
    assert predicted(run, tmp_path) == 5


def test_a_run_with_it_is_interrupted_resumed_and_predicts(
    installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, stop in (("whole", None), ("run", StopAfter(2))):
        with suppress(Interrupted):
            train(compose([*BOTH, *SMALL]), tmp_path / name, stop=stop)
    assert not (tmp_path / "run" / "result.json").exists()
    assert main.main(["resume", "run"]) == 0
    files = [tmp_path / name / "adapter" / "head.safetensors" for name in ("whole", "run")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert predicted(tmp_path / "run", tmp_path) == 5


def predicted(run: Path, folder: Path) -> int:
    """Rows that `danube-sweep predict` writes for a file of five."""
    write_csv(generate(5, seed=1, noise=0.0), folder / "new.csv")
    assert main.main(["predict", str(run), str(folder / "new.csv"), "-o", str(folder / "out.csv")]) == 0
    with (folder / "out.csv").open() as stream:
        return len(list(csv.DictReader(stream)))


def test_a_file_that_a_field_of_it_names_counts_by_its_content(
    fresh: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh(offering(tmp_path, {"broken_reads": READS}, "head", reads="broken_reads:HEAD"))
    monkeypatch.chdir(tmp_path)
    hashes = []
    for name, text in [("a.txt", "one"), ("b.txt", "one"), ("c.txt", "two")]:
        (tmp_path / name).write_text(text)
        config = compose(["head=reads", f"head.words={name}"])
        assert vars(config.head)["words"] == str(tmp_path / name)
        hashes.append(trial_hash(config))
    assert hashes[0] == hashes[1] != hashes[2]


READS = """
from dataclasses import dataclass
from danube_sweep.extension import HeadExtension
from danube_sweep.schema import ClassifierHead, setting

@dataclass
class Reads(ClassifierHead):
    words: str = setting("a file of words", path="files")

HEAD = HeadExtension(Reads, "broken_reads:build")
"""


def test_help_lists_it_with_its_fields_and_loads_no_torch(installed: None, tmp_path: Path) -> None:
    script = "import sys; from danube_sweep.cli.main import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    for words, said in (
        (["--help"], [" prototypes", " nadam"]),
        (["--help", "head"], ["prototypes: Cosine similarity to one learned", "head.scale                   10.0  "]),
        (["plan", *BOTH], ["parameters"]),
    ):
        done = subprocess.run([sys.executable, "-c", script, *words], cwd=tmp_path, capture_output=True, text=True)
        assert all(one in done.stdout for one in said), done
        assert done.stdout.endswith("False\n")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("head.scale=-1", "head.scale must be above 0, got -1.0"),
        ("head.scal=3", "head.scal: no such field; did you mean head.scale? it has lr, label_smoothing, scale"),
        ("head.scale=wide", "head.scale must be a number, got wide"),
        ("head.scale=inf", "head.scale must be a finite number, got inf"),
        ("optimizer.beta1=2", "optimizer.beta1 must be at least 0 and under 1, got 2.0"),
        ("head=prototype", "head=prototype: no such option; did you mean head=prototypes?"),
        ("data=text data.path=[a.jsonl]", "data=text has no labels; use head=lm"),
    ],
)
def test_a_mistake_in_it_is_said_like_every_other(installed: None, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        compose([*BOTH, *override.split()])
    assert str(raised.value).startswith(message)


def test_its_config_survives_its_file_and_needs_its_package_to_be_read_again(
    site: Path, fresh: Callable[[Path], None], tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    with pytest.MonkeyPatch.context() as path:
        path.syspath_prepend(site)
        offered_options.offers.cache_clear()
        config = compose(BOTH)
        file.write_text(yaml.safe_dump(plain_config(config)))
        assert load_config(file) == config
    offered_options.offers.cache_clear()
    with pytest.raises(CheckpointError, match="head=prototypes: no installed package offers it; install it"):
        load_config(file)


def test_its_name_and_its_fields_are_part_of_the_trials_hash(installed: None) -> None:
    hashes = [trial_hash(compose(["head=sequence"])), trial_hash(compose(["head=prototypes"]))]
    hashes += [trial_hash(compose(["head=prototypes", "head.scale=20"])), trial_hash(compose(BOTH))]
    assert len(set(hashes)) == 4
    assert trial_hash(compose(["head=prototypes", "head.scale=10"])) == hashes[1]
    assert offered_options.meaning(compose(BOTH).head) == "danube-prototypes:head=prototypes"


def test_a_sheet_of_a_sweep_may_name_it(installed: None, tmp_path: Path) -> None:
    file = tmp_path / "sheet.yaml"
    file.write_text(
        "method: grid\ncommand: [danube-sweep, optimizer=nadam, '${args_no_hyphens}']\n"
        "parameters: {head: {values: [sequence, prototypes]}}\n"
    )
    sheet = read_sweep_file(file)
    configs = [Composer().trial([*sheet.fixed, *cell]) for cell in sheet.cells(10)]
    assert sorted(type(config.head).__name__ for config in configs) == ["Prototypes", "SequenceHead"]


def test_the_plan_counts_what_it_says(installed: None) -> None:
    config = compose([*BOTH, "lora=none"])
    plan = plan_of(config)
    head = built(config.head, hidden_size=architecture_of(config.model.shape).hidden)
    values = dict(head.named_parameters())
    optimizer = build_optimizer(config.optimizer, {}, values, head_lr=None)
    for value in values.values():
        value.grad = torch.zeros_like(value)
    optimizer.step()
    kept = sum(one.nbytes for state in optimizer.state.values() for one in state.values() if one.ndim)
    assert plan.estimated == []
    assert (plan.trained, plan.fit.memory.optimizer) == (sum(value.numel() for value in values.values()), kept)


@pytest.mark.parametrize(
    ("group", "text", "counted_as", "guess"),
    [
        ("head", "HeadExtension(made({}), 'a:b')", "head=sequence head.bias=true", "a linear layer's weights"),
        ("optimizer", "OptimizerExtension(made({}, Adam), 'a:b')", "optimizer=adamw", "AdamW's states"),
    ],
)
def test_the_plan_says_what_it_only_estimates(
    fresh: Callable[[Path], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    group: str,
    text: str,
    counted_as: str,
    guess: str,
) -> None:
    module = f"broken_quiet_{group}"
    fresh(offering(tmp_path, {module: f"{SCHEMA}\nQUIET = {text}"}, group=group, quiet=f"{module}:QUIET"))
    guessed, known = plan_of(compose([f"{group}=quiet"])), plan_of(compose(counted_as.split()))
    assert guessed.estimated == [f"{group}=quiet does not state its memory, and is counted as {guess}"]
    assert guessed.trained == known.trained
    assert guessed.fit.memory.optimizer == pytest.approx(known.fit.memory.optimizer, rel=1e-3)
    for words in (["plan", f"{group}=quiet"], ["plan", "-m", f"{group}=quiet", "seed=0,1"]):
        assert main.main(words) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "estimated" in said and f"is counted as {guess}" in said


def test_shapes_that_fail_are_said_in_one_line(
    fresh: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = f"{SCHEMA}\nODD = HeadExtension(made({{}}), 'a:b', shapes=lambda head, hidden, classes: hidden)"
    fresh(offering(tmp_path, {"broken_shapes": odd}, odd="broken_shapes:ODD"))
    assert main.main(["plan", "head=odd"]) == 2
    assert "head=odd: broken-heads cannot say its shapes: TypeError: " in capsys.readouterr().err


def test_its_objects_are_built_from_the_seed_and_over_every_group(installed: None) -> None:
    config = compose([*BOTH, "optimizer.weight_decay=0.3"])
    drawn = [next(built(config.head, hidden_size=8, seed=seed).parameters()) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    optimizer = build_optimizer(config.optimizer, {"w": drawn[1]}, {"w": drawn[0]}, head_lr=0.5)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [
        (config.optimizer.lr, 0.3),
        (0.5, 0.3),
    ]


# ------------------------------------------------------------------------------------------------- broken packages

SCHEMA = """
from dataclasses import dataclass
from pathlib import Path
from danube_sweep.extension import HeadExtension, OptimizerExtension
from danube_sweep.head.kinds.sequence import SequenceHead
from danube_sweep.schema import Adam, Head, setting
def made(fields, base=Head, **options):
    return dataclass(type("Made", (base,), {"__annotations__": {name: kind for name, (kind, _) in fields.items()},
                     "__module__": __name__, **{name: value for name, (_, value) in fields.items()}}), **options)
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_module", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        ("import sys; sys.exit(3)", "cannot be imported: SystemExit: 3"),
        ("", "cannot be imported: AttributeError: module 'broken_"),
        ("HEAD = 3", "cannot be used: its entry point names a int, not a HeadExtension"),
        (
            "HEAD = OptimizerExtension(made({}, Adam), 'a:b')",
            "cannot be used: its entry point names a OptimizerExtension, not a HeadExtension",
        ),
        (
            "HEAD = HeadExtension(dict, 'a:b')",
            "its schema dict is no dataclass that extends danube_sweep.schema.Head",
        ),
        (
            "class Plain(Head): pass\nHEAD = HeadExtension(Plain, 'a:b')",
            "its schema Plain is no dataclass that extends danube_sweep.schema.Head",
        ),
        ("HEAD = HeadExtension(made({}, SequenceHead), 'a:b')", "its schema Made extends an option; extend Head"),
        ("HEAD = HeadExtension(made({}), 'a.b')", "its builder is 'a.b'; write 'package.module:name'"),
        ("HEAD = HeadExtension(made({'size': (int, 3)}), 'a:b')", "its field size has no help; declare it with"),
        ("HEAD = HeadExtension(made({'kind': (int, setting('k', 3))}), 'a:b')", "its field kind has a name that is"),
        (
            "HEAD = HeadExtension(made({'to': (Path | None, setting('k', None))}), 'a:b')",
            "its field to must be bool, int, float, str, an Enum, or a list of these",
        ),
        ("HEAD = HeadExtension(made({'to': (set, setting('k', 1))}), 'a:b')", "its schema Made is none that OmegaConf"),
        (
            "HEAD = HeadExtension(made({'compares': (bool, setting('k', True))}), 'a:b')",
            "its field compares has a name that is already taken",
        ),
    ],
)
def test_a_broken_package_is_named_in_one_line_and_harms_nobody_else(
    fresh: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    module = f"broken_{tmp_path.name}"
    fresh(offering(tmp_path, {module: SCHEMA + text}, odd=f"{module}:HEAD"))
    assert main.main(["head=odd"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("danube-sweep: error: head=odd: broken-heads cannot be ") and error.count("\n") == 1
    assert message in error
    assert compose(["head=sequence"]).head == OPTIONS["head"]["sequence"]()
    assert message in help_text("head") and "odd" not in help_text()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sequence", "head=sequence: broken-heads offers it, but the name is taken by danube_sweep"),
        ("Odd-One", "head=Odd-One: broken-heads offers it, but a name is made of a-z, 0-9 and _"),
    ],
)
def test_a_name_that_is_ours_or_none_is_refused(
    fresh: Callable[[Path], None], tmp_path: Path, name: str, message: str
) -> None:
    good = f"{SCHEMA}\nHEAD = HeadExtension(made({{}}), 'a:b')"
    fresh(offering(tmp_path, {"broken_names": good}, **{name: "broken_names:HEAD"}))
    assert message in help_text("head")
    assert offered_options.options("head") == OPTIONS["head"]


def test_a_name_that_two_packages_offer_is_refused(site: Path, fresh: Callable[[Path], None], tmp_path: Path) -> None:
    fresh(site)
    fresh(offering(tmp_path, {}, prototypes="nothing:HEAD"))
    with pytest.raises(ConfigError, match=r"head=prototypes: offered by .* and .*; uninstall all but one"):
        compose(["head=prototypes"])


def test_two_options_of_one_schema_are_refused(fresh: Callable[[Path], None], tmp_path: Path) -> None:
    twice = f"{SCHEMA}\nONE = HeadExtension(made({{}}), 'a:b')\nTWO = HeadExtension(ONE.schema, 'a:c')"
    fresh(offering(tmp_path, {"broken_twice": twice}, one="broken_twice:ONE", two="broken_twice:TWO"))
    assert list(offered_options.offers("head").usable) == ["one"]
    assert "is that of another option too" in (offered_options.why_not("head", "two") or "")


def test_a_package_that_loads_torch_too_early_is_refused(tmp_path: Path) -> None:
    early = f"import torch\n{SCHEMA}\nHEAD = HeadExtension(made({{}}), 'a:b')"
    offering(tmp_path, {"broken_early": early}, early="broken_early:HEAD")
    script = "from danube_sweep.cli.help import help_text; print(help_text('head'))"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert (
        "head=early: broken-heads cannot be used: importing broken_early loads torch, and with it every --help"
        in done.stdout
    ), done.stderr


BUILDERS = """
import torch
def fails(config, **rest): raise KeyError("pooling")
def layer(config, **rest): return torch.nn.Linear(2, 2)
def half(config, *, groups, **rest): return torch.optim.SGD(groups[:1], lr=1.0)
"""


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            "no_such_module:made",
            "head=odd: broken-heads cannot build it: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        (
            "broken_builders:absent",
            "head=odd: broken-heads cannot build it: AttributeError: module 'broken_builders' has no attribute",
        ),
        ("broken_builders:fails", "head=odd: broken-heads cannot build it: KeyError: 'pooling'"),
        (
            "broken_builders:layer",
            "head=odd: broken-heads cannot be used: broken_builders:layer returns a Linear, not a danube_sweep.head",
        ),
    ],
)
def test_a_builder_that_fails_is_named_before_anything_is_written(
    fresh: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    build: str,
    message: str,
) -> None:
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    odd = f"{SCHEMA}\nHEAD = HeadExtension(made({{}}), {build!r})"
    fresh(offering(tmp_path, {"broken_odd": odd, "broken_builders": BUILDERS}, odd="broken_odd:HEAD"))
    assert main.main(["head=odd", *SMALL]) == 2
    assert message in capsys.readouterr().err
    assert list(place.iterdir()) == []


def test_an_optimizer_that_leaves_parameters_out_is_refused(fresh: Callable[[Path], None], tmp_path: Path) -> None:
    odd = f"{SCHEMA}\nHALF = OptimizerExtension(made({{}}, Adam), 'broken_builders:half')"
    modules = {"broken_half": odd, "broken_builders": BUILDERS}
    fresh(offering(tmp_path, modules, group="optimizer", half="broken_half:HALF"))
    one, other = (torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(2))
    message = "optimizer=half: broken-heads cannot be used: it must hold exactly the parameters that it is given"
    with pytest.raises(ConfigError, match=message):
        build_optimizer(compose(["optimizer=half"]).optimizer, {"w": one}, {"w": other}, head_lr=None)
