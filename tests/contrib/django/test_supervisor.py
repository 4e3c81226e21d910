from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError, connections
from kafka.structs import TopicPartition

from pooledkafka import ConfigurationError
from pooledkafka.contrib.django import pools, producer
from pooledkafka.contrib.django._handlers import Handler
from pooledkafka.contrib.django._supervisor import HandlerFailed, Supervisor
from pooledkafka.contrib.django.test import embedded_cluster


@pytest.fixture(autouse=True)
def orders() -> Iterator[None]:
    embedded_cluster("embedded").create_topic("orders")
    producer["embedded"].send_batch("orders", [{"value": b"%d" % n} for n in range(5)]).get(timeout=10)
    yield
    pools.close_all()


def handler(function: Any, name: str = "bill", **options: Any) -> Handler:
    consumer_options = {"auto_offset_reset": "earliest", **options}
    return Handler(name, function, ("orders",), name, alias="embedded", consumer_options=consumer_options)


def committed(group: str) -> Any:
    with pools.alias("embedded").consumer(group_id=group) as consumer:
        return consumer.committed(TopicPartition("orders", 0))


def test_the_first_that_fails_stops_the_others_after_their_records() -> None:
    in_hand, told = threading.Event(), threading.Event()
    handled: list[int] = []

    def slow(record: Any) -> None:
        in_hand.set()
        assert told.wait(30)
        handled.append(record.offset)

    def fail(record: Any) -> None:
        assert in_hand.wait(30)
        raise LookupError("no such customer")

    class Telling(Supervisor):
        def stop(self) -> None:
            super().stop()
            told.set()

    supervisor = Telling([handler(slow, "slow"), handler(fail, "fail")], pools, {})
    with pytest.raises(HandlerFailed, match=r"handler 'fail' .* failed at orders\[0\]@0: LookupError") as error:
        supervisor.run()
    assert isinstance(error.value.__cause__, LookupError)
    assert handled == [0]
    assert committed("slow") == 1
    assert committed("fail") in (None, 0)
    assert pools["embedded"].stats().consumers == 0


def test_stopping_lets_the_record_in_hand_be_finished() -> None:
    handled: list[int] = []

    def stop(record: Any) -> None:
        handled.append(record.offset)
        if record.offset == 2:
            supervisor.stop()

    supervisor = Supervisor([handler(stop)], pools, {})
    supervisor.run()
    assert handled == [0, 1, 2]
    assert committed("bill") == 3


def test_one_that_is_stopped_before_it_runs_handles_nothing() -> None:
    supervisor = Supervisor([handler(pytest.fail)], pools, {})
    supervisor.stop()
    supervisor.run()


def test_the_connections_of_its_thread_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed_by: list[str] = []
    monkeypatch.setattr(connections, "close_all", lambda: closed_by.append(threading.current_thread().name))

    def stop(_: Any) -> None:
        supervisor.stop()

    supervisor = Supervisor([handler(stop)], pools, {})
    supervisor.run()
    assert closed_by == ["kafka-handler-bill"]


def test_connections_that_cannot_be_closed_do_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise OperationalError("already broken")

    monkeypatch.setattr(connections, "close_all", fail)
    Supervisor([handler(print)], pools, {"until_end": True}).run()
    assert "handler.connections_not_closed" in caplog.text


def test_what_cannot_be_handled_goes_to_the_dead_letter_topic_and_the_rest_goes_on() -> None:
    tried: list[int] = []

    def fail_at_two(record: Any) -> None:
        tried.append(record.offset)
        if record.offset == 2:
            raise LookupError("no such customer")

    embedded_cluster("embedded").create_topic("failed")
    options = {"retries": 1, "backoff_ms": 1, "dead_letter_topic": "failed"}
    Supervisor([dataclasses.replace(handler(fail_at_two), run_options=options)], pools, {"until_end": True}).run()
    assert tried == [0, 1, 2, 2, 3, 4]
    with pools.alias("embedded").consumer() as consumer:
        consumer.assign([TopicPartition("failed", 0)])
        consumer.seek_to_beginning()
        records = next(iter(consumer.poll(10_000).values()))
    assert [record.value for record in records] == [b"2"]
    assert committed("bill") == 5


@pytest.mark.django_db(transaction=True)
def test_an_exact_handler_that_fails_leaves_nothing_but_the_dead_letter() -> None:
    """The note of the offset is rolled back with the handler, and goes on with the next record."""
    handled: list[int] = []

    def fail_at_two(record: Any) -> None:
        if record.offset == 2:
            raise LookupError("no such customer")
        handled.append(record.offset)

    embedded_cluster("embedded").create_topic("failed")
    exact = dataclasses.replace(
        handler(fail_at_two), exactly_once_in="default", run_options={"dead_letter_topic": "failed"}
    )
    Supervisor([exact], pools, {"until_end": True}).run()
    assert handled == [0, 1, 3, 4]


@pytest.mark.parametrize("kind", [OperationalError, InterfaceError])
def test_a_database_that_is_away_makes_no_dead_letters(kind: type[Exception]) -> None:
    tried: list[int] = []

    def fail_at_two(record: Any) -> None:
        tried.append(record.offset)
        if record.offset == 2:
            raise LookupError("for another reason") if tried.count(2) == 1 else kind("server closed the connection")

    embedded_cluster("embedded").create_topic("failed")
    options = {"retries": 2, "backoff_ms": 1, "dead_letter_topic": "failed"}
    supervisor = Supervisor(
        [dataclasses.replace(handler(fail_at_two), run_options=options)], pools, {"until_end": True}
    )
    with pytest.raises(HandlerFailed, match=rf"failed at orders\[0\]@2: {kind.__name__}: server closed") as error:
        supervisor.run()
    assert isinstance(error.value.__cause__, kind)
    assert tried == [0, 1, 2, 2, 2]
    assert committed("bill") == 2
    with pools.alias("embedded").consumer() as consumer:
        assert consumer.end_offsets([TopicPartition("failed", 0)]) == {TopicPartition("failed", 0): 0}


def test_a_wrong_option_names_the_handler() -> None:
    with pytest.raises(ConfigurationError, match=r"handler 'bill' \(.*\): max_poll_recrods.* Did you mean"):
        Supervisor([handler(print, max_poll_recrods=5)], pools, {})
