"""Limits of connections: how many, for how long idle, how large a request."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from kafka.protocol.metadata import ApiVersionsRequest

from pooledkafka.testing import EmbeddedKafka
from tests.testing._embedded.wire import Wire, fetch, produce


def serves(wire: Wire) -> bool:
    return bool(wire.ask(ApiVersionsRequest(), 0).api_keys)


def is_refused(wire: Wire) -> bool:
    try:
        wire.ask(ApiVersionsRequest(), 0)
    except (EOFError, ConnectionError):
        return True
    return False


# -- max.connections.per.ip --------------------------------------------------------------------------------------------


def test_one_connection_too_many_is_closed_until_another_ends() -> None:
    config = {"max.connections.per.ip": "2"}
    with EmbeddedKafka(brokers=2, config=config) as cluster, Wire(cluster.address_of(1)) as first:
        with Wire(cluster.address_of(1)) as second:
            assert serves(first)
            assert serves(second)
            with Wire(cluster.address_of(1)) as third:
                assert is_refused(third)
            with Wire(cluster.address_of(2)) as elsewhere:
                assert serves(elsewhere), "each broker counts for itself"
            assert serves(first), "those that are there stay"
            assert [record.node_id for record in cluster.connections] == [1, 1, 2], "it never was one"
        deadline = threading.Event()
        timer = threading.Timer(10, deadline.set)
        timer.start()
        try:
            while not deadline.is_set():
                with Wire(cluster.address_of(1)) as another:
                    if not is_refused(another):
                        break
            else:
                pytest.fail("the connection that ended still counts")
        finally:
            timer.cancel()


def test_all_listeners_count_together() -> None:
    config = {"max.connections.per.ip": "1"}
    with (
        EmbeddedKafka(brokers=1, listeners=["sasl_plain"], config=config) as cluster,
        Wire(cluster.address_of(1)) as plain,
    ):
        assert serves(plain)
        with Wire(cluster.client_options("sasl_plain")["bootstrap_servers"]) as other:
            assert is_refused(other)


# -- connections.max.idle.ms -------------------------------------------------------------------------------------------


def record_of(cluster: EmbeddedKafka, client_id: str) -> Any:
    (record,) = [each for each in cluster.connections if client_id in each.client_ids]
    return record


def test_only_an_idle_connection_is_closed() -> None:
    with EmbeddedKafka(brokers=1, config={"connections.max.idle.ms": "1000"}) as cluster:
        topic = cluster.create_topic("t")
        address = cluster.address_of(1)
        with Wire(address, "idle") as idle, Wire(address, "busy") as busy, Wire(address, "parked") as parked:
            assert serves(idle)
            record = record_of(cluster, "idle")
            parked.send(fetch(topic, max_wait_ms=600_000), 11)
            while record.closed_at is None:
                assert serves(busy)
            assert idle.has_ended()
            assert record.closed_at - list(record.exchanges)[-1].answered_at >= 0.99
            busy.ask(produce(topic, b"x"), 9)
            assert parked.receive()[1].responses, "who waits for an answer is not idle"


def test_a_connection_that_asks_nothing_is_closed_too() -> None:
    with (
        EmbeddedKafka(brokers=1, config={"connections.max.idle.ms": "50"}) as cluster,
        Wire(cluster.address_of(1)) as wire,
    ):
        assert wire.has_ended()


def test_a_paused_broker_closes_nothing() -> None:
    with (
        EmbeddedKafka(brokers=2, config={"connections.max.idle.ms": "500"}) as cluster,
        Wire(cluster.address_of(1), "paused") as paused,
    ):
        assert serves(paused)
        cluster.pause(1)
        for _ in range(2):
            with Wire(cluster.address_of(2)) as clock:
                assert clock.has_ended()  # so the other one's time is up
        assert record_of(cluster, "paused").closed_at is None
        cluster.resume(1)
        assert paused.has_ended()


# -- socket.request.max.bytes ------------------------------------------------------------------------------------------


def test_a_request_that_is_too_large_closes_its_connection() -> None:
    with EmbeddedKafka(brokers=1, config={"socket.request.max.bytes": "1000"}) as cluster:
        topic = cluster.create_topic("t")
        with Wire(cluster.address_of(1)) as wire:
            assert wire.ask(produce(topic, b"x" * 700), 9).responses[0].partition_responses[0].error_code == 0
            wire.send(produce(topic, b"x" * 1_000), 9)
            assert wire.has_ended()
        assert cluster.high_watermark_of(topic) == 1
