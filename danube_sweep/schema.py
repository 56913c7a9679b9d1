"""For packages that offer heads and optimizers: what their config fields are made of. The whole is config/schema/."""

from danube_sweep.config.schema import (
    Adam,
    ClassifierHead,
    Head,
    LayeredHead,
    Optimizer,
    Pooling,
    Target,
    nested,
    setting,
)

__all__ = ["Adam", "ClassifierHead", "Head", "LayeredHead", "Optimizer", "Pooling", "Target", "nested", "setting"]
