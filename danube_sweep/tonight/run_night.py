"""A night from its plan to its submission. Each step reads what is on disk, so that a killed night goes on there."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from danube_sweep import paths
from danube_sweep.config.schema import Device, Target
from danube_sweep.errors import ConfigError, DiskError, Interrupted, SweepFailed
from danube_sweep.results.rank import rank_sweep
from danube_sweep.results.ranking_table import nothing_learned_lines
from danube_sweep.results.rows import winner
from danube_sweep.results.trial_results import StoredTrial
from danube_sweep.storage.ownership import Kind, check
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.terminal.screen import Terminal, human
from danube_sweep.tonight.asked import Asked, check_asked
from danube_sweep.tonight.backbones import Backbone, backbones_of, begin_with
from danube_sweep.tonight.costs import ALONE, REFIT, UNMEASURED, predict_s, reserve_s, trial_s
from danube_sweep.tonight.next_round import Best, best_so_far, next_round
from danube_sweep.tonight.night_folder import NightFolder
from danube_sweep.tonight.searched_keys import EPOCHS_KEY, LAST_K
from danube_sweep.tonight.shown_plan import plan_lines, plan_table
from danube_sweep.tonight.stages import Stages, ended_badly, open_trials
from danube_sweep.tonight.whole_files import check_whole_files

FIRST_RATES = 3
"""Trials of a first look. With those beside them they must fit a backbone's share before a trial gets more epochs."""
MOST_AT_FIRST = "3"
"""Epochs of a first look: more are tried once the rate is known."""


def run_night(asked: Asked, path: Path, terminal: Terminal, *, dry_run: bool = False) -> None:
    """Plans, searches, confirms, refits or blends, and predicts; goes on with the night in the folder.

    Raises UserError before anything is written for what cannot be a night, Interrupted, and SweepFailed if no trial has
    come to its end.
    """
    check_asked(asked)
    check(path, Kind.night)
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"-o {path}: there is no folder {path.parent}; make it or choose another place")
    night = NightFolder(path)
    backbones = _planned(asked, night, terminal)
    check_whole_files(asked, backbones[0].trial(backbones[0].first))
    night.asked = asked
    terminal.show(plan_table(night, backbones))
    for line in plan_lines(night, backbones):
        terminal.note(line)
    if dry_run:
        return
    for backbone in backbones:
        backbone.check_here()  # before anything is written
    night.begin(asked)
    _start_again(night, terminal)
    try:
        _search(night, backbones, Stages(night, terminal))
        _answer(night, backbones, Stages(night, terminal))
    except Interrupted as error:
        raise Interrupted(f"go on with: danube-sweep tonight {paths.from_here(path)}", error.exit_code - 128) from error
    finally:
        with suppress(DiskError):  # else it would hide why the night ended
            night.close()


def _start_again(night: NightFolder, terminal: Terminal) -> None:
    """Sets the trials of earlier sessions aside if all have ended, and none of them in a validation."""
    ended = ended_badly(night.sweep)
    if ended and not open_trials(night.sweep) and not night.predicted() and winner(rank_sweep(night.sweep)) is None:
        place = paths.from_here(night.set_sweep_aside())
        terminal.note(
            f"no trial got as far as a validation ({_end_of(ended[0])}); they are kept in {place}, and it begins again"
        )


def _end_of(trial: StoredTrial) -> str:
    return f"{trial.state}: {trial.reason}" if trial.reason else trial.state


def _planned(asked: Asked, night: NightFolder, terminal: Terminal) -> list[Backbone]:
    """The backbones with the epochs that fit the hours. Raises ConfigError if not even one trial does."""
    backbones = backbones_of(asked, terminal.note)
    if night.file.is_file():
        night.check_same(asked)  # epochs and corrections are those of the night
    night.asked = asked
    for backbone in backbones:
        _choose_start(backbone, night, asked.hours * 3600 / len(backbones))
    needed = [trial_s(night, one, one.first) + predict_s(night, one) for one in backbones]
    if not night.ran and min(needed) > asked.hours * 3600:
        _refuse(asked, backbones[needed.index(min(needed))], min(needed))
    return backbones


def _choose_start(backbone: Backbone, night: NightFolder, share_s: float) -> None:
    begun = [cell["settings"] for one in night.ran for cell in one.cells if cell["backbone"] == backbone.name]
    if begun:
        begin_with(backbone, EPOCHS_KEY, begun[0].get(EPOCHS_KEY, "1"))
        begin_with(backbone, LAST_K, begun[0].get(LAST_K, "null"))
        return
    if EPOCHS_KEY not in backbone.first:
        return
    _choose_epochs(backbone, night, share_s)
    look_s = FIRST_RATES * trial_s(night, backbone, backbone.first) + reserve_s(night, backbone, backbone.first)
    short = float(backbone.first[EPOCHS_KEY]) < 1 or look_s > share_s
    if short and LAST_K in backbone.first:
        # Steps of fewer blocks are cheaper and, in a short trial, also learn more each.
        begin_with(backbone, LAST_K, next(key.values[0] for key in backbone.space.keys if key.name == LAST_K))
        _choose_epochs(backbone, night, share_s)


def _choose_epochs(backbone: Backbone, night: NightFolder, share_s: float) -> None:
    epochs_key = next(key for key in backbone.space.keys if key.name == EPOCHS_KEY)
    offered = epochs_key.values[: epochs_key.values.index(MOST_AT_FIRST) + 1]
    trials = FIRST_RATES + backbone.space.alternatives
    for epochs in offered:
        settings = {**backbone.space.first, EPOCHS_KEY: epochs}
        whole_s = trials * trial_s(night, backbone, settings) + reserve_s(night, backbone, settings)
        if epochs == offered[0] or whole_s <= share_s:
            begin_with(backbone, EPOCHS_KEY, epochs)


def _refuse(asked: Asked, backbone: Backbone, needed_s: float) -> None:
    size = backbone.start.size
    rows = 0 if size is None else int(size.rows * asked.hours * 3600 / needed_s * 0.8)
    fewer = f", or data.max_rows={rows}" if rows >= 16 else ""
    raise ConfigError(
        f"--hours {asked.hours:g}: one trial of {backbone.name} and the predictions take about {human(needed_s)}; give "
        f"--hours {needed_s * 1.2 / 3600:.2g}{fewer}"
    )


# ------------------------------------------------------------------------------------------------------- searching


def _search(night: NightFolder, backbones: Sequence[Backbone], stages: Stages) -> None:
    if night.has_ended("ensemble") or night.has_ended("predict"):
        stages.terminal.note("the search is over, as this night has gone on to its answer")
        return
    if open_trials(night.sweep):
        left_s = _left_s(night) - max(reserve_s(night, one, one.first) for one in backbones)
        if left_s > 0:
            stages.continue_search(left_s)
    while not isinstance(coming := next_round(night, backbones), str):
        trials = f"{len(coming.new)} trial{'s' * (len(coming.new) != 1)} of {coming.backbone.name}"
        stages.terminal.note(f"{coming.stage}: {trials}, about {human(coming.seconds)}; {_said_left(night)}")
        stages.search(coming)
    stages.terminal.note(f"{coming}; {_said_left(night)}")
    if best_so_far(night, backbones) is None and open_trials(night.sweep):
        rest_s = _left_s(night) - min(predict_s(night, one) for one in backbones)
        if rest_s > 0:
            stages.terminal.note(f"the time that was kept for a refit goes to what is open: {human(rest_s)}")
            stages.continue_search(rest_s)


def _left_s(night: NightFolder) -> float:
    assert night.asked is not None
    return night.asked.hours * 3600 - night.spent_s()


def _said_left(night: NightFolder) -> str:
    return f"{human(max(_left_s(night), 0.0))} left"


# ------------------------------------------------------------------------------------------------------- answering


def _answer(night: NightFolder, backbones: Sequence[Backbone], stages: Stages) -> None:
    best = best_so_far(night, backbones)
    if best is None:
        raise SweepFailed(_nothing_validated(night))
    end_s, before = predict_s(night, best.backbone), night.predicted()
    if before is None and not night.has_ended("ensemble") and not open_trials(night.sweep):
        stages.confirm(_left_s(night) - REFIT * _measured_s(night, best) - end_s)
        best = best_so_far(night, backbones) or best
    warned = nothing_learned_lines(rank_sweep(night.sweep))
    for line in warned:
        stages.terminal.note(line)
    if before is None:
        _predict(night, best, _chosen(night, best, end_s, stages), stages)
    elif not night.is_as_asked(before):
        _predict(night, best, night.source_of(before), stages)
    stages.report()
    prior = "always the mean" if best.backbone.start.config.head.target is Target.number else "the class prior"
    answer = f"the predictions, not better than {prior} by more than chance" if warned else "the answer"
    for file, what in ((night.submission, answer), (night.report, "the sweep"), (night.commands, "the commands")):
        stages.terminal.note(f"{paths.from_here(file)}: {what}")
    stages.terminal.note(f"took {human(night.spent_s())}")


def _nothing_validated(night: NightFolder) -> str:
    """Why there is no answer, and the way on: more hours only if nothing but time was missing."""
    assert night.asked is not None
    again = f"danube-sweep tonight {paths.from_here(night.path)}"
    if ended := ended_badly(night.sweep):
        said = f"{ended[0].name}: {_end_of(ended[0])}"
        return f"no trial has come to its end ({said}); correct that, then go on with: {again}"
    hours = 2 * max(night.asked.hours, night.spent_s() / 3600)
    return f"no trial has come to its end in this time; go on with: {again} --hours {hours:.2g}"


def _predict(night: NightFolder, best: Best, source: Path, stages: Stages) -> None:
    compares = best.backbone.start.config.head.compares
    rows = stages.predict(source, swap=compares, on_cpu=_on_cpu(best))
    stages.terminal.note(f"{paths.from_here(night.submission)}: {rows} rows")


def _chosen(night: NightFolder, best: Best, end_s: float, stages: Stages) -> Path:
    """The folder to predict with: the ensemble if it is better, else a refit, else the best trial itself."""
    if stages.blend():
        stages.terminal.note("the ensemble is better on unseen rows: it predicts")
        return night.ensemble
    if night.has_ended("refit"):
        return night.refit
    needed_s = REFIT * _measured_s(night, best)
    if needed_s + end_s > _left_s(night):
        stages.terminal.note(
            f"a refit takes about {human(needed_s)}, and {human(max(_left_s(night) - end_s, 0.0))} are left for it: "
            "the best trial predicts"
        )
        return night.sweep
    return night.refit if stages.refit() else night.sweep


def _measured_s(night: NightFolder, best: Best) -> float:
    """Seconds of the best trial alone, as they were measured; by prediction for one that was not."""
    row = winner(rank_sweep(night.sweep))
    if row is None or row.seconds is None or not row.used:
        return UNMEASURED * best.backbone.predicted_s(best.settings)
    packed = RunFolder(night.sweep / row.used[0]).result_fields().get("measured", {}).get("packed", 1)
    return row.seconds * (ALONE if packed > 1 else 1.0)


def _on_cpu(best: Best) -> bool:
    device: Device = best.backbone.start.config.device
    return device.accelerator == "cpu"
