"""The parser of the subcommands."""

import argparse
from typing import Any, NoReturn

from danube_sweep.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Says a mistake in one line, as everything else does."""

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


def add_calibrate(parser: argparse.ArgumentParser) -> None:
    """The option `--calibrate`."""
    parser.add_argument(
        "--calibrate",
        nargs="?",
        const="auto",
        choices=["auto", "temperature", "vector"],
        help="calibrate on the validation rows: divide the logits by a temperature, or scale them by class; auto takes "
        "the better one on unseen rows",
    )
