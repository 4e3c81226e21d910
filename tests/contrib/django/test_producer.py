from __future__ import annotations

import logging
from typing import Any

import pytest
from django.db import transaction
from django.test import TestCase

from pooledkafka import ConfigurationError
from pooledkafka.contrib.django import outbox, pools, producer
from pooledkafka.contrib.django.models import OutboxRecord
from pooledkafka.contrib.django.test import Messages, captured_messages, memory_messages


def test_what_is_sent_is_captured(kafka_messages: Messages) -> None:
    metadata = producer.send("orders", b"one", key=b"k", headers=[("h", b"v")]).get(timeout=1)
    producer.send_batch("orders", [{"value": b"two"}, {"value": b"three", "partition": 2}]).get(timeout=1)
    producer.flush()
    assert [message.value for message in kafka_messages] == [b"one", b"two", b"three"]
    assert (kafka_messages[0].key, kafka_messages[0].headers) == (b"k", (("h", b"v"),))
    assert (metadata.topic, metadata.partition, metadata.offset) == ("orders", 0, 0)


def test_each_alias_has_its_serializers(kafka_messages: Messages) -> None:
    producer["analytics"].send("clicks", {"a": 1})
    producer.using("analytics").send("clicks", {"a": 2})
    assert [message.value_bytes for message in kafka_messages] == [b'{"a": 1}', b'{"a": 2}']
    assert {message.alias for message in kafka_messages} == {"analytics"}


def test_what_no_producer_would_take_is_refused(kafka_messages: Messages) -> None:
    with pytest.raises(TypeError, match="the value of a record for 'orders' is dict; expected bytes"):
        producer.send("orders", {"a": 1})
    with pytest.raises(TypeError, match="a header of a record"):
        producer.send_on_commit("orders", b"", headers=[("h", "text")])  # type: ignore[list-item]
    with pytest.raises(ConfigurationError, match="has no alias 'other'"):
        producer["other"].send("orders", b"")
    assert not kafka_messages


def test_the_memory_backend_keeps_what_nobody_captures() -> None:
    memory_messages.clear()
    producer.send("orders", b"one")
    with captured_messages() as messages:
        producer.send("orders", b"two")
    assert [message.value for message in memory_messages] == [b"one"]
    assert [message.value for message in messages] == [b"two"]
    with pytest.raises(ConfigurationError, match="has the backend 'memory'"):
        pools["default"]


@pytest.mark.django_db
class TestWithinATestCase:
    """pytest-django wraps each test in a transaction that is rolled back, as TestCase does."""

    def test_it_counts_as_sent_when_the_code_has_committed(self, kafka_messages: Messages) -> None:
        with transaction.atomic():
            producer.send_on_commit("orders", b"one", key=b"k")
            assert not kafka_messages
        assert [message.value for message in kafka_messages] == [b"one"]
        assert len(kafka_messages) == 1, "once, however often one looks"

    def test_it_is_not_sent_where_it_is_rolled_back(self, kafka_messages: Messages) -> None:
        with transaction.atomic():
            producer.send_on_commit("orders", b"one")
            outbox.add("orders", b"two")
            transaction.set_rollback(True)
        assert not kafka_messages
        assert not OutboxRecord.objects.exists()

    def test_djangos_own_capture_does_not_send_it_twice(self, kafka_messages: Messages) -> None:
        with TestCase.captureOnCommitCallbacks(execute=True) as callbacks:
            producer.send_on_commit("orders", b"one")
        assert len(callbacks) == 1
        assert [message.value for message in kafka_messages] == [b"one"]

    def test_the_outbox_is_written_and_captured(self, kafka_messages: Messages) -> None:
        record = outbox.add("orders", b"one", key=b"k", headers=[("a", b"\xff"), ("b", b"")])
        assert [(message.value, message.source) for message in kafka_messages] == [(b"one", "outbox")]
        record.refresh_from_db()
        sent = record.as_sent()
        assert (sent["value"], sent["key"], sent["partition"]) == (b"one", b"k", None)
        assert sent["headers"] == [("a", b"\xff"), ("b", b"")]
        assert abs(sent["timestamp_ms"] - record.created_at.timestamp() * 1000) < 1


@pytest.mark.django_db(transaction=True)
class TestWithinATransactionTestCase:
    def test_it_is_sent_at_the_commit(self, kafka_messages: Messages) -> None:
        with transaction.atomic():
            producer.send_on_commit("orders", b"one")
            assert not kafka_messages
        assert [message.value for message in kafka_messages] == [b"one"]

    def test_outside_of_a_transaction_it_is_sent_at_once(self, kafka_messages: Messages) -> None:
        producer.send_on_commit("orders", b"one")
        assert len(kafka_messages) == 1

    def test_it_is_not_sent_where_it_is_rolled_back(self, kafka_messages: Messages) -> None:
        with transaction.atomic():
            producer.send_on_commit("orders", b"one")
            transaction.set_rollback(True)
        assert not kafka_messages

    def test_a_cluster_that_is_not_there_does_not_undo_what_is_committed(
        self, settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings.POOLEDKAFKA = {"default": {"bootstrap_servers": "127.0.0.1:1", "bootstrap_timeout_ms": 300}}
        with caplog.at_level(logging.ERROR), transaction.atomic():
            producer.send_on_commit("orders", b"one")
            outbox.add("orders", b"two")
        assert "Error calling send_on_commit('orders') in on_commit()" in caplog.text
        assert OutboxRecord.objects.count() == 1
