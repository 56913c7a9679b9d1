"""The architecture, read from the imports."""

import ast
from pathlib import Path

import danube_sweep

PACKAGE = Path(danube_sweep.__file__).parent

LAYERS = [
    {"errors"},
    {"paths", "quiet", "stop", "summary"},
    {"schema"},
    {"validate", "trial", "help"},
    {"validate_sweep"},
    {"compose"},
    {"data", "precision", "optimizer", "schedule", "metrics", "tracking", "progress", "checkpoint", "environment"},
    {"hub"},
    {"tokenizer"},
    {"model"},
    {"lora", "head", "plan"},
    {"guard", "prepare", "product", "evaluate"},
    {"active", "predict"},
    {"module", "finish", "score"},
    {"run"},
    {"sweep"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
"""Lowest first; a module imports only from lower layers. data/ is one module here."""

ROOT_NAMES = {"__version__"}


def imported(file: Path) -> set[str]:
    """The modules of the package that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "danube_sweep":
            found |= {alias.name for alias in node.names} - ROOT_NAMES
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("danube_sweep."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("danube_sweep.")}
    return found


def module_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_a_file_imports_only_from_lower_layers() -> None:
    height = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    files = [file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py"]
    upward = [
        f"{file.relative_to(PACKAGE)} imports {name}"
        for file in files
        for name in imported(file) - {module_of(file)}
        if height[name] >= height[module_of(file)]
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
    light = ["errors", "paths", "schema", "validate", "trial", "compose", "help", "cli", "summary", "stop"]
    for name in light:
        single = PACKAGE / f"{name}.py"
        for file in [single] if single.is_file() else (PACKAGE / name).glob("*.py"):
            tree = ast.parse(file.read_text())
            top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
            names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
            names |= {str(node.module) for node in top if isinstance(node, ast.ImportFrom)}
            assert not {name.split(".")[0] for name in names} & heavy, file
