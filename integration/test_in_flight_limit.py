"""max_in_flight_requests on real brokers, counted on the wire by a proxy and not by the pool itself."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import pytest
from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from integration.clients import Reader, eventually
from integration.wire_proxy import WireProxy
from pooledkafka import ConfigurationError, ConnectionPool, Consumer, Producer

HEARTBEAT, OFFSET_COMMIT = 12, 8  # API keys
SESSION_TIMEOUT_S = 6

pytestmark = [
    pytest.mark.usefixtures("sockets_left_to_the_collector"),
    pytest.mark.filterwarnings("ignore:Exception ignored.*<socket:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.parametrize("limit", [1, 2, 5, 20])
def test_never_more_requests_are_outstanding_and_everybody_progresses(
    kafka_bootstrap_servers: str, kafka_topic_factory: Callable[..., str], limit: int
) -> None:
    topic = kafka_topic_factory(partitions=6)
    members = min(limit, 3)
    groups = [topic] * members + [f"{topic}-{n}" for n in range(5)]
    with (
        WireProxy() as proxy,
        ConnectionPool(
            bootstrap_servers=kafka_bootstrap_servers, max_in_flight_requests=limit, proxy_url=proxy.url
        ) as pool,
    ):
        readers = [
            Reader(
                Consumer(
                    topic,
                    group_id=group,
                    connection_pool=pool,
                    auto_offset_reset="earliest",
                    auto_commit_interval_ms=500,
                    session_timeout_ms=SESSION_TIMEOUT_S * 1000,
                    heartbeat_interval_ms=1_000,
                )
            )
            for group in groups
        ]
        eventually(lambda: all(r.assigned or r.error for r in readers), 60, "every consumer has partitions")
        sent: list[bytes] = []
        with Producer(connection_pool=pool) as one, Producer(connection_pool=pool, linger_ms=5) as other:
            end = time.monotonic() + 2 * SESSION_TIMEOUT_S  # a member whose heartbeats starve is thrown out
            while time.monotonic() < end:
                for producer in (one, other):
                    sent.append(b"%d" % len(sent))
                    producer.send(topic, sent[-1]).get(timeout=30)
                time.sleep(0.05)  # sets the pace of the load

        def everything_was_read() -> bool:
            together: Counter[bytes] = Counter()
            for reader in readers[:members]:
                together.update(reader.values)
            alone = [Counter(reader.values) for reader in readers[members:]]
            return all(values == Counter(sent) for values in [together, *alone])

        eventually(lambda: everything_was_read() or any(r.error for r in readers), 60, "all groups read everything")
        assert [r.error for r in readers if r.error] == []
        for reader in readers:
            reader.tell_to_stop()
        for reader in readers:
            reader.stop()
        assert 0 < proxy.most <= limit
        assert proxy.requests[HEARTBEAT] > len(groups) * SESSION_TIMEOUT_S
        assert proxy.requests[OFFSET_COMMIT] > len(groups)

    partitions = [TopicPartition(topic, n) for n in range(6)]
    for group in set(groups):
        stock = KafkaConsumer(bootstrap_servers=kafka_bootstrap_servers, group_id=group)
        assert sum(stock.committed(partition) or 0 for partition in partitions) == len(sent)
        stock.close()


def test_a_limit_that_a_group_could_never_join_under_is_refused_with_the_smallest_that_works(
    kafka_bootstrap_servers: str, kafka_topic: str
) -> None:
    with ConnectionPool(bootstrap_servers=kafka_bootstrap_servers, max_in_flight_requests=2) as pool:
        consumers = [Consumer(kafka_topic, group_id=kafka_topic, connection_pool=pool) for _ in range(3)]
        readers = [Reader(consumer) for consumer in consumers[:2]]
        eventually(lambda: any(r.assigned for r in readers), 30, "two members fit")
        with pytest.raises(ConfigurationError, match=r"max_in_flight_requests=2 cannot work.*smallest that works is 3"):
            consumers[2].poll()
        for reader in readers:
            reader.stop()
        assert pool.stats().consumers == 0
