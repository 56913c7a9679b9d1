"""The console command: a subcommand, or Hydra overrides for a run. Importing and --help load no torch."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from danube_sweep import __version__
from danube_sweep.errors import DanubeSweepError, DiskError, Interrupted, UserError

FULL_ERROR = "HYDRA_FULL_ERROR"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0, 1 (a trial failed), 2 (the user's mistake), 128 + signal."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except DanubeSweepError as error:
        return _say_and_exit(error, error.exit_code)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `danube-sweep --help data | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dispatch(arguments: list[str]) -> int:
    commands: dict[str, Callable[[list[str]], int]] = {"predict": _predict, "resume": _resume}
    first = arguments[0] if arguments else ""
    if first in commands:
        return commands[first](arguments[1:])
    if first in ("-h", "--help", "help"):
        from danube_sweep.help import help_text

        print(help_text(arguments[1] if len(arguments) > 1 else None))
        return 0
    if first == "--version":
        print(f"danube-sweep {__version__}")
        return 0
    return _hydra(arguments)


def _say_and_exit(error: BaseException, code: int) -> int:
    if os.environ.get(FULL_ERROR) == "1":
        raise error
    kind = "stopped" if code > 128 else "error"
    print(f"danube-sweep: {kind}: {' '.join(str(error).split())}", file=sys.stderr)
    return code


# ------------------------------------------------------------------------------------------------- a Hydra run


def _hydra(arguments: list[str]) -> int:
    import hydra
    from hydra.errors import HydraException
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    from danube_sweep import compose, paths

    compose.register()
    failures: list[DanubeSweepError] = []
    full_error = os.environ.get(FULL_ERROR) == "1"
    in_job = False

    @hydra.main(version_base=compose.VERSION_BASE, config_path=str(paths.conf_dir()), config_name="config")
    def job(config: DictConfig) -> float | None:
        from hydra.core.hydra_config import HydraConfig

        nonlocal in_job
        in_job, folder = True, Path(HydraConfig.get().runtime.output_dir)
        if any(isinstance(failure, Interrupted) for failure in failures):
            _remove_if_empty(folder)
            return None
        try:
            return _train(config, folder)
        except DanubeSweepError as error:  # said below: Hydra would say it in its own way, and only the first
            if not full_error:  # its frames would hold the trial's memory through the jobs that follow
                error.__cause__ = error.__context__ = error.__traceback__ = None
            failures.append(error)
            return None

    try:
        with _argv(arguments), _raising():
            job()
    except (HydraException, OmegaConfBaseException) as error:
        return _say_and_exit(error if full_error else UserError(compose.explain(error)), 2)
    except OSError as error:
        if in_job:
            raise
        raise DiskError(f"hydra.run.dir: {error.filename} cannot be made: {error.strerror}; give another") from error
    codes = [_say_and_exit(failure, failure.exit_code) for failure in failures]
    return max(codes, default=0)


def _train(config: Any, folder: Path) -> float | None:
    from danube_sweep import compose, trial

    try:
        typed = compose.to_config(config)
        trial.trial_hash(typed)  # a missing file is found before the heavy imports
        return _run(typed, folder)
    except DanubeSweepError:
        _remove_if_empty(folder)
        raise


def _run(config: Any, folder: Path) -> float | None:
    from danube_sweep.progress import Terminal
    from danube_sweep.quiet import quiet_libraries
    from danube_sweep.summary import summary

    quiet_libraries()
    from danube_sweep.run import run_trial

    with Terminal() as terminal:
        result = run_trial(config, folder, terminal)
        terminal.table(summary(result), title=str(_short(folder)))
    value = result["validation"]["log_loss"]
    return float(value)


def _short(folder: Path) -> Path:
    with suppress(ValueError):
        return folder.resolve().relative_to(Path.cwd())
    return folder


def _remove_if_empty(folder: Path) -> None:
    # Hydra has made the folder before the mistake was found; nothing but empty folders is removed.
    place, here = folder.resolve(), Path.cwd()
    with suppress(OSError):
        if not here.is_relative_to(place):
            place.rmdir()
        while (place := place.parent) != here and place.is_relative_to(here):
            place.rmdir()


@contextmanager
def _argv(arguments: list[str]) -> Iterator[None]:
    before = sys.argv
    sys.argv = [before[0], *arguments]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _raising() -> Iterator[None]:
    # Hydra would print and exit with 1 itself; with this it raises and the one line is ours.
    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[FULL_ERROR]
        else:
            os.environ[FULL_ERROR] = before


# ------------------------------------------------------------------------------------------------- subcommands


def _resume(arguments: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser("danube-sweep resume", description="Goes on with an interrupted run.")
    parser.add_argument("run_dir", type=Path, help="the run's folder")
    options = parser.parse_args(arguments)

    from danube_sweep import compose
    from danube_sweep.trial import RunFolder

    config = compose.load_config(RunFolder(options.run_dir).config)
    _run(config, options.run_dir)
    return 0


def _predict(arguments: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(
        "danube-sweep predict",
        description="Writes a csv with an id and a probability per class for every row, from a finished run alone.",
    )
    parser.add_argument("run_dir", type=Path, help="the run's folder")
    parser.add_argument("input", type=Path, help="csv, jsonl or parquet with the columns of the run's data, no labels")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the csv to write")
    parser.add_argument("--swap", action="store_true", help="average both orders of the two answers")
    parser.add_argument("--batch-rows", type=int, default=16, help="rows per forward pass (default 16)")
    parser.add_argument("--accelerator", choices=["auto", "cpu", "cuda"], default="auto", help="where to run")
    types = ["fp32", "bf16", "fp16"]
    parser.add_argument("--compute", choices=types, help="compute type, where the device lacks the run's own")
    options = parser.parse_args(arguments)
    if options.batch_rows < 1:
        parser.error(f"--batch-rows must be at least 1, got {options.batch_rows}")

    from danube_sweep.quiet import quiet_libraries
    from danube_sweep.schema import Compute, Device

    quiet_libraries()
    from danube_sweep.predict import load_run, predict_file

    compute = Compute(options.compute) if options.compute else None
    trained = load_run(options.run_dir, Device(accelerator=options.accelerator), compute)
    rows = predict_file(trained, options.input, options.output, swap=options.swap, batch_rows=options.batch_rows)
    print(f"{options.output}: {rows} rows")
    return 0
