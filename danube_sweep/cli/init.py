"""`danube-sweep init`: from a file to the command to start from."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from danube_sweep.cli.parser import Parser
from danube_sweep.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from danube_sweep.config.schema import Config
    from danube_sweep.data.recognise.guess import Guess
    from danube_sweep.sweeping.starting_point import StartingPoint
    from danube_sweep.terminal.screen import Terminal

STAND_IN = "danube_tiny"


def init(arguments: list[str]) -> int:
    """`danube-sweep init`: recognises a file, shows three rows as the model reads them, and prints a command."""
    options = options_of(arguments)
    _check_overrides(options.overrides)

    from danube_sweep.cli.experiment_file import check_experiment_file, write_experiment_file
    from danube_sweep.data.recognise.recognise_file import recognise
    from danube_sweep.sweeping.starting_point import starting_point
    from danube_sweep.terminal.screen import Terminal

    files = [options.file, *([options.test] if options.test else [])]
    if options.output:
        check_experiment_file(options.output, files, overwrite=options.overwrite)
    elif options.overwrite:
        raise ConfigError("--overwrite replaces the experiment of -o; give -o, or leave it out")
    recognised = recognise(options.file, options.overrides, options.test)
    start = starting_point(recognised, options.overrides)
    terminal = Terminal()
    seen = recognised.seen
    rows = f"{seen.rows:,} rows" if seen.whole else f"the first {seen.rows:,} rows looked at"
    terminal.tell("file", [f"{options.file}: {rows}, columns {', '.join(seen.names)}", ""])
    terminal.show(_table(start.guesses))
    terminal.note("")
    _show_rows(start.config, options, terminal)
    experiment = None
    if options.output:
        experiment = write_experiment_file(options.output, start.guesses, shlex.quote(str(options.file)))
    terminal.tell("start", _ending(start, recognised.to_predict, experiment))
    return 0


def options_of(arguments: list[str]) -> argparse.Namespace:
    """The words of the command, read. Raises ConfigError."""
    parser = Parser(
        "danube-sweep init",
        description="Recognises the kind of data and the columns of a file, shows three rows as the model reads them, "
        "and prints the command to start from. Every guess is shown with its reason; an override replaces it. "
        "docs/data.md lists the signs. Trains nothing, and writes nothing but caches and the file of -o.",
        epilog="example: danube-sweep init train.csv --test test.csv; danube-sweep init train.csv "
        "data.label_column=topic model=danube3_500m device=kaggle_t4 -o conf/experiment/mine.yaml",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the training file: csv, tsv, jsonl, json or parquet")
    parser.add_argument("--test", type=Path, metavar="FILE", help="a file to predict, or with labels to score")
    parser.add_argument("--rows", type=int, default=3, metavar="N", help="number of rows to show (default 3)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the experiment to write: FOLDER/experiment/NAME.yaml"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing experiment")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="instead of a guess, as for training")
    options = parser.parse_intermixed_args(arguments)
    if options.rows < 0:
        parser.error(f"--rows must be at least 0, got {options.rows}")
    return options


def _check_overrides(words: Sequence[str]) -> None:
    for word in words:
        if word.startswith(("+", "~", "hydra.", "hydra/", "experiment=")):
            raise ConfigError(f"{word}: init takes settings of a trial, GROUP=OPTION or FIELD=VALUE; leave it out")
        if word.startswith(("data.path=", "data.test_path=")):
            raise ConfigError(f"{word}: give the file by itself: danube-sweep init FILE, and --test FILE")
    from danube_sweep.composer import first_swept

    if (swept := first_swept(words)) is not None:
        raise ConfigError(f"{swept} names several values: init starts from one; sweep in the command that it prints")


def _table(guesses: Sequence["Guess"]) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for style in ("cyan", ""):
        table.add_column(style=style, overflow="fold")
    for guess in guesses:
        table.add_row(Text(guess.word), Text(guess.reason))
    return table


def _show_rows(config: "Config", options: argparse.Namespace, terminal: "Terminal") -> None:
    from danube_sweep.terminal.quiet_libraries import quiet_libraries

    quiet_libraries()
    from danube_sweep.cli.show_data import show_data

    try:
        show_data(config, options.rows, terminal)
    except ModelError as error:
        from danube_sweep.composer import compose

        terminal.note(f"note: {error}; the rows are shown with the tokenizer of model={STAND_IN}")
        tiny = compose([f"model={STAND_IN}"])
        show_data(_with_model(config, tiny), options.rows, terminal)
    terminal.note("")


def _is_default(guess: "Guess", config: "Config") -> bool:
    """Whether the trial is the same without it: the experiment states it, the command may leave it out."""
    import dataclasses

    if guess.field == "device":
        return bool(guess.value == "auto")
    group, _, name = guess.field.partition(".")
    part = getattr(config, group)
    defaults = {one.name: one.default for one in dataclasses.fields(part)} if name else {}
    return name in defaults and bool(defaults[name] == guess.value)


def _with_model(config: "Config", other: "Config") -> "Config":
    import dataclasses

    return dataclasses.replace(config, model=other.model)


def _ending(start: "StartingPoint", to_predict: str | None, experiment: Sequence[str] | None) -> list[str]:
    from danube_sweep.planner.memory import GIB
    from danube_sweep.terminal.screen import human

    plan = start.plan
    capacity = "" if plan.fit.capacity_bytes is None else f" of {plan.fit.capacity_bytes / GIB:.1f}"
    seconds = "" if plan.training_s is None else f", about {human(plan.training_s)} of training ({plan.device.figures})"
    words = [guess.word for guess in start.guesses if guess.given or not _is_default(guess, start.config)]
    lines = [
        f"plan: {plan.fit.memory.total / GIB:.2f} GiB{capacity} on {plan.device.name}{seconds}",
        "start from:",
        f"  {shlex.join(['danube-sweep', *words])}",
    ]
    if experiment is not None:
        lines += ["the same as an experiment:", f"  {shlex.join(experiment)}"]
    if to_predict is not None:
        test = shlex.quote(to_predict)
        lines += [
            "then, with the folder that the run prints:",
            f"  danube-sweep predict RUN_DIR {test} -o predictions.csv",
        ]
    return lines
