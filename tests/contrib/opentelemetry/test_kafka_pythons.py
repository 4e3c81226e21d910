"""The instrumentation that there is for kafka-python sees what pooled clients send and iterate over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.instrumentation.kafka import KafkaInstrumentor

from pooledkafka import ConnectionPool, Consumer, Producer
from tests.contrib.opentelemetry.conftest import Told


@pytest.fixture(autouse=True)
def instrumented(told: Told) -> Iterator[None]:
    instrumentor = KafkaInstrumentor()
    instrumentor.instrument(tracer_provider=told.tracer_provider)
    yield
    instrumentor.uninstrument()


def test_a_send_and_an_iteration_are_spans_of_one_trace(pool: ConnectionPool, told: Told) -> None:
    Producer(connection_pool=pool).send("orders", b"tea").get(timeout=10)
    with Consumer("orders", connection_pool=pool, auto_offset_reset="earliest") as consumer:
        record = next(consumer)
    assert [name for name, _ in record.headers] == ["traceparent"]
    sent, received = told.span("orders send"), told.span("orders receive")
    assert received.parent is not None
    assert (received.parent.trace_id, received.parent.span_id) == (sent.context.trace_id, sent.context.span_id)


def test_the_records_of_a_batch_too(pool: ConnectionPool, told: Told) -> None:
    Producer(connection_pool=pool).send_batch("orders", [{"value": b"one"}, {"value": b"two"}]).get(timeout=10)
    assert len(told.spans("orders send")) == 2


def test_afterwards_pooled_producers_go_their_own_way_again(pool: ConnectionPool, told: Told) -> None:
    KafkaInstrumentor().uninstrument()
    Producer(connection_pool=pool).send("orders", b"tea").get(timeout=10)
    assert told.spans() == []
    KafkaInstrumentor().instrument(tracer_provider=told.tracer_provider)
