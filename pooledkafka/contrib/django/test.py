"""Tests of what a project sends and handles, without a broker.

For ``manage.py test``::

    class OrderTests(KafkaTestMixin, TestCase):
        def test_an_order_is_told(self):
            self.client.post("/orders/", {"item": "tea"})
            self.assertProduced("orders", key=b"1", count=1)

For pytest there is the fixture ``kafka_messages``, which comes with pooledkafka::

    def test_an_order_is_told(client, db, kafka_messages):
        client.post("/orders/", {"item": "tea"})
        assert [message.key for message in kafka_messages.to("orders")] == [b"1"]

Both capture what ``producer.send``, ``send_batch`` and ``send_on_commit`` send in this process, and what ``outbox.add``
writes, whatever backend the settings have. Where a ``TestCase`` wraps the test in a transaction, which never commits,
what waits for the commit counts as sent as soon as the code under test is outside of its own ``atomic()`` blocks.
"""

from __future__ import annotations

import time
import unittest
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from kafka.consumer.fetcher import ConsumerRecord

from pooledkafka.contrib.django import pools
from pooledkafka.contrib.django._capture import Messages, capturing, in_memory
from pooledkafka.contrib.django._message import Message

if TYPE_CHECKING:
    from pooledkafka.testing import EmbeddedKafka

__all__ = [
    "KafkaTestMixin",
    "Message",
    "Messages",
    "captured_messages",
    "embedded_cluster",
    "memory_messages",
    "record_of",
]

memory_messages = in_memory
"""What was sent to aliases with the backend ``memory`` while nothing captured it: the last 10,000 messages."""

_ANY = object()


def captured_messages() -> AbstractContextManager[Messages]:
    """Capture what is sent until the end of the block, in this process and to any alias; nothing reaches a broker.

    Example:
        >>> with captured_messages() as messages:
        ...     place_order()
        >>> assert [message.value for message in messages] == [b"..."]
    """
    return capturing()


def embedded_cluster(alias: str = "default") -> EmbeddedKafka:
    """The ``EmbeddedKafka`` of an alias with the backend ``embedded``, which starts now if it has not.

    It makes topics, and stages faults. ``pools.close_all()`` ends it, with its records.

    Raises:
        ConfigurationError: the alias has another backend.
    """
    cluster: EmbeddedKafka = pools.alias(alias).cluster
    return cluster


def record_of(
    topic: str,
    value: Any = None,
    *,
    key: Any = None,
    headers: list[tuple[str, bytes]] | None = None,
    partition: int = 0,
    offset: int = 0,
    timestamp_ms: int | None = None,
) -> Any:
    """A ``ConsumerRecord`` as a handler gets it, to call one in a test: ``bill(record_of("orders", b"..."))``."""
    return ConsumerRecord(
        topic=topic,
        partition=partition,
        leader_epoch=-1,
        offset=offset,
        timestamp=int(time.time() * 1000) if timestamp_ms is None else timestamp_ms,
        timestamp_type=0,
        key=key,
        value=value,
        headers=headers or [],
        checksum=None,
        serialized_key_size=-1,
        serialized_value_size=-1,
        serialized_header_size=-1,
    )


class KafkaTestMixin(unittest.TestCase):
    """For a ``TestCase`` or ``TransactionTestCase``: captures what each test sends, in ``self.kafka_messages``."""

    kafka_messages: Messages

    def setUp(self) -> None:
        """Begin to capture."""
        super().setUp()
        capture = capturing()
        self.kafka_messages = capture.__enter__()
        self.addCleanup(capture.__exit__, None, None, None)

    def assertProduced(  # noqa: N802 - as unittest names them
        self, topic: str, *, value: Any = _ANY, key: Any = _ANY, alias: Any = _ANY, count: int | None = None
    ) -> list[Message]:
        """Fail unless something was sent to ``topic``; returns what was.

        Args:
            topic: where.
            value: only what has this value, as it was given or as it is written.
            key: likewise.
            alias: only what went to this alias.
            count: how many there must be. Default: at least one.
        """
        found = [
            message
            for message in self.kafka_messages.to(topic)
            if (value is _ANY or value in (message.value, message.value_bytes))
            and (key is _ANY or key in (message.key, message.key_bytes))
            and (alias is _ANY or alias == message.alias)
        ]
        if (len(found) != count) if count is not None else not found:
            wanted = "at least one" if count is None else str(count)
            sent = "\n".join(f"  {message!r}" for message in self.kafka_messages) or "  nothing"
            self.fail(f"{len(found)} such messages were sent to {topic!r}, expected {wanted}. What was sent:\n{sent}")
        return found

    def assertNothingProduced(self, topic: str | None = None) -> None:  # noqa: N802
        """Fail if something was sent, to ``topic`` or at all."""
        sent = list(self.kafka_messages) if topic is None else self.kafka_messages.to(topic)
        if sent:
            self.fail(f"{len(sent)} messages were sent, expected none: {sent!r}")
