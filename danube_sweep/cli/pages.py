"""The subcommands that draw a sweep as a page: `report` once, `watch` while it runs."""

import argparse
from pathlib import Path

from danube_sweep.cli.folders_of_others import say_links
from danube_sweep.cli.newest_folder import add_directory, or_newest
from danube_sweep.cli.parser import Parser, add_overwrite
from danube_sweep.storage.ownership import Kind


def report(arguments: list[str]) -> int:
    """`danube-sweep report`: a sweep as one page."""
    parser = Parser(
        "danube-sweep report",
        description="Draws a sweep, running or ended, as one HTML page that works offline: the answer and its "
        "interval, the ranking, pictures of the effect and cost of each choice, and the data and versions that were "
        "compared (docs/report.md). danube-sweep rank --full shows the same in the terminal. With a second folder, "
        "both sweeps are ranked together, and the page goes into the current folder. The folder of an ensemble gives a "
        "page of its members and scores.",
        epilog="example: danube-sweep report multirun/2026-11-23/18-20-00. It prints the page's path and size.",
    )
    _add_page(parser, "the folder of a sweep or an ensemble")
    parser.add_argument("second", type=Path, nargs="?", help="another sweep's folder, to be ranked with the first")
    options = parser.parse_args(arguments)
    options.directory = or_newest(options.directory, [Kind.sweep], "report")
    for folder in filter(None, (options.directory, options.second)):
        say_links(folder)

    from danube_sweep.report.page import page_file, write_page
    from danube_sweep.storage.ensemble_folder import EnsembleFolder, refuse_ensemble

    if options.second is not None:
        for folder in (options.directory, options.second):
            refuse_ensemble(folder, "two sweeps can share a page; draw the ensemble alone")
    target = page_file(options.directory, options.output, overwrite=options.overwrite, second=options.second)
    if (ensemble := EnsembleFolder(options.directory)).file.is_file():
        from danube_sweep.report.ensemble_page import write_ensemble_page

        members = write_ensemble_page(ensemble, target)
        print(f"{target}: {members} member{'s' * (members != 1)}, {target.stat().st_size / 1000:,.0f} kB")
        return 0
    found, file = write_page(options.directory, target, options.second)
    trials = sum(found.counted.values())
    print(f"{file}: {trials} trial{'s' * (trials != 1)}, {file.stat().st_size / 1000:,.0f} kB")
    return 0


def _add_page(parser: argparse.ArgumentParser, what: str = "the sweep's folder") -> None:
    add_directory(parser, what)
    parser.add_argument("-o", "--output", type=Path, help="the page to write (default report.html in the folder)")
    add_overwrite(parser)


def watch(arguments: list[str]) -> int:
    """`danube-sweep watch`: a running sweep, live."""
    parser = Parser(
        "danube-sweep watch",
        description="Shows a running sweep live: its ranking, the progress of the trial in each slot, and the time "
        "left. Draws the page of danube-sweep report again each minute; an open one loads itself again. Ends with the "
        "sweep. Ctrl-C ends it earlier and does not affect the sweep.",
        epilog="example: danube-sweep watch multirun/2026-11-23/18-20-00, in a second terminal",
    )
    _add_page(parser)
    parser.add_argument("--every", type=float, default=60.0, metavar="S", help="seconds between pages (default 60)")
    parser.add_argument("--once", action="store_true", help="look once, draw the page and stop")
    options = parser.parse_args(arguments)
    if not options.every >= 1:
        parser.error(f"--every must be at least 1 second, got {options.every:g}")
    options.directory = or_newest(options.directory, [Kind.sweep], "watch")
    say_links(options.directory)

    from rich.console import Console

    from danube_sweep.report.page import page_file
    from danube_sweep.report.watch import Watch
    from danube_sweep.terminal.screen import Neutral

    console = Console()
    target = page_file(options.directory, options.output, overwrite=options.overwrite)
    watching = Watch(options.directory, console, output=target, every_s=options.every)
    if not options.once:
        watching.follow()
        return 0
    watching.look()
    watching.draw()
    console.print(Neutral(watching.look()))
    return 0
