"""What --dry-run shows: the trials of a sweep, which are done, and nothing written."""

from collections.abc import Collection, Sequence
from contextlib import suppress

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from danube_sweep.errors import CheckpointError
from danube_sweep.schema import Config, Sweep
from danube_sweep.sweep.folder import Entry, SweepFolder
from danube_sweep.sweep.space import Choice, Distribution, Normal, Number, Search
from danube_sweep.trial import COMPLETE, trial_hash

REPEATED, WAITING = "same as above", "waiting"


def grid_table(
    folder: SweepFolder,
    trials: Sequence[tuple[Config, list[str]]],
    invalid: Sequence[tuple[list[str], str]],
    shared: Collection[str],
) -> RenderableType:
    """A row per cell: what it varies, the first digits of its hash, its state in `folder`; then the counts."""
    states = {entry.hash: _state(entry) for entry in folder.entries()}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("cell", "varies", "trial", "state"):
        table.add_column(name, overflow="fold")
    seen: set[str] = set()
    for number, (config, overrides) in enumerate(trials, 1):
        identity = trial_hash(config)
        state = REPEATED if identity in seen else states.get(identity, "new")
        seen.add(identity)
        table.add_row(str(number), _text(overrides, shared), identity[:8], state)
    for overrides, error in invalid:
        table.add_row("", _text(overrides, shared), "invalid", Text(error))
    done = sum(states.get(identity) in COMPLETE for identity in seen)
    count = "1 trial" if len(seen) == 1 else f"{len(seen)} trials"
    left = f", {len(invalid)} invalid" if invalid else ""
    return Group(table, f"{count}, {done} done{left}; nothing was started")


def _state(entry: Entry) -> str:
    # Not `state_of`, which removes a result that was cut short: a dry run changes nothing.
    with suppress(CheckpointError):
        return str((entry.folder.read_result() or {}).get("state", WAITING))
    return WAITING


def search_table(search: Search, sweep: Sweep, known: int) -> RenderableType:
    """What a search draws from, and how many trials are left."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("searched", "from"):
        table.add_column(name, overflow="fold")
    for key, distribution in search.space.items():
        table.add_row(Text(key), Text(_words(distribution)))
    most = "no limit" if sweep.trials is None else str(sweep.trials)
    said = f"sampler {sweep.sampler.value}, sweep.trials {most}, {known} drawn so far; nothing was started"
    return Group(table, said)


def _text(overrides: Sequence[str], shared: Collection[str]) -> Text:
    return Text(" ".join(one for one in overrides if one not in shared) or "(nothing)")


def _words(distribution: Distribution) -> str:
    match distribution:
        case Choice(values=values):
            return ", ".join(values)
        case Number(low=low, high=high, log=log, step=step, whole=whole):
            kind = ("whole numbers " if whole else "") + ("on a logarithmic scale " if log else "")
            return f"{kind}{low:g} to {high:g}" + (f" in steps of {step:g}" if step else "")
        case Normal(mean=mean, deviation=deviation, log=log):
            return f"{'log-' if log else ''}normal, mean {mean:g}, standard deviation {deviation:g}"
    raise TypeError(f"no words for {type(distribution).__name__}")
