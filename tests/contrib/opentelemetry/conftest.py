"""A pool on an embedded cluster, and an SDK that keeps what it is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pooledkafka import ConnectionPool, Kafka
from pooledkafka.contrib.opentelemetry import PooledKafkaInstrumentor
from pooledkafka.testing import EmbeddedKafka


class Told:
    """What the SDK was told."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meter_provider = MeterProvider([self._metrics])

    def spans(self, name: str = "") -> list[ReadableSpan]:
        return [span for span in self._spans.get_finished_spans() if span.name.startswith(name)]

    def span(self, name: str) -> ReadableSpan:
        (found,) = self.spans(name)
        return found

    def points(self, metric: str) -> list[Any]:
        data = self._metrics.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data is not None else [])
            for scope in resource.scope_metrics
            for each in scope.metrics
            if each.name == metric
            for point in each.data.data_points
        ]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def instrumented(told: Told) -> Iterator[None]:
    PooledKafkaInstrumentor().instrument(tracer_provider=told.tracer_provider, meter_provider=told.meter_provider)
    yield
    PooledKafkaInstrumentor().uninstrument()


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=1) as cluster:
        cluster.create_topic("orders")
        yield cluster


@pytest.fixture
def kafka(cluster: EmbeddedKafka) -> Kafka:
    return Kafka(**cluster.client_options(), client_id="shop")


@pytest.fixture
def pool(kafka: Kafka) -> Iterator[ConnectionPool]:
    with kafka.connection_pool() as pool:
        yield pool
