"""`danube-sweep ensemble`."""

from pathlib import Path

from danube_sweep.cli.folders_of_others import say_links
from danube_sweep.cli.parser import Parser, add_directories


def ensemble(arguments: list[str]) -> int:
    """`danube-sweep ensemble`: several finished models that answer together."""
    parser = Parser(
        "danube-sweep ensemble",
        description="Combines finished models by their validation predictions; no model is loaded. The methods are "
        "greedy selection with replacement, with a temperature for each member, and the plain mean of the best. Prints "
        "the loss on unseen rows beside that of the best single model. Writes a folder for danube-sweep predict. "
        "See docs/ensembles.md.",
        epilog="example: danube-sweep ensemble multirun/2026-11-23/18-20-00 -o best; "
        "danube-sweep predict best test.csv -o submission.csv",
    )
    add_directories(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder to write")
    methods = ["auto", "greedy", "mean"]
    parser.add_argument("--method", choices=methods, default="auto", help="auto (the default) takes the better one")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="number of models in the mean (default 5)")
    parser.add_argument(
        "--candidates", type=int, default=40, metavar="N", help="best models to choose from (default 40)"
    )
    options = parser.parse_args(arguments)
    for name, least in (("top", 1), ("candidates", 2)):
        if getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}, got {getattr(options, name)}")

    for directory in options.directories:
        say_links(directory)

    from danube_sweep.results.ensemble.ensemble_command import Wanted, run_ensemble
    from danube_sweep.terminal.screen import Terminal

    wanted = Wanted(options.method, options.top, options.candidates)
    run_ensemble(options.directories, options.output, wanted, Terminal())
    return 0
