"""Preloaded by the parent of all trials: what each of them would otherwise work out again in its own process."""

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from danube_sweep.training.environment import installed_packages

get_checkpoint_conversion_mapping("")  # transformers compiles a thousand patterns before it loads its first model
installed_packages()
