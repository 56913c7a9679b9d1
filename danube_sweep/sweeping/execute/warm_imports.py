"""Preloaded by the parent of all trials, before libraries that print. This file and `warm_tables` act when imported."""

import ctypes
import signal
import sys

from danube_sweep.terminal.quiet_libraries import quiet_libraries

if sys.platform == "linux":  # or the parent of a sweep that is killed now would import to the end
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
quiet_libraries()
