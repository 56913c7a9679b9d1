"""The subcommands: everything of the command line that is not Hydra's."""

import argparse
from collections.abc import Callable
from pathlib import Path

from danube_sweep.cli.agent import agent
from danube_sweep.cli.benchmark import benchmark
from danube_sweep.cli.decide import decide
from danube_sweep.cli.ensemble import ensemble
from danube_sweep.cli.folders_of_others import add_trust, check_received, say_links
from danube_sweep.cli.init import init
from danube_sweep.cli.newest_folder import add_directory, or_newest
from danube_sweep.cli.pages import report, watch
from danube_sweep.cli.parser import (
    Parser,
    add_accelerator,
    add_config_dir,
    add_directories,
    add_model_path,
    add_overwrite,
    own_options,
)
from danube_sweep.cli.predict_and_label import label, predict
from danube_sweep.cli.refit import refit
from danube_sweep.cli.soup import soup
from danube_sweep.cli.tonight import tonight
from danube_sweep.errors import CheckpointError, ConfigError
from danube_sweep.storage.ownership import Kind


def resume(arguments: list[str]) -> int:
    """`danube-sweep resume`: an interrupted run, or a sweep."""
    parser = Parser(
        "danube-sweep resume",
        description="Continues an interrupted run or sweep. Trials without a result are trained from their last "
        "checkpoint. Several processes may resume one sweep; they share its trials. With device.count=N they train "
        "on another number of GPUs; for a run, device.sharding=none or full says whether these divide the weights.",
    )
    add_directory(parser, "the folder of a run or of a sweep")
    parser.add_argument("--retry", metavar="STATES", help="sweep only: end states to run again: failed,oom,… or all")
    words = "device.count=N for other GPUs, and for a sweep its settings to change"
    parser.add_argument("settings", nargs="*", metavar="sweep.FIELD=VALUE", help=words)
    parser.add_argument("--worker", action="store_true", help="sweep only: train here, not in jobs of a cluster")
    add_trust(parser)
    options = parser.parse_intermixed_args(arguments)

    from danube_sweep.storage.run_folder import RunFolder
    from danube_sweep.storage.sweep_folder import SweepFolder
    from danube_sweep.sweeping.execute.asked_devices import COUNT, SHARDING, with_devices

    if options.directory is not None and str(options.directory).startswith(("sweep.", COUNT, SHARDING)):
        options.directory, options.settings = None, [str(options.directory), *options.settings]
    options.directory = or_newest(options.directory, [Kind.sweep, Kind.run], "resume")
    check_received(options.directory, trust=options.trust)

    for directory in (options.directory, options.directory / "trials"):  # of a refit of several models
        if SweepFolder(directory).file.is_file():
            return _resume_sweep(directory, options.retry, options.settings, worker=options.worker)
    others = [one for one in options.settings if not one.startswith((COUNT, SHARDING))]
    if options.retry or others or options.worker:
        given = "--retry" if options.retry else [*others, "--worker"][0]
        raise CheckpointError(f"{options.directory} is no sweep: {_missing(options.directory, given)}")
    from danube_sweep.config.stored import load_config
    from danube_sweep.sweeping.execute.train_run import train_run

    config = with_devices(load_config(RunFolder(options.directory).config), options.settings)
    train_run(config, options.directory)
    return 0


def _missing(path: Path, given: str) -> str:
    return f"it has no sweep.json; {given} is for sweeps" if path.is_dir() else "there is no such folder"


def _resume_sweep(path: Path, retry: str | None, settings: list[str], *, worker: bool) -> int:
    from danube_sweep.sweeping.cluster.follow_jobs import back_to
    from danube_sweep.sweeping.execute.asked_devices import COUNT
    from danube_sweep.sweeping.resume_sweep import resume_sweep
    from danube_sweep.terminal.screen import Terminal

    for setting in settings:
        if not setting.startswith(("sweep.", COUNT)):
            raise ConfigError(f"{setting}: a sweep's trials are fixed; only sweep.FIELD=VALUE and {COUNT}N can change")
    changes = [*settings, *([f"sweep.retry=[{retry}]"] if retry else [])]
    submit = None if worker else back_to(path.absolute(), changes)
    with Terminal() as terminal:
        resume_sweep(path, changes, terminal, submit, patient=worker)
    return 0


def sweep(arguments: list[str]) -> int:
    """`danube-sweep sweep`: a W&B sweep file without a server."""
    parser = Parser(
        "danube-sweep sweep",
        description="Runs a W&B sweep file here, without a server. docs/wandb.md lists how each key is read.",
    )
    parser.add_argument("file", type=Path, help="the sweep file (YAML)")
    parser.add_argument("--dry-run", action="store_true", help="show the trials and stop")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="for every trial, or sweep.FIELD=VALUE")
    options = parser.parse_intermixed_args(arguments)

    from danube_sweep.sweeping.entry.sweep_file_command import run_sweep_file
    from danube_sweep.terminal.screen import Terminal

    dry = ["sweep.dry_run=true"] if options.dry_run else []
    with Terminal() as terminal:
        run_sweep_file(options.file, [*options.overrides, *dry], terminal)
    return 0


def plan(arguments: list[str]) -> int:
    """`danube-sweep plan`: memory, seconds and disk of trials, before anything is loaded."""
    parser = Parser(
        "danube-sweep plan",
        description="Predicts the memory and time of a trial from its config, and whether it fits a device. Loads no "
        "weights. With -m, prints a row for every combination of the values. docs/memory.md explains the computation.",
        epilog="example: danube-sweep plan -m model=danube3_500m,danube3_4b precision=nf4 device=kaggle_t4,h200 "
        "data.max_length=2048. The exit code is 0 whether or not it fits (--json has the verdict), 2 for a mistake.",
    )
    parser.add_argument("-m", "--multirun", action="store_true", help="plan every combination")
    parser.add_argument("--json", action="store_true", help="print JSON: bytes and seconds")
    add_config_dir(parser)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as for training: device=kaggle_t4, …")
    options = parser.parse_intermixed_args(arguments)

    from danube_sweep.cli.plan_table import show_plan
    from danube_sweep.terminal.screen import Terminal

    folder = own_options(options.config_dir)
    show_plan(options.overrides, Terminal(), multirun=options.multirun, as_json=options.json, config_dir=folder)
    return 0


def device(arguments: list[str]) -> int:
    """`danube-sweep device`: the known facts about this machine's GPU and CPU, and a probe of them."""
    parser = Parser(
        "danube-sweep device",
        description="Shows the GPUs and the CPU of this machine: how they are recognised, their memory, types and "
        "rates, and whether they were probed. A probe measures the rates that plans and packs use, in two seconds and "
        "a process of its own. A GPU is probed before its first trial, a CPU only on request. docs/memory.md explains "
        "the figures.",
        epilog="example: danube-sweep device --probe device=cpu device.threads=1",
    )
    parser.add_argument("--probe", action="store_true", help="measure the rates, again if they were measured before")
    add_config_dir(parser)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="device=cpu, device=cuda:1, device.threads=1")
    options = parser.parse_intermixed_args(arguments)

    from danube_sweep.cli.device_table import show_device
    from danube_sweep.terminal.screen import Terminal

    folder = own_options(options.config_dir)
    show_device(options.overrides, Terminal(), probe=options.probe, config_dir=folder)
    return 0


def show(arguments: list[str]) -> int:
    """`danube-sweep show`: the data as the model reads them."""
    parser = Parser(
        "danube-sweep show",
        description="Prints the first training rows and the longest one as the model reads them: text with markup, "
        "tokens, cuts and label. Before them come the facts that training prints: rows, classes, lengths, duplicates, "
        "and validation rows that leak. Loads no weights and trains nothing.",
        epilog="example: danube-sweep show data=table data.path=intents.csv head=sequence model=danube3_500m "
        "data.max_length=128",
    )
    parser.add_argument("--rows", type=int, default=3, metavar="N", help="number of rows (default 3)")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as for training")
    options = parser.parse_intermixed_args(arguments)
    if options.rows < 0:
        parser.error(f"--rows must be at least 0, got {options.rows}")

    from danube_sweep.composer import compose
    from danube_sweep.terminal.quiet_libraries import quiet_libraries
    from danube_sweep.terminal.screen import Terminal

    config = compose(options.overrides)
    quiet_libraries()
    from danube_sweep.cli.show_data import show_data

    show_data(config, options.rows, Terminal())
    return 0


def rank(arguments: list[str]) -> int:
    """`danube-sweep rank`: the table of a sweep, running or ended."""
    parser = Parser(
        "danube-sweep rank",
        description="Shows a sweep's trials, best first, and writes ranking.csv and ranking.md into its folder. "
        "Trials that differ only in seed and fold share a row. Each difference to the best row has a 95 % interval. "
        "The intervals cover validation rows and training noise, and hold for all rows at once. A row whose interval "
        "contains 0 is a tie.",
    )
    add_directory(parser, "the sweep's folder")
    parser.add_argument("--full", action="store_true", help="show the report in the terminal; write no file")
    add_overwrite(parser)
    options = parser.parse_args(arguments)
    if options.full and options.overwrite:
        parser.error("--full writes no file; leave --overwrite out")
    options.directory = or_newest(options.directory, [Kind.sweep], "rank")
    say_links(options.directory)

    from danube_sweep.terminal.screen import Terminal

    if options.full:
        from danube_sweep.report.in_terminal import show_report

        show_report(options.directory, Terminal())
        return 0
    from danube_sweep.sweeping.end_sweep import show_ranking

    show_ranking(options.directory, Terminal(), overwrite=options.overwrite)
    return 0


def oof(arguments: list[str]) -> int:
    """`danube-sweep oof`: out-of-fold predictions of finished folds."""
    parser = Parser(
        "danube-sweep oof",
        description="Joins the validation predictions of finished folds. Trials that differ only in data.fold and seed "
        "form a group; seeds are averaged. Groups with all their folds are scored over all rows and shown, best first. "
        "The predictions of the best group are written in the order of the data file.",
        epilog="example: danube-sweep -m data.folds=5 data.fold=0,1,2,3,4 lora.rank=8,16 hydra.sweep.dir=folds; "
        "danube-sweep oof folds. The exit code is 2 if no group has all its folds.",
    )
    add_directories(parser)
    parser.add_argument(
        "-o", "--output", type=Path, help="the .parquet or .csv to write (default oof.parquet in the first DIR)"
    )
    add_overwrite(parser)
    add_trust(parser)
    options = parser.parse_args(arguments)
    for directory in options.directories:
        check_received(directory, trust=options.trust)

    from danube_sweep.results.oof.oof_command import run_oof
    from danube_sweep.terminal.screen import Terminal

    run_oof(options.directories, options.output, Terminal(), overwrite=options.overwrite)
    return 0


def export(arguments: list[str]) -> int:
    """`danube-sweep export`: a finished run as a folder for peft and transformers."""
    parser = Parser(
        "danube-sweep export",
        description="Writes a finished run as a folder that PEFT and transformers load without danube_sweep. The "
        "folder is loaded again in a fresh process, and kept only if its logits equal the run's. Of an ensemble, each "
        "run is exported, with the formula that averages their answers. See docs/export.md.",
    )
    parser.add_argument("run_dir", type=Path, help="the folder of a run or an ensemble")
    parser.add_argument("out_dir", type=Path, help="the folder to write, new or empty")
    parser.add_argument("--merge", action="store_true", help="write a whole model with the adapter merged in")
    types = ["fp32", "bf16", "fp16"]
    parser.add_argument("--dtype", choices=types, help="type of the merged weights (default: the run's compute type)")
    parser.add_argument("--push", metavar="NAME", help="upload it to the Hugging Face hub as OWNER/NAME")
    parser.add_argument("--private", action="store_true", help="make the uploaded repository private")
    add_accelerator(parser)
    add_model_path(parser)
    add_trust(parser)
    options = parser.parse_args(arguments)
    if options.dtype and not options.merge:
        parser.error("--dtype is the type of merged weights; give --merge, or leave it out")
    if options.private and not options.push:
        parser.error("--private is for an upload; give --push NAME, or leave it out")
    check_received(options.run_dir, trust=options.trust)
    return _export(options)


def _export(options: argparse.Namespace) -> int:
    from danube_sweep.inference.export.push_to_hub import check_push, push

    if options.push:
        check_push(options.push)
    from danube_sweep.config.schema import Compute, Device
    from danube_sweep.terminal.quiet_libraries import quiet_libraries

    quiet_libraries()
    from danube_sweep.inference.export.export_run import Options, export_run
    from danube_sweep.inference.predict import Place
    from danube_sweep.storage.ensemble_folder import EnsembleFolder

    out: Path = options.out_dir
    dtype = Compute(options.dtype) if options.dtype else None
    name = options.push or out.resolve().name
    wanted = Options(name, merge=options.merge, dtype=dtype, for_others=options.push is not None)
    place = Place(Device(accelerator=options.accelerator), model_path=options.model_path)
    if (ensemble := EnsembleFolder(options.run_dir)).file.is_file():
        from danube_sweep.inference.export.export_ensemble import export_ensemble

        checked = export_ensemble(ensemble, out, place, wanted)
        worst = max(checked, key=lambda one: one.difference / one.tolerance)
        said = f"the largest difference is {worst.difference:.2g} ({worst.tolerance:.2g} allowed)"
        print(f"{out}: {len(checked)} run{'s' * (len(checked) != 1)}, each loaded again; {said}")
        return 0
    found = export_run(options.run_dir, out, place, wanted)
    print(f"{out}: loaded again, the largest difference is {found.difference:.2g} ({found.tolerance:.2g} allowed)")
    if options.push:
        print(push(out, options.push, private=options.private))
    return 0


_EVERY = (
    init, predict, label, export, resume, plan, show, device,
    rank, report, watch, oof, ensemble, soup, decide, refit, benchmark, sweep, agent, tonight,
)  # fmt: skip
COMMANDS: dict[str, Callable[[list[str]], int]] = {command.__name__: command for command in _EVERY}
