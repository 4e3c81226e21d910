"""For each kind of request and each thing that can be wrong with its answer: every client of a pool recovers by itself.

One pool serves consumers of several groups and of none, idempotent and transactional producers and an admin client, and
goes on from case to case; in each, clients that come and go make every kind of request while some are answered badly.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
from kafka.errors import (
    BrokerResponseError,
    ConcurrentTransactionsError,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    FencedLeaderEpochError,
    KafkaConnectionError,
    KafkaStorageError,
    LeaderNotAvailableError,
    NetworkExceptionError,
    NotCoordinatorError,
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    NotLeaderForPartitionError,
    OffsetNotAvailableError,
    RebalanceInProgressError,
    ReplicaNotAvailableError,
    RequestTimedOutError,
    TopicAlreadyExistsError,
    UnknownLeaderEpochError,
    UnknownTopicOrPartitionError,
)
from kafka.structs import TopicPartition

from pooledkafka import Kafka
from pooledkafka.testing import Corrupt, Drop, EmbeddedKafka, Error, Half, Never, Throttle
from tests.pooled.conftest import CONFIG, IMPATIENT
from tests.pooled.reading import Reader
from tests.pooled.waiting import TIMEOUT_S, until
from tests.pooled.watching import POOL, open_connections
from tests.pooled.writing import Writer

pytestmark = pytest.mark.timeout(120)

TIMED_OUT_MS = 1_000  # more than the longest wait of a fetch, and what a busy machine needs
LIVELY: dict[str, Any] = {
    "heartbeat_interval_ms": 50,
    "auto_commit_interval_ms": 100,
    "fetch_max_wait_ms": 100,
    "request_timeout_ms": TIMED_OUT_MS,
    "session_timeout_ms": 2_000,
    "max_poll_interval_ms": 1_000,  # after this and five seconds kafka-python gives up a join
    "auto_offset_reset": "earliest",
}
PARTITIONS = 3

APIS = [
    "AddPartitionsToTxn",
    "ApiVersions",
    "CreateTopics",
    "EndTxn",
    "Fetch",
    "FindCoordinator",
    "Heartbeat",
    "InitProducerId",
    "JoinGroup",
    "LeaveGroup",
    "ListOffsets",
    "Metadata",
    "OffsetCommit",
    "OffsetFetch",
    "Produce",
    "SyncGroup",
]
WRONG = [
    Never(),
    Half(),
    Drop(),
    Drop(served=True),
    Corrupt("negative length"),
    Corrupt("huge length"),
    Corrupt("garbage"),
    Corrupt("short"),
    Corrupt("correlation id"),
    Throttle(0.2),
    Never(served=True),
]


class World:
    """A pool in use: what is written to it is read by a consumer of no group, and by three groups."""

    def __init__(self, cluster: EmbeddedKafka, stack: ExitStack) -> None:
        self.cluster = cluster
        connecting = {"socket_connection_setup_timeout_ms": 1_000, "socket_connection_setup_timeout_max_ms": 1_000}
        self.kafka = Kafka(**cluster.client_options(), **IMPATIENT, **connecting, client_id=POOL)
        self.pool = stack.enter_context(self.kafka.connection_pool(request_timeout_ms=TIMED_OUT_MS))
        self.numbers = iter(range(10**6))
        self.writers = [Writer(self.kafka.producer(connection_pool=self.pool, **self.impatient(n))) for n in range(2)]
        plain = self.kafka.consumer(connection_pool=self.pool, **{**LIVELY, "group_id": None})
        plain.assign([TopicPartition("orders", n) for n in range(PARTITIONS)])
        self.exact = stack.enter_context(Reader(plain))
        self.readers = {
            f"group {group}, member {member}": stack.enter_context(self.reader(f"g{group}", **options))
            for group, members, options in (
                (0, 2, {}),
                (1, 1, {"isolation_level": "read_committed"}),
                (2, 1, {"group_instance_id": "static"}),
            )
            for member in range(members)
        }

    @staticmethod
    def impatient(linger_ms: int) -> dict[str, Any]:
        """Options of producers; those that differ are distinct producers of kafka-python's."""
        return {"linger_ms": linger_ms, "request_timeout_ms": TIMED_OUT_MS, "delivery_timeout_ms": 60_000}

    def reader(self, group: str, **options: Any) -> Reader:
        consumer = self.kafka.consumer("orders", connection_pool=self.pool, **{**LIVELY, "group_id": group, **options})
        return Reader(consumer)

    def write(self) -> None:
        """Some records to each partition, of each producer; each is acknowledged."""
        for partition in range(PARTITIONS):
            self.writers[0].write("orders", 2, partition=partition)

    def log(self, partition: int) -> list[bytes]:
        """All that has been acknowledged."""
        return self.writers[0].written("orders", partition)

    def all_have_read_all(self) -> None:
        """The consumer of no group has exactly the log; each group has read all of it."""
        everything = [self.log(n) for n in range(PARTITIONS)]
        until(lambda: len(self.exact.records) >= sum(map(len, everything)))
        assert [self.exact.of_partition(n) for n in range(PARTITIONS)] == everything
        wanted = {value for log in everything for value in log}
        for group in range(3):
            members = [reader for name, reader in self.readers.items() if name.startswith(f"group {group}")]
            until(lambda members=members: wanted <= {v for each in members for v in each.values})  # type: ignore[misc]
            for each in [*members, self.exact]:
                assert each.error is None, each.error

    def come_and_go(self) -> None:
        """Make every kind of request once, by clients that are made for it and closed after."""
        number = next(self.numbers)
        with ExitStack() as stack:
            newcomer = stack.enter_context(self.reader(f"n{number}"))
            guest = stack.enter_context(self.reader("g0"))  # a rebalance of the others
            self.readers[f"group 0, guest {number}"] = guest
            handle = self.kafka.producer(connection_pool=self.pool, **self.impatient(1_000 + number))
            stack.callback(handle.close)
            transactional = self.kafka.producer(
                connection_pool=self.pool, transactional_id=f"t{number}", **self.impatient(0)
            )
            stack.callback(transactional.close)
            self.write()
            transactional.init_transactions()
            transactional.begin_transaction()
            sent = transactional.send("others", b"%d" % number)
            transactional.commit_transaction()
            assert sent.get(timeout=TIMEOUT_S).offset >= 0
            self.write()
            other = handle.send("others", b"%d" % number)
            handle.flush()
            assert other.get(timeout=TIMEOUT_S).offset >= 0
            with self.kafka.admin(connection_pool=self.pool, request_timeout_ms=TIMED_OUT_MS) as admin:
                made(lambda: admin.create_topics({f"topic{number}": {"num_partitions": 1, "replication_factor": 1}}))
            wanted = {value for n in range(PARTITIONS) for value in self.log(n)}
            until(lambda: wanted <= set(newcomer.values))


def made(create: Callable[[], object]) -> None:
    """Create a topic as a user would: what was asked for may have been done though nobody heard of it."""
    while True:
        try:
            create()
        except TopicAlreadyExistsError:
            return
        except (KafkaConnectionError, RequestTimedOutError):
            continue
        else:
            return


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    before = set(threading.enumerate())
    with EmbeddedKafka(brokers=3, config={**CONFIG, "group.initial.rebalance.delay.ms": "0"}) as cluster:
        cluster.create_topic("orders", assignment=[[1, 2, 3], [2, 3, 1], [3, 1, 2]])
        cluster.create_topic("others", assignment=[[1, 2, 3]])
        with ExitStack() as stack:
            world = World(cluster, stack)
            world.write()
            world.all_have_read_all()
            yield world
            cluster.reset_faults()
        until(lambda: not open_connections(cluster))
    until(lambda: not {each for each in threading.enumerate() if each.is_alive()} - before - _pytest_threads())


def _pytest_threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if "execnet" in each.name or "timeout" in each.name}


@pytest.fixture(autouse=True)
def _no_fault_is_left(world: World) -> Iterator[None]:
    yield
    world.cluster.reset_faults()


def stage(world: World, api: str, actions: Sequence[Any], record_property: Callable[[str, Any], None]) -> None:
    """Do one thing after the other to requests of a kind, while clients come and go; then all have read everything."""
    resent, left, longest = world.pool.stats().requests_resent, iter(actions), 0.0
    fault = world.cluster.intercept(api, lambda _: next(left, None), client_id=POOL)
    while len(fault.requests) <= len(actions):  # one more, which is answered as ever
        began = time.monotonic()
        if api == "ApiVersions":  # asked on new connections
            world.cluster.intercept("Heartbeat", Drop(), client_id=POOL, times=2)
        world.come_and_go()
        longest = max(longest, time.monotonic() - began)
    fault.remove()
    world.write()
    world.all_have_read_all()
    record_property("longest round of all requests, s", round(longest, 1))
    record_property("requests resent", world.pool.stats().requests_resent - resent)


@pytest.mark.parametrize("api", APIS)
def test_answers_are_wrong(world: World, api: str, record_property: Callable[[str, Any], None]) -> None:
    stage(world, api, WRONG, record_property)


ERRORS: dict[str, list[type[BrokerResponseError]]] = {
    "AddPartitionsToTxn": [ConcurrentTransactionsError, CoordinatorLoadInProgressError, NotCoordinatorError],
    "EndTxn": [CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError],
    "FindCoordinator": [CoordinatorNotAvailableError, CoordinatorLoadInProgressError],
    "Heartbeat": [CoordinatorNotAvailableError, NotCoordinatorError, RebalanceInProgressError],
    "InitProducerId": [ConcurrentTransactionsError, CoordinatorLoadInProgressError, NotCoordinatorError],
    "JoinGroup": [CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError],
    "LeaveGroup": [CoordinatorNotAvailableError, NotCoordinatorError],
    "OffsetCommit": [CoordinatorNotAvailableError, NotCoordinatorError, RequestTimedOutError],
    "OffsetFetch": [CoordinatorLoadInProgressError, NotCoordinatorError],
    "SyncGroup": [CoordinatorNotAvailableError, NotCoordinatorError, RebalanceInProgressError],
}
OF_A_PARTITION: dict[str, list[type[BrokerResponseError]]] = {
    "Fetch": [
        FencedLeaderEpochError,
        KafkaStorageError,
        NotLeaderForPartitionError,
        OffsetNotAvailableError,
        ReplicaNotAvailableError,
        UnknownLeaderEpochError,
        UnknownTopicOrPartitionError,
    ],
    "ListOffsets": [
        KafkaStorageError,
        LeaderNotAvailableError,
        NotLeaderForPartitionError,
        UnknownLeaderEpochError,
    ],
    "Metadata": [LeaderNotAvailableError],
    "Produce": [
        KafkaStorageError,
        LeaderNotAvailableError,
        NetworkExceptionError,
        NotEnoughReplicasAfterAppendError,
        NotEnoughReplicasError,
        NotLeaderForPartitionError,
        RequestTimedOutError,
        UnknownTopicOrPartitionError,
    ],
}


@pytest.mark.parametrize("api", ERRORS)
def test_requests_are_refused_for_a_while(world: World, api: str, record_property: Callable[[str, Any], None]) -> None:
    stage(world, api, [Error(error) for error in ERRORS[api]], record_property)


@pytest.mark.parametrize("api", OF_A_PARTITION)
def test_one_partition_is_refused_among_good_ones(
    world: World, api: str, record_property: Callable[[str, Any], None]
) -> None:
    stage(world, api, [Error(error, partitions=[("orders", 1)]) for error in OF_A_PARTITION[api]], record_property)
