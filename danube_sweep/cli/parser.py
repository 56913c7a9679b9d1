"""The parser of the subcommands."""

import argparse
from pathlib import Path
from typing import Any, NoReturn

from danube_sweep.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, like all other errors."""

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """As argparse's; an argument that may be missing is never named among the required ones."""
        if options.get("nargs") == "*":
            options.setdefault("default", [])
        return super().add_argument(*names, **options)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """The option `--overwrite`."""
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output file")


def add_directories(parser: argparse.ArgumentParser) -> None:
    """The folders of runs or of sweeps."""
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIR", help="folders of runs or of sweeps")


def add_config_dir(parser: argparse.ArgumentParser) -> None:
    """The option `--config-dir`."""
    parser.add_argument("--config-dir", "-cd", type=Path, help="a folder with your own options: device/mine.yaml, …")


def own_options(config_dir: Path | None) -> Path | None:
    """The folder that `--config-dir` names, absolute. Raises ConfigError if it is not there."""
    from danube_sweep.errors import ConfigError

    folder = None if config_dir is None else config_dir.expanduser().absolute()
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"--config-dir={config_dir}: no such folder")
    return folder


def add_accelerator(parser: argparse.ArgumentParser) -> None:
    """The option `--accelerator`."""
    parser.add_argument("--accelerator", choices=["auto", "cpu", "cuda"], default="auto", help="where to run")


def add_model_path(parser: argparse.ArgumentParser) -> None:
    """The option `--model-path`."""
    parser.add_argument("--model-path", type=Path, metavar="FOLDER", help="folder of the backbone, if it has moved")
