"""What goes wrong for one client of a pool, it alone is told, in kafka-python's own words; nobody else notices."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    KafkaAdminClient,
    ResourcePattern,
    ResourceType,
)
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    KafkaTimeoutError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailedError,
)

from integration.clients import Reader, eventually
from pooledkafka import ConnectionPool, Consumer, Producer
from pooledkafka.testing import KafkaCluster, Listener

PARTITIONS = 3
OPEN, OTHER, FORBIDDEN, UNKNOWN = "open", "other", "forbidden", "unknown"

Make = Callable[..., Any]

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*erializ.*:DeprecationWarning", "ignore:.*artition.*:DeprecationWarning"),
    pytest.mark.usefixtures("sockets_left_to_the_collector"),
    pytest.mark.filterwarnings("ignore:Exception ignored.*<socket:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    """One broker, on which the user of the SASL listener may do everything, but use what is called "forbidden"."""
    config = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",  # the brokers, and the admin client of this fixture
        "allow.everyone.if.no.acl.found": "true",
        "auto.create.topics.enable": "false",
    }
    with KafkaCluster(listeners=[Listener.SASL_PLAIN], config=config) as cluster:
        with KafkaAdminClient(**cluster.client_options()) as admin:
            admin.create_topics(
                {name: {"num_partitions": PARTITIONS} for name in (OPEN, OTHER, FORBIDDEN)}, wait_for_metadata=True
            )
            admin.create_acls(
                [
                    ACL("User:*", "*", ACLOperation.ALL, ACLPermissionType.DENY, ResourcePattern(kind, FORBIDDEN))
                    for kind in (ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID)
                ]
            )
        yield cluster


@pytest.fixture
def pool(cluster: KafkaCluster) -> Iterator[ConnectionPool]:
    with ConnectionPool(**cluster.client_options(Listener.SASL_PLAIN), allow_auto_create_topics=False) as pool:
        yield pool


class Neighbours:
    """Consumers and producers of the pool that do nothing wrong; a context manager."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._run = uuid.uuid4().hex.encode()  # the topics have the records of other tests as well
        self._sent: dict[str, Counter[bytes]] = {OPEN: Counter(), OTHER: Counter()}
        self._producers = [Producer(connection_pool=pool), Producer(connection_pool=pool, linger_ms=1)]
        self._readers = [
            (topic, Reader(self._consumer(topic, isolation)))
            for topic in self._sent
            for isolation in ("read_uncommitted", "read_committed")
        ]

    def _consumer(self, topic: str, isolation_level: str) -> Consumer:
        return Consumer(
            topic,
            connection_pool=self._pool,
            group_id=f"{topic}-{isolation_level}",
            isolation_level=isolation_level,
            auto_offset_reset="earliest",
        )

    def __enter__(self) -> Neighbours:
        self.get_more()
        return self

    def __exit__(self, *_: object) -> None:
        for _topic, reader in self._readers:
            reader.tell_to_stop()
        for _topic, reader in self._readers:
            reader.stop()
        for producer in self._producers:
            producer.close()

    def get_more(self) -> None:
        """Send records to every partition that they use, and wait until everybody has them, once."""
        futures = []
        for topic, sent in self._sent.items():
            for producer in self._producers:
                for partition in range(PARTITIONS):
                    value = self._run + b"%d" % sent.total()
                    sent[value] += 1
                    futures.append(producer.send(topic, value, partition=partition))
        for future in futures:
            future.get(timeout=30)
        eventually(
            lambda: all(r.error or self._of(r) == self._sent[t] for t, r in self._readers), 30, "all was received"
        )
        assert [reader.error for _, reader in self._readers] == [None] * len(self._readers)

    def _of(self, reader: Reader) -> Counter[bytes]:
        return Counter({value: n for value, n in list(reader.values.items()) if value.startswith(self._run)})

    def connections(self) -> set[Any]:
        """The connections themselves, of the lanes that are not opened and closed on demand."""
        lanes = ("control", "produce", "fetch")
        return {c for key, c in self._pool.client._manager.connections() if key.lane.value in lanes}


# -- what one client does wrong, with consumers and producers from here or of kafka-python itself ----------------------


def reads_what_is_forbidden(consumer: Make, producer: Make) -> None:
    poll(consumer(FORBIDDEN, group_id="culprit"))


def joins_a_forbidden_group(consumer: Make, producer: Make) -> None:
    poll(consumer(OPEN, group_id=FORBIDDEN))


def writes_what_is_forbidden(consumer: Make, producer: Make) -> None:
    producer().send(FORBIDDEN, b"value").get(timeout=20)


def uses_a_forbidden_transactional_id(consumer: Make, producer: Make) -> None:
    producer(transactional_id=FORBIDDEN).init_transactions()


def reads_what_does_not_exist(consumer: Make, producer: Make) -> None:
    poll(consumer(UNKNOWN, group_id="culprit"), times=5)


def writes_what_does_not_exist(consumer: Make, producer: Make) -> None:
    producer(max_block_ms=1_000).send(UNKNOWN, b"value").get(timeout=20)


def deserializes_badly(consumer: Make, producer: Make) -> None:
    poll(consumer(OPEN, group_id="culprit", value_deserializer=lambda value: json.loads(b"{" + value)))


def serializes_badly(consumer: Make, producer: Make) -> None:
    producer(value_serializer=lambda value: 1 // 0).send(OPEN, "value")


class BadListener(ConsumerRebalanceListener):  # type: ignore[misc]
    def on_partitions_revoked(self, revoked: Any) -> None:
        pass

    def on_partitions_assigned(self, assigned: Any) -> None:
        raise ZeroDivisionError


def listens_badly(consumer: Make, producer: Make) -> None:
    bad = consumer(group_id="culprit")
    bad.subscribe([OPEN], listener=BadListener())
    poll(bad)


def handles_badly(consumer: Make, producer: Make) -> None:
    for record in consumer(OPEN, group_id="culprit"):
        record.value[1_000_000]


def poll(consumer: Any, times: int = 100) -> None:
    for _ in range(times):
        consumer.poll(timeout_ms=200)


CULPRITS: dict[Callable[[Make, Make], None], type[Exception] | None] = {
    reads_what_is_forbidden: TopicAuthorizationFailedError,
    joins_a_forbidden_group: GroupAuthorizationFailedError,
    writes_what_is_forbidden: TopicAuthorizationFailedError,
    uses_a_forbidden_transactional_id: TransactionalIdAuthorizationFailedError,
    reads_what_does_not_exist: None,  # it may be created yet
    writes_what_does_not_exist: KafkaTimeoutError,
    deserializes_badly: json.JSONDecodeError,
    serializes_badly: ZeroDivisionError,
    listens_badly: KafkaError,
    handles_badly: IndexError,
}


def error_of(culprit: Callable[[Make, Make], None], consumer: Make, producer: Make) -> type[BaseException] | None:
    """What the culprit meets with; its clients are closed afterwards."""
    with ExitStack() as stack:

        def open_consumer(*topics: str, **options: Any) -> Any:
            return stack.enter_context(consumer(*topics, auto_offset_reset="earliest", **options))

        def open_producer(**options: Any) -> Any:
            return stack.enter_context(producer(**options))

        try:
            culprit(open_consumer, open_producer)
        except Exception as error:
            return type(error)
    return None


def error_over(pool: ConnectionPool, culprit: Callable[[Make, Make], None]) -> type[BaseException] | None:
    return error_of(culprit, partial(Consumer, connection_pool=pool), partial(Producer, connection_pool=pool))


@pytest.mark.parametrize("culprit", CULPRITS)
def test_nobody_else_notices_what_one_client_does_wrong(
    cluster: KafkaCluster, pool: ConnectionPool, culprit: Callable[[Make, Make], None]
) -> None:
    options = cluster.client_options(Listener.SASL_PLAIN) | {"allow_auto_create_topics": False}
    with Neighbours(pool) as neighbours:
        before, connections = pool.stats(), neighbours.connections()
        with ThreadPoolExecutor(1) as thread:
            told = thread.submit(error_over, pool, culprit)
            neighbours.get_more()
            while not told.done():
                neighbours.get_more()
            assert told.result() is CULPRITS[culprit]
        neighbours.get_more()
        after = pool.stats()
        assert (after.consumers, after.producers) == (before.consumers, before.producers)
        assert neighbours.connections() >= connections, "the very same connections, none closed"
    stock = error_of(culprit, partial(KafkaConsumer, **options), partial(KafkaProducer, **options))
    # Of a forbidden topic kafka-python's own consumer only logs.
    assert stock is CULPRITS[culprit] or (stock, culprit) == (None, reads_what_is_forbidden)


def test_nobody_else_notices_what_all_of_these_do_wrong_at_once(pool: ConnectionPool) -> None:
    with Neighbours(pool) as neighbours, ThreadPoolExecutor(len(CULPRITS)) as threads:
        connections = neighbours.connections()
        told = {culprit: threads.submit(error_over, pool, culprit) for culprit in CULPRITS}
        while not all(future.done() for future in told.values()):
            neighbours.get_more()
        neighbours.get_more()
        assert {culprit: future.result() for culprit, future in told.items()} == CULPRITS
        assert neighbours.connections() >= connections, "the very same connections, none closed"
    assert (pool.stats().consumers, pool.stats().producers) == (0, 0)
