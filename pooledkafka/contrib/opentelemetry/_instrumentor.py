"""Puts what is traced in place of the clients' methods, and takes it out again."""

from __future__ import annotations

import functools
import inspect
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kafka.structs import TopicPartition
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from pooledkafka.consumer import Consumer
from pooledkafka.contrib.opentelemetry._telemetry import Telemetry
from pooledkafka.pool import ConnectionPool
from pooledkafka.producer import Producer

__all__ = ["PooledKafkaInstrumentor"]


class _InForce:
    """What is instrumented in this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # guards changes of the fields below, which are read without it
        self.of_all: Telemetry | None = None
        self.of_pool: weakref.WeakKeyDictionary[ConnectionPool, Telemetry] = weakref.WeakKeyDictionary()
        self.originals: dict[tuple[type, str], Callable[..., Any]] = {}  # the methods that were replaced


_in_force = _InForce()
# A forked process, which may well instrument itself first thing, finds the lock free.
os.register_at_fork(
    before=_in_force.lock.acquire, after_in_parent=_in_force.lock.release, after_in_child=_in_force.lock.release
)


class PooledKafkaInstrumentor:
    """Traces and measures pooled consumers and producers: ``send``, ``poll``, iteration, and the handlers of ``run``.

    Instances are all alike: what is instrumented is the process. Thread-safe. While ``instrument`` is not in force, the
    clients' methods are their own and cost what they cost. Dead letters and the Django app's producers are covered,
    since they send through the same methods.

    Example:
        >>> PooledKafkaInstrumentor().instrument()
        >>> PooledKafkaInstrumentor().uninstrument()
    """

    def instrument(
        self,
        pool: ConnectionPool | None = None,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        """Begin, for the clients of ``pool``, or of all pools there are and will be. Again: with other providers.

        Args:
            pool: None: all.
            tracer_provider: where spans go. Default: the global one.
            meter_provider: where metrics go. Default: the global one.
        """
        telemetry = Telemetry(tracer_provider, meter_provider)
        with _in_force.lock:
            if pool is None:
                _in_force.of_all = telemetry
            else:
                _in_force.of_pool[pool] = telemetry
            for client, name, traced_by in _TRACED:
                if (client, name) not in _in_force.originals:
                    original = _in_force.originals[client, name] = getattr(client, name)
                    setattr(client, name, functools.wraps(original)(traced_by(original)))

    def uninstrument(self, pool: ConnectionPool | None = None) -> None:
        """Undo ``instrument``, for ``pool`` or for all; does nothing where it is not in force."""
        with _in_force.lock:
            if pool is not None:
                _in_force.of_pool.pop(pool, None)
            else:
                _in_force.of_all = None
                _in_force.of_pool.clear()
            if _in_force.of_all is None and not _in_force.of_pool:
                for (client, name), original in _in_force.originals.items():
                    setattr(client, name, original)
                _in_force.originals.clear()


def _telemetry_of(client: Producer | Consumer) -> Telemetry | None:
    return _in_force.of_pool.get(client._pool, _in_force.of_all)


def _client_id_of(client: Producer | Consumer) -> str:
    return str(client._pool.options["client_id"])


def _traced_send(send: Callable[..., Any]) -> Callable[..., Any]:
    def traced(
        self: Producer, topic: str, value: Any = None, key: Any = None, headers: Any = None, *more: Any, **named: Any
    ) -> Any:
        telemetry = _telemetry_of(self)
        if telemetry is None:
            return send(self, topic, value, key, headers, *more, **named)
        return telemetry.send(
            lambda carrying: send(self, topic, value, key, carrying, *more, **named),
            _client_id_of(self),
            topic,
            headers,
            key,
        )

    return traced


def _traced_send_batch(send_batch: Callable[..., Any]) -> Callable[..., Any]:
    def traced(self: Producer, topic: str, messages: Iterable[Mapping[str, Any]]) -> Any:
        telemetry = _telemetry_of(self)
        if telemetry is None:
            return send_batch(self, topic, messages)
        return telemetry.send_batch(
            lambda carrying: send_batch(self, topic, carrying), _client_id_of(self), topic, messages
        )

    return traced


def _traced_poll(poll: Callable[..., Any]) -> Callable[..., Any]:
    def traced(self: Consumer, *args: Any, **kwargs: Any) -> Any:
        telemetry = _telemetry_of(self)
        began = time.time_ns(), time.monotonic()
        records = poll(self, *args, **kwargs)
        if telemetry is not None and records:  # idle polls would only hide the others
            telemetry.received(records, _client_id_of(self), self._options.get("group_id"), began)
        return records

    return traced


def _traced_next(following: Callable[..., Any]) -> Callable[..., Any]:
    def traced(self: Consumer) -> Any:
        telemetry = _telemetry_of(self)
        began = time.time_ns(), time.monotonic()
        record = following(self)
        if telemetry is not None:
            partition = TopicPartition(record.topic, record.partition)
            telemetry.received({partition: [record]}, _client_id_of(self), self._options.get("group_id"), began)
        return record

    return traced


def _traced_run(run: Callable[..., Any]) -> Callable[..., Any]:
    def traced(self: Consumer, handler: Any, **options: Any) -> Any:
        if not callable(handler) or inspect.iscoroutinefunction(handler):  # which run() refuses
            return run(self, handler, **options)

        @functools.wraps(handler, updated=())
        def handle(records: Any) -> Any:
            telemetry = _telemetry_of(self)
            if telemetry is None:
                return handler(records)
            batch = records if options.get("batches") else [records]
            with telemetry.processing(batch, _client_id_of(self), self._options.get("group_id")):
                return handler(records)

        return run(self, handle, **options)

    return traced


_TRACED: tuple[tuple[type, str, Callable[..., Any]], ...] = (
    (Producer, "send", _traced_send),
    (Producer, "send_batch", _traced_send_batch),
    (Consumer, "poll", _traced_poll),
    (Consumer, "__next__", _traced_next),
    (Consumer, "run", _traced_run),
)
