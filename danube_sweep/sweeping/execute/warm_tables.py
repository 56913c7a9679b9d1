"""Preloaded by the parent of all trials: tables that each of them would otherwise compute again in its own process."""

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from danube_sweep.training.environment import installed_packages

get_checkpoint_conversion_mapping("")  # transformers compiles a thousand patterns before it loads its first model
installed_packages()
