"""What each thread of the threads scenario does: one random call after the other."""

from __future__ import annotations

import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

from kafka import errors
from kafka.protocol.metadata import ApiVersionsRequest
from kafka.structs import OffsetAndMetadata, TopicPartition

from pooledkafka import (
    Admin,
    ConcurrentUseError,
    ConfigurationError,
    ConnectionPool,
    Consumer,
    Kafka,
    PoolClosedError,
    PoolTimeoutError,
    Producer,
)

__all__ = ["LOG_TOPICS", "PARTITIONS", "Shared", "Worker"]

LOG_TOPICS = ("log-1", "log-2", "log-3")
PARTITIONS = 6
GROUPS = ("a", "b", "c", "d", "e")
TIMEOUT_MS = 20_000
LONG_RUN_S = 0.5

EXPECTED: tuple[tuple[type[BaseException], str, str], ...] = (
    # The type, how its message begins, and the reason for which a call may raise it here.
    (PoolClosedError, "", "another thread has closed the client or disconnected the pool"),
    (ConcurrentUseError, "", "two threads use one consumer on purpose"),
    (PoolTimeoutError, "", "a timeout is short, or another thread is in a call or disconnects"),
    (ConfigurationError, "transactional_id", "another handle has the transactional id"),
    (errors.KafkaTimeoutError, "", "a broker restarts, or a timeout is short"),
    (errors.KafkaConnectionError, "", "a broker restarts, or the pool was disconnected meanwhile"),
    (errors.NodeNotReadyError, "", "a broker restarts"),
    (errors.CommitFailedError, "", "the group has moved on"),
    (errors.ProducerFencedError, "", "the transaction took longer than transaction_timeout_ms"),
    (errors.IllegalStateError, "Producer is closed forcefully", "the pool was disconnected within a short time"),
    (errors.RetriableError, "", "a broker restarts or a group rebalances"),
    (errors.UnknownMemberIdError, "", "the group has moved on"),
    (errors.IllegalGenerationError, "", "the group has moved on"),
    (errors.RebalanceInProgressError, "", "the group rebalances"),
    (errors.TopicAlreadyExistsError, "", "the request was sent again after a broker restarted"),
)


def _any_of(choose: random.Random, *calls: Callable[[], Any]) -> Callable[[], Any]:
    return choose.choice(calls)


def reason_for(error: BaseException) -> str | None:
    for kind, beginning, reason in EXPECTED:
        if isinstance(error, kind) and str(error).removeprefix(f"{type(error).__name__}: ").startswith(beginning):
            return reason
    return None


class Shared:
    """What all threads use; ``lock`` guards the records, all else is replaced or added to atomically."""

    def __init__(self, kafka: Kafka, pools: int) -> None:
        self.kafka = kafka
        self.pools = [kafka.connection_pool(metadata_max_age_ms=2_000) for _ in range(pools)]
        self.over = threading.Event()
        self.consumers: dict[int, Consumer] = {}  # by the number of the thread whose it is
        self.producers = [
            kafka.producer(connection_pool=pool, delivery_timeout_ms=TIMEOUT_MS, request_timeout_ms=10_000)
            for pool in self.pools
        ]
        self._began = time.monotonic()
        self.lock = threading.Lock()
        self._acknowledged: dict[str, str] = {}  # with where the broker said that it is
        self._sent: set[str] = set()

    def sent(self, records: list[str]) -> None:
        with self.lock:
            self._sent.update(records)

    def acknowledged(self, records: list[str], places: list[Any], how: str) -> None:
        with self.lock:
            for record, place in zip(records, places, strict=True):
                said = (
                    f"{place.topic}-{place.partition} at {place.offset}, {time.monotonic() - self._began:.1f} s, {how}"
                )
                self._acknowledged[record] = said

    def withdrawn(self, records: list[str]) -> None:
        """They must not be there: their transaction was aborted."""
        with self.lock:
            self._sent.difference_update(records)

    def outcome(self) -> tuple[dict[str, str], set[str]]:
        """The records that were acknowledged, and all that may be there."""
        with self.lock:
            return dict(self._acknowledged), set(self._sent)

    def forget_clients(self) -> None:
        for producer in self.producers:
            producer.close(timeout_ms=1_000)
        self.consumers.clear()
        self.producers.clear()
        self.pools.clear()


WORK: dict[str, float] = {
    "consumer.make": 6,
    "consumer.poll": 30,
    "consumer.iterate": 6,
    "consumer.run": 4,
    "consumer.seek": 4,
    "consumer.pause": 4,
    "consumer.commit": 4,
    "consumer.look": 6,
    "consumer.subscribe": 3,
    "consumer.close": 2,
    "other.wakeup": 4,
    "other.use": 3,
    "other.close": 1,
    "producer.make": 3,
    "producer.send": 15,
    "producer.send_and_wait": 8,
    "producer.send_batch": 6,
    "producer.flush": 4,
    "producer.look": 2,
    "producer.transaction": 2,
    "producer.close": 2,
    "admin.look": 2,
    "admin.topic": 1,
    "pool.connect": 2,
    "pool.disconnect": 0.3,
    "pool.look": 4,
    "pool.listen": 2,
    "pool.client": 2,
}
"""What a thread calls, and how often in comparison."""


class Listener:
    def on_partitions_revoked(self, revoked: Any) -> None: ...

    def on_partitions_assigned(self, assigned: Any) -> None: ...


class Worker:
    """One thread, with a consumer and a producer of its own that it makes anew now and then."""

    def __init__(self, number: int, shared: Shared, seed: int = 0) -> None:
        self.number = number
        self.shared = shared
        self.kafka = shared.kafka
        self.thread = threading.Thread(target=self._work, name=f"worker-{number}", daemon=True)
        self.doing: tuple[str | None, float] = (None, 0.0)  # replaced as a whole; read by the watchdog
        self.counts: Counter[str] = Counter()
        self.longest: dict[str, float] = {}
        self.expected: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self.read = 0
        self._numbers = 0
        self._random = random.Random(seed * 1_000 + number)
        self._consumer: Consumer | None = None
        self._producer: Producer | None = None
        self._begun: list[str] | None = None  # the records of the transaction that is under way
        self._listeners: list[tuple[ConnectionPool, Callable[[Any], None]]] = []

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        kinds, weights = zip(*WORK.items(), strict=True)
        while not self.shared.over.is_set():
            kind = self._random.choices(kinds, weights)[0]
            self.call(kind, lambda kind=kind: getattr(self, "_" + kind.replace(".", "_"))())  # type: ignore[misc]
        self.call("close.all", self._close_all)

    def call(self, kind: str, call: Callable[[], Any]) -> None:
        started = time.monotonic()
        self.doing = kind, started
        try:
            call()
        except BaseException as error:
            reason = reason_for(error)
            if reason is None:
                self.unexpected.append(f"{kind}: {''.join(traceback.format_exception(error)[-12:])}")
            else:
                self.expected[f"{kind}: {type(error).__name__}: {reason}"] += 1
        finally:
            self.counts[kind] += 1
            self.longest[kind] = max(self.longest.get(kind, 0.0), time.monotonic() - started)
            self.doing = None, 0.0

    def end_a_long_run(self) -> None:
        """Called by the watchdog: a run without records would else go on."""
        kind, since = self.doing
        if kind == "consumer.run" and time.monotonic() - since > LONG_RUN_S and (mine := self._consumer) is not None:
            mine.stop()

    def _close_all(self) -> None:
        for pool, listener in self._listeners:
            pool.remove_listener(listener)
        try:
            self._consumer_close()
        finally:
            self._producer_close()

    # -- consumers -----------------------------------------------------------------------------------------------------

    def _consumer_make(self) -> Consumer:
        self._consumer_close()
        how = self._random.choice(["group", "group", "pattern", "assign", "alone"])
        pool: ConnectionPool | None = self._random.choice(self.shared.pools)
        options: dict[str, Any] = {
            "auto_offset_reset": self._random.choice(["earliest", "latest"]),
            "isolation_level": self._random.choice(["read_uncommitted", "read_committed"]),
            "enable_auto_commit": self._random.random() < 0.5,
            "auto_commit_interval_ms": 300,
            "consumer_timeout_ms": 100,
            "max_poll_records": self._random.choice([10, 500]),
        }
        if how in ("group", "pattern"):
            options["group_id"] = f"{self._random.choice(GROUPS)}-{how}"
        if self._random.random() < 0.03:
            pool = None  # a private one
        topics = self._topics() if how in ("group", "alone") else []
        made = self.kafka.consumer(*topics, connection_pool=pool, **options)
        self._consumer = self.shared.consumers[self.number] = made
        if how == "pattern":
            made.subscribe(pattern="^log-[12]$", listener=Listener())
        elif how == "assign":
            made.assign(self._partitions())
        return made

    def _topics(self) -> list[str]:
        return self._random.sample(LOG_TOPICS, self._random.randint(1, len(LOG_TOPICS)))

    def _partitions(self) -> list[TopicPartition]:
        every = [TopicPartition(topic, number) for topic in LOG_TOPICS for number in range(PARTITIONS)]
        return self._random.sample(every, self._random.randint(1, 8))

    def _mine(self) -> Consumer:
        if self._consumer is None or self._consumer._closed:
            return self._consumer_make()
        return self._consumer

    def _assigned(self) -> tuple[Consumer, list[TopicPartition]]:
        mine = self._mine()
        return mine, sorted(mine.assignment())

    def _consumer_poll(self) -> None:
        records = self._mine().poll(timeout_ms=self._random.choice([0, 10, 100, 300]))
        self.read += sum(map(len, records.values()))

    def _consumer_iterate(self) -> None:
        for count, _ in enumerate(self._mine()):
            self.read += 1
            if count >= 50:
                break

    def _consumer_run(self) -> None:
        mine, most = self._mine(), self._random.randint(1, 100)
        count = 0

        def handler(_: Any) -> None:
            nonlocal count
            count += 1
            self.read += 1
            if count >= most:
                mine.stop()

        mine.run(handler, max_records=20)

    def _consumer_seek(self) -> None:
        mine, assigned = self._assigned()
        if not assigned:
            return
        partition = self._random.choice(assigned)
        how = self._random.choice(["offset", "beginning", "end"])
        if how == "offset":
            mine.seek(partition, self._random.randint(0, 50))
        elif how == "beginning":
            mine.seek_to_beginning(partition)
        else:
            mine.seek_to_end(partition)

    def _consumer_pause(self) -> None:
        mine, assigned = self._assigned()
        some = self._random.sample(assigned, self._random.randint(0, len(assigned)))
        mine.pause(*some)
        mine.poll(timeout_ms=10)
        mine.resume(*mine.paused())

    def _consumer_commit(self) -> None:
        mine = self._mine()
        if mine._options.get("group_id") is not None:
            _any_of(self._random, mine.commit, mine.commit_async)()

    def _consumer_look(self) -> None:
        mine, assigned = self._assigned()
        repr(mine), mine.subscription(), mine.metrics()
        if assigned:
            partition = self._random.choice(assigned)
            look = self._random.choice(["position", "committed", "ends", "times", "topics"])
            if look == "position":
                mine.position(partition, timeout_ms=2_000)
            elif look == "committed" and mine._options.get("group_id") is not None:
                mine.committed(partition)
            elif look == "ends":
                mine.beginning_offsets([partition]), mine.end_offsets([partition])
            elif look == "times":
                mine.offsets_for_times({partition: 0})
            else:
                mine.topics()

    def _consumer_subscribe(self) -> None:
        mine = self._mine()
        mine.unsubscribe()
        if self._random.random() < 0.5:
            mine.subscribe(self._topics(), listener=self._random.choice([None, Listener()]))
        else:
            mine.assign(self._partitions())

    def _consumer_close(self) -> None:
        mine, self._consumer = self._consumer, None
        self.shared.consumers.pop(self.number, None)
        if mine is not None:
            mine.close(autocommit=self._random.random() < 0.5, timeout_ms=self._random.choice([0, 500, TIMEOUT_MS]))
            mine.close()  # once more does nothing, but waits for one that is still in a call

    # -- another thread's consumer -------------------------------------------------------------------------------------

    def _others(self) -> Consumer | None:
        others = list(self.shared.consumers.values())
        return self._random.choice(others) if others else None

    def _other_wakeup(self) -> None:
        if (other := self._others()) is not None:
            self._random.choice([other.wakeup, other.stop])()
            repr(other)

    def _other_use(self) -> None:
        if (other := self._others()) is not None:
            _any_of(self._random, other.assignment, other.poll, other.subscription)()

    def _other_close(self) -> None:
        if (other := self._others()) is not None:
            other.close(timeout_ms=self._random.choice([0, 500, TIMEOUT_MS]))

    # -- producers -----------------------------------------------------------------------------------------------------

    def _record(self) -> str:
        self._numbers += 1
        return f"{self.number}-{self._numbers}"

    def _handle(self) -> Producer:
        if self._random.random() < 0.5:
            return self._random.choice(self.shared.producers)
        if self._producer is None or self._producer._options.get("transactional_id") is not None:
            self._producer_make()
        assert self._producer is not None
        return self._producer

    def _producer_make(self) -> None:
        self._producer_close()
        self._producer = self.kafka.producer(
            connection_pool=self._random.choice(self.shared.pools),
            delivery_timeout_ms=TIMEOUT_MS,
            request_timeout_ms=10_000,
            linger_ms=self._random.choice([0, 5]),
        )

    def _producer_close(self) -> None:
        mine, self._producer = self._producer, None
        self._begun = None
        if mine is not None:
            mine.close(timeout_ms=self._random.choice([0, 500, TIMEOUT_MS]))
            mine.close()

    def _send(self, producer: Producer, record: str) -> Any:
        self.shared.sent([record])
        return producer.send(self._random.choice(LOG_TOPICS), record.encode())

    def _producer_send(self) -> None:
        record = self._record()
        future = self._send(self._handle(), record)
        future.add_callback(lambda place: self.shared.acknowledged([record], [place], "sent"))

    def _producer_send_and_wait(self) -> None:
        record = self._record()
        future = self._send(self._handle(), record)
        place = future.get(timeout=TIMEOUT_MS / 1_000 + 5)
        self.shared.acknowledged([record], [place], "sent and waited for")

    def _producer_send_batch(self) -> None:
        records = [self._record() for _ in range(self._random.randint(1, 50))]
        self.shared.sent(records)
        future = self._handle().send_batch(
            self._random.choice(LOG_TOPICS), [{"value": record.encode()} for record in records]
        )
        places = list(future.get(timeout=TIMEOUT_MS / 1_000 + 5))
        self.shared.acknowledged(records, places, "in a batch")

    def _producer_flush(self) -> None:
        self._handle().flush(timeout=TIMEOUT_MS / 1_000 + 5)

    def _producer_look(self) -> None:
        producer = self._handle()
        repr(producer), producer.metrics(), producer.partitions_for(self._random.choice(LOG_TOPICS))

    def _producer_transaction(self) -> None:
        self._producer_close()
        pool = self._random.randrange(len(self.shared.pools))
        producer = self._producer = self.kafka.producer(
            connection_pool=self.shared.pools[pool],
            transactional_id=f"tx-{self.number % 8}-{pool}",  # eight threads each want the same
            delivery_timeout_ms=TIMEOUT_MS,
            request_timeout_ms=10_000,
            max_block_ms=TIMEOUT_MS,
            transaction_timeout_ms=15_000,  # until then nobody reads what comes after one that was cut off
        )
        producer.init_transactions()
        for _ in range(self._random.randint(1, 3)):
            began = time.monotonic()
            producer.begin_transaction()
            records = [self._record() for _ in range(self._random.randint(1, 10))]
            futures = [self._send(producer, record) for record in records]
            if self._random.random() < 0.3:
                mine = self._mine()
                if mine._options.get("group_id") is not None and mine._wired is not None:
                    offsets = {TopicPartition(LOG_TOPICS[0], 0): OffsetAndMetadata(0, "", -1)}
                    producer.send_offsets_to_transaction(offsets, f"tx-{self.number}")
            if self._random.random() < 0.7:
                producer.commit_transaction()
                without = [(f.is_done, f.exception) for f in futures if not f.succeeded()]
                assert not without, f"committed, in {time.monotonic() - began:.1f} s, without {without}"
                self.shared.acknowledged(records, [future.value for future in futures], "in a transaction")
            else:
                producer.abort_transaction()
                self.shared.withdrawn(records)
        self._producer_close()

    # -- admin clients -------------------------------------------------------------------------------------------------

    def _admin(self) -> Admin:
        return self.kafka.admin(connection_pool=self._random.choice(self.shared.pools), request_timeout_ms=10_000)

    def _admin_look(self) -> None:
        with self._admin() as admin:
            self._random.choice([admin.list_topics, admin.describe_cluster])()

    def _admin_topic(self) -> None:
        with self._admin() as admin:
            name = f"temporary-{self.number}-{self._record()}"
            admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1}})
            admin.delete_topics([name])

    # -- pools ---------------------------------------------------------------------------------------------------------

    def _pool(self) -> ConnectionPool:
        return self._random.choice(self.shared.pools)

    def _pool_connect(self) -> None:
        for pool in self.shared.pools:
            pool.connect()

    def _pool_disconnect(self) -> None:
        pool = self._pool()
        try:
            pool.disconnect(timeout_ms=self._random.choice([0, 200, TIMEOUT_MS]))
        finally:
            pool.connect()

    def _pool_look(self) -> None:
        for pool in self.shared.pools:
            repr(pool), pool.stats()

    def _pool_listen(self) -> None:
        if self._listeners:
            pool, listener = self._listeners.pop()
            pool.remove_listener(listener)
        else:
            pool, seen = self._pool(), []  # type: ignore[var-annotated]
            pool.add_listener(seen.append)
            self._listeners.append((pool, seen.append))

    def _pool_client(self) -> None:
        client = self._pool().client
        node_id = client.least_loaded_node()
        if node_id is not None:
            client.send_and_receive(node_id, ApiVersionsRequest(), timeout_ms=5_000)
