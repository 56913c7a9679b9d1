"""--dry-run: shows the trials of a sweep and which of them are done. Writes nothing."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import count

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from danube_sweep.config.identity import lacks_commit
from danube_sweep.config.schema import Config, Sweep
from danube_sweep.config.schema.states import COMPLETE
from danube_sweep.config.validate import AUTO
from danube_sweep.planner.pack_plan import WINDOW, PlannedPack, choose_pack, fair_share, plan_packs
from danube_sweep.planner.several_devices import count_of
from danube_sweep.planner.slots_or_ranks import choose_count, gpus_of
from danube_sweep.planner.sweep_seconds import sweep_seconds
from danube_sweep.storage.sweep_folder import Entry, SweepFolder
from danube_sweep.sweeping.propose.draws_ahead import draws_ahead
from danube_sweep.sweeping.propose.fits_device import lengths_of_rows, rows_of, ways_of
from danube_sweep.sweeping.propose.search_space import (
    Beta,
    Choice,
    Distribution,
    Normal,
    Number,
    Rounded,
    Search,
    Weighted,
)
from danube_sweep.terminal.screen import human

REPEATED, WAITING = "same as above", "waiting"


def grid_table(
    folder: SweepFolder,
    trials: Sequence[tuple[Config, list[str]]],
    invalid: Sequence[tuple[list[str], str]],
    shared: Collection[str],
    sweep: Sweep | None,
) -> RenderableType:
    """A row per cell: its varied values, the first digits of its hash, pack and state in `folder`; then the counts.

    With `sweep` the packs follow, each with the reason for its size. Without it, there are no packs.
    """
    states = {entry.hash: _state(entry) for entry in folder.entries()}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("cell", "varies", "trial", "pack", "state"):
        table.add_column(name, overflow="fold")
    hashes = folder.hashes(trials, planning=True)
    open_ = {one: config for one, (config, _) in zip(hashes, trials, strict=True) if _is_open(states.get(one), sweep)}
    counted, told = ([], []) if sweep is None else _counted(list(open_.values()), sweep)
    packs = [] if sweep is None else _packs(counted, sweep)
    names = {list(open_)[place]: name for name, pack in packs for place in pack.trials}
    seen: set[str] = set()
    for number, (identity, (_, overrides)) in enumerate(zip(hashes, trials, strict=True), 1):
        repeated = identity in seen
        state = REPEATED if repeated else states.get(identity, "new")
        seen.add(identity)
        pack = "" if repeated else names.get(identity, "")
        table.add_row(str(number), _text(overrides, shared), identity[:8], pack, state)
    for overrides, error in invalid:
        table.add_row("", _text(overrides, shared), "invalid", "", Text(error))
    done = sum(states.get(identity) in COMPLETE for identity in seen)
    trials_ = "1 trial" if len(seen) == 1 else f"{len(seen)} trials"
    left = f", {len(invalid)} invalid" if invalid else ""
    told += [] if sweep is None or not packs else [_hours(counted, [pack for _, pack in packs], sweep)]
    said = [*_reasons(packs), *map(Text, told), *_unknown_commits(trials)]
    return Group(table, *said, f"{trials_}, {done} done{left}; nothing was started")


def _unknown_commits(trials: Sequence[tuple[Config, list[str]]]) -> list[Text]:
    names = sorted({str(config.model.path) for config, _ in trials if lacks_commit(config.model)})
    return [
        Text(f"{name}: its commit is not known without a network; the hashes here will differ when it trains")
        for name in names
    ]


def _is_open(state: str | None, sweep: Sweep | None) -> bool:
    retried = () if sweep is None else sweep.retry
    return state is None or state == WAITING or state in retried or (state not in COMPLETE and "all" in retried)


def _packs(configs: Sequence[Config], sweep: Sweep) -> list[tuple[str, PlannedPack]]:
    """The packs by name. A trial that trains alone is not among them."""
    packs = plan_packs(configs, pack=sweep.pack, slots=_slots(configs, sweep), lengths=lengths_of_rows())
    numbers = count(1)
    return [("-" if len(pack.trials) == 1 else f"p{next(numbers)}", pack) for pack in packs]


def pack_lines(configs: Sequence[Config], sweep: Sweep) -> list[str]:
    """The packs of a sweep over these trials, each with its reason, and the hours that they take."""
    configs, told = _counted(configs, sweep)
    packs = _packs(configs, sweep)
    return [*(line.plain for line in _reasons(packs)), *told, _hours(configs, [pack for _, pack in packs], sweep)]


def _counted(configs: Sequence[Config], sweep: Sweep) -> tuple[list[Config], list[str]]:
    """The trials with the number of GPUs that device.count=auto chooses, and a line on why; else as they are."""
    if not configs or configs[0].device.count != AUTO:
        return list(configs), []
    chosen = choose_count(configs, ways_of(configs[0], sweep, may_leave=sweep.workers == 1))
    counted = [replace(config, device=replace(config.device, count=chosen.count)) for config in configs]
    return counted, [] if chosen.why is None else [f"device.count={AUTO}: {chosen.why}"]


def _slots(configs: Sequence[Config], sweep: Sweep) -> int:
    # As `find_slots` counts them: one for each GPU, or for the device.count of them that train a trial together.
    devices = {config.device.accelerator: config.device for config in configs}.values()
    return sweep.slots or max((gpus_of(device) // count_of(device) for device in devices), default=0) or 1


def _hours(configs: Sequence[Config], packs: Sequence[PlannedPack], sweep: Sweep) -> str:
    seconds = sweep_seconds(configs, packs, rows=rows_of, lengths=lengths_of_rows(), slots=_slots(configs, sweep))
    counted = f"{len(packs)} run{'s' * (len(packs) != 1)} of packs and single trials"
    return _time_of(counted, seconds)


def _time_of(counted: str, seconds: float | None) -> str:
    if seconds is None:
        return f"{counted}; how long they take is unknown, as the rows or the architecture are"
    return f"{counted}: about {human(seconds)}, the fill of cached prefixes included, without validation"


def _reasons(packs: Sequence[tuple[str, PlannedPack]]) -> list[Text]:
    alone = Counter(pack.why for name, pack in packs if name == "-")
    said = [f"{name}: {pack.why}" for name, pack in packs if name != "-"]
    return [Text(line) for line in [*said, *(f"-: {number} {why}" for why, number in alone.items())]]


def _state(entry: Entry) -> str:
    # Not `state_of`, which removes a result that was cut short: a dry run changes nothing.
    return str(entry.folder.result_fields().get("state", WAITING))


def search_table(search: Search, sweep: Sweep, entries: Sequence[Entry], first: Config | None) -> RenderableType:
    """The distributions of a search, the trials left, and the packs and hours of so many trials like `first`.

    `entries` are the trials that were drawn.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("searched", "from"):
        table.add_column(name, overflow="fold")
    for key, distribution in search.space.items():
        table.add_row(Text(key), Text(_words(distribution)))
    most, own = sweep.trials or sweep.max_trials, [entry for entry in entries if not entry.confirms]
    limit = f"sweep.trials {most}" if sweep.trials is not None else f"sweep.trials null, sweep.max_trials {most}"
    said = f"sampler {sweep.sampler.value}, {limit}, {len(own)} drawn so far; nothing was started"
    if first is None:
        return Group(table, said)
    known = sum(entry.folder.result.is_file() or entry.folder.paused.is_file() for entry in own)
    ahead, slots = draws_ahead(sweep, len(own), known), _slots([first], sweep)
    like = [first] * min(most, ahead or WINDOW, WINDOW)
    pack = _of_draws(like, sweep, slots)
    lines = [Text(f"packs, if all were like the first point of the space: {pack.why}")]
    if ahead is not None:
        later = "then half as many as there are results" if sweep.draws_ahead == AUTO else "as sweep.draws_ahead asks"
        lines.append(Text(f"drawn ahead of results: at most {ahead}, {later}"))
    lines.append(Text(_hours_of_draws(first, pack, sweep, slots, len(own))))
    return Group(table, *lines, said)


def _of_draws(like: Sequence[Config], sweep: Sweep, slots: int) -> PlannedPack:
    # Free slots share the draws, as they do while a search runs.
    most = fair_share(len(like), slots)
    return choose_pack(like, pack=sweep.pack, slots=slots, most=most, lengths=lengths_of_rows())


def _hours_of_draws(first: Config, pack: PlannedPack, sweep: Sweep, slots: int, drawn: int) -> str:
    # Whole packs and the rest, which is smaller. All are like `first`, so one of each is enough to know.
    if sweep.trials is None:
        return (
            f"how long it takes: sweep.trials is null, so it ends at sweep.deadline_h, at sweep.max_trials="
            f"{sweep.max_trials} or when it is stopped"
        )
    left = max(0, sweep.trials - drawn)
    whole, rest = divmod(left, len(pack.trials))
    parts = [(whole, pack)] if whole else []
    parts += [(1, _of_draws([first] * rest, replace(sweep, pack=rest), 1))] if rest else []
    like, rows, total = [first] * len(pack.trials), rows_of(first), 0.0
    runs = sum(number for number, _ in parts)
    counted = f"{left} trials like that, in {runs} run{'s' * (runs != 1)}"
    for number, one in parts:
        placed = replace(one, trials=tuple(range(len(one.trials))))
        seconds = sweep_seconds(like, [placed], rows=lambda _: rows, lengths=lengths_of_rows(), slots=1)
        if seconds is None:
            return _time_of(counted, None)
        total += number * seconds
    return _time_of(counted, total / max(1, min(slots, runs)))


def _text(overrides: Sequence[str], shared: Collection[str]) -> Text:
    return Text(" ".join(one for one in overrides if one not in shared) or "(nothing)")


def _words(distribution: Distribution) -> str:
    match distribution:
        case Choice(values=values):
            return ", ".join(values)
        case Weighted(values=values, probabilities=probabilities):
            pairs = zip(values, probabilities, strict=True)
            return ", ".join(f"{value} ({probability:.3g})" for value, probability in pairs)
        case Number(low=low, high=high, log=log, step=step, whole=whole):
            kind = ("whole numbers " if whole else "") + ("on a logarithmic scale " if log else "")
            return f"{kind}{low:g} to {high:g}" + (f" in steps of {step:g}" if step else "")
        case Rounded(low=low, high=high, step=step, log=log):
            scale = "on a logarithmic scale " if log else ""
            return f"{scale}{low:g} to {high:g}{_rounding(step)}"
        case Normal(mean=mean, deviation=deviation, log=log, step=step):
            kind = "log-normal" if log else "normal"
            return f"{kind}, mean {mean:g}, standard deviation {deviation:g}{_rounding(step)}"
        case Beta(a=a, b=b, step=step):
            return f"beta, a {a:g}, b {b:g}{_rounding(step)}"
    raise TypeError(f"no words for {type(distribution).__name__}")


def _rounding(step: float | None) -> str:
    return "" if step is None else f", rounded to multiples of {step:g}"
