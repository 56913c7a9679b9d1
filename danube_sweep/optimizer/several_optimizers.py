"""Several optimizers over disjoint parameters as one."""

from typing import Any, final

import torch


@final
class SeveralOptimizers(torch.optim.Optimizer):
    """A step is a step of each part."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self._parts = parts
        super().__init__([group for part in parts for group in part.param_groups], defaults={})
        self._share()

    def _share(self) -> None:
        # The groups are the parts' own, so that a schedule reaches them; so are the states.
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Steps each part; a closure is not supported."""
        assert closure is None
        for part in self._parts:
            part.step()
        self.state.update({key: value for part in self._parts for key, value in part.state.items()})

    def state_dict(self) -> dict[str, Any]:
        """The parts' own."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The parts' own."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share()
