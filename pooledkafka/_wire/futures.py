"""kafka-python's futures: of what could not even be begun, of what is not done yet, and of records in a fork."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from kafka.future import Future

__all__ = ["attempt", "fail_in_child", "keep"]


def attempt(start: Callable[[], Future]) -> Future:
    """What ``start`` returns; a failed future where it raises, as kafka-python's transport does while it closes."""
    try:
        return start()
    except Exception as error:
        return Future().failure(error)


def fail_in_child(future: Any, error: Exception) -> None:
    """Fail ``future``, which only the parent will complete, without telling anybody.

    What its callbacks would do, such as sending the record again, is the parent's to do. Its locks may be held by a
    thread that is not here.
    """
    future._lock = threading.Lock()
    if not future.is_done:
        future._callbacks = future._errbacks = None
        future.exception = error
        future.is_done = True
    batch: Future | None = getattr(future, "_produce_future", None)
    if batch is not None:  # whose latch ``get`` waits for
        batch._latch = threading.Event()
        batch._latch.set()


def keep(unfinished: set[Any], future: Any) -> None:
    """Have ``future`` in ``unfinished`` until it is done."""
    unfinished.add(future)
    future.add_both(lambda _: unfinished.discard(future))
