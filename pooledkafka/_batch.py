"""The future of several records that were sent together."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, overload

from kafka.errors import KafkaTimeoutError
from kafka.future import Future

from pooledkafka._forking import belongs_to_parent, inherit
from pooledkafka._locks import LockName, new_lock
from pooledkafka._wire import fail_in_child
from pooledkafka.errors import ForkedClientError

__all__ = ["BatchFuture", "Part", "not_told"]


def not_told(what: str, made_by: int) -> ForkedClientError:
    """The error in a forked process for what the parent has sent and will hear of."""
    return belongs_to_parent(what, made_by, "that process sends what it stands for, and can wait for it")


class Part(Protocol):
    """Some of the records, which are done together."""

    positions: Sequence[int]
    """Where they were in the batch."""
    is_done: bool
    exception: BaseException | None

    def add_both(self, callback: Any) -> Any:
        """Call ``callback`` when they are done."""

    def outcomes(self) -> Iterable[Any]:
        """For each its metadata, or the error with which it failed, when this is done."""


class _Metadata(Sequence[Any]):
    """The records' metadata, made when somebody looks: most who send many records never do."""

    def __init__(self, count: int, parts: Sequence[Part]) -> None:
        self._count = count
        self._parts = parts
        self._made: list[Any] | None = None

    def _all(self) -> list[Any]:
        if self._made is None:
            made = [None] * self._count
            for part in self._parts:
                for position, outcome in zip(part.positions, part.outcomes(), strict=True):
                    made[position] = outcome
            self._made = made
        return self._made

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self._all()[index]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return iter(self._all())

    def __eq__(self, other: object) -> bool:
        return self._all() == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._all())


class BatchFuture(Future):  # type: ignore[misc]
    """kafka-python's Future of the metadata of several records, in their order; ``get`` waits for it.

    It is done when every record is acknowledged or has failed, and fails with the first error of one.
    """

    __slots__ = ("__weakref__", "_complete", "_count", "_counting", "_made_by", "_parts", "_remaining", "_unsent")

    def __init__(self, count: int, parts: Sequence[Part], unsent: Exception | None = None) -> None:
        super().__init__()
        self._count = count
        self._parts = parts
        self._made_by = os.getpid()
        self._unsent = unsent  # why one could not be sent, and none after it was
        self._complete = threading.Event()
        self._counting = new_lock(LockName.BATCH)  # guards _remaining; a part is done on any thread
        self._remaining = len(parts) + 1  # one for this constructor, so that no part ends it too early
        for part in parts:
            part.add_both(self._one_is_done)
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
            metadata = _Metadata(self._count, self._parts)
            if any(part.exception is not None for part in self._parts):
                self.failure(next(outcome for outcome in metadata if isinstance(outcome, Exception)))
            elif self._unsent is not None:
                self.failure(self._unsent)
            else:
                self.success(metadata)
            self._complete.set()

    @property
    def pending(self) -> int:
        """How many of the records are neither acknowledged nor failed."""
        return sum(len(part.positions) for part in self._parts if not part.is_done)

    def get(self, timeout: float | None = None) -> Sequence[Any]:
        """The records' metadata in their order, when all are acknowledged; made when it is first looked at.

        Args:
            timeout: seconds to wait. Default: as long as it takes.

        Raises:
            KafkaTimeoutError: not all are done in time; they go on.
            ForkedClientError: they were sent by the process from which this one was forked, and were not done then.
            KafkaError: the first error of a record.
        """
        if not self._complete.wait(timeout):
            raise KafkaTimeoutError(f"{self.pending} of {self._count} records were not done within {timeout} s")
        if self.exception is not None:
            raise self.exception
        metadata: Sequence[Any] = self.value
        return metadata
