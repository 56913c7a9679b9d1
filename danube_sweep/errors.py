"""One exception tree. What the user can mend is a `UserError`: one line that names field, value and way out.

DanubeSweepError
├── UserError               exit code 2, nothing written
│   ├── ConfigError         an option, a value or a combination (also ValueError)
│   │   └── MisfitError     a trial that cannot fit its device
│   ├── DataError           a file or its rows (also ValueError)
│   ├── ModelError          a backbone or tokenizer that cannot be had (also OSError)
│   │   └── UnknownArchitecture     one that the planner cannot plan; it may train
│   ├── CheckpointError     a run folder or adapter that does not fit or was changed (also ValueError)
│   │   ├── BusyError       a run folder that another process is training in
│   │   └── DamagedCheckpoint   a checkpoint whose files are not what was written
│   ├── DiskError           no space, no permission (also OSError)
│   └── HubError            the hub refuses an upload or cannot be reached (also OSError)
├── TrialFailed             a trial ended badly, its result.json says how; exit code 1
│   ├── Diverged            (also ArithmeticError)
│   └── OutOfMemory         (also MemoryError)
├── PackOutOfMemory         memory that did not suffice for a pack: it is split (also MemoryError)
├── ExportRefused           an export that does not answer as its run does; exit code 1
├── SweepFailed             a sweep that ended with trials that did not; exit code 1
├── Dismissed               a trial that was told to leave its pack, after a checkpoint
├── Paused                  a trial that stands low in its sweep, after a checkpoint; it may be promoted
├── Interrupted             stopped on request after a checkpoint; exit code 129, 130 or 143
└── GuardError              a promise of this package is broken: a defect to report (also AssertionError)

RankLost is none of them: it is a SystemExit, and ends the process of a rank whose partner has died.
"""


class DanubeSweepError(Exception):
    """Base of everything this package raises on purpose."""

    exit_code = 1


class UserError(DanubeSweepError):
    """Something the user can mend, said in one line."""

    exit_code = 2


class ConfigError(UserError, ValueError):
    """An unknown option, a value out of range or an impossible combination."""


class MisfitError(ConfigError):
    """A trial that is predicted not to fit its device."""


class DataError(UserError, ValueError):
    """A data file that is missing, malformed or does not fit the task."""


class ModelError(UserError, OSError):
    """A backbone or tokenizer that cannot be found, reached or used."""


class UnknownArchitecture(ModelError):
    """A local model of an architecture that the planner does not know."""


class CheckpointError(UserError, ValueError):
    """A run folder, checkpoint or adapter that is damaged or belongs to something else."""


class BusyError(CheckpointError):
    """Another process is training in this run folder."""


class DamagedCheckpoint(CheckpointError):
    """A checkpoint's files are not those that were written."""


class DiskError(UserError, OSError):
    """A file cannot be written."""


class HubError(UserError, OSError):
    """The hub refuses an upload or cannot be reached."""


class TrialFailed(DanubeSweepError):
    """A trial ended without a usable result; `state` goes into its result.json."""

    state = "failed"


class Diverged(TrialFailed, ArithmeticError):
    """The loss became NaN or infinite."""

    state = "diverged"


class OutOfMemory(TrialFailed, MemoryError):
    """The device's memory did not suffice."""

    state = "oom"


class PackOutOfMemory(DanubeSweepError, MemoryError):
    """The device's memory did not suffice for the trials of a pack together; each has its last checkpoint."""


class Dismissed(DanubeSweepError):
    """A trial left its pack before its end, after a checkpoint, for the reason given."""


class Paused(DanubeSweepError):
    """A trial of a sweep stopped at a rung, after a checkpoint, and may be promoted later."""

    exit_code = 0


class ExportRefused(DanubeSweepError):
    """An export that was loaded again does not answer as its run does, or does not load."""


class SweepFailed(DanubeSweepError):
    """A sweep has ended and been ranked, but not all of its trials finished."""


class Interrupted(DanubeSweepError):
    """Stopped on request, after a checkpoint; `exit_code` is 128 + the signal's number."""

    def __init__(self, message: str, signal_number: int = 2) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class GuardError(DanubeSweepError, AssertionError):
    """A promise of this package does not hold; please report it."""


class RankLost(SystemExit):
    """Another process of the same trial cannot be reached: this one ends without a result, which its parent writes."""

    exit_code = 76

    def __init__(self) -> None:
        super().__init__(self.exit_code)
