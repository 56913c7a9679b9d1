"""The architecture, read from the imports."""

import ast
from pathlib import Path

import pytest

import danube_sweep

PACKAGE = Path(danube_sweep.__file__).parent

LAYERS = [
    {"errors"},
    {"paths", "quiet", "stop", "summary"},
    {"schema"},
    {"architecture", "dataset", "extension"},
    {"adapters"},
    {"validate", "trial", "help"},
    {"validate_sweep", "planner", "explain"},
    {"compose"},
    {
        "data",
        "precision",
        "optimizer",
        "schedule",
        "tracking",
        "progress",
        "checkpoint",
        "environment",
        "attention",
    },
    {"answers", "flat", "hub", "metrics", "quantised"},
    {"tokenizer"},
    {"model"},
    {"lora", "head", "steps"},
    {"guard", "prepare", "product", "evaluate"},
    {"active", "predict", "prediction"},
    {"pack", "finish", "score"},
    {"module", "begin"},
    {"run"},
    {"sweep"},
    {"export", "oof", "report"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
"""Lowest first; a module imports only from lower layers. data/ is one module here."""

SWEEP_LAYERS = [
    {"fitting", "folder", "messages", "space", "warm"},
    {"cells", "child", "dry", "history", "outcome", "ranking", "sheet", "source"},
    {"packing", "pool", "records", "search"},
    {"running", "slots"},
    {"executor"},
    {"ending"},
    {"front"},
    {"doors"},
]
"""The same inside sweep/."""

ROOT_NAMES = {"__version__"}


def imported(file: Path, package: str = "danube_sweep") -> set[str]:
    """The modules of a package that a file imports, at its top or inside functions."""
    depth, found = package.count(".") + 1, set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == package:
            found |= {alias.name for alias in node.names} - ROOT_NAMES
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
            found.add(str(node.module).split(".")[depth])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[depth] for alias in node.names if alias.name.startswith(f"{package}.")}
    return found


def module_of(file: Path, folder: Path = PACKAGE) -> str:
    return file.relative_to(folder).parts[0].removesuffix(".py")


@pytest.mark.parametrize(("package", "layers"), [("danube_sweep", LAYERS), ("danube_sweep.sweeping", SWEEP_LAYERS)])
def test_a_file_imports_only_from_lower_layers(package: str, layers: list[set[str]]) -> None:
    folder = PACKAGE.parent.joinpath(*package.split("."))
    height = {name: number for number, layer in enumerate(layers) for name in layer}
    files = [file for file in folder.rglob("*.py") if file != folder / "__init__.py"]
    upward = [
        f"{file.relative_to(folder)} imports {name}"
        for file in files
        for name in imported(file, package) - {module_of(file, folder)}
        if height[name] >= height[module_of(file, folder)]
    ]
    assert not upward


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


def test_importing_reads_no_environment_and_loads_no_heavy_library() -> None:
    heavy = {"torch", "transformers", "lightning", "wandb", "peft", "bitsandbytes", "sklearn"}
    light = [
        "errors",
        "paths",
        "schema",
        "extension",
        "adapters",
        "validate",
        "trial",
        "compose",
        "help",
        "cli",
        "architecture",
        "planner",
        "report",
        "summary",
        "stop",
    ]
    for name in light:
        single = PACKAGE / f"{name}.py"
        for file in [single] if single.is_file() else (PACKAGE / name).rglob("*.py"):
            tree = ast.parse(file.read_text())
            top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
            names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
            names |= {str(node.module) for node in top if isinstance(node, ast.ImportFrom)}
            assert not {name.split(".")[0] for name in names} & heavy, file
