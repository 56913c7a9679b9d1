"""`danube-sweep refit`."""

from pathlib import Path

from danube_sweep.cli.folders_of_others import add_trust, check_received
from danube_sweep.cli.parser import Parser


def refit(arguments: list[str]) -> int:
    """`danube-sweep refit`: the best settings on training and validation rows."""
    parser = Parser(
        "danube-sweep refit",
        description="Trains the settings of a sweep's best row, or of a run, on the training and validation rows; the "
        "test part stays out. Training stops at the best step found before, scaled by the number of rows. No rows are "
        "left to validate, so the metric that the settings reached before is printed. Several models are averaged by "
        "danube-sweep predict. See docs/refit.md.",
        epilog="example: danube-sweep refit multirun/2026-11-23/18-20-00 --seeds 3 -o final; "
        "danube-sweep predict final test.csv -o submission.csv",
    )
    parser.add_argument("directory", type=Path, help="the folder of a sweep or a run")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder to write, new or empty")
    parser.add_argument("--top", type=int, default=1, metavar="K", help="rows of the ranking to train (default 1)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="models of each row (default 1)")
    parser.add_argument(
        "--folds",
        type=int,
        nargs="?",
        const=0,
        metavar="K",
        help="keep a model for each fold instead of one on all rows; K is the sweep's own number by default",
    )
    parser.add_argument(
        "--score-test",
        action="store_true",
        help="score the model on the test part of the data at the end; for one model",
    )
    add_trust(parser)
    options = parser.parse_args(arguments)
    for name, least in (("top", 1), ("seeds", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}, got {getattr(options, name)}")
    if options.folds is not None and options.folds != 0 and options.folds < 2:
        parser.error(f"--folds must be at least 2, got {options.folds}")
    check_received(options.directory, trust=options.trust)

    from danube_sweep.sweeping.train_refit import Wanted, run_refit
    from danube_sweep.terminal.screen import Terminal

    wanted = Wanted(options.top, options.seeds, options.folds, options.score_test)
    with Terminal() as terminal:
        run_refit(options.directory, options.output, wanted, terminal)
    return 0
