"""`danube-sweep tonight`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danube_sweep.cli.folders_of_others import add_trust, check_received
from danube_sweep.cli.parser import Parser
from danube_sweep.errors import ConfigError

if TYPE_CHECKING:
    from danube_sweep.tonight.asked import Asked


def tonight(arguments: list[str]) -> int:
    """`danube-sweep tonight`: from a file to a submission in some hours."""
    options = _options(arguments)

    from danube_sweep.terminal.screen import Terminal
    from danube_sweep.tonight.asked import Asked
    from danube_sweep.tonight.run_night import run_night

    folder: Path
    if options.file.is_dir():
        asked, folder = _stored(options), options.file
    else:
        if options.test is None:
            raise ConfigError(f"tonight {options.file}: --test FILE is missing, the rows to predict")
        if options.hours is None:
            raise ConfigError(f"tonight {options.file}: --hours H is missing, the time that it may take")
        models = [name for name in (options.models or "").split(",") if name]
        device = [] if options.device is None else [f"device={options.device}"]
        like = None if options.like is None else str(options.like)
        train, test = str(options.file), str(options.test)
        asked = Asked(train, test, options.hours, models, like, [*device, *options.overrides])
        folder = options.output or Path(f"tonight-{options.file.name.partition('.')[0]}")
    if folder.is_dir():
        check_received(folder, trust=options.trust)
    run_night(asked, folder, Terminal(), dry_run=options.dry_run)
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(
        "danube-sweep tonight",
        description="Recognises a training file, plans what fits, spreads the hours over backbones and settings, "
        "confirms the winner, makes an ensemble or a refit, whichever validation says, and predicts the test file. "
        "Writes submission.csv, report.html and commands.sh, the commands that it ran. The same command, or its "
        "folder, goes on with a night that was stopped. See docs/tonight.md.",
        epilog="example: danube-sweep tonight train.csv --test test.csv --hours 8 --device kaggle_t4 "
        "--models danube3_500m,danube3_4b --dry-run",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the training file, or the folder of a night")
    parser.add_argument("--test", type=Path, metavar="FILE", help="the rows to predict")
    parser.add_argument("--hours", type=float, metavar="H", help="the time that it may take, like 8 or 0.5")
    parser.add_argument("--device", metavar="NAME", help="the device, like kaggle_t4 (default: this machine's)")
    parser.add_argument(
        "--models", metavar="A,B", help="options of model, hub names or folders (default: those for the device)"
    )
    parser.add_argument("--like", type=Path, metavar="SAMPLE", help="a sample submission, as for danube-sweep predict")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="the folder to write (tonight-FILE)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    add_trust(parser)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="settings of every trial, or of the sweep")
    return parser.parse_intermixed_args(arguments)


def _stored(options: argparse.Namespace) -> "Asked":
    """The request of the night in a folder, with other hours or another sample if they are given.

    Raises ConfigError for options that only a new night can have.
    """
    import dataclasses

    from danube_sweep.tonight.night_folder import NightFolder

    for name in ("test", "device", "models", "output"):
        if getattr(options, name) is not None:
            raise ConfigError(f"tonight {options.file}: the night has its own --{name}; leave it out")
    if options.overrides:
        raise ConfigError(f"{options.overrides[0]}: the night has its own settings; leave it out")
    asked = NightFolder(options.file).read()
    changes: dict[str, Any] = {} if options.hours is None else {"hours": options.hours}
    changes |= {} if options.like is None else {"like": str(options.like)}
    return dataclasses.replace(asked, **changes)
