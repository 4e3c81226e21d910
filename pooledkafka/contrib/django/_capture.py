"""Messages that are kept in place of being sent: the backend ``memory``, and tests that watch."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, overload

from kafka.future import Future
from kafka.producer.future import RecordMetadata
from kafka.structs import TopicPartition

from pooledkafka.contrib.django._message import Message
from pooledkafka.contrib.django._on_commit import AtCommit, pending, settle

__all__ = ["CapturedFuture", "Messages", "capture_of", "capturing", "in_memory"]

_MOST = 10_000


class Messages(Sequence[Message]):
    """Messages that were captured, in their order; the last 10,000.

    Looking at them first does what waits for a transaction that a ``TestCase`` never commits; look on the thread that
    runs the test. Any thread may add.
    """

    def __init__(self, earlier: Collection[AtCommit] = ()) -> None:
        self._earlier = earlier  # what waited for a commit before, in setUpTestData, say
        self._kept: deque[Message] = deque(maxlen=_MOST)  # added to by any thread
        self._added = 0  # the offset of the next; two threads may get the same, which harms nobody

    def add(self, message: Message) -> CapturedFuture:
        """Keep ``message``; returns what ``send`` would."""
        self._kept.append(message)
        offset, self._added = self._added, self._added + 1
        return CapturedFuture.of(message, offset)

    def clear(self) -> None:
        """Forget them."""
        settle(but=self._earlier)
        self._kept.clear()

    def to(self, topic: str) -> list[Message]:
        """Those for ``topic``."""
        return [message for message in self if message.topic == topic]

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> list[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | list[Message]:
        settle(but=self._earlier)
        return list(self._kept)[index]

    def __len__(self) -> int:
        settle(but=self._earlier)
        return len(self._kept)

    def __iter__(self) -> Iterator[Message]:
        settle(but=self._earlier)
        return iter(list(self._kept))

    def __repr__(self) -> str:
        return f"<Messages {list(self._kept)!r}>"


class CapturedFuture(Future):  # type: ignore[misc]
    """The future of what was captured, which is done."""

    def get(self, timeout: float | None = None) -> Any:
        """The metadata: partition 0 where none was chosen, and an offset that counts up."""
        return self.value

    @classmethod
    def of(cls, message: Message, offset: int) -> CapturedFuture:
        """The future of one record."""
        partition = message.partition or 0
        key, value = (-1 if data is None else len(data) for data in (message.key_bytes, message.value_bytes))
        at = TopicPartition(message.topic, partition)
        future = cls()
        future.success(
            RecordMetadata(message.topic, partition, at, offset, message.timestamp_ms or -1, None, key, value, -1)
        )
        return future


in_memory = Messages()
"""What went to aliases whose backend is ``memory``, where nothing else captured it."""

_captures: list[Messages] = []  # those under way, the innermost last; of the threads of tests, by append and remove


@contextmanager
def capturing() -> Iterator[Messages]:
    """Capture what is sent in this process, to whatever alias and by whatever thread, until the end of the block."""
    messages = Messages(pending())
    _captures.append(messages)
    try:
        yield messages
        settle(but=messages._earlier)  # what was committed in the block is in it
    finally:
        _captures.remove(messages)


def capture_of(backend: str) -> Messages | None:
    """Where a message for an alias of ``backend`` is kept; None: it is to be sent."""
    if _captures:
        return _captures[-1]
    return in_memory if backend == "memory" else None
