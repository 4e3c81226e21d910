"""Disconnecting and closing, while other threads wait for something, and from within whatever the library calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener, ConsumerRebalanceListener
from kafka.errors import KafkaError
from kafka.protocol.metadata import MetadataRequest
from kafka.serializer import Deserializer
from kafka.structs import TopicPartition

from pooledkafka import ConnectionPool, Consumer, Kafka, PoolClosedError, PoolError, PoolTimeoutError, Producer
from pooledkafka.testing import EmbeddedKafka, Hold
from tests.pooled.waiting import until
from tests.watchdog import bounded

FOREVER_MS = 3_600_000
TIMEOUT_MS = 2_000
WITHIN_S = TIMEOUT_MS / 1000 + 8.0  # the grace is for a busy machine, and for what fails its futures at the end
PARTITION = TopicPartition("orders", 0)


@pytest.fixture
def kafka(cluster: EmbeddedKafka) -> Kafka:
    return Kafka(**cluster.client_options())


@pytest.fixture
def pool(kafka: Kafka) -> Iterator[ConnectionPool]:
    pool = kafka.connection_pool()
    yield pool
    bounded(lambda: pool.disconnect(TIMEOUT_MS), WITHIN_S, "the last disconnect")


class Caller(threading.Thread):
    """A thread in a call of the library that does not return by itself."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(name="caller", daemon=True)
        self._call = call
        self.error: BaseException | None = None
        self.result: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self._call()
        except BaseException as error:
            self.error = error

    def returns(self) -> BaseException | None:
        bounded(self.join, WITHIN_S, "the call in the other thread")
        return self.error


def own_threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate() if thread.name != "pooledkafka-embedded"]
    return [name for name in names if name.startswith(("kafka-io", "pooledkafka")) or name.endswith("network-thread")]


def joined(consumer: Consumer) -> Consumer:
    until(lambda: consumer.poll(timeout_ms=20) or consumer.assignment())
    return consumer


def gone() -> None:
    """No thread of the pool is left."""
    until(own_threads, lambda left: not left)


# -- while others wait -------------------------------------------------------------------------------------------------


def polls(pool: ConnectionPool) -> Callable[[], Any]:
    consumer = joined(Consumer("orders", group_id="g", connection_pool=pool))
    return lambda: consumer.poll(timeout_ms=FOREVER_MS)


def iterates(pool: ConnectionPool) -> Callable[[], Any]:
    consumer = joined(Consumer("orders", group_id="g", connection_pool=pool))
    return lambda: next(consumer)


def runs(pool: ConnectionPool) -> Callable[[], Any]:
    consumer = joined(Consumer("orders", group_id="g", connection_pool=pool))
    return lambda: consumer.run(lambda record: None)


def joins(pool: ConnectionPool) -> Callable[[], Any]:
    consumer = Consumer("orders", group_id="g", connection_pool=pool)
    return lambda: consumer.poll(timeout_ms=FOREVER_MS)


def commits(pool: ConnectionPool) -> Callable[[], Any]:
    consumer = joined(Consumer("orders", group_id="g", connection_pool=pool, enable_auto_commit=False))
    consumer.seek(PARTITION, 0)
    return consumer.commit


def flushes(pool: ConnectionPool) -> Callable[[], Any]:
    producer = Producer(connection_pool=pool)
    producer.send("orders", b"unsent")
    return producer.flush


def gets(pool: ConnectionPool) -> Callable[[], Any]:
    get: Callable[[], Any] = Producer(connection_pool=pool).send("orders", b"unsent").get
    return get


def sends(pool: ConnectionPool) -> Callable[[], Any]:
    """Waits for the metadata of a topic, as kafka-python does before it takes a record."""
    producer = Producer(connection_pool=pool, max_block_ms=TIMEOUT_MS)
    return lambda: producer.send("bills", b"unsent")


def closes(pool: ConnectionPool) -> Callable[[], Any]:
    producer = Producer(connection_pool=pool)
    producer.send("orders", b"unsent")
    return lambda: producer.close(timeout_ms=FOREVER_MS)


def asks(pool: ConnectionPool) -> Callable[[], Any]:
    admin = Kafka(bootstrap_servers=pool.options["bootstrap_servers"]).admin(connection_pool=pool)
    return lambda: admin.create_topics({"more": {"num_partitions": 1}})


@pytest.mark.parametrize(
    ("begin", "held"),
    [
        (polls, None),
        (iterates, None),
        (runs, None),
        (joins, "JoinGroup"),
        (joins, "SyncGroup"),
        (joins, "FindCoordinator"),
        (joins, "Metadata"),
        (commits, "OffsetCommit"),
        (flushes, "Produce"),
        (gets, "Produce"),
        (sends, "Metadata"),
        (closes, "Produce"),
        (asks, "CreateTopics"),
    ],
)
def test_disconnecting_while_another_thread(
    cluster: EmbeddedKafka,
    pool: ConnectionPool,
    begin: Callable[[ConnectionPool], Callable[[], Any]],
    held: str | None,
) -> None:
    pool.connect()
    hold = cluster.intercept(held, Hold()) if held is not None else None
    call = begin(pool)
    caller = Caller(call)
    if hold is not None:
        hold.wait_for(1)
    if begin in (flushes, gets, closes):
        with pytest.raises(PoolTimeoutError, match=r"1 records \(1 of orders\) could not be delivered"):
            bounded(lambda: pool.disconnect(TIMEOUT_MS), WITHIN_S, "disconnect")
    else:
        bounded(lambda: pool.disconnect(TIMEOUT_MS), WITHIN_S, "disconnect")
    raised = caller.returns()
    assert raised is None or isinstance(raised, KafkaError), repr(raised)
    if begin in (polls, runs):
        assert raised is None
    elif begin in (iterates, joins, commits):
        assert raised is None or isinstance(raised, PoolClosedError), repr(raised)
    gone()


def test_one_whose_handler_does_not_return_takes_no_time_of_the_others(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool
) -> None:
    with kafka.producer() as producer:
        producer.send("orders", b"one").get(timeout=10)
    commits, leaving = cluster.intercept("OffsetCommit"), cluster.intercept("LeaveGroup")
    inside, go_on = threading.Event(), threading.Event()

    def handler(record: Any) -> None:
        inside.set()
        go_on.wait()

    earliest: dict[str, Any] = {"auto_offset_reset": "earliest", "connection_pool": pool}
    busy = Consumer("orders", group_id="busy", **earliest)
    stuck = Caller(lambda: busy.run(handler))
    assert inside.wait(15)
    others = [joined(Consumer("orders", group_id=f"g{n}", **earliest)) for n in range(3)]
    for other in others:
        until(lambda other=other: other.position(PARTITION) == 1 or other.poll(timeout_ms=100))  # type: ignore[misc]
    bounded(lambda: pool.disconnect(TIMEOUT_MS), WITHIN_S, "disconnect")
    assert {request.group_id for request in commits.requests} == {"g0", "g1", "g2"}
    assert {request.group_id for request in leaving.requests} == {"busy", "g0", "g1", "g2"}, (
        "all are out of their group"
    )
    go_on.set()
    assert isinstance(stuck.returns(), (KafkaError, type(None)))
    gone()


def test_while_another_thread_connects_it_says_so_in_time(cluster: EmbeddedKafka, pool: ConnectionPool) -> None:
    hold = cluster.intercept("ApiVersions", Hold())
    connecting = Caller(lambda: pool.connect(timeout_ms=FOREVER_MS))
    hold.wait_for(1)
    with pytest.raises(PoolTimeoutError, match="another thread is connecting"):
        bounded(lambda: pool.disconnect(100), WITHIN_S, "disconnect")
    hold.remove()
    assert connecting.returns() is None


# -- from within -------------------------------------------------------------------------------------------------------


def test_from_a_handler(kafka: Kafka, pool: ConnectionPool) -> None:
    with kafka.producer() as producer:
        producer.send_batch("orders", [{"value": b"one"}, {"value": b"two"}]).get(timeout=10)
    consumer = Consumer("orders", group_id="g", connection_pool=pool, auto_offset_reset="earliest")
    got: list[int] = []

    def handler(record: Any) -> None:
        got.append(record.offset)
        pool.disconnect(TIMEOUT_MS)

    bounded(lambda: consumer.run(handler), WITHIN_S, "the run")
    assert got == [0]
    gone()


@pytest.mark.parametrize("end", ["close", "disconnect"])
@pytest.mark.parametrize("event", ["on_partitions_assigned", "on_partitions_revoked"])
def test_from_a_rebalance_listener(kafka: Kafka, pool: ConnectionPool, event: str, end: str) -> None:
    """That of the first assignment within a poll, and that of a close."""
    consumer = Consumer(group_id="g", connection_pool=pool)
    ended: list[BaseException | None] = []

    class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
        def on_partitions_assigned(self, assigned: Any) -> None:
            self._on("on_partitions_assigned")

        def on_partitions_revoked(self, revoked: Any) -> None:
            if revoked:
                self._on("on_partitions_revoked")

        def _on(self, what: str) -> None:
            if what == event and not ended:
                try:
                    consumer.close(timeout_ms=TIMEOUT_MS) if end == "close" else pool.disconnect(TIMEOUT_MS)
                except BaseException as error:
                    ended.append(error)
                else:
                    ended.append(None)

    consumer.subscribe(["orders"], listener=Listener())
    if event == "on_partitions_assigned":

        def poll() -> None:
            while True:
                consumer.poll(timeout_ms=50)

        assert isinstance(raised := Caller(poll).returns(), PoolClosedError), repr(raised)
    else:
        joined(consumer)
        assert Caller(lambda: consumer.close(timeout_ms=TIMEOUT_MS)).returns() is None
    until(lambda: ended)
    assert ended == [None]
    bounded(lambda: pool.disconnect(TIMEOUT_MS), WITHIN_S, "disconnect")
    gone()


@pytest.mark.parametrize("end", ["close", "disconnect", "poll"])
def test_from_a_listener_on_the_io_thread_it_is_refused(pool: ConnectionPool, end: str) -> None:
    consumer = Consumer(group_id="g", connection_pool=pool)
    refused: list[BaseException] = []
    calls: dict[str, Callable[[], Any]] = {
        "close": consumer.close,
        "disconnect": pool.disconnect,
        "poll": consumer.poll,
    }

    class Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]
        async def on_partitions_assigned(self, assigned: Any) -> None:
            try:
                calls[end]()
            except Exception as error:
                refused.append(error)

        async def on_partitions_revoked(self, revoked: Any) -> None:
            pass

    consumer.subscribe(["orders"], listener=Listener())
    joined(consumer)
    assert [type(error).__name__ for error in refused] == ["ConcurrentUseError" if end == "poll" else "PoolError"]
    bounded(consumer.close, WITHIN_S, "close")


def test_from_a_callback_on_the_io_thread_it_is_refused(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool
) -> None:
    producer, consumer = Producer(connection_pool=pool), Consumer(connection_pool=pool)
    admin = kafka.admin(connection_pool=pool)
    producer.send("orders", b"one").get(timeout=10)
    consumer.assign([PARTITION])
    admin.list_topics()
    refused: dict[str, BaseException] = {}
    done = threading.Event()

    def callback(_: Any) -> None:
        calls: list[Callable[[], Any]] = [pool.disconnect, producer.flush, producer.close, producer.disconnect]
        for call in [*calls, consumer.close, admin.close]:
            try:
                call()
            except PoolError as error:
                refused[call.__qualname__] = error
        done.set()

    request = MetadataRequest(topics=[], allow_auto_topic_creation=False)
    with cluster.intercept("Metadata", Hold()):  # answered before, it would call back on this thread
        pool.client.send(1, request).add_both(callback)
    assert done.wait(WITHIN_S)
    assert sorted(refused) == [
        "Admin.close",
        "ConnectionPool.disconnect",
        "Consumer.close",
        "PooledClient.disconnect",
        "Producer.close",
        "Producer.flush",
    ]
    assert "cannot disconnect the pool on thread 'kafka-io" in str(refused["ConnectionPool.disconnect"])
    assert producer.send("orders", b"two").get(timeout=10).offset == 1, "nothing was done"
    assert admin.list_topics()
    consumer.poll()
    consumer.close()


def test_from_the_callback_of_a_record(pool: ConnectionPool) -> None:
    producer, other = Producer(connection_pool=pool), Producer(connection_pool=pool)
    outcomes: dict[str, BaseException | None] = {}
    done = threading.Event()

    def attempt(name: str, call: Callable[[], Any]) -> None:
        outcomes[name] = None
        try:
            call()
        except Exception as error:
            outcomes[name] = error

    def callback(_: Any) -> None:
        attempt("flush", producer.flush)
        attempt("disconnect", pool.disconnect)
        attempt("close", producer.close)
        done.set()

    later = producer.send("orders", b"one").add_both(callback) and producer.send("orders", b"two")
    assert done.wait(WITHIN_S)
    assert isinstance(outcomes["flush"], PoolError)
    assert isinstance(outcomes["disconnect"], PoolError)
    assert outcomes["close"] is None, "the handle is closed, and what it sent is delivered all the same"
    assert later.get(timeout=10).offset == 1
    with pytest.raises(PoolClosedError):
        producer.send("orders", b"three")
    assert other.send("orders", b"three").get(timeout=10).offset == 2


def test_from_a_pool_listener(pool: ConnectionPool) -> None:
    ended = threading.Event()

    def listener(event: Any) -> None:
        if type(event).__name__ == "ClientAttached":
            pool.disconnect(TIMEOUT_MS)
            ended.set()

    pool.add_listener(listener)
    producer = Producer(connection_pool=pool)

    def send() -> None:
        while True:
            producer.send("orders", b"one").get(timeout=10)

    assert isinstance(Caller(send).returns(), KafkaError)
    assert ended.wait(WITHIN_S)
    gone()


@pytest.mark.parametrize("end", ["close", "disconnect"])
def test_from_a_deserializer_within_a_poll(kafka: Kafka, pool: ConnectionPool, end: str) -> None:
    with kafka.producer() as producer:
        producer.send("orders", b"one").get(timeout=10)
    made: list[Consumer] = []

    class Ending(Deserializer):  # type: ignore[misc]
        def deserialize(self, topic: str, headers: Any, data: bytes) -> bytes:
            made[0].close(timeout_ms=TIMEOUT_MS) if end == "close" else pool.disconnect(TIMEOUT_MS)
            return data

    made.append(
        Consumer(
            "orders", group_id="g", connection_pool=pool, auto_offset_reset="earliest", value_deserializer=Ending()
        )
    )

    def poll() -> None:
        while True:
            made[0].poll(timeout_ms=50)

    assert isinstance(Caller(poll).returns(), PoolClosedError)
    pool.disconnect()
    gone()


def test_records_callbacks_that_do_not_return_take_no_time_of_each_other(kafka: Kafka, pool: ConnectionPool) -> None:
    go_on = threading.Event()
    producers = [kafka.producer(connection_pool=pool, linger_ms=number) for number in range(6)]
    stuck = []
    for producer in producers:
        entered = threading.Event()
        stuck.append(entered)
        producer.send("orders", b"x").add_both(lambda _, entered=entered: (entered.set(), go_on.wait(60)))
    assert all(entered.wait(10) for entered in stuck)
    late = [producer.send("orders", b"late") for producer in producers]
    began = time.monotonic()
    try:
        with pytest.raises(PoolTimeoutError, match="could not be delivered"):
            pool.disconnect(timeout_ms=500)
        assert time.monotonic() - began < 3.0, "one second more for all of them, not for each"
    finally:
        go_on.set()
    until(lambda: [future.is_done for future in late], all)
    assert all(future.failed() for future in late)
