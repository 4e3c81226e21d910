"""The KafkaProducers of a pool: one for each distinct setting, shared by all handles that have it."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafka.serializer import Serializer
from kafka.serializer.wrapper import SerializeWrapper

from pooledkafka._locks import LockName, new_lock
from pooledkafka._wire.engine import Engine
from pooledkafka._wire.wired_producer import WiredProducer, with_grace
from pooledkafka.errors import ConfigurationError, PoolClosedError

__all__ = ["Senders", "as_serializer"]

_DISCONNECTED = "the connection pool was disconnected; call connect() to use its clients again"
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
        self._retired: list[WiredProducer] = []  # replaced by others; their callbacks may still run
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
                raise PoolClosedError(_DISCONNECTED)
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
            before = self._exclusive.get(transactional_id)
            if before is not None and not before.dropped:
                raise ConfigurationError(
                    f"transactional_id={transactional_id!r} belongs to another producer of this connection pool, and "
                    "the broker would fence one of the two. Close that producer first, or use an id of its own."
                )
            made = self._exclusive[transactional_id] = WiredProducer(self._engine, options)
            made.counted = True
            if before is not None:
                # It is released in the background, and fenced by init_transactions() of the new one before that.
                self._retire(before)
            return made

    def renew(self, useless: WiredProducer, options: Mapping[str, Any]) -> WiredProducer:
        """What a handle gets in place of one that is ``useless``; all its handles get the same. Does not wait."""
        key = _key(options)
        with self._lock:
            if self._closed:
                raise PoolClosedError(_DISCONNECTED)
            known = self._shared.get(key)
            if known is None or known.useless:
                known = self._shared[key] = WiredProducer(self._engine, options)
                known.key, known.counted = key, useless.counted
                self._retire(useless)
        # Its records have failed already, and serializers that it shares with the new one stay open. This may be its
        # own thread, in a callback of one of them.
        useless.give_up()
        return known

    def release(self, wired: WiredProducer, timeout_ms: float) -> Counter[str]:
        """A handle is done; returns how many records were not delivered, where a KafkaProducer ends with it.

        That of a ``transactional_id`` does. Any other stays for the next handle, until the pool ends; but of those with
        an object in their options, such as a partitioner, only the last few: the next handle may have another object.
        """
        with self._lock:
            done = self._done_with(wired)
        return done.close(timeout_ms) if done is not None else Counter()

    def _retire(self, wired: WiredProducer) -> None:
        self._retired = [each for each in (*self._retired, wired) if each.alive]

    def _done_with(self, wired: WiredProducer) -> WiredProducer | None:
        if wired in self._retired:
            self._retired.remove(wired)
            return wired
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
            return _deliver(everybody, time.monotonic() + timeout_ms / 1000)

        return wait

    def give_up(self) -> Counter[str]:
        """End all without waiting; returns how many records were not delivered, by topic."""
        with self._lock:
            return sum((wired.give_up() for wired in self._all()), Counter())

    def _all(self) -> list[WiredProducer]:
        return [*self._shared.values(), *self._exclusive.values(), *self._retired, *self._ending]

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
            self._retired.clear()
        for wired in everybody:
            wired.begin_flush()  # all of them, before the first one is waited for
        undelivered = _deliver(everybody, deadline)
        deadline = with_grace(deadline)  # one for all
        return sum((wired.end(deadline) for wired in everybody), undelivered)


def _deliver(senders: Sequence[WiredProducer], deadline: float) -> Counter[str]:
    return sum((wired.deliver(max(0.0, deadline - time.monotonic()) * 1000) for wired in senders), Counter())


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
