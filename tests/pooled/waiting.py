"""How the tests wait: for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["TIMEOUT_S", "until"]

_T = TypeVar("_T")
TIMEOUT_S = 15.0
_PAUSE_S = 0.005


def until(ask: Callable[[], _T], met: Callable[[_T], object] = bool, timeout_s: float = TIMEOUT_S) -> _T:
    """Ask again and again until the answer meets a condition, and return it. Fails after a time."""
    deadline = time.monotonic() + timeout_s
    while not met(answer := ask()):
        assert time.monotonic() < deadline, f"not so after {timeout_s:g} s: {answer!r}"
        time.sleep(_PAUSE_S)
    return answer
