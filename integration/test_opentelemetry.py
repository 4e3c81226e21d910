"""Traces from a web process to a worker over real brokers: by send, by a transaction, and by a dead letter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pooledkafka import Consumer, Kafka, Producer
from pooledkafka.contrib.opentelemetry import PooledKafkaInstrumentor

ORDERS = 200


class Told:
    """What an SDK was told."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        self.traces = TracerProvider()
        self.traces.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider([self._metrics])

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._spans.get_finished_spans() if span.name == name]

    def counted(self, metric: str) -> dict[str, int]:
        """How many, by topic."""
        data = self._metrics.get_metrics_data()
        found: dict[str, int] = {}
        for resource in data.resource_metrics if data is not None else []:
            for each in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                for point in each.data.data_points if each.name == metric else []:
                    topic = str((point.attributes or {})["messaging.destination.name"])
                    found[topic] = found.get(topic, 0) + getattr(point, "value", 0)
        return found


@pytest.fixture
def told() -> Iterator[Told]:
    told = Told()
    PooledKafkaInstrumentor().instrument(tracer_provider=told.traces, meter_provider=told.meters)
    yield told
    PooledKafkaInstrumentor().uninstrument()


def test_a_trace_goes_from_a_request_to_the_handler_and_to_a_dead_letter(
    kafka: Kafka, kafka_topic_factory: Callable[..., str], told: Told
) -> None:
    orders, failed = kafka_topic_factory(partitions=3), kafka_topic_factory(partitions=1)
    tracer = told.traces.get_tracer("shop")
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
    assert told.counted("messaging.client.sent.messages") == {orders: ORDERS, failed: len(dead)}
    assert told.counted("messaging.client.consumed.messages")[orders] >= ORDERS
