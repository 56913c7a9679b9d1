"""Preloaded by the parent of all trials, before what is noisy; the one module whose import does something."""

from danube_sweep.quiet import quiet_libraries

quiet_libraries()
