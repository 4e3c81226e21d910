"""The future of several records that were sent together."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

from kafka.errors import KafkaTimeoutError
from kafka.future import Future

from pooledkafka._forking import belongs_to_parent, inherit
from pooledkafka._locks import LockName, new_lock
from pooledkafka._wire import fail_in_child
from pooledkafka.errors import ForkedClientError

__all__ = ["BatchFuture", "not_told"]


def not_told(what: str, made_by: int) -> ForkedClientError:
    """The error in a forked process for what the parent has sent and will hear of."""
    return belongs_to_parent(what, made_by, "that process sends what it stands for, and can wait for it")


class BatchFuture(Future):  # type: ignore[misc]
    """kafka-python's Future of the metadata of several records, in their order; ``get`` waits for it.

    It is done when every record is acknowledged or has failed, and fails with the first error of one.
    """

    __slots__ = ("__weakref__", "_complete", "_counting", "_futures", "_made_by", "_remaining")

    def __init__(self, futures: Sequence[Any]) -> None:
        super().__init__()
        self._futures = futures
        self._made_by = os.getpid()
        self._complete = threading.Event()
        self._counting = new_lock(LockName.BATCH)  # guards _remaining: a record is done on whatever thread completes it
        self._remaining = len(futures) + 1  # one for this constructor, so that no record ends it too early
        for future in futures:
            future.add_both(self._one_is_done)
        self._one_is_done(None)
        inherit(self)

    def _in_child(self) -> None:
        fail_in_child(self, not_told("the future of the records", self._made_by))
        self._counting = new_lock(LockName.BATCH)
        self._complete = threading.Event()
        self._complete.set()

    def _one_is_done(self, _: Any) -> None:
        with self._counting:
            self._remaining -= 1
            last = not self._remaining
        if last:
            error = next((future.exception for future in self._futures if future.failed()), None)
            if error is None:
                self.success([future.value for future in self._futures])
            else:
                self.failure(error)
            self._complete.set()

    def get(self, timeout: float | None = None) -> list[Any]:
        """The records' metadata, when all are acknowledged.

        Args:
            timeout: seconds to wait. Default: as long as it takes.

        Raises:
            KafkaTimeoutError: not all are done in time; they go on.
            ForkedClientError: they were sent by the process from which this one was forked, and were not done then.
            KafkaError: the first error of a record.
        """
        if not self._complete.wait(timeout):
            pending = sum(not future.is_done for future in self._futures)
            raise KafkaTimeoutError(f"{pending} of {len(self._futures)} records were not done within {timeout} s")
        if self.exception is not None:
            raise self.exception
        metadata: list[Any] = self.value
        return metadata
