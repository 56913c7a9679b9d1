"""Fields of every optimizer. Each optimizer is a file of optimizer/kinds/."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from danube_sweep.config.schema.fields import setting
from danube_sweep.errors import GuardError


@dataclass
class Optimizer:
    """An update rule; `paged` if the states of large tensors may lie in host memory."""

    paged: ClassVar[bool] = False
    by_element: ClassVar[bool] = False
    """Whether each number is updated from its own gradient and states alone, so that ranks may divide a tensor."""

    lr: float = setting("peak learning rate", "${model.lr}")
    weight_decay: float = setting(
        "weight decay, decoupled except for sgd; never on norms, biases and factors that start at 1",
        0.01,
    )

    def check_trial(self, trial: Any) -> None:
        """Raises ConfigError if it does not go with the rest of the trial's Config."""

    def build(self, trained: Any) -> Any:
        """A torch optimizer over `trained`, the TrainedParameters of a trial."""
        raise GuardError(f"{type(self).__name__} has no builder")

    def state_bytes(self, shape: Sequence[int], each: int, *, outer: bool) -> float:
        """Bytes of its states for one tensor of `each` bytes a number; `outer`: an embedding, or a head's."""
        raise GuardError(f"nobody knows the states of {type(self).__name__}")

    def updating_bytes(self, gradient_bytes: float) -> float:
        """Bytes that come and go in an update."""
        return 0.0


@dataclass
class Adam(Optimizer):
    beta1: float = setting("decay of the first moment", 0.9)
    beta2: float = setting("decay of the second moment", 0.999)
    eps: float = setting("constant added to the denominator", 1e-8)

    @property
    def adam_options(self) -> dict[str, Any]:
        """Its fields by torch's names."""
        return {"lr": self.lr, "betas": (self.beta1, self.beta2), "eps": self.eps}
