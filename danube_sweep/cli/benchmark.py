"""`danube-sweep benchmark`: the words of the command, and each model in a process of its own."""

import argparse
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from danube_sweep.cli.benchmark_words import Cell, Words, parsed_words
from danube_sweep.cli.folders_of_others import add_trust, check_received
from danube_sweep.cli.parser import Parser
from danube_sweep.errors import ConfigError

_READ = ("model", "precision", "device", "head")
"""Groups of the config that a benchmark reads, or reports as unused."""


def benchmark(arguments: list[str]) -> int:
    """`danube-sweep benchmark`: a model, a run or every combination, on tasks of lm-evaluation-harness."""
    options = _parser().parse_intermixed_args(arguments)
    from danube_sweep.benchmark.find_tasks import check_names, check_tasks_dir, harness_folder
    from danube_sweep.benchmark.scored_parts import check_overlap

    harness_folder()
    folder = None if options.tasks_dir is None else options.tasks_dir.expanduser().absolute()
    check_tasks_dir(folder)
    if options.list is not None:
        from danube_sweep.cli.benchmark_table import listed_tasks

        print(listed_tasks(options.list, folder))
        return 0
    words, rest = parsed_words(options.words)
    check_names(words.tasks, folder)
    check_overlap(words.tasks, folder)
    runs = [one for one in rest if "=" not in one]
    _check(options, words, rest, runs)
    out = options.output or Path("outputs") / f"{datetime.now():%Y-%m-%d/%H-%M-%S}-benchmark"
    if runs:
        check_received(Path(runs[0]), trust=options.trust)
    cells = [Cell([], Path(runs[0]))] if runs else [Cell(one) for one in _combinations(rest, options.multirun)]
    from danube_sweep.cli.benchmark_cells import Request, run_cells

    return run_cells(cells, Request(words, options, folder), out)


def _parser() -> Parser:
    parser = Parser(
        "danube-sweep benchmark",
        description="Scores a model with EleutherAI's lm-evaluation-harness (pip install 'danube_sweep[benchmark]'). "
        "tasks=post stands for the six benchmarks of the post. A run's folder is scored before and after its training. "
        "With -m, every combination is scored, each in a process of its own. See docs/benchmark.md.",
        epilog="examples: danube-sweep benchmark model=danube3_4b model.variant=chat precision=nf4 tasks=post; "
        "danube-sweep benchmark outputs/RUN 'tasks=[arc_challenge,hellaswag]' limit=200; "
        "danube-sweep benchmark -m model=danube3_4b,phi3_mini precision=bf16,int8,nf4 tasks=post. "
        "Words of this command: tasks=NAMES, limit=N (items of each task), shots=N (examples before an item), batch=N "
        "(rows at a time), chat_template=true|false, timeout_h=HOURS (for each model).",
    )
    parser.add_argument("words", nargs="*", metavar="OVERRIDE|RUN_FOLDER", help="the model, or a run; and tasks=…")
    parser.add_argument("-m", "--multirun", action="store_true", help="score every combination of the values")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="the folder to write, or to go on with")
    parser.add_argument("--tasks-dir", type=Path, metavar="DIR", help="your own tasks: YAML files and their data")
    parser.add_argument(
        "--list", nargs="?", const="", metavar="WORD", help="list tasks, or those with WORD in the name"
    )
    parser.add_argument("--merge", action="store_true", help="run only: merge the adapter instead of attaching it")
    parser.add_argument(
        "--after-only", action="store_true", help="run only: do not score the backbone without training"
    )
    parser.add_argument("--model-path", type=Path, metavar="FOLDER", help="run only: its backbone, if that has moved")
    parser.add_argument("--accelerator", choices=["auto", "cpu", "cuda"], default="auto", help="run only: where to run")
    add_trust(parser)
    return parser


def _check(options: argparse.Namespace, words: Words, rest: Sequence[str], runs: Sequence[str]) -> None:
    if len(runs) > 1:
        raise ConfigError(f"{runs[1]}: one run at a time; give the folder of one")
    if runs and (len(rest) > 1 or options.multirun):
        given = "-m" if options.multirun else next(one for one in rest if one not in runs)
        raise ConfigError(f"{given}: a run has its own model and precision; leave it out, or leave {runs[0]} out")
    for name in ("merge", "after_only", "model_path"):
        if getattr(options, name) and not runs:
            raise ConfigError(f"--{name.replace('_', '-')} is for the folder of a run; give one, or leave it out")
    if options.accelerator != "auto" and not runs:
        raise ConfigError(f"--accelerator is for a run; write device={options.accelerator}")
    for word in rest:
        group = re.split(r"[=./@]", word.lstrip("+~"), maxsplit=1)[0]
        if "=" in word and group not in _READ:
            raise ConfigError(f"{word}: a benchmark reads model, precision and device only; leave it out")


def _combinations(overrides: Sequence[str], multirun: bool) -> list[list[str]]:
    if not multirun:
        return [list(overrides)]
    from danube_sweep.composer import choices, parse_sweep
    from danube_sweep.sweeping.propose.grid_cells import expand

    return expand(parse_sweep(choices(overrides)), 1000)
