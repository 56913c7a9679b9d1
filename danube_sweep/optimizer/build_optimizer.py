"""Optimizers: parameters and a config in, a torch optimizer out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch

from danube_sweep.config import offered_options
from danube_sweep.config.schema import Optimizer
from danube_sweep.errors import ConfigError
from danube_sweep.optimizer.parameter_groups import Groups, Parameters, TrainedParameters


def build_optimizer(
    config: Optimizer,
    backbone: Parameters,
    head: Parameters,
    *,
    head_lr: float | None,
    plus_ratio: float = 1.0,
    never_decayed: tuple[str, ...] = (),
) -> torch.optim.Optimizer:
    """An optimizer over a trial's parameters; the head has its own learning rate, norms and biases no decay.

    LoRA's B learn `plus_ratio` times as fast as the rest of the backbone. Parameters of the backbone with one of
    `never_decayed` in their names do not decay.
    """
    rates = config.lr, head_lr or config.lr
    trained = TrainedParameters(backbone, head, *rates, config.weight_decay, plus_ratio, never_decayed)
    offer = offered_options.offer_of(config)
    if offer is not None:
        return _offered(config, offer, trained.groups())
    built: torch.optim.Optimizer = config.build(trained)
    return built


def _offered(config: Optimizer, offer: offered_options.Offer, groups: Groups) -> torch.optim.Optimizer:
    given = {id(parameter) for group in groups for parameter in group["params"]}
    built = offered_options.build(config, torch.optim.Optimizer, groups=groups)
    if given != {id(parameter) for group in built.param_groups for parameter in group["params"]}:
        raise ConfigError(f"{offer.named} cannot be used: it must hold exactly the parameters that it is given")
    return built


@runtime_checkable
class HasModes(Protocol):
    """An optimizer that takes gradients at one point and answers with another, and moves the weights between them."""

    def train(self) -> None:
        """Puts the weights where gradients are taken."""

    def eval(self) -> None:
        """Puts the weights where the answer is."""


def to_training(optimizer: torch.optim.Optimizer) -> None:
    """Makes an optimizer with modes ready to step, whichever mode it was saved in; others need nothing."""
    if isinstance(optimizer, HasModes):
        optimizer.train()


@contextmanager
def answering(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Inside, the weights are those to validate and to save; after it, those to train."""
    if isinstance(optimizer, HasModes):
        optimizer.eval()
    yield
    to_training(optimizer)
