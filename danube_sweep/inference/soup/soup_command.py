"""`danube-sweep soup`: trials chosen, averaged, judged on unseen rows, shown and kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from danube_sweep.errors import CheckpointError
from danube_sweep.inference.predict import Place
from danube_sweep.inference.soup.average import Average, average, cut
from danube_sweep.inference.soup.choose_soup import Chosen, Tasted, Worth, greedy_soup, worth_of
from danube_sweep.inference.soup.ingredients import Ingredient, find_ingredients
from danube_sweep.inference.soup.validated import Validation, losses_of
from danube_sweep.inference.soup.write_soup import Soup, write_soup
from danube_sweep.results.ensemble.members import Member, check_members, find_members
from danube_sweep.results.ranking_table import plain
from danube_sweep.storage.ownership import Kind, is_blank, is_ours
from danube_sweep.storage.predictions import Floats
from danube_sweep.storage.soup_file import is_unfinished_soup
from danube_sweep.terminal.screen import Terminal


@dataclass(frozen=True)
class Wanted:
    """How a soup is made: `rank` to cut it to, the `most` trials that are tried, rows of a forward pass."""

    rank: int | None = None
    most: int = 10
    batch_rows: int = 16


def run_soup(directories: Sequence[Path], output: Path, wanted: Wanted, place: Place, terminal: Terminal) -> None:
    """Chooses the trials, averages them, scores the average, prints the scores and writes the folder of a run.

    Raises CheckpointError for folders that are no runs or sweeps and for an `output` that is not new. Raises
    ConfigError if fewer than two trials can be averaged, and DiskError.
    """
    _check_output(output)
    members, notes = find_members(directories, "a soup")
    check_members(members)
    ingredients, refused = find_ingredients(_best_first(members), place, wanted.most)
    for note in [*notes, *refused]:
        terminal.note(plain(note))
    validation = Validation(ingredients[0].run, place, wanted.batch_rows)
    terminal.note(
        f"{len(ingredients)} trials can be averaged; each pass over the validation rows tries several averages"
    )

    def losses(some: Sequence[Chosen]) -> list[Floats]:
        return [losses_of(one) for one in validation.evaluated([_average(chosen, ingredients) for chosen in some])]

    tasted = Tasted(losses)
    chosen = greedy_soup(tasted, len(ingredients), np.arange(len(validation.groups_N)))
    worth = worth_of(tasted, len(ingredients), chosen, validation.groups_N)
    terminal.note(f"{tasted.count} averages were validated in {tasted.passes} passes over the rows")
    terminal.show(_scores(worth, len(chosen)))
    soup = _served(chosen, ingredients, validation, worth, wanted.rank)
    terminal.note(plain(f"averaged: {'; '.join(one.name for one in soup.ingredients)}"))
    terminal.note(_verdict(worth, chosen, exact=soup.cut is None))
    if (line := _of_cut(soup, wanted.rank)) is not None:
        terminal.note(line)
    write_soup(output, soup, validation)
    then = f"predict with: danube-sweep predict {output} test.csv -o submission.csv"
    terminal.note(plain(f"{output}: one adapter of rank {soup.average.rank}; {then}"))


def _check_output(output: Path) -> None:
    if output.is_symlink() or (output.exists() and not (output.is_dir() and _is_free(output))):
        raise CheckpointError(f"-o {output} exists already; choose a new or empty folder")
    if not output.absolute().parent.is_dir():
        raise CheckpointError(f"-o {output}: there is no folder {output.parent}; make it or choose another place")


def _is_free(output: Path) -> bool:
    # A soup whose process died is made again from its start.
    return is_blank(output, Kind.run) or (is_unfinished_soup(output) and is_ours(output, Kind.run))


def _best_first(members: Sequence[Member]) -> list[Member]:
    losses = [float(np.average(one.answers.losses_N, weights=one.answers.weights_N)) for one in members]
    return [members[place] for place in np.argsort(losses, kind="stable")]


def _average(chosen: Chosen, ingredients: Sequence[Ingredient]) -> Average:
    return average([ingredients[place] for place in chosen])


def _served(
    chosen: Chosen, ingredients: Sequence[Ingredient], validation: Validation, worth: Worth, rank: int | None
) -> Soup:
    """The soup that is written, validated as it is written."""
    exact, used = _average(chosen, ingredients), [ingredients[place] for place in chosen]
    if rank is None or rank >= exact.rank:
        return Soup(used, exact, validation.evaluated([exact])[0], worth, None)
    smaller, lost = cut(exact, rank)
    before, after = validation.evaluated([exact, smaller])
    means = [float(losses_of(one).mean()) for one in (before, after)]
    costs = {"rank": rank, "from": exact.rank, "norm_lost": lost, "loss_before": means[0], "loss_after": means[1]}
    return Soup(used, smaller, after, worth, costs)


def _of_cut(soup: Soup, rank: int | None) -> str | None:
    if rank is None:
        return None
    if soup.cut is None:
        return f"--rank {rank}: the average has rank {soup.average.rank}, so nothing is cut"
    found = soup.cut
    apart = found["loss_after"] - found["loss_before"]
    return (
        f"cut from rank {found['from']} to {rank}: validation loss {found['loss_before']:.4f} -> "
        f"{found['loss_after']:.4f} ({apart:+.4f}), {found['norm_lost']:.1%} of the update's squared norm is lost; "
        f"the best trial alone has {soup.worth.single:.4f}"
    )


def _verdict(worth: Worth, chosen: Chosen, *, exact: bool) -> str:
    low, high = worth.difference - worth.half, worth.difference + worth.half
    between = f"{worth.difference:+.4f}, 95 % {low:+.4f} .. {high:+.4f}"
    if len(chosen) == 1:
        return "no average is better than the best trial alone, so the soup is that trial"
    name = "the soup" if exact else "the exact average, before its cut,"
    if high < 0:
        return f"{name} is better than the best trial on unseen rows: {between}"
    return f"{name} is no better than the best trial, by more than chance, on unseen rows: {between}"


def _scores(worth: Worth, count: int) -> Table:
    table = Table(title=Text("validation loss", style="bold"), title_justify="left", box=None, pad_edge=False)
    for title in ("", "same rows", "unseen rows", "vs best trial", "95 %"):
        table.add_column(Text(title, style="cyan"), justify="right" if title else "left")
    low, high = worth.difference - worth.half, worth.difference + worth.half
    table.add_row("best trial", f"{worth.single:.4f}", f"{worth.unseen_single:.4f}", "", "")
    apart = [f"{worth.difference:+.4f}", f"{low:+.4f} .. {high:+.4f}"]
    table.add_row(f"soup of {count}", f"{worth.soup:.4f}", f"{worth.unseen_soup:.4f}", *apart)
    return table
