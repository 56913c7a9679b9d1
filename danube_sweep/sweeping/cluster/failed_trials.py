"""Why a worker's exit code is 1."""

from danube_sweep.config.schema.states import COMPLETE
from danube_sweep.storage.sweep_folder import SweepFolder


def trials_failed(sweep: SweepFolder) -> bool:
    """Whether no trial is open and one has ended badly. Otherwise a worker with exit code 1 has broken itself."""
    states = [entry.folder.result_fields().get("state") for entry in sweep.entries()]
    return None not in states and any(state not in COMPLETE for state in states)
