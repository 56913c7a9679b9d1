"""The parser of the subcommands."""

import argparse
from typing import NoReturn

from danube_sweep.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Says a mistake in one line, as everything else does."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """The option `--overwrite`."""
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output file")
