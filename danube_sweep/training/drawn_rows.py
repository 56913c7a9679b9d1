"""Dropout for some rows of a micro-batch, drawn as for all of its rows. So sharing rows among ranks changes nothing.

Axes: B rows, T tokens, P words.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from danube_sweep.data.batches import Batch
from danube_sweep.lora.packed_operation import DrawnFor
from danube_sweep.training.step_plan import MicroBatch, PartOf


def drawn_for(part: PartOf, batch: Batch) -> DrawnFor:
    """The rows for which an adapter's dropout is drawn, and the place of the rows of `batch` among them."""
    rows, length = part.whole.input_ids_BT.shape
    return DrawnFor(rows, length, _sequences(part, batch, len(batch.input_ids_BT) // len(batch.rows)))


@contextmanager
def head_draws(micro: MicroBatch) -> Iterator[None]:
    """Inside, every dropout over the rows or words of the micro-batch draws as it would with all of its rows."""
    if micro.part is None:
        yield
        return
    with _ForTheWhole(micro.part, micro.batch):
        yield


@final
class _ForTheWhole(TorchFunctionMode):
    def __init__(self, part: PartOf, batch: Batch) -> None:
        super().__init__()
        self._part, self._batch = part, batch

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        return self._dropout(*args, **given) if func is F.dropout else func(*args, **given)

    def _dropout(
        self, values: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        if not training or p == 0:
            return values
        count, own = self._drawn(len(values))
        shape = [count, *values.shape[1:]]
        if values.dim() > 2:
            shape[1] = self._part.whole.input_ids_BT.shape[1]
        factors = F.dropout(torch.ones(shape, dtype=values.dtype, device=values.device), p)[own]
        return values * (factors if values.dim() < 3 else factors[:, : values.shape[1]])

    def _drawn(self, rows: int) -> tuple[int, torch.Tensor]:
        # The number of rows or words for which it is drawn, and the place of this rank's.
        batch, whole, first = self._batch, self._part.whole, self._part.first
        if batch.words_P3 is not None and whole.words_P3 is not None:
            before = int((whole.words_P3[:, 0] < first).sum())
            return len(whole.words_P3), torch.arange(before, before + rows, device=batch.mask_BT.device)
        each = rows // len(batch.rows)
        return each * len(whole.rows), _sequences(self._part, batch, each)


def _sequences(part: PartOf, batch: Batch, each: int) -> torch.Tensor:
    # All rows' first sequences come before all rows' second ones.
    own = torch.arange(part.first, part.first + len(batch.rows), device=batch.mask_BT.device)
    return torch.cat([own + number * len(part.whole.rows) for number in range(each)])
