"""The commands of a night, each run by the function that the command line calls, and kept before it starts."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import final

from danube_sweep.config.override_words import override_word
from danube_sweep.config.schema.states import COMPLETE
from danube_sweep.config.stored import load_config, load_sweep
from danube_sweep.errors import CheckpointError, ConfigError, DanubeSweepError, Interrupted, SweepFailed, TrialFailed
from danube_sweep.inference.predict_run import PredictWords, predict_run
from danube_sweep.report.page import write_page
from danube_sweep.results.ensemble.ensemble_command import Wanted as Blended
from danube_sweep.results.ensemble.ensemble_command import run_ensemble
from danube_sweep.results.ensemble.held_out import Estimate
from danube_sweep.results.rank import rank_sweep
from danube_sweep.results.trial_results import UNDER_WAY, StoredTrial, read_trials
from danube_sweep.storage.ensemble_folder import EnsembleFolder
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.sweep_folder import SweepFolder, training_s
from danube_sweep.sweeping import confirm
from danube_sweep.sweeping.entry.python_sweep import run_call
from danube_sweep.sweeping.resume_sweep import resume_sweep
from danube_sweep.sweeping.train_refit import Wanted as Refitted
from danube_sweep.sweeping.train_refit import run_refit
from danube_sweep.terminal.screen import Terminal
from danube_sweep.tonight.next_round import Round
from danube_sweep.tonight.night_folder import CUT, FAILED, LIKE, PREDICT, WHOLE, NightFolder, Ran, command_line


@final
class Stages:
    """Runs commands of a night and keeps them in its folder."""

    def __init__(self, night: NightFolder, terminal: Terminal) -> None:
        self.night, self.terminal = night, terminal

    def search(self, coming: Round) -> Ran:
        """A round of trials, stopped when its time is over."""
        assert self.night.asked is not None
        values = [f"{name}={','.join(some)}" for name, some in coming.values.items()]
        given = self.night.asked.of_sweep
        hours = f"{max(coming.limit_s, 1.0) / 3600:.5g}"
        ours = [
            "pruner=asha",
            self._budget(coming.limit_s),
            f"sweep.deadline_h={hours}",
            "sweep.on_misfit=shrink",
            "sweep.score_test=false",
        ]
        if coming.backbone.start.config.trainer.benchmark:  # test splits are for the refit
            ours.append("trainer.benchmark_test=false")
        fields = {word.partition("=")[0] for word in given}
        ours = [word for word in ours if word.partition("=")[0] not in fields]
        if "pruner=none" in given:  # a budget is for trials that pause
            ours = [word for word in ours if not word.startswith("sweep.budget_h")]
        words = [*coming.backbone.words, *values, *ours, *given]
        place = override_word("hydra.sweep.dir", self.night.place(self.night.sweep))
        ran = Ran(coming.stage, ["-m", *words, place], time.time(), coming.predicted_s, coming.backbone.name)
        ran.cells = coming.new
        with self._running(ran), Terminal() as live:
            run_call(words, self.night.sweep, live)
        return ran

    def _budget(self, limit_s: float) -> str:
        # That of the whole sweep, of which earlier rounds have spent a part.
        spent_s = training_s(SweepFolder(self.night.sweep)) if self.night.sweep.is_dir() else 0.0
        return f"sweep.budget_h={(spent_s + max(limit_s, 1.0)) / 3600:.5g}"

    def continue_search(self, limit_s: float) -> Ran:
        """The open trials of a session that was stopped."""
        words = [f"sweep.deadline_h={max(limit_s, 1.0) / 3600:.5g}"]
        if load_sweep(SweepFolder(self.night.sweep).read()["settings"])[0].budget_h is not None:
            words.append(self._budget(limit_s))
        ran = Ran("continue", ["resume", self.night.place(self.night.sweep), *words], time.time())
        with self._running(ran), Terminal() as live:
            resume_sweep(self.night.sweep, words, live)
        return ran

    def confirm(self, left_s: float) -> None:
        """Trains rows that are tied with the best again, where there are such and time is left."""
        folder = SweepFolder(self.night.sweep)
        ranking = rank_sweep(folder.path)
        sweep, _ = load_sweep(folder.read()["settings"], ["sweep.confirm=auto"])
        coming = confirm.next_round(ranking, folder, sweep)
        if coming is None:
            if rows := confirm.tied(ranking):
                said = "fresh seeds for them take more than sweep.confirm_share of the steps so far"
                self.terminal.note(f"{len(rows)} rows are tied: {said}")
            return
        if coming.seconds > left_s:
            self.terminal.note(
                f"{len(coming.rows)} rows are tied; to train them again takes about {coming.seconds:.0f} s, and "
                f"{max(left_s, 0):.0f} s are left for it: they stay tied"
            )
            return
        words = ["sweep.confirm=auto", f"sweep.deadline_h={max(left_s, 1.0) / 3600:.5g}"]
        ran = Ran("confirm", ["resume", self.night.place(folder.path), *words], time.time())
        with self._running(ran), Terminal() as live:
            resume_sweep(folder.path, words, live)

    def blend(self) -> bool:
        """An ensemble of the trials; returns whether it is better on unseen rows, by more than chance."""
        words = ["ensemble", self.night.place(self.night.sweep), "-o", self.night.place(self.night.ensemble)]
        if not self.night.has_ended("ensemble"):
            try:
                with self._running(Ran("ensemble", words, time.time())):
                    run_ensemble([self.night.sweep], self.night.ensemble, Blended(), self.terminal)
            except (ConfigError, CheckpointError) as error:
                self.terminal.note(f"no ensemble: {error}")
                return False
        scores, chosen = EnsembleFolder(self.night.ensemble).read_scores()
        if len(EnsembleFolder(self.night.ensemble).read()) == 1:
            self.terminal.note("it holds one model, with a temperature: no ensemble of several is better")
            return False
        return chosen is not None and Estimate(**scores[chosen]).better

    def refit(self) -> bool:
        """The best settings on all rows; returns whether they were trained, with a line if not."""
        words = ["refit", self.night.place(self.night.sweep), "-o", self.night.place(self.night.refit)]
        if RunFolder(self.night.refit).config.is_file():  # interrupted
            words = ["resume", self.night.place(self.night.refit)]
        try:
            with self._running(Ran("refit", words, time.time())):
                if words[0] == "resume":
                    from danube_sweep.sweeping.execute.train_run import train_run

                    train_run(load_config(RunFolder(self.night.refit).config), self.night.refit)
                else:
                    with Terminal() as live:
                        run_refit(self.night.sweep, self.night.refit, Refitted(), live)
        except (ConfigError, CheckpointError, TrialFailed) as error:
            self.terminal.note(f"no refit: {error}")
            return False
        return True

    def predict(self, source: Path, *, swap: bool, on_cpu: bool) -> int:
        """submission.csv by what validation chose; returns its rows."""
        asked = self.night.asked
        assert asked is not None
        words = [PREDICT, self.night.place(source), asked.test, "-o", self.night.place(self.night.submission)]
        words += [LIKE, asked.like] if asked.like else []
        words += ["--swap"] if swap else []
        words += ["--accelerator", "cpu"] if on_cpu else []
        words += ["--overwrite"]
        with self._running(Ran(PREDICT, words, time.time())):
            how = PredictWords(
                source,
                Path(asked.test).expanduser(),
                self.night.submission,
                like=None if asked.like is None else Path(asked.like).expanduser(),
                swap=swap,
                accelerator="cpu" if on_cpu else "auto",
                overwrite=True,
            )
            return predict_run(how)

    def report(self) -> None:
        """The page of the sweep."""
        page = self.night.place(self.night.report)
        words = ["report", self.night.place(self.night.sweep), "-o", page, "--overwrite"]
        with self._running(Ran("report", words, time.time())):
            write_page(self.night.sweep, self.night.report)

    @contextmanager
    def _running(self, ran: Ran) -> Iterator[None]:
        """Keeps a command with its seconds and outcome. A sweep that its deadline has cut is told, and goes on."""
        self.terminal.note(f"$ {command_line(ran.words)}")
        self.night.ran.append(ran)
        self.night.write()
        try:
            yield
            ran.outcome = WHOLE
        except SweepFailed as error:
            ran.outcome = CUT
            self.terminal.note(str(error))
        except Interrupted:
            raise
        except DanubeSweepError:
            ran.outcome = FAILED
            raise
        finally:
            if ran.outcome:
                ran.seconds = round(time.time() - ran.began, 1)
            self.night.write()


def ended_badly(sweep: Path) -> Sequence[StoredTrial]:
    """The trials of the sweep that have ended, but not as they should, by number; none where there is no sweep yet."""
    if not (sweep / "sweep.json").is_file():
        return []
    return [one for one in read_trials(sweep)[0] if one.state not in (*COMPLETE, *UNDER_WAY)]


def open_trials(sweep: Path) -> Sequence[str]:
    """The trials of the sweep that have not ended; none where there is no sweep yet."""
    if not (sweep / "sweep.json").is_file():
        return []
    return [one.path.name for one in SweepFolder(sweep).entries() if not one.folder.result.is_file()]
