"""`danube-sweep soup`."""

from pathlib import Path

from danube_sweep.cli.folders_of_others import add_trust, check_received
from danube_sweep.cli.parser import Parser, add_accelerator, add_directories, add_model_path


def soup(arguments: list[str]) -> int:
    """`danube-sweep soup`: one adapter, the average of several."""
    parser = Parser(
        "danube-sweep soup",
        description="Averages trials into one adapter and head, which cost no more to run than one trial. Trials are "
        "tried by their validation loss, the best first, and kept if the average improves. The average is exact, of "
        "the summed rank, unless --rank cuts it. The trials need plain LoRA on the same linears of one backbone, and "
        "one head. Writes the folder of a run. See docs/soups.md.",
        epilog="example: danube-sweep soup multirun/2026-11-23/18-20-00 -o one --rank 16; "
        "danube-sweep predict one test.csv -o submission.csv",
    )
    add_directories(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder to write, new or empty")
    parser.add_argument("--rank", type=int, metavar="R", help="cut the average back to this rank (default: exact)")
    parser.add_argument("--candidates", type=int, default=10, metavar="N", help="best trials to try (default 10)")
    parser.add_argument(
        "--batch-rows", type=int, default=16, help="rows of data.max_length tokens per forward pass (default 16)"
    )
    add_accelerator(parser)
    add_model_path(parser)
    add_trust(parser)
    options = parser.parse_args(arguments)
    for name, least in (("rank", 1), ("candidates", 2), ("batch_rows", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    for directory in options.directories:
        check_received(directory, trust=options.trust)

    from danube_sweep.config.schema import Device
    from danube_sweep.terminal.quiet_libraries import quiet_libraries
    from danube_sweep.terminal.screen import Terminal

    quiet_libraries()
    from danube_sweep.inference.predict import Place
    from danube_sweep.inference.soup.soup_command import Wanted, run_soup

    place = Place(Device(accelerator=options.accelerator), model_path=options.model_path)
    wanted = Wanted(options.rank, options.candidates, options.batch_rows)
    run_soup(options.directories, options.output, wanted, place, Terminal())
    return 0
