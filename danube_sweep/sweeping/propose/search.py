"""The trials of a search: each is drawn when a slot is free, from all results until then."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, final

from danube_sweep.benchmark.scored_parts import check_benchmark
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Config, OnMisfit, Sweep
from danube_sweep.config.schema.states import Verdict
from danube_sweep.config.validate.check_sweep import check_metric
from danube_sweep.errors import ConfigError, MisfitError, UserError
from danube_sweep.storage.sweep_folder import Entry, SweepFolder, as_stored
from danube_sweep.sweeping.propose.draws_ahead import LEARNING, draws_ahead, startup_draws
from danube_sweep.sweeping.propose.early_stopping import EarlyStopping
from danube_sweep.sweeping.propose.fits_device import misfit_of, shrink
from danube_sweep.sweeping.propose.next_trial import Claim, FolderSource, Wanted
from danube_sweep.sweeping.propose.search_space import Search, drawn_text, size

if TYPE_CHECKING:
    from danube_sweep.sweeping.propose.optuna_journal import OptunaJournal

MOST_REPEATS: Final = 200
"""Draws in a row that were trials already, after which the space counts as exhausted."""

SPREAD_AFTER: Final = 5
"""Draws in a row that repeat trials. After these the sampler, which draws its favourite again, is skipped."""


@final
class SearchSource:
    """First the folder's own trials that have not ended, then new draws until there are `sweep.trials` of them."""

    def __init__(
        self,
        folder: SweepFolder,
        search: Search,
        sweep: Sweep,
        journal: "OptunaJournal",
        compose: Callable[[Sequence[str]], Config],
        early: EarlyStopping | None = None,
    ) -> None:
        self._folder, self._search, self._sweep = folder, search, sweep
        self._journal, self._compose = journal, compose
        self._known = FolderSource(folder, sweep.retry, journal, early)
        if early is not None:
            early.to_draw = self._left
        self._most = min(sweep.trials or sweep.max_trials, sweep.max_trials)
        self._exhausted = False
        self._early, self._startup = early, startup_draws(sweep.trials)
        self._fixed = as_stored(search.fixed)
        self._points: set[tuple[str, ...]] = set()
        """Points that need not be drawn again: a trial, another text of one, or a mistake."""
        self._undone: list[tuple[int, dict[str, Any]]] = []
        """Draws, each with its values, that became no trial yet."""
        self.notes = self._known.notes

    def claim(self, wanted: Wanted | None = None, draws: int = 0) -> Claim | None:
        while (claim := self._known.begin(wanted)) is None:
            if wanted is not None and draws == 0:
                break
            draws -= 1  # one that is not wanted stays in the folder, for the next slot
            with self._folder.locked():
                if not self._draw():
                    break
        return claim or self._known.revive(wanted)

    def waiting(self, wanted: Wanted, most: int) -> list[Config]:
        return self._known.waiting(wanted, most)

    def drawable(self) -> int:
        entries = self._folder.entries()
        return min(self._left(entries), self._may_draw_ahead(entries))

    def _left(self, entries: Sequence[Entry] | None = None) -> int:
        drawn = _drawn(self._folder.entries() if entries is None else entries)
        return 0 if self._exhausted else max(0, self._most - drawn)

    def _may_draw_ahead(self, entries: Sequence[Entry]) -> int:
        """How many trials a pack may draw before the results of others are known, so that draws learn from them."""
        own = [entry for entry in entries if not entry.confirms]
        known = sum(entry.folder.result.is_file() or entry.folder.paused.is_file() for entry in own)
        most = draws_ahead(self._sweep, len(own), known)
        return self._most if most is None else max(0, most - (len(own) - known))

    def told(self) -> list[str]:
        """How much the draws could learn, in a line; none for a sampler that does not learn."""
        drawn, known = self._journal.informed()
        if self._sweep.sampler not in LEARNING or not drawn:
            return []
        learned = f"{len(known)} informed by {min(known)} to {max(known)} results" if known else "none informed"
        return [f"{drawn} draws: {drawn - len(known)} spread evenly at the start, {learned}"]

    def pending(self) -> bool:
        return self._known.pending()

    def progress(self) -> tuple[int, int | None]:
        ended, drawn = self._known.progress()
        return ended, drawn if self._exhausted else self._sweep.trials

    def is_settled(self) -> bool:
        """Whether no paused trial would continue now, and nothing is left to draw."""
        return self._left() == 0 and self._known.is_settled()

    def validated(self, claim: Claim, number: int) -> Verdict:
        return self._known.validated(claim, number)

    def withdrawn(self, claim: Claim) -> str | None:
        return None

    def ended(self, claim: Claim, state: str) -> None:
        self._known.ended(claim, state)

    def lost(self, claim: Claim) -> None:
        self._known.lost(claim)

    def batch(self, most: int) -> list[Entry]:
        """The folder's own trials that have not ended, and new ones up to `most`, for a launcher that is not ours."""
        entries = self._known.batch(most)
        with self._folder.locked():
            while len(entries) < most and self._draw():
                entries += self._known.batch(most)
        return entries

    def heard(self, entry: Entry) -> None:
        """Takes the result of a trial of a batch."""
        self._known.heard(entry)

    def _draw(self) -> bool:
        """Adds a trial to the folder. False if there is none to add. To be called with the folder locked."""
        entries = self._folder.entries()
        self._close_draws(entries)
        if self._exhausted or _drawn(entries) >= self._most:
            return False
        own = [entry for entry in entries if not entry.confirms and self._is_ours(entry)]
        self._points.update(self._point(entry.overrides) for entry in own)
        repeats = 0
        while len(self._points) < size(self._search.space) and repeats < MOST_REPEATS:
            if self._draw_once(spread=repeats >= SPREAD_AFTER):
                return True
            repeats += 1
        self._exhausted = True
        known = f"{repeats} draws in a row were" if repeats == MOST_REPEATS else "every point of the space is"
        self.notes.append(f"{known} on record already: the search ends here")
        return False

    def _paused(self) -> dict[int, dict[int, float]]:
        """The validations so far of draws whose trials are paused."""
        if self._early is None:
            return {}
        entries = [entry for entry in self._folder.entries() if entry.folder.paused.is_file()]
        return {entry.draw: self._early.readings(entry) for entry in entries if entry.draw is not None}

    def _draw_once(self, *, spread: bool) -> bool:
        if self._undone:
            draw, values = self._undone.pop(0)
        else:
            draw, values = self._journal.draw(
                self._search.space,
                self._sweep.sampler,
                self._sweep.sampler_seed,
                startup=self._startup,
                spread=spread,
                paused=self._paused(),
            )
        varied = [f"{key}={drawn_text(one, values[key])}" for key, one in self._search.space.items()]
        overrides = [*self._search.fixed, *varied]
        point = self._point(as_stored(overrides))
        added = point not in self._points and self._add(draw, overrides)
        self._points.add(point)
        if not added:
            self._journal.drop(draw)
        return added

    def _add(self, draw: int, overrides: list[str]) -> bool:
        left_out = False
        try:
            config = self._compose(overrides)
            check_metric(self._sweep, config)
            check_benchmark(self._sweep, config)
            identity = trial_hash(config, self._folder.hash_version())
            found = misfit_of(config, self._sweep)
            if found is not None and (found.rows is None or self._sweep.on_misfit is not OnMisfit.shrink):
                left_out = self._sweep.on_misfit is not OnMisfit.error
                raise ConfigError(found.reason)
        except UserError as error:
            left_out |= isinstance(error, MisfitError) and self._sweep.on_misfit is OnMisfit.skip
            self._journal.drop(draw)
            (entry,) = self._folder.add_invalid([(overrides, str(error))], self._search.fixed, left_out=left_out)
            self.notes.append(f"{entry.path.name}  {'left out' if left_out else 'invalid'}: {error}")
            return True
        ((entry, new),) = self._folder.add([(config, overrides, draw)], self._search.fixed)
        if new:
            self._journal.name(draw, identity)
        if found is not None and found.rows is not None:
            shrink(entry.folder, found.rows)
        return new

    def _is_ours(self, entry: Entry) -> bool:
        return tuple(entry.overrides[: len(self._search.fixed)]) == self._fixed

    def _point(self, overrides: Sequence[str]) -> tuple[str, ...]:
        return tuple(overrides[len(self._search.fixed) :])

    def _close_draws(self, entries: Sequence[Entry]) -> None:
        # After a full disk or a kill between drawing and adding, a draw has no trial: it becomes one now, so the search
        # draws as if nothing had happened. After one between a trial's result and its entry in the journal, a draw
        # looks as if it still ran.
        self._undone = []
        trials = {entry.hash: entry for entry in entries}
        drawn = {entry.draw: entry for entry in entries}
        for draw, identity in self._journal.open_draws().items():
            entry = drawn.get(draw) if identity is None else trials.get(identity)
            if entry is None and identity is None:
                values = self._journal.values(draw, self._search.space)
                self._undone += [] if values is None else [(draw, values)]
            elif entry is None:  # somebody has deleted the trial
                self._journal.drop(draw)
            else:
                self._known.heard(entry)


def _drawn(entries: Sequence[Entry]) -> int:
    return sum(not entry.confirms for entry in entries)
