"""A request on a shared lane is not answered, or not with an answer: the others on it are none the wiser."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kafka.errors import BrokerResponseError, KafkaConnectionError, RequestTimedOutError
from kafka.future import Future
from kafka.protocol.admin import DeleteGroupsRequest, ListGroupsRequest
from kafka.protocol.consumer import HeartbeatRequest, ListOffsetsRequest, OffsetCommitRequest, OffsetFetchRequest
from kafka.protocol.metadata import FindCoordinatorRequest, MetadataRequest
from kafka.structs import OffsetAndMetadata, TopicPartition

from pooledkafka import ConnectionPool, Consumer, Kafka
from pooledkafka.testing import Corrupt, Drop, EmbeddedKafka, Half, Hold, Never
from tests.pooled.reading import read
from tests.pooled.waiting import TIMEOUT_S, until
from tests.pooled.watching import POOL, open_connections

PARTITION = TopicPartition("orders", 0)
TIMED_OUT_MS = 700


@pytest.fixture
def cluster(config: dict[str, str]) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=1, config=config) as cluster:
        cluster.create_topic("orders")
        yield cluster


@pytest.fixture
def pool(kafka: Kafka) -> Iterator[ConnectionPool]:
    with kafka.connection_pool(request_timeout_ms=60_000) as pool:
        yield pool


def metadata() -> Any:
    return MetadataRequest(topics=[], allow_auto_topic_creation=False)


def coordinator() -> Any:
    return FindCoordinatorRequest(key="g", key_type=0, coordinator_keys=["g"])


def heartbeat() -> Any:
    return HeartbeatRequest(group_id="g", generation_id=1, member_id="m")


def commit(offset: int) -> Any:
    topics = OffsetCommitRequest.OffsetCommitRequestTopic
    partition = topics.OffsetCommitRequestPartition(
        partition_index=0, committed_offset=offset, committed_leader_epoch=-1, committed_metadata=""
    )
    return OffsetCommitRequest(
        group_id="g",
        generation_id_or_member_epoch=-1,
        member_id="",
        group_instance_id=None,
        topics=[topics(name="orders", partitions=[partition])],
        retention_time_ms=-1,
    )


def list_offsets() -> Any:
    topics = ListOffsetsRequest.ListOffsetsTopic
    partition = topics.ListOffsetsPartition(partition_index=0, timestamp=-1)
    return ListOffsetsRequest(replica_id=-1, isolation_level=0, topics=[topics(name="orders", partitions=[partition])])


def offset_fetch() -> Any:
    group = OffsetFetchRequest.OffsetFetchRequestGroup(group_id="g", topics=None, member_id=None, member_epoch=-1)
    return OffsetFetchRequest(groups=[group], require_stable=False, min_version=8)


class Line:
    """Requests that stand in line on the control lane."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._net, self._manager = pool.client._net, pool.client._manager
        pool.client.send_and_receive(1, metadata())  # the lane is up
        self.futures: list[Future] = []

    def send(self, *requests: Any, timeout_ms: float | None = None) -> list[Future]:
        """Send them in one go, so that they are on their way together."""

        def together() -> list[Future]:
            return [self._manager.send(request, 1, timeout_ms) for request in requests]

        futures: list[Future] = self._net.run(together)
        return futures

    @staticmethod
    def outcomes(futures: list[Future]) -> list[str]:
        """What each came to: the kind of the answer, or of the error."""
        until(lambda: all(future.is_done for future in futures))
        return [type(future.exception or future.value).__name__ for future in futures]


@pytest.fixture
def line(pool: ConnectionPool) -> Line:
    return Line(pool)


# -- who is at fault, and who is not -----------------------------------------------------------------------------------

END = {
    "drop": Drop(),
    "half": Half(),
    **{what: Corrupt(what) for what in ("negative length", "huge length", "correlation id", "garbage", "short")},
}


@pytest.mark.parametrize("action", END.values(), ids=END.keys())
def test_an_answer_that_ends_the_connection_once_fails_nobody(
    cluster: EmbeddedKafka, pool: ConnectionPool, line: Line, action: Any
) -> None:
    cluster.intercept("FindCoordinator", action, times=1)
    futures = line.send(metadata(), coordinator(), heartbeat(), commit(5))
    assert line.outcomes(futures) == [
        "MetadataResponse",
        "FindCoordinatorResponse",
        "HeartbeatResponse",
        "OffsetCommitResponse",
    ]
    assert pool.stats().requests_resent >= 3


@pytest.mark.parametrize("action", END.values(), ids=END.keys())
def test_whose_answer_ends_each_connection_fails_alone(cluster: EmbeddedKafka, line: Line, action: Any) -> None:
    cluster.intercept("FindCoordinator", action)
    futures = line.send(metadata(), coordinator(), heartbeat(), coordinator(), metadata(), commit(5))
    assert line.outcomes(futures) == [
        "MetadataResponse",
        "KafkaConnectionError",
        "HeartbeatResponse",
        "KafkaConnectionError",
        "MetadataResponse",
        "OffsetCommitResponse",
    ]


def test_what_came_before_a_bad_answer_in_the_same_breath_is_asked_for_again(
    cluster: EmbeddedKafka, pool: ConnectionPool, line: Line
) -> None:
    connection = line._manager.connection(next(key for key, _ in line._manager.connections()))
    hold = cluster.intercept("Metadata", Hold(), times=1)
    cluster.intercept("FindCoordinator", Corrupt("garbage"), times=2)
    whole: list[bytes] = []
    transport, received = connection.transport, connection.data_received

    def gathered(data: bytes) -> None:  # hands over both answers at once
        whole.append(data)
        if b"HTTP" in data:
            received(b"".join(whole))

    connection.data_received = gathered
    futures = line.send(metadata(), coordinator(), heartbeat())
    hold.release()
    assert line.outcomes(futures) == ["MetadataResponse", "KafkaConnectionError", "HeartbeatResponse"]
    assert transport.is_closing()


def test_whose_time_is_up_fails_alone(cluster: EmbeddedKafka, pool: ConnectionPool, line: Line) -> None:
    cluster.intercept("FindCoordinator", Never(), times=1)
    (guilty,) = line.send(coordinator(), timeout_ms=TIMED_OUT_MS)
    innocent = line.send(heartbeat(), metadata(), commit(5))
    assert line.outcomes([guilty]) == ["RequestTimedOutError"]
    assert line.outcomes(innocent) == ["HeartbeatResponse", "MetadataResponse", "OffsetCommitResponse"]
    assert pool.stats().requests_resent == 3


def test_those_who_have_as_little_time_get_it_anew(cluster: EmbeddedKafka, line: Line) -> None:
    cluster.intercept("FindCoordinator", Never(), times=2)
    futures = line.send(coordinator(), metadata(), coordinator(), heartbeat(), timeout_ms=TIMED_OUT_MS)
    guilty, innocent = "RequestTimedOutError", ["MetadataResponse", "HeartbeatResponse"]
    assert line.outcomes(futures) == [guilty, innocent[0], guilty, innocent[1]]


def test_whoever_runs_out_of_time_behind_another_is_served_before_it(cluster: EmbeddedKafka, line: Line) -> None:
    never = cluster.intercept("FindCoordinator", Never(), times=2)
    (slow,) = line.send(coordinator(), timeout_ms=30_000)
    hasty = line.send(heartbeat(), timeout_ms=TIMED_OUT_MS)
    assert line.outcomes(hasty) == ["HeartbeatResponse"]
    never.wait_for(2)
    assert not slow.is_done, "it may be only slow"
    assert line.outcomes(line.send(heartbeat(), timeout_ms=TIMED_OUT_MS)) == ["HeartbeatResponse"]
    assert line.outcomes([slow]) == ["KafkaConnectionError"], "nobody waits for it twice"


def test_one_that_is_only_slow_is_answered(cluster: EmbeddedKafka, line: Line) -> None:
    hold = cluster.intercept("FindCoordinator", Hold())
    (slow,) = line.send(coordinator(), timeout_ms=30_000)
    hold.wait_for(1)
    assert line.outcomes(line.send(heartbeat(), timeout_ms=TIMED_OUT_MS)) == ["HeartbeatResponse"]
    hold.wait_for(2)
    hold.release()
    assert line.outcomes([slow]) == ["FindCoordinatorResponse"]


def test_a_commit_is_never_overtaken_by_a_later_one(cluster: EmbeddedKafka, pool: ConnectionPool, line: Line) -> None:
    cluster.intercept("OffsetCommit", Never(), times=1)
    (first,) = line.send(commit(1), timeout_ms=30_000)
    later = line.send(heartbeat(), commit(2), commit(3), timeout_ms=TIMED_OUT_MS)
    assert line.outcomes(later) == ["HeartbeatResponse", "OffsetCommitResponse", "OffsetCommitResponse"]
    assert line.outcomes([first]) == ["KafkaConnectionError"]
    answer = pool.client.send_and_receive(1, offset_fetch())
    assert answer.groups[0].topics[0].partitions[0].committed_offset == 3


def test_what_its_owner_sends_on_hearing_of_a_failure_comes_after_what_is_sent_again(
    cluster: EmbeddedKafka, line: Line
) -> None:
    fault: Any = cluster.intercept("OffsetCommit", lambda _: Drop() if len(fault.requests) <= 2 else None)
    sent: list[Future] = []
    first, second = line.send(commit(1), commit(2))
    first.add_errback(lambda _: sent.append(line._manager.send(commit(3), 1)))
    assert line.outcomes([first, second]) == ["KafkaConnectionError", "OffsetCommitResponse"]
    until(lambda: sent and sent[0].is_done)
    offsets = [request.topics[0].partitions[0].committed_offset for request in fault.requests]
    assert offsets == [1, 1, 2, 3]


def test_what_may_not_be_repeated_is_not(cluster: EmbeddedKafka, pool: ConnectionPool, line: Line) -> None:
    cluster.intercept("FindCoordinator", Never(), times=1)
    (guilty,) = line.send(coordinator(), timeout_ms=TIMED_OUT_MS)
    deletion, listing = line.send(DeleteGroupsRequest(groups_names=["g"]), ListGroupsRequest(states_filter=[]))
    assert line.outcomes([guilty, deletion, listing]) == [
        "RequestTimedOutError",
        "KafkaConnectionError",
        "ListGroupsResponse",
    ]
    assert "another request on it was not answered in time" in str(deletion.exception)


def test_where_the_broker_is_gone_nobody_waits_for_it(cluster: EmbeddedKafka, pool: ConnectionPool, line: Line) -> None:
    hold = cluster.intercept("FindCoordinator", Hold())
    futures = line.send(coordinator(), metadata(), heartbeat())
    hold.wait_for(1)
    cluster.kill(1)
    began = time.monotonic()
    assert set(line.outcomes(futures)) == {"KafkaConnectionError"}
    assert time.monotonic() - began < TIMEOUT_S


def test_where_the_broker_stands_still_its_owners_hear_soon(
    cluster: EmbeddedKafka, pool: ConnectionPool, line: Line
) -> None:
    hold = cluster.intercept("FindCoordinator", Hold())
    (guilty,) = line.send(coordinator(), timeout_ms=TIMED_OUT_MS)
    innocent = line.send(metadata(), heartbeat())
    hold.wait_for(1)
    cluster.pause(1)  # it takes connections, and says nothing on them
    assert line.outcomes([guilty]) == ["RequestTimedOutError"]
    assert line.outcomes(innocent) == ["KafkaConnectionError", "KafkaConnectionError"]


def test_nothing_is_sent_again_by_a_pool_that_disconnects(
    cluster: EmbeddedKafka, pool: ConnectionPool, line: Line
) -> None:
    hold = cluster.intercept("FindCoordinator", Hold())
    futures = line.send(coordinator(), metadata(), heartbeat())
    hold.wait_for(1)
    pool.disconnect()
    assert all(future.failed() for future in futures)
    hold.release()  # until then the broker has something to answer
    until(lambda: not open_connections(cluster))
    assert pool.stats().requests_resent == 0


def test_a_limit_of_requests_holds_while_some_are_sent_again(cluster: EmbeddedKafka, kafka: Kafka) -> None:
    with kafka.connection_pool(max_in_flight_requests=3) as pool:
        line = Line(pool)
        fault: Any = cluster.intercept("FindCoordinator", lambda _: Drop() if len(fault.requests) % 2 else None)
        futures = line.send(*[coordinator(), metadata(), heartbeat()] * 5)
        assert line.outcomes(futures) == ["FindCoordinatorResponse", "MetadataResponse", "HeartbeatResponse"] * 5
        assert len(fault.requests) == 10
        engine = pool._connection.engine  # type: ignore[union-attr]
        until(lambda: (engine.permits.held, engine.permits.waiting) == (0, 0))  # the pool asks for metadata too
        assert cluster.most_outstanding() <= 3


# -- one client's request is never answered while others do their business ---------------------------------------------

GUILTY: dict[str, Any] = {
    "FindCoordinator": coordinator(),
    "Heartbeat": heartbeat(),
    "ListOffsets": list_offsets(),
    "Metadata": metadata(),
    "OffsetCommit": commit(1),
    "OffsetFetch": offset_fetch(),
}


def does_business(consumer: Consumer, offset: int) -> None:
    """What a consumer asks on the control lane; any error is raised."""
    consumer.commit({PARTITION: OffsetAndMetadata(offset, "", -1)})
    assert consumer.committed(PARTITION) == offset
    assert consumer.end_offsets([PARTITION])[PARTITION] >= 0
    committed: list[Any] = []
    later = {PARTITION: OffsetAndMetadata(offset + 1, "", -1)}
    consumer.commit_async(later, callback=lambda *result: committed.append(result))
    until(lambda: consumer.poll(timeout_ms=10) is None or committed)
    assert committed == [(later, None)]
    assert consumer.partitions_for_topic("orders") == {0}


@pytest.mark.parametrize("api", sorted(GUILTY))
def test_ten_clients_do_their_business_while_another_is_never_answered(
    cluster: EmbeddedKafka,
    kafka: Kafka,
    pool: ConnectionPool,
    consumer: Callable[..., Consumer],
    record_property: Callable[[str, Any], None],
    api: str,
) -> None:
    consumers = [consumer(group_id=f"g{n}", enable_auto_commit=False) for n in range(8)]
    producers = [kafka.producer(connection_pool=pool, linger_ms=n) for n in range(2)]
    for each in consumers:
        each.assign([PARTITION])
        # Else polls ask for the position; kafka-python keeps what comes too late for a poll, and takes it for the
        # answer to the next question.
        each.seek(PARTITION, 0)
        does_business(each, 0)
    line, longest = Line(pool), 0.0
    with ThreadPoolExecutor(len(consumers) + len(producers)) as threads:
        for round_ in (1, 2, 3):
            with cluster.intercept(api, Never(), client_id=POOL, times=1) as never:
                guilty = line.send(GUILTY[api], timeout_ms=TIMED_OUT_MS)
                never.wait_for(1)
                began = time.monotonic()
                work: list[Any] = [threads.submit(does_business, each, round_ * 10) for each in consumers]
                work += [threads.submit(producer.send("orders", b"x").get, TIMEOUT_S) for producer in producers]
                for each_work in work:
                    each_work.result(TIMEOUT_S)
                longest = max(longest, time.monotonic() - began)
                assert line.outcomes(guilty) == ["RequestTimedOutError"]
    resent = pool.stats().requests_resent
    assert resent >= 3
    record_property("requests resent", resent)
    record_property("longest business of an innocent client, ms", round(longest * 1000))


# -- producers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", ["InitProducerId", "FindCoordinator", "AddPartitionsToTxn", "EndTxn"])
@pytest.mark.parametrize("action", [Never(), Drop(), Half(), Corrupt("garbage"), Corrupt("correlation id")], ids=repr)
def test_a_transaction_outlives_what_is_not_answered(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool, api: str, action: Any
) -> None:
    with kafka.producer(connection_pool=pool, transactional_id="t", request_timeout_ms=TIMED_OUT_MS) as producer:
        faults = [cluster.intercept(api, action, client_id=POOL, times=1)]
        producer.init_transactions()
        for value in (b"a", b"b"):
            producer.begin_transaction()
            sent = producer.send("orders", value)
            producer.commit_transaction()
            assert sent.get(timeout=TIMEOUT_S).offset >= 0
        assert len(faults[0].requests) == 1
    with kafka.consumer(
        "orders", connection_pool=pool, auto_offset_reset="earliest", isolation_level="read_committed"
    ) as reader:
        assert read(reader, 2) == [b"a", b"b"]


def test_a_transaction_is_committed_though_its_coordinator_cannot_be_reached_for_a_while(
    cluster: EmbeddedKafka, kafka: Kafka
) -> None:
    impatient = Kafka(
        **cluster.client_options(),
        client_id=POOL,
        socket_connection_setup_timeout_ms=1_000,
        socket_connection_setup_timeout_max_ms=1_000,
    )
    with impatient.connection_pool() as pool:
        producer = impatient.producer(connection_pool=pool, transactional_id="t", request_timeout_ms=200)
        producer.init_transactions()
        producer.begin_transaction()
        producer.send("orders", b"x").get(timeout=TIMEOUT_S)
        cluster.intercept("ListGroups", Drop(), times=2)
        silent = cluster.intercept("ApiVersions", Never(), client_id=POOL, times=2)
        line = Line(pool)
        line.send(ListGroupsRequest(states_filter=[]))
        silent.wait_for(1)  # the control lane is not there, and will not be for longer than the producer waits
        committed = threading.Thread(target=producer.commit_transaction, daemon=True)
        committed.start()
        committed.join(TIMEOUT_S)
        assert not committed.is_alive()


def test_a_producer_that_may_not_retry_hears_of_a_lost_connection_and_not_of_a_timeout(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool
) -> None:
    hasty = kafka.producer(connection_pool=pool, request_timeout_ms=TIMED_OUT_MS, retries=0, enable_idempotence=False)
    other = kafka.producer(connection_pool=pool, retries=0, enable_idempotence=False, acks=1)
    for producer in (hasty, other):
        producer.send("orders", b"up").get(timeout=TIMEOUT_S)
    never = cluster.intercept("Produce", Never(), client_id=POOL, times=1)
    guilty = hasty.send("orders", b"guilty")
    never.wait_for(1)
    innocent = other.send("orders", b"innocent")
    with pytest.raises(RequestTimedOutError):
        guilty.get(timeout=TIMEOUT_S)
    with pytest.raises(KafkaConnectionError) as lost:
        innocent.get(timeout=TIMEOUT_S)
    assert not isinstance(lost.value, BrokerResponseError)
