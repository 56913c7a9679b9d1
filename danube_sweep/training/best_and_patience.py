"""Which step of a trial is the best so far, and whether its patience is out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from danube_sweep.config.schema import HIGHER_IS_BETTER


@dataclass
class BestSoFar:
    """The best validation of a trial, and how many came after it. The field names are those in its checkpoints."""

    validations: int = 0
    best_step: int | None = None
    best_value: float = math.inf
    """The objective at the best step, or its negative where higher is better."""
    validations_since_best: int = 0
    best_before: int | None = None
    """The step that was the best until `best_step` was reached."""

    def take(self, step: int, metrics: Mapping[str, float], objective: str) -> bool:
        """Counts a validation; returns whether it is the best so far. Of equal ones the earliest stays the best."""
        value = -metrics[objective] if objective in HIGHER_IS_BETTER else metrics[objective]
        self.validations += 1
        if value < self.best_value:
            self.best_before, self.best_step = self.best_step, step
            self.best_value, self.validations_since_best = value, 0
            return True
        self.validations_since_best += 1
        return False

    def is_out_of_patience(self, patience: int | None) -> bool:
        """Whether the last `patience` validations brought no better one; never without a patience."""
        return self.validations_since_best >= (patience or math.inf)
