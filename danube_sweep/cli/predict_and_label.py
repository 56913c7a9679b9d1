"""`danube-sweep predict` and `danube-sweep label`: both write a finished run's answers to new rows."""

import argparse
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from danube_sweep.cli.folders_of_others import add_trust, check_received
from danube_sweep.cli.parser import Parser, add_accelerator, add_model_path, add_overwrite

if TYPE_CHECKING:
    from danube_sweep.inference.predict_run import PredictWords

_METHODS = ("auto", "temperature", "vector")


def predict(arguments: list[str]) -> int:
    """`danube-sweep predict`: a csv for new rows."""
    parser = Parser(
        "danube-sweep predict",
        description="Writes a csv with the id of each input row and a probability per class, or the predicted number. "
        "For head=token it writes a row for every word. The folder of a sweep stands for its best trial, the folder of "
        "an ensemble for all its members.",
    )
    _add_common(parser)
    parser.add_argument(
        "--like", type=Path, metavar="SAMPLE", help="a sample submission, whose columns, order and ids are used"
    )
    parser.add_argument(
        "--labels",
        action="store_true",
        help="write the class that the rule of danube-sweep decide gives, otherwise the most likely one (head=ordinal: "
        "the median); for words, leave out those labelled O",
    )
    parser.add_argument(
        "--likeliest", dest="plainly", action="store_true", help="with --labels: ignore the rule of danube-sweep decide"
    )
    words = _words(parser, arguments)
    if words.plainly and not words.labels:
        parser.error("--likeliest is for labels; give --labels, or leave it out")

    from danube_sweep.inference.predict_run import predict_run
    from danube_sweep.sweeping.execute.divided_prediction import devices_for

    print(f"{words.target}: {predict_run(words, devices=devices_for(words))} rows")
    return 0


def label(arguments: list[str]) -> int:
    """`danube-sweep label`: soft labels for more training rows."""
    parser = Parser(
        "danube-sweep label",
        description="Writes the rows of an unlabelled file with a probability for each class, as data.extra reads "
        "them. The folder of a sweep stands for its best trial, the folder of an ensemble for all its members. See "
        "docs/distillation.md.",
        epilog="example: danube-sweep label best unlabelled.csv -o soft.csv; danube-sweep data=arena "
        "data.path=train.csv data.extra=[soft.csv] data.extra_weight=0.5",
    )
    _add_common(parser)
    words = _words(parser, arguments)

    from danube_sweep.inference.label_run import label_run
    from danube_sweep.sweeping.execute.divided_prediction import devices_for

    rows = label_run(words, devices_for(words))
    print(f"{words.target}: {rows} rows with soft labels; train on them with data.extra=[{words.target}]")
    return 0


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", type=Path, help="the folder of a run, a sweep or an ensemble; it is only read")
    parser.add_argument("input", type=Path, help="csv, jsonl, json or parquet with the columns of the run's data")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the csv to write")
    add_overwrite(parser)
    parser.add_argument(
        "--id-column", metavar="NAME", help="the id column (default: the run's data.id_column, otherwise id, Id or ID)"
    )
    parser.add_argument("--swap", action="store_true", help="average both orders of the two answers")
    parser.add_argument(
        "--calibrate",
        nargs="?",
        const="auto",
        type=_method,
        choices=_METHODS,
        help="calibrate on the validation rows: divide the logits by a temperature, or scale the log probabilities by "
        "class; auto takes the better one on unseen rows",
    )
    parser.add_argument(
        "--calibrate-on",
        type=Path,
        metavar="FILE",
        help="a parquet of predictions to calibrate on, like that of danube-sweep oof (default: the folder's own)",
    )
    parser.add_argument(
        "--batch-rows",
        type=int,
        default=16,
        help="rows of data.max_length tokens per forward pass; of shorter ones, as many tokens (default 16)",
    )
    parser.add_argument(
        "--deadline-h",
        type=float,
        metavar="H",
        help="hours that it may take: leaves out --swap and members of an ensemble, if they do not fit, and says so",
    )
    add_accelerator(parser)
    parser.add_argument(
        "--devices",
        type=lambda word: int(word) if word.isdecimal() else word,  # `check_devices` says what it must be
        default=1,
        metavar="N",
        help="devices that divide the rows: a number of GPUs (without a GPU, of processes that share the CPU), or all; "
        "default 1",
    )
    types = ["fp32", "bf16", "fp16"]
    parser.add_argument("--compute", choices=types, help="compute type, if the device lacks the run's type")
    add_model_path(parser)
    add_trust(parser)


def _method(word: str) -> str:
    if word not in _METHODS:
        raise argparse.ArgumentTypeError(
            f"{word!r} is no method ({', '.join(_METHODS)}); put --calibrate after the paths, or write --calibrate=auto"
        )
    return word


def _with_method(arguments: list[str]) -> list[str]:
    """The arguments with `--calibrate=auto` for a `--calibrate` that a path follows, which is no method."""
    found = list(arguments)
    for place, (word, following) in enumerate(pairwise(arguments)):
        if word == "--":
            break
        if word == "--calibrate" and following not in _METHODS and Path(following).exists():
            found[place] = "--calibrate=auto"
    return found


def _words(parser: Parser, arguments: list[str]) -> "PredictWords":
    options = parser.parse_args(_with_method(arguments))
    if options.batch_rows < 1:
        parser.error(f"--batch-rows must be at least 1, got {options.batch_rows}")
    if options.deadline_h is not None and not 0 < options.deadline_h < 10_000:
        parser.error(f"--deadline-h must be above 0, got {options.deadline_h:g}")
    check_received(options.run_dir, trust=options.trust)

    from danube_sweep.inference.predict_run import PredictWords

    given = {"run": options.run_dir, "source": options.input, "target": options.output}
    how = {name: value for name, value in vars(options).items() if name not in ("run_dir", "input", "output", "trust")}
    return PredictWords(**given, **how)
