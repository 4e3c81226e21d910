"""Programs that end, and clients that are dropped, on a real broker: groups go on, and what is lost is told."""

from __future__ import annotations

import gc
import signal
import time
import warnings
from collections.abc import Callable

import pytest
from kafka.structs import TopicPartition

from integration.clients import eventually
from pooledkafka import ConnectionPool, Consumer, Kafka
from pooledkafka.testing import Cluster
from tests.shutdown.program import EXIT_MS, RECORDS
from tests.watchdog import child

AT_ONCE_S = 20.0  # far below the session timeout of 45 s
WITHIN_S = 30.0


@pytest.fixture
def orders(kafka: Kafka, kafka_topic: str) -> str:
    """A topic with a few records."""
    with kafka.producer() as producer:
        producer.send_batch(kafka_topic, [{"value": b"%d" % n} for n in range(RECORDS)]).get(timeout=30)
    return kafka_topic


def let_in(consumer: Consumer) -> None:
    eventually(lambda: consumer.poll(timeout_ms=50) or consumer.assignment(), AT_ONCE_S, "it has the partition")


def takes_over(kafka: Kafka, topic: str) -> float:
    """How long another member of the group waits for the partition."""
    began = time.monotonic()
    with kafka.consumer(topic, group_id=topic) as consumer:
        let_in(consumer)
    return time.monotonic() - began


@pytest.mark.parametrize("how", ["with", "without"])
@pytest.mark.parametrize("where", ["poll", "run_handler"])
@pytest.mark.parametrize(("number", "handler", "status"), [(signal.SIGINT, "default", -2), (signal.SIGTERM, "exit", 7)])
def test_a_program_that_is_ended_leaves_its_group(
    kafka: Kafka,
    kafka_bootstrap_servers: str,
    orders: str,
    where: str,
    how: str,
    number: signal.Signals,
    handler: str,
    status: int,
    record_property: Callable[[str, object], None],
) -> None:
    with child("-m", "tests.shutdown.program", where, handler, how, kafka_bootstrap_servers, orders, orders) as program:
        program.says("ready", 60)
        program.send(number)
        ended = program.ends(WITHIN_S)
    assert ended.status == status, ended
    assert ended.err.count("Traceback") == (status == -2), ended.err
    with kafka.consumer(group_id=orders) as consumer:
        offset = consumer.committed(TopicPartition(orders, 0))
    assert offset == {"run_handler": 1}.get(where, RECORDS if how == "with" else None)
    record_property("ended after s", round(ended.seconds, 2))
    record_property("partition taken over after s", round(takes_over(kafka, orders), 2))


def test_a_program_that_ends_with_unsent_records_tells_how_many(
    kafka_fault_cluster: Cluster, kafka_topic: str, record_property: Callable[[str, object], None]
) -> None:
    bootstrap = kafka_fault_cluster.client_options()["bootstrap_servers"]
    started = child("-m", "tests.shutdown.program", "undelivered_later", "default", "kept", bootstrap, "g", kafka_topic)
    with started as program:
        program.says("ready", 60)
        for node_id in kafka_fault_cluster.node_ids:
            kafka_fault_cluster.pause(node_id)
        program.tell("go on")
        ended = program.ends(EXIT_MS / 1000 + 15)
    for node_id in kafka_fault_cluster.node_ids:
        kafka_fault_cluster.resume(node_id)
    assert ended.status == 0
    assert f"undelivered=3 topics={{'{kafka_topic}': 3}}" in ended.err, ended.err
    record_property("ended after s", round(ended.seconds, 2))


def test_consumers_that_are_dropped_leave_their_groups(kafka: Kafka, pool: ConnectionPool, orders: str) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ResourceWarning)
        for _ in range(5):
            let_in(Consumer(orders, group_id=orders, connection_pool=pool))
            gc.collect()
    assert sum("was dropped without close" in str(each.message) for each in said) == 5
    takes_over(kafka, orders)
