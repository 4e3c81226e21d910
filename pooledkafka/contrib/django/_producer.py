"""The producer of an alias, as the application uses it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pooledkafka._logging import get_logger
from pooledkafka.contrib.django._capture import CapturedFuture, capture_of
from pooledkafka.contrib.django._message import Message, encoded
from pooledkafka.contrib.django._on_commit import at_commit

if TYPE_CHECKING:
    from pooledkafka.contrib.django._pools import Alias, Pools
    from pooledkafka.producer import Producer

__all__ = ["AliasProducer"]

_log = get_logger("pooledkafka.contrib.django")


class AliasProducer:
    """The process's producer of one alias. It holds nothing itself: the pool and the producer are made when it is used.

    From any thread, and in forked processes. What is buffered at the end of the process is delivered then, as
    ``exit_timeout_ms`` says.

    Example:
        >>> producer.send("orders", b"value", key=b"k").get(timeout=10)
        >>> producer["analytics"].send("clicks", b"value")
    """

    def __init__(self, pools: Pools, alias: str) -> None:
        self._pools = pools
        self._name = alias

    @property
    def alias(self) -> str:
        """Whose producer it is."""
        return self._name

    def using(self, alias: str) -> AliasProducer:
        """The producer of another alias."""
        return AliasProducer(self._pools, alias)

    __getitem__ = using

    @property
    def _alias(self) -> Alias:
        return self._pools.alias(self._name)

    def producer(self) -> Producer:
        """The ``Producer`` under it, for what is not here: transactions, metrics, partitions.

        Raises:
            ConfigurationError: the backend is ``memory``.
        """
        return self._alias.producer()

    def send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Any:
        """Send a record now, whatever becomes of the database's transaction; returns its future.

        As ``Producer.send``, whose errors it raises. ``send_on_commit`` waits for the transaction.
        """
        alias = self._alias
        captured = capture_of(alias.settings.backend)
        if captured is None:
            return alias.producer().send(topic, value, key, headers, partition, timestamp_ms)
        return captured.add(
            self._encoded(topic, value=value, key=key, headers=headers, partition=partition, timestamp_ms=timestamp_ms)
        )

    def send_batch(self, topic: str, messages: Iterable[Mapping[str, Any]]) -> Any:
        """Send several records now; returns one future of all. As ``Producer.send_batch``."""
        alias = self._alias
        captured = capture_of(alias.settings.backend)
        if captured is None:
            return alias.producer().send_batch(topic, messages)
        future = CapturedFuture()
        made = [self._encoded(topic, **message) for message in messages]
        future.success([captured.add(message).value for message in made])
        return future

    def send_on_commit(
        self,
        topic: str,
        value: Any = None,
        *,
        key: Any = None,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        using: str | None = None,
        robust: bool = True,
    ) -> None:
        """Send a record when the database's transaction commits: never where it is rolled back, at once outside one.

        The record is serialized now, so what cannot be is an error of the caller's. The process may end between the
        commit and the delivery, or the cluster refuse the record; the ``outbox`` is for those that must not be lost. A
        record that is not delivered is logged as an error.

        Args:
            topic: where it goes.
            value: what it says.
            key: as for ``send``, as are the next three.
            headers: names and bytes.
            partition: where the key shall not choose.
            timestamp_ms: milliseconds since 1970. Default: the time of this call.
            using: the alias of the database. Default: Django's default database.
            robust: log what the send raises, and go on with the next callback of the transaction, in place of raising
                it where the transaction has been committed already.

        Raises:
            TypeError: the key or value is not bytes, and no serializer makes it so.
            ConfigurationError: there is no such alias, or its settings cannot work.
        """
        message = self._encoded(
            topic,
            value=value,
            key=key,
            headers=headers,
            partition=partition,
            timestamp_ms=int(time.time() * 1000) if timestamp_ms is None else timestamp_ms,
        )
        at_commit(lambda: self._deliver(message), f"send_on_commit({topic!r})", using, robust)

    def _deliver(self, message: Message) -> None:
        alias = self._alias
        captured = capture_of(alias.settings.backend)
        if captured is not None:
            captured.add(message)
            return
        future = alias.producer(encoded=True).send(message.topic, **message.as_sent())
        future.add_errback(
            lambda error: _log.error(
                "on_commit.not_delivered",
                topic=message.topic,
                alias=message.alias,
                error=repr(error),
            )
        )

    def _encoded(self, topic: str, **what: Any) -> Message:
        return encoded(self._name, self._alias.settings.producer, topic, **what)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until what was sent so far is acknowledged or has failed; returns at once where nothing was.

        Args:
            timeout: seconds. Default: no limit.

        Raises:
            KafkaTimeoutError: some were not acknowledged in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for each in self._alias.producers():
            each.flush(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def __repr__(self) -> str:
        return f"<producer of POOLEDKAFKA[{self._name!r}]>"
