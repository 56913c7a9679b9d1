"""The console command: a subcommand, or Hydra overrides for a run. Importing and --help load no torch."""

import atexit
import errno
import gc
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from danube_sweep import __version__
from danube_sweep.cli.commands import COMMANDS
from danube_sweep.config.neutral_text import neutral
from danube_sweep.config.no_urls import refuse_url
from danube_sweep.config.weights_identity import shown_by
from danube_sweep.errors import DanubeSweepError, DiskError, Interrupted, UserError
from danube_sweep.os_errors import as_ours
from danube_sweep.storage.redaction import redact

if TYPE_CHECKING:
    from omegaconf import DictConfig, ListConfig

FULL_ERROR = "HYDRA_FULL_ERROR"
_SETS_MODE = re.compile(r"\+{0,2}hydra(=|\.mode)")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0, 1 (a trial failed), 2 (the user's mistake), 128 + signal.

    Without `argv` it is the process's own command, and the process ends soon after.
    """
    if argv is None:
        # The interpreter's last collection would look through millions of objects of torch: 1 to 5 seconds.
        atexit.register(gc.freeze)
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # GPUs are numbered as nvidia-smi numbers them
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with shown_by(_byte_bar):
            return _dispatch(arguments)
    except DanubeSweepError as error:
        return _say_and_exit(error, error.exit_code)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `danube-sweep --help data | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # the operating system, a parser, a decoder; anything else is a defect
        if (ours := as_ours(error)) is None:
            raise
        ours.__cause__ = error
        return _say_and_exit(ours, ours.exit_code)
    finally:
        if argv is None:  # all is written: from here on Ctrl-C would only interrupt what libraries do at the end
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _dispatch(arguments: list[str]) -> int:
    first = arguments[0] if arguments else ""
    if first in COMMANDS:
        for word in arguments[1:]:
            refuse_url(word.partition("=")[2] if word.startswith("--") and "=" in word else word)
        return COMMANDS[first](arguments[1:])
    if first in ("-h", "--help", "help"):
        from danube_sweep.cli.help import help_text

        print(help_text(arguments[1] if len(arguments) > 1 else None))
        return 0
    if first in ("--version", "version"):
        print(f"danube-sweep {__version__}")
        return 0
    from danube_sweep import composer
    from danube_sweep.cli import completion
    from danube_sweep.cli.words import check_words, only_shown, sweep_first
    from danube_sweep.sweeping.entry.result_folders import placed
    from danube_sweep.sweeping.entry.wandb_agent import shared_trial

    if completion.is_query(arguments):
        return completion.answer(arguments, _hydra, COMMANDS)
    check_words(arguments, COMMANDS)
    words = composer.choices(sweep_first(arguments))
    if (shown := only_shown(words)) is not None:
        composer.check_fields(shown)
    if shared_trial(words):
        return 0
    with placed(words) as complete:
        return _hydra(complete)


def _byte_bar(title: str, total_bytes: int) -> AbstractContextManager[Callable[[int], object]]:
    from danube_sweep.terminal.byte_bar import byte_bar

    return byte_bar(title, total_bytes)


def _say_and_exit(error: BaseException, code: int) -> int:
    if os.environ.get(FULL_ERROR) == "1":
        raise error
    kind = "stopped" if code > 128 else "error"
    said = redact(neutral(" ".join(str(error).split())))
    print(f"danube-sweep: {kind}: {said}", file=sys.stderr)
    if os.environ.get("WANDB_SWEEP_ID") and os.environ.get("WANDB_RUN_ID"):
        from danube_sweep.sweeping.entry import wandb_agent

        wandb_agent.tell_command(error, said, code)
        wandb_agent.report(sys.argv[1:], error, code)
    return code


# ------------------------------------------------------------------------------------------------- a Hydra run


def _hydra(arguments: list[str]) -> int:
    import hydra
    from hydra.errors import HydraException
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    from danube_sweep import composer, paths
    from danube_sweep.config.explain import explain

    composer.register()
    failures: list[DanubeSweepError] = []
    full_error = os.environ.get(FULL_ERROR) == "1"
    in_job = False

    @hydra.main(version_base=composer.VERSION_BASE, config_path=str(paths.conf_dir()), config_name="config")
    def job(config: DictConfig) -> float | None:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from danube_sweep.storage.run_folder import remove_if_empty

        nonlocal in_job
        in_job, folder = True, Path(HydraConfig.get().runtime.output_dir)
        if any(isinstance(failure, Interrupted) for failure in failures):
            remove_if_empty(folder)
            return None
        try:
            return _train(config, folder)
        except DanubeSweepError as error:
            if not full_error:  # its frames would hold the trial's memory through the jobs that follow
                error.__cause__ = error.__context__ = error.__traceback__ = None
            failures.append(error)  # all are said below; Hydra would say only the first, and in its own way
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise failures[-1]  # to the launcher, which reports the trial's end to the sweep
        return None

    try:
        with _argv(arguments), _raising(), _mode_by_words(arguments):
            job()
    except DanubeSweepError as error:
        if full_error:
            raise
        failures += [] if error in failures else [error]
    except BrokenPipeError:
        raise
    except ValueError as error:  # `lora=3`: Hydra cannot put a number where a group's option belongs
        if in_job:
            raise
        return _say_and_exit(UserError(" ".join(str(error).split())), 2)
    except (HydraException, OmegaConfBaseException) as error:
        return _say_and_exit(error if full_error else UserError(explain(error)), 2)
    except OSError as error:
        if in_job:
            raise
        if error.filename is None or error.errno == errno.ENAMETOOLONG:  # a word of the command, not the folder
            raise
        raise DiskError(f"hydra.run.dir: {error.filename} cannot be made: {error.strerror}; give another") from error
    codes = [_say_and_exit(failure, failure.exit_code) for failure in failures]
    return max(codes, default=0)


def _train(config: Any, folder: Path) -> float | None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from danube_sweep import composer
    from danube_sweep.config import identity
    from danube_sweep.config.unknown_fields import refuse_unknown_fields
    from danube_sweep.config.validate import check_package, check_runs
    from danube_sweep.planner.planned_device import planned_device
    from danube_sweep.storage.ownership import Kind, check
    from danube_sweep.storage.run_folder import remove_if_empty
    from danube_sweep.sweeping.execute.train_run import train_run, without_effect
    from danube_sweep.terminal.screen import Terminal

    try:
        hydra = HydraConfig.get()
        refuse_unknown_fields(cast("DictConfig", hydra), "hydra")
        words = cast("list[str]", OmegaConf.to_container(cast("ListConfig", hydra.overrides.task)))  # ${…} stays a word
        typed = composer.to_config(composer.with_stated(config, words))
        check(folder, Kind.run)
        check_runs(planned_device(typed.device))
        check_package(typed.tracking)
        identity.trial_hash(typed)  # a missing file is found before the heavy imports
        alone = hydra.mode is RunMode.RUN and "WANDB_SWEEP_ID" not in os.environ  # agents and launchers have a sweep
        if alone and (line := without_effect(words)):
            Terminal().note(line)
        return train_run(typed, folder)
    except DanubeSweepError:
        remove_if_empty(folder)
        raise


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


@contextmanager
def _mode_by_words(arguments: list[str]) -> Iterator[None]:
    # Hydra composes everything once more to look for hydra.mode, in a fifth of a command's start. No file of ours sets
    # it, so it is unset unless a word does or names other files.
    from hydra._internal.hydra import Hydra

    if any(word.startswith(("-c", "--config")) or _SETS_MODE.match(word) for word in arguments):
        yield
        return
    before = Hydra.get_mode
    Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = before  # type: ignore[method-assign]
