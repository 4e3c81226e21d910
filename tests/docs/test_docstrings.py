"""The examples in the docstrings of the API reference run, too; Django's are of a project, and Docker's need it."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from kafka import KafkaProducer

import pooledkafka
from pooledkafka import Kafka, admin, consumer, kafka, pool, producer
from pooledkafka.contrib.opentelemetry import PooledKafkaInstrumentor, _instrumentor
from pooledkafka.testing import EmbeddedKafka
from pooledkafka.testing._embedded import cluster as embedded

MODULES: tuple[ModuleType, ...] = (admin, consumer, kafka, pool, producer, _instrumentor, embedded)
DOCSTRINGS = [
    found
    for module in MODULES
    for found in doctest.DocTestFinder(exclude_empty=True).find(module, globs={})
    if found.examples
]


@pytest.fixture
def names() -> Iterator[dict[str, Any]]:
    """What the examples take for granted; a handler ends the consumer that calls it."""
    with EmbeddedKafka() as cluster:
        made = Kafka(**cluster.client_options())
        with made.connection_pool() as pool:
            producer = made.producer(connection_pool=pool)
            producer.send("orders", b"tea").get(timeout=10)
            options: dict[str, Any] = {"auto_offset_reset": "earliest", "group_id": "billing"}
            given: dict[str, Any] = {
                **{name: getattr(pooledkafka, name) for name in pooledkafka.__all__},
                "EmbeddedKafka": EmbeddedKafka,
                "KafkaProducer": KafkaProducer,
                "PooledKafkaInstrumentor": PooledKafkaInstrumentor,
                "cluster": cluster,
                "pool": pool,
                "producer": producer,
                "consumer": made.consumer("orders", connection_pool=pool, **options),
                "handle": lambda _: given["consumer"].close(),
            }
            yield given
            given["consumer"].close()


def test_there_are_examples() -> None:
    classes = {found.name for found in DOCSTRINGS}
    assert {
        f"pooledkafka.{name}" for name in ("kafka.Kafka", "pool.ConnectionPool", "consumer.Consumer.run")
    } <= classes


@pytest.mark.parametrize("docstring", DOCSTRINGS, ids=lambda found: found.name)
def test_an_example_of_a_docstring_runs(docstring: doctest.DocTest, names: dict[str, Any]) -> None:
    address = names["cluster"].bootstrap_servers
    for example in docstring.examples:
        exec(example.source.replace("localhost:9092", address), names)
