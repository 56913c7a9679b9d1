"""Preloaded last by the parent of all trials: what each of them would otherwise do again in its own process."""

import gc

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from danube_sweep.training.environment import installed_packages

get_checkpoint_conversion_mapping("")  # transformers compiles a thousand patterns before it loads its first model
installed_packages()
gc.collect()
gc.freeze()  # or the collector of each child walks, and so copies, all objects of the libraries: .3 CPU seconds
