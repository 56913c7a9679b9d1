"""Hydra's entry: the code behind its launcher and sweeper plugins. No code beyond it knows Hydra."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, final

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from danube_sweep.composer import Composer
from danube_sweep.config.schema import Sampler, WandbTracking
from danube_sweep.config.schema.states import COMPLETE, State
from danube_sweep.config.stored import load_config
from danube_sweep.config.unknown_fields import refuse_unknown_fields
from danube_sweep.config.validate.check_sweep import objectives
from danube_sweep.errors import BusyError, DanubeSweepError, Interrupted, SweepFailed, TrialFailed, UserError
from danube_sweep.os_errors import as_ours
from danube_sweep.storage.files import write_json
from danube_sweep.storage.run_folder import number_at
from danube_sweep.storage.sweep_folder import Entry, SweepFolder
from danube_sweep.sweeping.cluster.cluster_fields import ClusterOptions, RayOptions
from danube_sweep.sweeping.cluster.cluster_options import check_named_device, cluster_options
from danube_sweep.sweeping.cluster.follow_jobs import on_cluster
from danube_sweep.sweeping.cluster.ray_actors import on_ray
from danube_sweep.sweeping.cluster.ray_options import connect, ray_options
from danube_sweep.sweeping.entry.result_folders import held
from danube_sweep.sweeping.propose.grid_cells import expand, search_of
from danube_sweep.sweeping.start_sweep import PlannedSweep, Submit, plan_grid, run_search, run_sweep
from danube_sweep.sweeping.wandb_file.wandb_parameters import override_text
from danube_sweep.terminal.screen import Terminal

LOCAL = "hydra_plugins.danube_sweep.launcher.LocalLauncher"
SLURM = "hydra_plugins.danube_sweep.slurm.SlurmLauncher"
RAY = "hydra_plugins.danube_sweep.ray.RayLauncher"


@final
class Multirun:
    """A `danube-sweep -m` command."""

    def __init__(self, context: Any, task: Any, config: DictConfig) -> None:
        self._context, self._task, self._config = context, task, config
        self._composer = composer_of(context, config)
        self._parser = OverridesParser.create(config_loader=context.config_loader)
        self._path = Path(str(config.hydra.sweep.dir))
        self._options = cluster_of(config)

    def grid(self, arguments: Sequence[str]) -> None:
        """Every combination of the swept values; ends like `run_sweep`."""
        refuse_unknown_fields(self._config)
        with _not_the_users():
            self._grid(arguments, [*arguments, *held()])

    def search(self, arguments: Sequence[str]) -> None:
        """A search over the swept values; ends like `run_sweep`."""
        refuse_unknown_fields(self._config)
        with _not_the_users():
            self._search(arguments, [*arguments, *held()])

    def _grid(self, seen: Sequence[str], arguments: Sequence[str]) -> None:
        # `seen`: the config that Hydra itself could compose, which is enough for the sweep's settings.
        overrides = self._parser.parse_overrides(list(arguments))
        sweep, _ = self._composer.sweep(self._fixed(seen))
        with Terminal() as terminal:
            self._check_device(overrides, terminal)
            cells = expand(overrides, sweep.max_trials)
            planned = plan_grid(self._path, cells, self._composer, terminal, self._launch())
            if planned is not None:
                run_sweep(replace(planned[0], submit=submit_of(self._options), by_command=self._by_command()), terminal)

    def _search(self, seen: Sequence[str], arguments: Sequence[str]) -> None:
        sweep, pruner = self._composer.sweep(self._fixed(seen))
        if sweep.sampler is Sampler.grid:
            self._grid(seen, arguments)
            return
        overrides = self._parser.parse_overrides(list(arguments))
        search = search_of(overrides)
        folder, name = SweepFolder(self._path.absolute()), str(self._config.hydra.job.config_name)
        launch, submit = self._launch(), submit_of(self._options)
        plan = PlannedSweep(folder, sweep, pruner, search, self._config_dir(), name, launch, submit, self._by_command())
        with Terminal() as terminal:
            self._check_device(overrides, terminal)
            run_search(plan, self._composer, terminal)

    def _fixed(self, arguments: Sequence[str]) -> list[str]:
        parsed = self._parser.parse_overrides(list(arguments))
        return [one for one, override in zip(arguments, parsed, strict=True) if not override.is_sweep_override()]

    def _config_dir(self) -> Path | None:
        given = [one.path for one in self._config.hydra.runtime.config_sources if one.provider == "command-line"]
        return Path(given[0]) if given else None

    def _by_command(self) -> bool:
        return isinstance(self._options, RayOptions)

    def _check_device(self, overrides: Sequence[Any], terminal: Terminal) -> None:
        if self._options is None:
            return
        over = [one for one in overrides if one.key_or_group == "device" and one.is_sweep_override()]
        swept = [str(value) for one in over for value in one.sweep_string_iterator()]
        if (line := check_named_device(self._config.device, swept)) is not None:
            terminal.note(line)
        if isinstance(self._options, RayOptions) and not self._config.sweep.dry_run:
            connect(self._options)  # before anything is written

    def _launch(self) -> Any:
        # Another launcher than ours gets its trials in batches, each with the folder that is planned for it.
        if self._config.hydra.launcher._target_ in (LOCAL, SLURM, RAY):
            return None
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self._context, task_function=self._task, config=self._config
        )

        def launch(entries: Sequence[Entry]) -> None:
            if not entries:
                return
            jobs = [_job(entry) for entry in entries]
            returns = launcher.launch(jobs, initial_job_idx=entries[0].number)
            for entry, returned in zip(entries, returns, strict=True):
                _settle(entry, returned)

        return launch


@contextmanager
def _not_the_users() -> Iterator[None]:
    # The command takes an OSError or ValueError that Hydra raises for the user's mistake. Here an OSError is the
    # operating system's, and a ValueError a defect.
    try:
        yield
    except DanubeSweepError:
        raise
    except (OSError, ValueError) as error:
        if (ours := as_ours(error)) is not None:
            raise ours from error
        raise RuntimeError(f"the sweep itself failed: {type(error).__name__}: {error}") from error


def _job(entry: Entry) -> list[str]:
    # Settled by the plan. Hydra, which composes the trial anew, would not know it.
    config = load_config(entry.folder.config)
    group = config.tracking.group if isinstance(config.tracking, WandbTracking) else None
    planned = [] if group is None else [f"tracking.group={override_text('tracking.group', group)}"]
    planned += ["trainer.benchmark_test=false"] if config.trainer.benchmark else []
    return [*entry.overrides, *planned, "trainer.score_test=false", f"hydra.sweep.subdir={entry.path.name}"]


def _settle(entry: Entry, returned: JobReturn) -> None:
    # Our slots write down how a trial ended that could not do so itself; here that is left to us.
    if returned.status is not JobStatus.FAILED or entry.folder.result.is_file():
        return
    error: BaseException = returned._return_value
    if isinstance(error, Interrupted):
        raise error
    if isinstance(error, BusyError):  # the process that trains it reports its end
        return
    state = State.invalid if isinstance(error, UserError) else State.failed
    said = " ".join(f"{type(error).__name__}: {error}".split())
    write_json(entry.folder.result, {"trial": entry.hash, "state": state.value, "error": said})


def composer_of(context: Any, config: DictConfig) -> Composer:
    """Composes as Hydra does for the jobs of this command: the same config directory, the same `hydra.…` overrides."""
    sources = [one for one in config.hydra.runtime.config_sources if one.provider not in ("hydra", "schema", "main")]
    ours = not sources and config.hydra.job.config_name == "config"
    return Composer(lambda overrides: context.config_loader.load_sweep_config(config, overrides), ours=ours)


def cluster_of(config: DictConfig) -> ClusterOptions | RayOptions | None:
    """The options of hydra/launcher=slurm or ray; None with another launcher. Raises ConfigError for a bad one."""
    launcher = config.hydra.launcher
    if launcher._target_ == RAY:
        return ray_options(launcher)
    return cluster_options(launcher) if launcher._target_ == SLURM else None


def submit_of(options: ClusterOptions | RayOptions | None) -> Submit | None:
    """The function that has the trials trained on a cluster; None if they train here."""
    match options:
        case None:
            return None
        case RayOptions():
            return on_ray(options)
        case ClusterOptions():
            return on_cluster(options)


def launch(context: Any, config: DictConfig, job_overrides: Sequence[Sequence[str]]) -> list[JobReturn]:
    """The launcher's side for sweepers that are not ours: runs a batch and returns its objective values."""
    cells = [list(cell) for cell in job_overrides]
    composer, path = composer_of(context, config), Path(str(config.hydra.sweep.dir))
    options = cluster_of(config)
    with Terminal() as terminal:
        if options is not None and (line := check_named_device(config.device, [])) is not None:
            terminal.note(line)
        planned = plan_grid(path, cells, composer, terminal)
        if planned is None:
            return []
        plan, entries = planned
        # A batch is not the end of the sweep: the winner is known, and scored, when it is resumed.
        plan = replace(plan, sweep=replace(plan.sweep, score_test=False), submit=submit_of(options))
        with suppress(SweepFailed):  # the return of each job reports it to the sweeper
            run_sweep(plan, terminal)
    metric = objectives(plan.sweep)[0][0]
    return [_returned(entry, cell, metric) for entry, cell in zip(entries, cells, strict=True)]


def _returned(entry: Entry, cell: list[str], metric: str) -> JobReturn:
    result = entry.folder.result_fields() or {"state": "waiting"}
    returned = JobReturn(overrides=cell, working_dir=str(entry.path), task_name="danube_sweep")
    if result["state"] in COMPLETE:
        returned.status, returned._return_value = JobStatus.COMPLETED, number_at(result, metric)
    else:
        failure = TrialFailed(f"{entry.path}: {result['state']}: {result.get('error')}")
        returned.status, returned._return_value = JobStatus.FAILED, failure
    return returned
