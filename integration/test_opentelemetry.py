"""Traces from a web process to a worker over real brokers: to its handler, and to a dead letter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pooledkafka import Consumer, Kafka, Producer
from pooledkafka.contrib.opentelemetry import PooledKafkaInstrumentor
from tests.contrib.opentelemetry.conftest import Told

ORDERS = 200


def counted(told: Told, metric: str) -> Counter[str]:
    """How many, by topic."""
    found: Counter[str] = Counter()
    for point in told.points(metric):
        found[point.attributes["messaging.destination.name"]] += point.value
    return found


@pytest.fixture
def told() -> Iterator[Told]:
    told = Told()
    PooledKafkaInstrumentor().instrument(tracer_provider=told.tracer_provider, meter_provider=told.meter_provider)
    yield told
    PooledKafkaInstrumentor().uninstrument()


def test_a_trace_goes_from_a_request_to_the_handler_and_to_a_dead_letter(
    kafka: Kafka, kafka_topic_factory: Callable[..., str], told: Told
) -> None:
    orders, failed = kafka_topic_factory(partitions=3), kafka_topic_factory(partitions=1)
    tracer = told.tracer_provider.get_tracer("shop")
    requests: dict[bytes, int] = {}  # the trace of each order
    with kafka.connection_pool() as web, Producer(connection_pool=web, compression_type="gzip") as producer:
        for number in range(ORDERS):
            with tracer.start_as_current_span("POST /orders") as request:
                producer.send(orders, b"%d" % number, key=b"%d" % number)
                requests[b"%d" % number] = request.get_span_context().trace_id
        producer.flush(timeout=30)

    def handle(record: Any) -> None:
        if record.value.endswith(b"7"):
            raise ValueError("no such order")

    with (
        kafka.connection_pool() as work,
        Consumer(orders, connection_pool=work, group_id=orders, auto_offset_reset="earliest") as consumer,
    ):
        consumer.run(handle, retries=0, dead_letter_topic=failed, until_end=True)

    sent, handled = told.spans(f"send {orders}"), told.spans(f"process {orders}")
    assert len(sent) == len(handled) == ORDERS
    assert {span.context.trace_id for span in sent} == set(requests.values())
    parents = {span.context.span_id: span for span in sent}
    for span in handled:
        assert span.parent is not None
        sender = parents[span.parent.span_id]
        for attribute in ("messaging.destination.partition.id", "messaging.kafka.offset"):
            assert (span.attributes or {})[attribute] == (sender.attributes or {})[attribute]
        assert span.context.trace_id == sender.context.trace_id
    dead = {trace for value, trace in requests.items() if value.endswith(b"7")}
    assert {span.context.trace_id for span in told.spans(f"send {failed}")} == dead
    assert counted(told, "messaging.client.sent.messages") == {orders: ORDERS, failed: len(dead)}
    assert counted(told, "messaging.client.consumed.messages")[orders] >= ORDERS
