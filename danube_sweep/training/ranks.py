"""The processes that train one trial or one pack together, each on a device of its own, and their messages.

Rank 0 leads: it holds the folders, decides and writes. The others compute their share (follow.py). Imports no torch.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from danube_sweep.errors import RankLost
from danube_sweep.planner.several_devices import BUCKET

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

LONGEST_WAIT: Final = timedelta(days=30)
"""For the others while the leader writes, validates or waits for a trial. A rank that hangs is ended from outside."""
CONNECTION_SIGNS: Final = ("gloo/transport", "Connection closed by peer", "Connection reset by peer", "NCCL")
"""Parts of what torch says in a plain RuntimeError about a connection."""
LONGEST_LINE: Final = 600
"""Characters of the line on a connection that failed."""


@dataclass(frozen=True)
class Meeting:
    """The place where the ranks of a job find each other, and the number of this process."""

    file: Path
    rank: int
    count: int


@final
class Ranks:
    """This process among those that train together. With a count of 1 every call answers at once.

    All ranks must make the same calls in the same order. Each raises RankLost, and prints why,
    when another process cannot be reached. A lack of memory is raised as it is.
    """

    def __init__(self, rank: int = 0, count: int = 1, sums: Any = None) -> None:
        self.rank, self.count, self._sums = rank, count, sums

    @property
    def leads(self) -> bool:
        """Whether this is the rank that decides and writes."""
        return self.rank == 0

    def said(self, value: T) -> T:
        """The leader's value, on every rank."""
        if self.count == 1:
            return value
        from torch import distributed

        told: list[Any] = [value if self.leads else None]
        with _together():
            distributed.broadcast_object_list(told, src=0)
        heard: T = told[0]
        return heard

    def each(self, value: T) -> list[T]:
        """Every rank's value, in their order."""
        if self.count == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.count
        with _together():
            distributed.all_gather_object(values, value)
        return values

    def either(self, flags: Sequence[bool]) -> list[bool]:
        """For each flag, whether it is up on any rank."""
        if self.count == 1:
            return list(flags)
        import torch
        from torch import distributed

        up = torch.tensor(list(flags), dtype=torch.int32)
        with _together():
            distributed.all_reduce(up, distributed.ReduceOp.MAX)
        return [bool(flag) for flag in up.tolist()]

    def add_up(self, tensors: "Sequence[torch.Tensor]") -> None:
        """Replaces each tensor by its sum over the ranks, in fp32; all ranks get the same bits."""
        if self.count == 1:
            return
        bucket: list[torch.Tensor] = []
        size = 0
        for tensor in tensors:
            if bucket and (size + tensor.numel() > BUCKET or tensor.device != bucket[0].device):
                self._add_up_at_once(bucket)
                bucket, size = [], 0
            bucket.append(tensor)
            size += tensor.numel()
        if bucket:
            self._add_up_at_once(bucket)

    def mesh(self, device: "torch.device") -> Any:
        """The ranks as torch's DeviceMesh, for sharded weights on devices of this kind."""
        from torch import distributed
        from torch.distributed.device_mesh import DeviceMesh

        group: Any = self._sums if device.type == "cuda" else distributed.group.WORLD
        return DeviceMesh.from_group(group, device.type)

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Inside, ranks that pass sharded weights to each other raise RankLost where a connection is lost."""
        try:
            yield
        except RuntimeError as error:
            if self.count == 1 or not _is_of_a_connection(error):
                raise
            with _together():
                raise

    def _add_up_at_once(self, tensors: "list[torch.Tensor]") -> None:
        import torch
        from torch import distributed

        flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
        with _together():
            distributed.all_reduce(flat, group=self._sums if flat.is_cuda else None)
        for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(total.view(tensor.shape))


ALONE: Final = Ranks()
"""The only process."""


@contextmanager
def joined(meeting: Meeting | None) -> Iterator[Ranks]:
    """This process's place among the ranks that have met; ALONE without a meeting.

    Values pass through gloo, sums through NCCL where this process has a GPU. Raises RankLost.
    """
    if meeting is None:
        yield ALONE
        return
    import torch
    from torch import distributed

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one machine, whatever its network
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    with _together():
        store = distributed.FileStore(  # type: ignore[attr-defined]
            str(meeting.file), meeting.count
        )
        distributed.init_process_group(
            "gloo", store=store, rank=meeting.rank, world_size=meeting.count, timeout=LONGEST_WAIT
        )
        sums = distributed.new_group(backend="nccl", timeout=LONGEST_WAIT) if torch.cuda.is_available() else None
    yield Ranks(meeting.rank, meeting.count, sums)
    with suppress(RuntimeError):  # the others may be gone by now
        distributed.destroy_process_group()


def _is_of_a_connection(error: RuntimeError) -> bool:
    from torch import distributed

    return isinstance(error, distributed.DistError) or any(sign in str(error) for sign in CONNECTION_SIGNS)


@contextmanager
def _together() -> Iterator[None]:
    # torch raises its DistBackendError, or gloo's RuntimeError, for a connection that has closed or never opened.
    try:
        yield
    except RuntimeError as error:
        from danube_sweep.model.memory_signs import is_memory_error

        if is_memory_error(error):
            raise
        # A SystemExit prints nothing. NCCL's last line has the cause, and torch adds a C++ stack after it.
        said = " ".join(str(error).partition("Exception raised from")[0].split())
        print(f"process {os.getpid()} cannot reach the other ranks: {said[:LONGEST_LINE]}", file=sys.stderr, flush=True)
        raise RankLost from error
