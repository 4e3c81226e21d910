from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import transaction
from kafka.errors import TopicAuthorizationFailedError
from kafka.structs import TopicPartition

from pooledkafka.contrib.django import outbox, pools
from pooledkafka.contrib.django._relay import OutboxRelay
from pooledkafka.contrib.django.management.commands import kafka_relay_outbox
from pooledkafka.contrib.django.management.commands.kafka_relay_outbox import Command
from pooledkafka.contrib.django.models import OutboxRecord
from pooledkafka.contrib.django.test import Messages, embedded_cluster
from pooledkafka.testing import Drop, Error

pytestmark = pytest.mark.django_db(transaction=True)


def add(*values: bytes, topic: str = "orders", **options: Any) -> None:
    for value in values:
        outbox.add(topic, value, alias="embedded", **options)


def relay(*arguments: str) -> str:
    err = io.StringIO()
    call_command("kafka_relay_outbox", "--once", *arguments, stderr=err)
    return err.getvalue()


def arrived(topic: str = "orders") -> list[Any]:
    with pools.alias("embedded").consumer() as consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek_to_beginning()
        end = consumer.end_offsets([partition])[partition]
        records: list[Any] = []
        while len(records) < end:
            records += consumer.poll(10_000).get(partition, [])
    return records


@pytest.fixture(autouse=True)
def cluster() -> Any:
    cluster = embedded_cluster("embedded")
    cluster.create_topic("orders")
    cluster.create_topic("other")
    return cluster


def test_what_is_committed_is_sent_once_and_deleted() -> None:
    with transaction.atomic():
        add(b"one", b"two", key=b"k", headers=[("h", b"\xff")])
    with transaction.atomic():
        add(b"rolled back")
        transaction.set_rollback(True)
    written = list(OutboxRecord.objects.values_list("created_at", flat=True))
    assert relay("--batch-size", "1") == "2 sent\n"
    records = arrived()
    assert [(each.value, each.key, each.headers) for each in records] == [
        (b"one", b"k", [("h", b"\xff")]),
        (b"two", b"k", [("h", b"\xff")]),
    ]
    assert [each.timestamp for each in records] == [int(at.timestamp() * 1000) for at in written]
    assert not OutboxRecord.objects.exists()
    assert relay() == "0 sent\n"


def test_what_no_producer_sends_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="'orders' has neither key nor value"):
        outbox.add("orders", alias="embedded")
    with pytest.raises(TypeError, match=r"a header of a record for 'orders' is \('h', None\)"):
        add(b"one", headers=[("h", None)])
    assert not OutboxRecord.objects.exists()
    outbox.add("orders", key=b"deleted", alias="embedded")
    assert relay() == "1 sent\n"


def test_a_lost_answer_makes_no_second_record(cluster: Any) -> None:
    add(b"one")
    with cluster.intercept("Produce", Drop(served=True), times=1):
        assert relay() == "1 sent\n"
    assert [record.value for record in arrived()] == [b"one"]


def test_one_that_cannot_be_sent_holds_up_only_those_after_it_with_its_key() -> None:
    add(b"x" * 2_000_000, key=b"a")
    add(b"behind", key=b"a")
    add(b"beside", key=b"b")
    add(b"no key")
    with pytest.raises(CommandError, match=r"1 records could not be sent and stay .*MessageSizeTooLarge"):
        relay("--batch-size", "2")
    assert [record.value for record in arrived()] == [b"beside", b"no key"]
    assert [bytes(record.value or b"")[:6] for record in OutboxRecord.objects.order_by("pk")] == [b"xxxxxx", b"behind"]


def test_one_that_the_cluster_refuses_stays(cluster: Any) -> None:
    add(b"one", topic="other")
    with cluster.intercept("Produce", Error(TopicAuthorizationFailedError)):
        with pytest.raises(CommandError, match="TopicAuthorizationFailed"):
            relay()
        assert OutboxRecord.objects.count() == 1
    assert relay() == "1 sent\n"
    assert [record.value for record in arrived("other")] == [b"one"]


def test_only_the_aliases_that_are_asked_for() -> None:
    add(b"one")
    assert relay("--alias", "default") == "0 sent\n"
    assert relay("--alias", "embedded") == "1 sent\n"


def test_a_cluster_that_is_not_there_is_tried_once(settings: Any) -> None:
    settings.POOLEDKAFKA = {
        "default": {"BACKEND": "memory"},
        "embedded": {"bootstrap_servers": "127.0.0.1:1", "bootstrap_timeout_ms": 300},
    }
    add(b"one", b"two", b"three")
    with pytest.raises(CommandError, match=r"1 records could not be sent .*127\.0\.0\.1:1"):
        relay()
    assert OutboxRecord.objects.count() == 3


def test_a_topic_or_alias_that_is_not_there_does_not_hold_up_the_others(settings: Any) -> None:
    backend = {"BACKEND": "embedded", "allow_auto_create_topics": False, "producer": {"max_block_ms": 300}}
    settings.POOLEDKAFKA = {"embedded": backend, "gone": {"BACKEND": "memory"}}
    embedded_cluster("embedded").create_topic("orders")
    outbox.add("orders", b"one", alias="gone")
    del settings.POOLEDKAFKA["gone"]
    pools.close_all()
    embedded_cluster("embedded").create_topic("orders")
    add(b"two", b"three", topic="nowhere")
    add(b"four")
    with pytest.raises(CommandError, match=r"2 records could not be sent .*has no alias 'gone'"):
        relay()
    assert [record.value for record in arrived()] == [b"four"]
    assert OutboxRecord.objects.count() == 3


def test_a_topic_that_is_not_there_is_waited_for_once_however_many_records_it_has(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a batch that is full of them, nor another look, makes the others wait again."""
    backend = {"BACKEND": "embedded", "allow_auto_create_topics": False, "producer": {"max_block_ms": 1_000}}
    settings.POOLEDKAFKA = {"default": {"BACKEND": "memory"}, "embedded": backend}
    embedded_cluster("embedded").create_topic("orders")
    add(*[b"lost"] * 7, topic="nowhere")
    add(b"lost", topic="nowhere", key=b"k")
    add(b"one", key=b"k")
    tried: list[str] = []
    send = OutboxRelay._send

    def counting(self: OutboxRelay, record: OutboxRecord) -> Any:
        tried.append(record.topic)
        return send(self, record)

    looks, now = 0, 0.0

    def pause(self: Command, seconds: float) -> bool:
        nonlocal looks, now
        looks += 1
        if looks == 3:
            embedded_cluster("embedded").create_topic("nowhere")
            now = 60.0
        elif looks == 4:
            self._signals += 1
        else:
            add(b"new")
        return self.stopped

    monkeypatch.setattr(OutboxRelay, "_send", counting)
    monkeypatch.setattr(kafka_relay_outbox, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(Command, "pause", pause)
    call_command(Command(stderr=io.StringIO()), "--interval", "10", "--batch-size", "2")
    assert tried == ["nowhere", "orders", "orders", "orders", *["nowhere"] * 8]
    assert not OutboxRecord.objects.exists()


def test_what_was_captured_when_it_was_added_is_not_captured_again(kafka_messages: Messages) -> None:
    add(b"one")
    assert relay() == "1 sent\n"
    assert [message.value for message in kafka_messages] == [b"one"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--batch-size", "0"], "--batch-size must be 1 or more"),
        (["--database", "other"], "settings.DATABASES has no 'other'; it has default"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], text: str) -> None:
    with pytest.raises(CommandError, match=text):
        relay(*arguments)


def test_the_loop_goes_on_while_one_record_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is parked for a growing time, and what comes meanwhile is sent."""
    add(b"x" * 2_000_000, key=b"a")
    command = Command(stderr=io.StringIO())
    rounds: list[int] = []

    def pause(self: Command, seconds: float) -> bool:
        rounds.append(OutboxRecord.objects.count())
        if len(rounds) == 4:
            self._signals += 1
        else:
            add(b"new")
        return self.stopped

    monkeypatch.setattr(Command, "pause", pause)
    call_command(command, "--interval", "10")
    assert rounds == [1, 1, 1, 1], "each new one is sent at the next look"
    assert [record.value for record in arrived()] == [b"new"] * 3
