"""The KafkaProducers of a pool: one for each distinct setting, shared by all handles that have it."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from kafka.serializer import Serializer
from kafka.serializer.wrapper import SerializeWrapper

from pooledkafka._locks import LockName, new_lock
from pooledkafka._wire.engine import Engine
from pooledkafka._wire.wired_producer import WiredProducer
from pooledkafka.errors import ConfigurationError, PoolClosedError

__all__ = ["Senders", "as_serializer"]

_ENDED_MS = 1_000

_IDLE = 8  # KafkaProducers without a handle, of those that may never have one again


def as_serializer(given: Any) -> Any:
    """A serializer as kafka-python's producer takes it: an object, a function, or None."""
    return given if given is None or isinstance(given, Serializer) else SerializeWrapper(given)


class Senders:
    """Hands out KafkaProducers by their options. From any thread.

    Each has a Sender thread and an accumulator of its own, so handles that share one send their records in common
    batches. One with a ``transactional_id`` has one handle alone: a transaction belongs to whoever began it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Guards the fields below; held while a KafkaProducer is made, which does no I/O.
        self._lock = new_lock(LockName.SENDERS)
        self._closed = False  # what a handle made after that would never be ended
        self._ending: tuple[WiredProducer, ...] = ()  # set once, by close(); read by any thread
        self._shared: dict[tuple[Any, ...], WiredProducer] = {}
        self._exclusive: dict[str, WiredProducer] = {}
        # Of the shared ones with an object in their options: how many handles each has, and those that have none.
        self._handles: Counter[tuple[Any, ...]] = Counter()
        self._idle: OrderedDict[tuple[Any, ...], None] = OrderedDict()

    def acquire(self, options: Mapping[str, Any]) -> WiredProducer:
        """The KafkaProducer for a handle with ``options``.

        Raises ConfigurationError if another handle in the pool has the same ``transactional_id``, and PoolClosedError
        once ``close`` was called.
        """
        transactional_id = options.get("transactional_id")
        with self._lock:
            if self._closed:
                raise PoolClosedError("the connection pool was disconnected; call connect() to use its clients again")
            if transactional_id is None:
                key = _key(options)
                if key not in self._shared:
                    self._shared[key] = WiredProducer(self._engine, options)
                    self._shared[key].key = key
                if not all(map(_is_plain, options.values())):
                    self._handles[key] += 1
                    self._idle.pop(key, None)
                    self._shared[key].counted = True
                return self._shared[key]
            if transactional_id in self._exclusive:
                raise ConfigurationError(
                    f"transactional_id={transactional_id!r} belongs to another producer of this connection pool, and "
                    "the broker would fence one of the two. Close that producer first, or use an id of its own."
                )
            self._exclusive[transactional_id] = WiredProducer(self._engine, options)
            self._exclusive[transactional_id].counted = True
            return self._exclusive[transactional_id]

    def renew(self, ended: WiredProducer, options: Mapping[str, Any]) -> WiredProducer:
        """What a handle gets in place of one that has ``ended``; all its handles get the same."""
        key = _key(options)
        with self._lock:
            known = self._shared.get(key)
            if known is not None and known is not ended:
                return known
            self._shared[key] = renewed = WiredProducer(self._engine, options)
            renewed.key, renewed.counted = key, ended.counted
        ended.close(_ENDED_MS)  # its records have failed already
        return renewed

    def release(self, wired: WiredProducer, timeout_ms: float) -> Counter[str]:
        """A handle is done; returns how many records were not delivered, where a KafkaProducer ends with it.

        That of a ``transactional_id`` does. Any other stays for the next handle, until the pool ends; but of those with
        an object in their options, such as a partitioner, only the last few: the next handle may have another object.
        """
        with self._lock:
            done = self._done_with(wired)
        return done.close(timeout_ms) if done is not None else Counter()

    def _done_with(self, wired: WiredProducer) -> WiredProducer | None:
        for transactional_id, other in self._exclusive.items():
            if other is wired:
                return self._exclusive.pop(transactional_id)
        if wired.key in self._handles:
            self._handles[wired.key] -= 1
            if not self._handles[wired.key]:
                del self._handles[wired.key]
                self._idle[wired.key] = None
        # One that still has records to deliver is kept, since that is what its handle was told when it closed.
        done = [key for key in self._idle if not self._shared[key].undelivered()] if len(self._idle) > _IDLE else []
        if not done:
            return None
        del self._idle[done[0]]
        return self._shared.pop(done[0])

    @property
    def on_sender_thread(self) -> bool:
        """Whether this is the thread of one of them, as it is in the callbacks of records."""
        with self._lock:
            return any(wired.on_sender_thread for wired in self._all())

    def begin_flush(self) -> Callable[[float], Counter[str]]:
        """Begin to deliver what is buffered; what is returned waits for it for some milliseconds, as ``close`` does.

        They are not ended: daemon threads may go on to use them.
        """
        with self._lock:
            everybody = self._all()
        for wired in everybody:
            wired.begin_flush()

        def wait(timeout_ms: float) -> Counter[str]:
            deadline = time.monotonic() + timeout_ms / 1000
            waits = [wired.deliver(max(0.0, deadline - time.monotonic()) * 1000) for wired in everybody]
            return sum(waits, Counter())

        return wait

    def give_up(self) -> Counter[str]:
        """End all without waiting; returns how many records were not delivered, by topic."""
        with self._lock:
            return sum((wired.give_up() for wired in self._all()), Counter())

    def _all(self) -> list[WiredProducer]:
        return [*self._shared.values(), *self._exclusive.values(), *self._ending]

    def close(self, timeout_ms: float) -> Counter[str]:
        """Deliver what is buffered and end all; returns how many records were not delivered, by topic."""
        deadline = time.monotonic() + timeout_ms / 1000
        with self._lock:
            self._closed = True
            everybody = self._all()
            self._ending = tuple(everybody)
            self._shared.clear()
            self._exclusive.clear()
            self._handles.clear()
            self._idle.clear()
        waits = [wired.close(max(0.0, deadline - time.monotonic()) * 1000) for wired in everybody]
        return sum(waits, Counter())


def _is_plain(value: Any) -> bool:
    """Whether equal values can be told by how they look."""
    return isinstance(value, (str, bytes, int, float, bool, tuple, list, type(None)))


def _key(options: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(sorted((name, _identity(name, value)) for name, value in options.items()))


def _identity(name: str, value: Any) -> str:
    """Equal for values that mean the same to a producer."""
    if name == "acks" and value == "all":
        value = -1
    return repr(value) if _is_plain(value) else f"{type(value).__qualname__} at {id(value)}"
