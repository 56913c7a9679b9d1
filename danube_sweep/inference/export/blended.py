"""The answer of an ensemble from the logits of its members. An export carries this very file as blend.py.

Axes: B rows, C classes; of heads that label words also T tokens before C.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


class ExportedEnsemble:
    """Each member's answer at its temperature, averaged by its share."""

    def __init__(self, folder: str | Path) -> None:
        described: dict[str, Any] = json.loads((Path(folder) / "ensemble.json").read_text(encoding="utf-8"))
        self.answers: str = described["answers"]
        self.classes: list[str] = described["classes"]
        self.members: list[dict[str, Any]] = described["members"]
        """`folder`, `share` and `temperature`, in the order in which their logits are given."""

    def __call__(self, logits: Sequence[torch.Tensor]) -> torch.Tensor:
        """Probabilities_BC, or numbers_B1, of each member's logits_BC to the same rows."""
        if len(logits) != len(self.members):
            raise ValueError(f"{len(self.members)} members answer together, got the logits of {len(logits)}")
        answers = [
            member["share"] * self._answer(one.double(), member["temperature"])
            for member, one in zip(self.members, logits, strict=True)
        ]
        return torch.stack(answers).sum(dim=0)

    def _answer(self, logits_BC: torch.Tensor, temperature: float) -> torch.Tensor:
        match self.answers:
            case "one class":
                return (logits_BC / temperature).softmax(dim=-1)
            case "any number of classes":
                return (logits_BC / temperature).sigmoid()
            case "a number":
                return logits_BC
        raise ValueError(f"ensemble.json: unknown answers {self.answers!r}")
