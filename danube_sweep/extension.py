"""For packages that offer heads and optimizers: what an entry point names. docs/extending.md shows one."""

from danube_sweep.config.offered_options import HeadExtension, OptimizerExtension

__all__ = ["HeadExtension", "OptimizerExtension"]
