"""What is written while a trial trains: files first, W&B second.

`MetricsFile` is metrics.csv, the truth: exact, synced row by row, mended after a kill. A `Tracker` sends the same
numbers to W&B; when that fails it says so once and keeps quiet, and the trial goes on.
"""

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, final

from danube_sweep.errors import CheckpointError, ConfigError, DiskError
from danube_sweep.schema import NoTracking, Tracking, WandbTracking
from danube_sweep.trial import redact, redacted, write_text


@final
class MetricsFile:
    """metrics.csv: `step`, `part` and then the metrics, one synced line per row."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        if list(columns[:2]) != ["step", "part"]:
            raise ValueError(f"the columns of {path.name} begin with step and part, got {', '.join(columns)}")
        self._path, self._columns, self._header = path, list(columns), ",".join(columns)

    def resume(self, after_step: int) -> None:
        """Drops the rows beyond `after_step` and a half-written last line, atomically; without a file does nothing.

        Raises CheckpointError for a file with other columns or a damaged row, DiskError if it cannot be written.
        """
        if not self._path.is_file():
            return
        whole, newline, _ = self._path.read_bytes().rpartition(b"\n")
        header, *rows = whole.decode(errors="replace").split("\n") if newline else [self._header]
        if header != self._header:
            raise CheckpointError(
                f"{self._path} has the columns {header}, this version writes {self._header}; move the file away"
            )
        write_text(self._path, "\n".join([header, *(row for row in rows if self._step(row) <= after_step)]) + "\n")

    def append(self, rows: Sequence[Mapping[str, float | int | str | None]]) -> None:
        """Adds whole lines and syncs them; a missing metric is an empty cell, a float comes back bit for bit.

        Raises DiskError, and ValueError for a column or a text that does not fit; the file is then as it was.
        """
        text = "".join(self._line(row) for row in rows)
        size = self._path.stat().st_size if self._path.exists() else 0
        try:
            with self._path.open("ab") as stream:
                stream.write((text if size else f"{self._header}\n{text}").encode())
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            with suppress(OSError):
                os.truncate(self._path, size)
            raise DiskError(
                f"{self._path} cannot be written: {error.strerror}; free some space or choose another folder"
            ) from error

    def _step(self, row: str) -> int:
        step = row.split(",")[0]
        if not step.isdecimal() or row.count(",") != len(self._columns) - 1:
            raise CheckpointError(f"{self._path} has a damaged line, {row[:80]!r}; remove it to go on")
        return int(step)

    def _line(self, row: Mapping[str, float | int | str | None]) -> str:
        if unknown := [name for name in row if name not in self._columns]:
            raise ValueError(f"{', '.join(unknown)}: no such column in {self._path.name}; it has {self._header}")
        return ",".join(_cell(row.get(name)) for name in self._columns) + "\n"


def _cell(value: float | int | str | None) -> str:
    match value:
        case float():
            return float.__repr__(value)  # numpy's float64 is a float whose own repr is np.float64(…)
        case int():
            return int.__repr__(value)
        case None | str() if not set(value or "") & set(',"\r\n'):
            return value or ""
    raise ValueError(f"not a cell of metrics.csv: {value!r}; give a number or a text without commas, quotes, newlines")


class Tracker(Protocol):
    """Where metrics go besides metrics.csv. No method raises for trouble on the other side, and all end soon."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...
    def summary(self, values: Mapping[str, object]) -> None: ...
    def finish(self, exit_code: int) -> None: ...


def open_tracker(
    config: Tracking,
    *,
    run_id: str,
    run_name: str,
    folder: Path,
    resolved: Mapping[str, Any],
    say: Callable[[str], None],
) -> Tracker:
    """The tracker that `config` describes; W&B's files lie in `folder`/wandb, and it never prompts.

    Without a key, a network or a willing server it logs offline, after `timeout_s` and little more, and `say` gets
    the reason and the command that uploads the run later. Raises ConfigError for a wandb package or a key that is
    missing though asked for, and for names W&B refuses.
    """
    match config:
        case NoTracking() | WandbTracking(mode="disabled"):
            return _Wandb(None, say)
        case WandbTracking():
            start = partial(_start, config, run_id=run_id, run_name=run_name, folder=folder, resolved=resolved)
            return _Wandb(_open(config.mode, start, say), say)
    raise TypeError(f"no tracker for {type(config).__name__}")


@final
class _Wandb:
    """A run of W&B, or None for no more logging."""

    def __init__(self, run: Any, say: Callable[[str], None]) -> None:
        self._run, self._say = run, say
        self._seen: set[str] = set()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._guarded(self._log, step, values)

    def summary(self, values: Mapping[str, object]) -> None:
        self._guarded(self._summary, values)

    def finish(self, exit_code: int) -> None:
        self._guarded(self._finish, exit_code)

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        for name in values.keys() - self._seen:
            if "loss" in name:
                self._run.define_metric(name, summary="min")
        self._seen.update(values)
        self._run.log(dict(values), step=step)

    def _summary(self, values: Mapping[str, object]) -> None:
        # wandb holds the last row back until the next step, and would later write it over the summary.
        self._run.log({}, commit=True)
        self._run.summary.update(redacted(values))

    def _finish(self, exit_code: int) -> None:
        self._run.finish(exit_code)
        self._run = None

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        if self._run is None:
            return
        try:
            call(*arguments)
        except Exception as error:  # whatever it is, the trial goes on: metrics.csv has the numbers
            folder, self._run = self._run.settings.sync_dir, None
            self._say(f"W&B failed ({_reason(error)}), nothing more goes there; {_upload_later(folder)}")


_unreachable: dict[str, str] = {}
"""Server -> why it could not be reached: of a pack's trials only the first waits for the timeout."""


def _open(asked: str, start: Callable[[str], Any], say: Callable[[str], None]) -> Any:
    try:
        import wandb
    except ImportError as error:
        if asked != "auto":
            raise ConfigError(f"tracking.mode={asked} needs wandb: pip install wandb, or take tracking=none") from error
        say("The wandb package is missing (pip install wandb): the results are in the run folder alone")
        return None
    try:
        return _online_or_offline(asked, start, say)
    except ConfigError:
        raise
    except wandb.errors.UsageError as error:
        raise ConfigError(f"tracking: {_reason(error)}; correct it or take tracking=none") from error
    except Exception as error:  # the service process does not start, the folder is on a full disk, …
        say(f"W&B does not start ({_reason(error)}): the results are in the run folder alone")
        return None


def _online_or_offline(asked: str, start: Callable[[str], Any], say: Callable[[str], None]) -> Any:
    import wandb

    settings = wandb.setup(wandb.Settings(silent=True)).settings
    mode, why = _mode_and_why(settings.mode if asked == "auto" else asked, asked, settings.base_url)
    if mode == "online" and settings.base_url not in _unreachable:
        try:
            return start("online")
        except wandb.errors.UsageError:
            raise
        except Exception as error:  # CommError, TimeoutError and what a proxy or a broken server leads to
            _unreachable[settings.base_url] = _reason(error)
            # The failed start keeps its id "in use" until wandb's service process ends, and that would also end
            # this process's other runs: while there are any, this trial goes without.
            if wandb.setup().most_recent_active_run:
                raise
            with suppress(Exception, SystemExit):
                wandb.teardown()
    if mode == "disabled":
        return None
    run = start("offline")
    if mode == "online":
        why = f"W&B cannot be reached ({_unreachable[settings.base_url]})"
    if why:
        say(f"{why}; logging offline into {run.settings.sync_dir}, {_upload_later(run.settings.sync_dir)}")
    return run


def _mode_and_why(mode: str, asked: str, base_url: str) -> tuple[str, str | None]:
    from wandb.errors import AuthenticationError
    from wandb.sdk.lib import wbauth

    if mode in ("disabled", "offline", "dryrun"):
        return mode, None
    try:
        if wbauth.authenticate_session(host=base_url, source="", prompt=False, update_session=False):
            return "online", None
        problem = f"there is no API key for {base_url}"
    except AuthenticationError as error:
        problem = _reason(error).rstrip(".")
    # wandb's own mode is also "online" when nobody chose one.
    for source, value in {"tracking.mode": asked, "WANDB_MODE": os.environ.get("WANDB_MODE")}.items():
        if value == "online":
            raise ConfigError(f"{source}=online: {problem}; run `wandb login`, set WANDB_API_KEY, or take offline")
    return "offline", f"W&B: {problem}"


def _start(config: WandbTracking, mode: Any, *, run_id: str, run_name: str, folder: Path, resolved: Any) -> Any:
    import wandb

    # Only our numbers leave: no command line, environment, git state, host, packages or console.
    quiet: dict[str, Any] = {"silent": True, "console": "off", "symlink": False, "save_code": False}
    quiet |= {"disable_code": True, "disable_git": True, "x_save_requirements": False, "x_disable_viewer": True}
    quiet |= {"x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True}
    bounds = {"init_timeout": config.timeout_s, "finish_timeout": 6 * config.timeout_s, "finish_timeout_raises": True}
    return wandb.init(
        # Under `wandb agent` the sweep waits for the id it gave out, in WANDB_RUN_ID, so that one wins.
        id=None if os.environ.get("WANDB_RUN_ID") else run_id,
        resume="allow",
        reinit="create_new",
        mode=mode,
        dir=folder,
        project=config.project,
        entity=config.entity,
        group=config.group,
        tags=config.tags,
        name=redact(run_name),
        # Under its own key: a sweep's parameter named like a group would replace the group's whole dict.
        config={"trial": redacted(resolved)},
        settings=wandb.Settings(**quiet, **bounds),
    )


def _upload_later(folder: str) -> str:
    return f"upload later with: wandb sync {shlex.quote(folder)}"


def _reason(error: Exception) -> str:
    lines = redact(str(error)).strip().splitlines() or [type(error).__name__]
    return lines[-1].removeprefix("while retrying: ")[:200]
