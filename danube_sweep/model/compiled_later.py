"""Imports of libraries that ask for torch's compiler as they are imported, which takes seconds, and rarely use it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

import torch


@contextmanager
def compiled_later() -> Iterator[None]:
    """In the block, torch.compile gives functions that are compiled when they are first called."""
    before = torch.compile
    torch.compile = _later  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = before


def _later(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    if function is None:
        return partial(_later, **options)
    made: list[Callable[..., Any]] = []

    @wraps(function)
    def compiled(*given: Any, **named: Any) -> Any:
        if not made:
            made.append(torch.compile(function, **options))
        return made[0](*given, **named)

    return compiled
