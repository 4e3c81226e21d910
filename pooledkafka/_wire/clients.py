"""Builds kafka-python's own clients over a pool's engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaTimeoutError

from pooledkafka._wire.consumer_facade import ConsumerFacade
from pooledkafka._wire.engine import Engine
from pooledkafka._wire.producer_facade import ProducerFacade

__all__ = ["WiredConsumer", "WiredProducer"]

_FORCED_CLOSE_S = 1.0
"""How long a Sender thread that was told to give up may take; it has nothing left to wait for."""


class WiredConsumer:
    """A ``KafkaConsumer`` on the pool's connections; ``kafka`` is for one thread at a time, as stock."""

    def __init__(self, engine: Engine, options: Mapping[str, Any]) -> None:
        self._facade: ConsumerFacade | None = None

        def facade(**config: Any) -> ConsumerFacade:
            engine.allow_frames_of(config["receive_message_max_bytes"])
            self._facade = ConsumerFacade(engine, config["request_timeout_ms"])
            return self._facade

        try:
            self.kafka = KafkaConsumer(**{**options, "kafka_client": facade})
        except BaseException:
            # Options that kafka-python refuses are noticed after it has made its client.
            if self._facade is not None:
                self._facade.close()
            raise
        assert self._facade is not None
        self._facade.bind(self.kafka._coordinator)

    def polling(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a call that may wait for records; raises ``Interrupted`` when ``interrupt`` ended the wait."""
        net = self._facade._net  # type: ignore[union-attr]
        net.polling = True
        try:
            return call(*args, **kwargs)
        finally:
            net.polling = False

    def interrupt(self) -> None:
        """Make the poll that waits now, or the next, raise ``Interrupted``; from any thread."""
        self._facade.interrupt()  # type: ignore[union-attr]

    def close(self, *, autocommit: bool, timeout_ms: float) -> None:
        """Commit where asked, leave the group and detach, within ``timeout_ms``; not while another thread polls."""
        try:
            self.kafka.close(autocommit=autocommit, timeout_ms=timeout_ms)
        finally:
            self._facade.close()  # type: ignore[union-attr]


class WiredProducer:
    """A ``KafkaProducer`` on the pool's connections; thread-safe as stock."""

    def __init__(self, engine: Engine, options: Mapping[str, Any]) -> None:
        self._facade: ProducerFacade | None = None

        def facade(**config: Any) -> ProducerFacade:
            self._facade = ProducerFacade(
                engine,
                request_timeout_ms=config["request_timeout_ms"],
                max_in_flight=config["max_in_flight_requests_per_connection"],
            )
            return self._facade

        try:
            self.kafka = KafkaProducer(**{**options, "kafka_client": facade})
        except BaseException:
            if self._facade is not None:
                self._facade.close()
            raise

    def flush(self, timeout_ms: float | None = None) -> None:
        """Send what is buffered now and wait until each record is acknowledged or has failed.

        kafka-python applies its timeout to each batch anew; here it bounds the whole. Raises KafkaTimeoutError.
        """
        deadline = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
        accumulator = self.kafka._accumulator
        accumulator.begin_flush()
        try:
            self.kafka._sender.wakeup()
            for batch in accumulator._incomplete.all():
                remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not batch.produce_future.wait(timeout=remaining):
                    raise KafkaTimeoutError(
                        f"{self._undelivered()} records were not acknowledged within {timeout_ms:.0f} ms"
                    )
        finally:
            accumulator._flushes_in_progress.decrement()

    def _undelivered(self) -> int:
        return sum(batch.record_count for batch in self.kafka._accumulator._incomplete.all())

    def close(self, timeout_ms: float) -> int:
        """Send what is buffered, end the Sender thread and detach; returns how many records were not delivered."""
        deadline = time.monotonic() + timeout_ms / 1000
        sender: threading.Thread = self.kafka._sender
        undelivered = 0
        if threading.current_thread() is not sender:
            try:
                self.flush(timeout_ms)
            except KafkaTimeoutError:
                undelivered = self._undelivered()
                self.kafka._sender.force_close()  # fails what is left, so that the flush within close() finds nothing
                sender.join(_FORCED_CLOSE_S)
        self.kafka.close(timeout=max(_FORCED_CLOSE_S, deadline - time.monotonic()))
        return undelivered
