"""Code of a user, for ``mypy --strict``: checked here, and by integration/test_packages.py with the installed wheel.

It is never run. Each line with ``type: ignore`` is a mistake that mypy must find: where it does not, the comment is one
too many, which ``--strict`` refuses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pooledkafka import (
    ClientAttached,
    ConnectionClosed,
    ConnectionPool,
    Consumer,
    Kafka,
    PoolEvent,
    PoolStats,
    PoolTimeoutError,
    Producer,
    Throttled,
)
from pooledkafka.testing import Delay, EmbeddedKafka


def settings() -> ConnectionPool:
    kafka = Kafka(bootstrap_servers="localhost:9092", client_id="shop")
    kafka.connection_pool(max_in_flight_requests="many")  # type: ignore[arg-type]
    kafka.connection_pool(max_inflight_requests=5)  # type: ignore[call-arg]
    return kafka.connection_pool(metadata_max_age_ms=60_000, max_in_flight_requests=200)


def send(pool: ConnectionPool) -> Sequence[object]:
    with Producer(connection_pool=pool, linger_ms=5) as producer:
        producer.send("orders", b"tea", key=b"alice", headers=[("from", b"web")]).get(timeout=10)
        producer.send(b"tea")  # type: ignore[arg-type]
        Producer(pool)  # type: ignore[call-arg]
        return producer.send_batch("orders", [{"value": b"one"}, {"value": b"two"}]).get(timeout=10)


def read(pool: ConnectionPool) -> None:
    with Consumer("orders", group_id="billing", connection_pool=pool) as consumer:
        for partition, records in consumer.poll(timeout_ms=500).items():
            print(partition.topic, [record.value for record in records])
        consumer.poll("500")  # type: ignore[arg-type]
        consumer.run(handle, retries=3, dead_letter_topic="orders.dead", handle_signals=True)
        consumer.run("handle")  # type: ignore[arg-type]


def handle(record: object) -> None:
    print(record)


def watch(pool: ConnectionPool) -> Mapping[int, Mapping[str, int]]:
    pool.add_listener(told)
    pool.add_listener(lambda: None)  # type: ignore[arg-type, misc]
    stats: PoolStats = pool.stats()
    stats.consumers = 5  # type: ignore[misc]
    age: float = stats.metadata_age_ms  # type: ignore[assignment]
    print(age)
    return stats.connections


def told(event: PoolEvent) -> None:
    match event:
        case ConnectionClosed(reason="failed"):
            print(event.address, event.error)
        case Throttled():
            print(event.throttle_time_ms)
        case ClientAttached():
            print(event.kind)


def end(pool: ConnectionPool) -> str:
    try:
        pool.disconnect(timeout_ms=5_000)
    except PoolTimeoutError as error:
        return str(error)
    return "all delivered"


def test_on(cluster: EmbeddedKafka) -> None:
    cluster.intercept("Produce", Delay(0.5), times=1)
    cluster.intercept("Produce", "later")  # type: ignore[arg-type]
