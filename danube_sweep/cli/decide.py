"""`danube-sweep decide`."""

from pathlib import Path

from danube_sweep.cli.folders_of_others import add_trust, check_received
from danube_sweep.cli.parser import Parser


def decide(arguments: list[str]) -> int:
    """`danube-sweep decide`: the labels that are best for a metric."""
    parser = Parser(
        "danube-sweep decide",
        description="Chooses how probabilities become labels: thresholds or biases of the classes for an F-measure, "
        "cut points between grades for QWK. The rule is fitted on the validation predictions, and its gain on unseen "
        "rows is printed. It is kept with the run or the ensemble, and danube-sweep predict --labels uses it. See "
        "docs/calibration.md.",
        epilog="example: danube-sweep decide best --metric macro_f1; "
        "danube-sweep predict best test.csv -o submission.csv --labels",
    )
    parser.add_argument("directory", type=Path, help="the folder of a run, a sweep (its best trial) or an ensemble")
    parser.add_argument(
        "--metric", help="macro_f1, micro_f1, token_f5 or with another number, or qwk (default: by the run's head)"
    )
    parser.add_argument(
        "--predictions", type=Path, metavar="FILE", help="a parquet of danube-sweep oof, instead of the folder's own"
    )
    add_trust(parser)
    options = parser.parse_args(arguments)
    check_received(options.directory, trust=options.trust)

    from danube_sweep.results.decisions.decide_command import run_decide
    from danube_sweep.terminal.screen import Terminal

    run_decide(options.directory, options.metric, options.predictions, Terminal())
    return 0
