"""Groups whose members come and go, lag, pause and seek get exactly the log, a broker's restart included."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from integration.clients import eventually
from integration.logs import Entry, Log, entry, plain_log
from integration.test_faults import coordinator
from pooledkafka import ConnectionPool, Consumer, Producer
from pooledkafka.testing import KafkaCluster

PARTITIONS = 6
ISOLATION = {
    "steady": "read_committed",
    "lagging": "read_uncommitted",
    "pausing": "read_committed",
    "seeking": "read_uncommitted",
}

pytestmark = [
    pytest.mark.usefixtures("sockets_left_to_the_collector"),
    pytest.mark.filterwarnings("ignore:Exception ignored.*<socket:pytest.PytestUnraisableExceptionWarning"),
]


class Worker:
    """Calls ``_work`` on a thread until it is told to stop, and keeps what that raised."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        raise NotImplementedError

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), f"{self._thread.name} did not stop"
        if self.error is not None:
            raise self.error


class Run:
    """What a member got of a partition from one place on, until it lost the partition or went elsewhere."""

    def __init__(self, partition: TopicPartition, start: int) -> None:
        self.partition = partition
        self.start = start
        self.entries: list[Entry] = []


class Member(Worker, ConsumerRebalanceListener):  # type: ignore[misc]
    """A member of the group that is named after its habit."""

    def __init__(self, pool: ConnectionPool, topic: str, habit: str, seed: int) -> None:
        self._consumer = Consumer(
            connection_pool=pool,
            group_id=f"{topic}-{habit}",
            isolation_level=ISOLATION[habit],
            auto_offset_reset="earliest",
            auto_commit_interval_ms=300,
            heartbeat_interval_ms=500,
            max_partition_fetch_bytes=16_384,
        )
        self._topic = topic
        self._habit = habit
        self._rng = random.Random(seed)
        self.hurry = threading.Event()  # no more habits: get to the end
        # The consumer's thread's, or its listener's while that thread waits for it; read by the test.
        self.runs: list[Run] = []
        self.seen: set[tuple[TopicPartition, int]] = set()
        self._current: dict[TopicPartition, Run] = {}
        self.assigned: frozenset[TopicPartition] = frozenset()
        super().__init__()

    # -- rebalance listener --------------------------------------------------------------------------------------------

    def on_partitions_revoked(self, revoked: Any) -> None:
        self.assigned = frozenset()

    def on_partitions_lost(self, lost: Any) -> None:
        self.assigned = frozenset()
        self._current.clear()

    def on_partitions_assigned(self, assigned: Any) -> None:
        # A partition that it had before and has again is read on where it was; others from the committed offset on.
        self._current = {partition: run for partition, run in self._current.items() if partition in assigned}
        for partition in assigned - self._current.keys():
            self._begin(partition, self._consumer.committed(partition) or 0)
        self.assigned = frozenset(assigned)

    # -- its thread ----------------------------------------------------------------------------------------------------

    def _begin(self, partition: TopicPartition, offset: int) -> None:
        self._current[partition] = Run(partition, offset)
        self.runs.append(self._current[partition])

    def _work(self) -> None:
        with self._consumer as consumer:
            consumer.subscribe([self._topic], listener=self)
            while not self._stop.is_set():
                lags = self._habit == "lagging" and not self.hurry.is_set()
                for partition, records in consumer.poll(timeout_ms=100, max_records=5 if lags else 500).items():
                    self._current[partition].entries.extend(map(entry, records))
                    self.seen |= {(partition, record.offset) for record in records}
                if self.hurry.is_set():
                    consumer.resume(*consumer.paused())
                elif lags:
                    self._stop.wait(0.02)  # sets the pace
                elif self._habit != "steady" and self.assigned and self._rng.random() < 0.1:
                    self._do_as_usual(consumer, self._rng.choice(sorted(consumer.assignment())))

    def _do_as_usual(self, consumer: Consumer, partition: TopicPartition) -> None:
        if self._habit == "seeking":
            position = consumer.position(partition) or 0
            offset = self._rng.randrange(max(0, position - 300), position + 1)
            consumer.seek(partition, offset)
            self._begin(partition, offset)
        elif consumer.paused():
            consumer.resume(*consumer.paused())
        else:
            consumer.pause(partition)


class Writer(Worker):
    """Sends numbered records, plain and in transactions of which some are aborted."""

    def __init__(self, pool: ConnectionPool, topic: str, transactional: bool) -> None:
        self._pool = pool
        self._topic = topic
        self._transactional = transactional
        self._rng = random.Random(5)
        # Not far from now: the brokers look for records that are too old half a minute after they have started.
        self._began_ms = int(time.time() * 1000)
        self.futures: list[Any] = []
        self.aborted = 0
        super().__init__()

    def _work(self) -> None:
        own: dict[str, Any] = {"transactional_id": self._topic} if self._transactional else {"compression_type": "gzip"}
        done = False
        while not done:
            with Producer(connection_pool=self._pool, acks="all", linger_ms=2, **own) as producer:
                try:
                    self._use(producer)
                    done = True
                except KafkaError:
                    if not self._transactional:
                        raise
                    # The broker's restart ended the transaction, and with it the producer: the next one fences it.

    def _use(self, producer: Producer) -> None:
        if self._transactional:
            producer.init_transactions()
        while not self._stop.wait(0.03):  # sets the pace
            if self._transactional:
                producer.begin_transaction()
            for _ in range(self._rng.randrange(1, 15)):
                number = len(self.futures)
                value = b"%d" % number + b"." * self._rng.randrange(100)
                headers = [("n", b"%d" % number)] * (number % 3)
                self.futures.append(
                    producer.send(
                        self._topic,
                        value,
                        key=b"%d" % (number % 17),
                        headers=headers,
                        timestamp_ms=self._began_ms + number,
                    )
                )
            if self._transactional and self._rng.random() < 0.4:
                producer.flush(timeout=30)  # what was not sent yet would not come into the log at all
                producer.abort_transaction()
                self.aborted += 1
            elif self._transactional:
                producer.commit_transaction()


class Groups:
    """The groups on one topic, by their habit."""

    def __init__(self, pool: ConnectionPool, topic: str) -> None:
        self._pool = pool
        self._topic = topic
        self.present: dict[str, list[Member]] = {habit: [] for habit in ISOLATION}
        self.ever: dict[str, list[Member]] = {habit: [] for habit in ISOLATION}

    def add_one_each(self) -> None:
        for number, habit in enumerate(ISOLATION):
            member = Member(self._pool, self._topic, habit, seed=number + 10 * len(self.ever[habit]))
            self.present[habit].append(member)
            self.ever[habit].append(member)

    def remove_one_each(self) -> None:
        for members in self.present.values():
            members.pop(0).stop()

    def balanced(self) -> bool:
        self._check()
        return all(
            sorted(p for member in members for p in member.assigned) == self.partitions
            and all(m.assigned for m in members)
            for members in self.present.values()
        )

    @property
    def partitions(self) -> list[TopicPartition]:
        return [TopicPartition(self._topic, index) for index in range(PARTITIONS)]

    def got(self, habit: str) -> int:
        return sum(len(run.entries) for member in self.ever[habit] for run in member.runs)

    def progress(self, records: int) -> None:
        """Wait until each group has got so many more records than now."""
        targets = {habit: self.got(habit) + records for habit in self.ever}

        def reached() -> bool:
            self._check()
            return all(self.got(habit) >= target for habit, target in targets.items())

        eventually(reached, 60, f"{records} more records for each group")

    def have_everything(self, truth: dict[str, Log]) -> bool:
        self._check()
        for habit, members in self.ever.items():
            missing = {(partition, e[0]) for partition, log in truth[ISOLATION[habit]].items() for e in log}
            for member in members:
                missing -= member.seen.copy()
            if missing:
                return False
        return True

    def _check(self) -> None:
        for members in self.ever.values():
            for member in members:
                if member.error is not None:
                    raise member.error

    def stop(self) -> None:
        for members in self.present.values():
            while members:
                members.pop().stop()


@pytest.fixture
def topic(kafka_topic_factory: Callable[..., str], kafka_fault_cluster: KafkaCluster) -> str:
    return kafka_topic_factory(partitions=PARTITIONS)


@pytest.fixture
def pool(kafka_fault_cluster: KafkaCluster) -> Iterator[ConnectionPool]:
    # So little may be read ahead that readers at different places keep dropping what the others have not taken.
    with ConnectionPool(**kafka_fault_cluster.client_options(), fetch_buffer_bytes=200_000) as pool:
        yield pool


def test_each_group_gets_exactly_the_log_across_rebalances_and_a_restart(
    kafka_fault_cluster: KafkaCluster, pool: ConnectionPool, topic: str
) -> None:
    groups = Groups(pool, topic)
    with ExitStack() as stack:
        stack.callback(groups.stop)
        writers = [Writer(pool, topic, transactional) for transactional in (False, True)]
        for writer in writers:
            stack.callback(writer.stop)
        groups.add_one_each()
        groups.add_one_each()
        groups.progress(300)
        groups.add_one_each()
        eventually(groups.balanced, 60, "three members each have partitions")
        groups.progress(300)

        groups.add_one_each()  # they join while the coordinator of one group goes away
        kafka_fault_cluster.restart(coordinator(kafka_fault_cluster, f"{topic}-steady"))
        groups.progress(300)
        kafka_fault_cluster.wait_until_healthy()
        eventually(groups.balanced, 60, "four members each have partitions")
        groups.progress(300)

        groups.remove_one_each()
        eventually(groups.balanced, 60, "the other three have all partitions")
        groups.progress(300)

        for writer in writers:
            writer.stop()
        servers = kafka_fault_cluster.bootstrap_servers
        truth = {
            level: plain_log(servers, groups.partitions, isolation_level=level) for level in set(ISOLATION.values())
        }
        for members in groups.present.values():
            for member in members:
                member.hurry.set()
        eventually(lambda: groups.have_everything(truth), 60, "every group has all records")
        groups.stop()

    logged = {(partition, e[0]) for partition, log in truth["read_committed"].items() for e in log}
    sent = {(future.get(0).topic_partition, future.get(0).offset) for future in writers[0].futures}
    assert sent < logged, "all that was acknowledged, and what was committed"
    assert writers[1].aborted
    assert sum(map(len, truth["read_committed"].values())) < sum(map(len, truth["read_uncommitted"].values()))
    for habit, level in ISOLATION.items():
        for member in groups.ever[habit]:
            for run in member.runs:
                log = [e for e in truth[level][run.partition] if e[0] >= run.start]
                assert run.entries == log[: len(run.entries)], f"{habit}: {run.partition} from {run.start}"
