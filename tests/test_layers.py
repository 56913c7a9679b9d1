"""The architecture, read from the imports: what each room is for, and which way imports run."""

import ast
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

import danube_sweep

PACKAGE = Path(danube_sweep.__file__).parent

LAYERS = [
    {"errors": "One exception tree; a user's mistake is one line."},
    {"paths": "The places of the packaged files and of the caches."},
    {
        "decoding": "JSON and YAML from files that may be damaged.",
        "os_errors": "Errors of the operating system, parsers and decoders, as errors of ours.",
    },
    {"config": "A trial as data: fields, checks, facts, identity. Typed dataclasses, no torch."},
    {
        "extension": "The imports of packages that offer heads and optimizers by entry points.",
        "schema": "The imports of such packages for the fields of their options.",
        "optimizer": "The update rule and the learning rate: config in, torch objects out.",
        "storage": "The files on disk, and the one way to write them whole.",
    },
    {
        "model": "The frozen backbone.",
        "planner": "The memory and time of a trial or a pack, and its gain, from configs alone. No torch.",
        "terminal": "The lines, bars and tables of the terminal.",
        "tracking": "The metrics of a trial while it trains: metrics.csv first, W&B or TensorBoard second.",
    },
    {
        "composer": "Overrides in, a checked Config out. Above the planner, which settles micro_batch=auto.",
        "data": "Files in, batches of tokens out.",
        "lora": "The part of the backbone that trains, alone or in a pack.",
    },
    {
        "head": "From hidden states to loss and answers.",
        "benchmark": "Scores of lm-evaluation-harness over a loaded backbone.",
        "recovery": "A damaged trial of a sweep, put together again from its other files.",
    },
    {"training": "A trial or a pack, from its config to its result."},
    {"results": "Ranking and out-of-fold predictions, from folders."},
    {
        "baseline": "Linear models on words and lengths, to compare a sweep with.",
        "inference": "The uses of a finished run: predictions, its test part, an export.",
        "report": "The page, the terminal's report and the live view of a sweep.",
    },
    {"sweeping": "Many trials to their end: proposed, executed, ended, from every entry."},
    {"tonight": "One command from a file to a submission, in the hours that it is given."},
    {"api": "The Python functions of `import danube_sweep as ds`.", "cli": "The command line."},
    {"__main__": "python -m danube_sweep."},
]
"""Lowest first, a sentence each. A file imports only from lower rooms; rooms on one floor do not know each other."""

SWEEPING_LAYERS = [
    {"propose": "Which trials there are, and which is next."},
    {
        "execute": "Slots, processes, packs, and how each attempt ended.",
        "cluster": "Jobs of a cluster that train the trials of one folder.",
        "dry_run": "What --dry-run shows.",
        "starting_point": "The settings that danube-sweep init starts from.",
        "wandb_file": "W&B's sweep file, read.",
    },
    {"plan_cells": "What each trial of a sweep would need, and the packs of them all."},
    {"confirm": "Rows that are tied with the best, trained again with fresh seeds."},
    {"other_launchers": "Trials that launchers of others train, in batches."},
    {"end_sweep": "The winner's test part, the ranking written and shown."},
    {"shared_sweep": "How the workers of a sweep hold its trials, and that they see each other."},
    {"start_sweep": "What every entry calls: plan a grid or a search, run it."},
    {"resume_sweep": "The same for a folder that is there, with changed settings."},
    {"train_refit": "The best settings of a sweep, trained on all rows."},
    {"share": "Trials of several W&B agents of one machine, in one executor."},
    {"entry": "The ways in: Hydra's plugins, the W&B agent, a sweep file."},
]
"""The same inside sweeping/."""

ROOM_OF_GROUP = {
    "precision": "model/precision.py",
    "schedule": "optimizer/schedule.py",
    "device": "training/device.py",
    "pruner": "sweeping/propose/pruners.py",
    "trainer": "training",
    "sweep": "sweeping",
}
"""conf/<group> is built by the room of its name; these are built elsewhere. `ds.sweep` is to be a function."""

NOT_BUILT = {"experiment", "hydra", "wandb"}
"""Folders of conf/ that are no groups of ours."""

LIGHT = ["errors", "paths", "schema", "extension", "config", "composer", "planner", "report", "api", "cli"]
"""On the path to --help, plan and report."""

HEAVY = {"torch", "transformers", "lightning", "wandb", "peft", "bitsandbytes", "sklearn"}


def module_of(file: Path) -> str:
    name = ".".join(("danube_sweep", *file.relative_to(PACKAGE).with_suffix("").parts))
    return name.removesuffix(".__init__")


@cache
def modules() -> dict[str, Path]:
    return {module_of(file): file for file in PACKAGE.rglob("*.py")}


@cache
def imported(module: str) -> frozenset[str]:
    """The modules of ours that a module imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "danube_sweep":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in modules() else str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in modules()}
    return frozenset(found - {module, "danube_sweep"})


def room_of(module: str, package: str) -> str | None:
    inside = module.removeprefix(f"{package}.")
    return None if inside == module else inside.split(".")[0]


@pytest.mark.parametrize(
    ("package", "layers"),
    [("danube_sweep", LAYERS), ("danube_sweep.sweeping", SWEEPING_LAYERS)],
    ids=["all", "sweeping"],
)
def test_imports_run_one_way(package: str, layers: list[dict[str, str]]) -> None:
    height = {room: number for number, layer in enumerate(layers) for room in layer}
    upward = []
    for module in modules():
        room = room_of(module, package)
        others = {room_of(other, package) for other in imported(module)} - {room, None}
        if room is not None:
            upward += [f"{module} imports {other}" for other in others if height[str(other)] >= height[room]]
    assert not upward


def test_every_room_has_a_sentence_and_every_sentence_a_room() -> None:
    rooms = {room_of(module, "danube_sweep") for module in modules()} - {None}
    assert {room for layer in LAYERS for room in layer} == rooms
    assert all(sentence.endswith(".") for layer in [*LAYERS, *SWEEPING_LAYERS] for sentence in layer.values())


def test_the_map_in_contributing_is_these_rooms_in_this_order() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("| room | purpose |\n| --- | --- |\n")[2].partition("\n\n")[0]
    rows = [row.strip("| ").split(" | ") for row in table.splitlines()]
    expected = [[f"`{room}`", sentence] for layer in LAYERS for room, sentence in layer.items()]
    assert rows == expected


def test_no_files_import_each_other_in_a_circle() -> None:
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way, module))
        if module not in done:
            for other in imported(module):
                visit(other, (*way, module))
            done.add(module)

    for module in modules():
        visit(module, ())


def test_a_file_is_told_by_its_name_alone() -> None:
    # The two that packages of others import say what they re-export; the rest have names of their own.
    stems = Counter(file.stem for file in PACKAGE.rglob("*.py") if file.stem != "__init__")
    assert [stem for stem, count in stems.items() if count > 1] == []


def test_a_group_of_the_config_is_built_by_the_room_of_its_name() -> None:
    groups = {folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir()} - NOT_BUILT
    missing = [group for group in groups if not (PACKAGE / ROOM_OF_GROUP.get(group, group)).exists()]
    assert not missing
    assert set(ROOM_OF_GROUP) <= groups


def test_files_and_functions_stay_small() -> None:
    too_long = []
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text()
        if text.count("\n") > 400:
            too_long.append(f"{file.name} has {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 60:
                too_long.append(f"{file.name}:{node.name}")
    assert not too_long


def test_importing_what_is_light_loads_no_heavy_library() -> None:
    light = [f"danube_sweep.{room}" for room in LIGHT]
    kinds = ["danube_sweep.data.kinds", "danube_sweep.head.kinds", "danube_sweep.optimizer.kinds"]
    chosen = [name for name in modules() if name.startswith((*light, *kinds))]
    assert len(chosen) > 100
    for name in chosen:
        top = [
            node
            for node in ast.parse(modules()[name].read_text()).body
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        names |= {str(node.module) for node in top if isinstance(node, ast.ImportFrom)}
        assert not {one.split(".")[0] for one in names} & HEAVY, name


def test_composing_and_planning_load_no_torch(subprocess_modules: set[str]) -> None:
    assert {"danube_sweep.composer", "danube_sweep.planner.trial_plan"} <= subprocess_modules
    assert not HEAVY & subprocess_modules


@pytest.fixture(scope="module")
def subprocess_modules() -> set[str]:
    """What is loaded in a fresh process that composes and plans a trial."""
    import subprocess

    script = (
        "import sys; from danube_sweep.composer import compose; from danube_sweep.planner.trial_plan import plan_of; "
        "import danube_sweep.cli.help, danube_sweep.report.collect; compose(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())
