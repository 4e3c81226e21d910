"""The clients that live through broker faults: 20 consumers in five groups and 10 producers, in a process of their own.

`reliability.broker_faults` starts it. It says "ready" on its standard output when all consumers read, and ends in order
when it is told to on its standard input, or at once when the one who started it is gone. It writes down what it did in
files of a directory: see `reliability.notes`.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from reliability.notes import Notes

__all__ = ["GROUPS", "LIBRARIES", "PARTITIONS", "PRODUCERS", "Case", "group_id", "partitions_of"]

PARTITIONS = 12
PRODUCERS = 10
OFFSETS_PARTITIONS = 6  # of a KafkaCluster
_PARTITIONS_OF_A_PRODUCER = 3
_POLL_MS = 500.0
_READY_WITHIN_S = 45.0
_FLUSH_WITHIN_S = 150.0
_CLOSE_WITHIN_S = 60.0
_CAUGHT_UP_WITHIN_S = 90.0
_GONE_WITHIN_S = 10.0

CONSUMER: dict[str, Any] = {
    "auto_offset_reset": "earliest",
    "auto_commit_interval_ms": 1_000,
    "session_timeout_ms": 10_000,
    "heartbeat_interval_ms": 1_000,
    "request_timeout_ms": 11_000,
}
"""kafka-python's defaults but for what must time out within a fault, for both libraries."""
PRODUCER: dict[str, Any] = {"enable_idempotence": True, "acks": "all", "request_timeout_ms": 11_000}
PRODUCER_VARIANTS: list[dict[str, Any]] = [{}, {"linger_ms": 5}, {"linger_ms": 20, "compression_type": "gzip"}]


@dataclass(frozen=True)
class Group:
    """A group of consumers, how they commit, and how its partitions are assigned."""

    members: int
    commits: str
    assignor: Any


GROUPS = {
    "alone": Group(1, "auto", RangePartitionAssignor),
    "auto": Group(3, "auto", RoundRobinPartitionAssignor),
    "sync": Group(4, "sync", StickyPartitionAssignor),
    "async": Group(5, "async", CooperativeStickyAssignor),
    "run": Group(7, "run", RangePartitionAssignor),
}


def group_id(library: str, group: str) -> str:
    """The same broker coordinates a group of one library and its like of another, in each run."""
    wanted = list(GROUPS).index(group) % OFFSETS_PARTITIONS
    return next(
        name for name in (f"{library}-{group}-{number}" for number in count()) if offsets_partition(name) == wanted
    )


def offsets_partition(name: str) -> int:
    """Where brokers keep a group's offsets; who leads that partition is its coordinator."""
    code = 0
    for character in name:
        code = (31 * code + ord(character)) & 0xFFFFFFFF
    return (code & 0x7FFFFFFF) % OFFSETS_PARTITIONS


def partitions_of(producer: int) -> list[int]:
    """Where a producer sends to: partitions that different brokers lead."""
    step = PARTITIONS // _PARTITIONS_OF_A_PRODUCER
    return [(producer + n * (step + 1)) % PARTITIONS for n in range(_PARTITIONS_OF_A_PRODUCER)]


@dataclass(frozen=True)
class Case:
    """What the process is told on its command line."""

    library: str
    bootstrap_servers: str
    topic: str
    directory: str
    rate: float
    """Records a second, of each producer."""
    at_most_s: float
    """After which the process writes down where its threads are and dies, whatever it does."""


class Stock:
    """Stock kafka-python: each client for itself."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers

    def consumer(self, **options: Any) -> Any:
        return KafkaConsumer(bootstrap_servers=self._bootstrap_servers, **options)

    def producer(self, **options: Any) -> Any:
        return KafkaProducer(bootstrap_servers=self._bootstrap_servers, **options)

    def close(self) -> None:
        """Nothing is shared."""


class Pooled:
    """pooledkafka: all over one pool."""

    def __init__(self, bootstrap_servers: str) -> None:
        from pooledkafka import Kafka

        self._kafka = Kafka(bootstrap_servers=bootstrap_servers)
        self._pool = self._kafka.connection_pool(request_timeout_ms=CONSUMER["request_timeout_ms"])
        self._pool.connect()

    def consumer(self, **options: Any) -> Any:
        return self._kafka.consumer(connection_pool=self._pool, **options)

    def producer(self, **options: Any) -> Any:
        return self._kafka.producer(connection_pool=self._pool, **options)

    def close(self) -> None:
        self._pool.disconnect(60_000)


LIBRARIES: dict[str, Callable[[str], Any]] = {"pooledkafka": Pooled, "kafka-python": Stock}


class Progress:
    """How far producers and groups have come. Each entry has one kind of writer; a stale look is only looked again."""

    def __init__(self) -> None:
        self.acknowledged = [-1] * PARTITIONS  # the highest offset; written by whoever completes a future
        self.read = {group: [-1] * PARTITIONS for group in GROUPS}  # likewise, written by members

    def is_caught_up(self) -> bool:
        return all(
            read >= end for reads in self.read.values() for read, end in zip(reads, self.acknowledged, strict=True)
        )


class Producing:
    """One producer on a thread of its own, which numbers its records in each partition."""

    def __init__(self, number: int, library: Any, case: Case, progress: Progress) -> None:
        self._number = number
        self._library = library
        self._case = case
        self._progress = progress
        self._notes = Notes(Path(case.directory, f"producer-{number}"))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"producer-{number}", daemon=True)
        self._thread.start()

    def tell_to_stop(self) -> None:
        self._stop.set()

    def join(self, timeout_s: float) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        variant = PRODUCER_VARIANTS[self._number % len(PRODUCER_VARIANTS)]
        producer = self._library.producer(**PRODUCER, **variant)
        sent = 0
        start = time.monotonic()
        partitions = partitions_of(self._number)
        while not self._stop.wait(max(0.0, start + sent / self._case.rate - time.monotonic())):
            self._send(producer, partitions[sent % len(partitions)], sent // len(partitions))
            sent += 1
        for what, act in (("flush", lambda: producer.flush(timeout=_FLUSH_WITHIN_S)), ("close", producer.close)):
            try:
                act()
            except Exception as error:
                self._notes.write("error", what, repr(error))
        self._notes.close()

    def _send(self, producer: Any, partition: int, number: int) -> None:
        sent_at = time.monotonic()
        try:
            future = producer.send(self._case.topic, b"%d %d" % (self._number, number), partition=partition)
        except Exception as error:
            self._notes.write("error", "send", repr(error))
            return

        def acknowledged(metadata: Any) -> None:
            self._notes.write("acked", partition, number, f"{sent_at:.4f}", metadata.offset)
            self._progress.acknowledged[partition] = max(self._progress.acknowledged[partition], metadata.offset)

        def failed(error: BaseException) -> None:
            self._notes.write("failed", partition, number, f"{sent_at:.4f}", repr(error))

        future.add_callback(acknowledged)
        future.add_errback(failed)


class Consuming(ConsumerRebalanceListener):  # type: ignore[misc]
    """One consumer on a thread of its own, that goes on after whatever an application may see."""

    def __init__(self, group: str, number: int, library: Any, case: Case, progress: Progress) -> None:
        self._name = group
        self._group = GROUPS[group]
        self._library = library
        self._case = case
        self._reached = progress.read[group]
        self._notes = Notes(Path(case.directory, f"consumer-{group}-{number}"))
        self._stop = threading.Event()
        self._consumer: Any = None  # set once, by the thread
        self.has_read = False
        self._thread = threading.Thread(target=self._run, name=f"consumer-{group}-{number}", daemon=True)
        self._thread.start()

    def tell_to_stop(self) -> None:
        self._stop.set()
        if hasattr(self._consumer, "stop"):
            self._consumer.stop()

    def join(self, timeout_s: float) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # -- as its rebalance listener -------------------------------------------------------------------------------------

    def on_partitions_assigned(self, assigned: Any) -> None:
        self._notes.write("gained", *sorted(partition.partition for partition in assigned))

    def on_partitions_revoked(self, revoked: Any) -> None:
        self._notes.write("gave up", *sorted(partition.partition for partition in revoked))

    def on_partitions_lost(self, lost: Any) -> None:
        self._notes.write("lost", *sorted(partition.partition for partition in lost))

    # -- as the application's thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        self._consumer = consumer = self._library.consumer(
            group_id=group_id(self._case.library, self._name),
            enable_auto_commit=self._group.commits == "auto",
            partition_assignment_strategy=[self._group.assignor],
            **CONSUMER,
        )
        consumer.subscribe([self._case.topic], listener=self)
        turn = self._run_turn if self._group.commits == "run" and hasattr(consumer, "run") else self._poll_turn
        while not self._stop.is_set():
            try:
                turn(consumer)
            except Exception as error:
                self._notes.write("error", "poll", repr(error))
                self._stop.wait(0.1)
        try:
            consumer.close()
        except Exception as error:
            self._notes.write("error", "close", repr(error))
        self._notes.close()

    def _run_turn(self, consumer: Any) -> None:
        consumer.run(self._read)

    def _poll_turn(self, consumer: Any) -> None:
        batches = consumer.poll(timeout_ms=_POLL_MS)
        for records in batches.values():
            for record in records:
                self._read(record)
        if not batches or self._group.commits == "auto":
            return
        ends = [f"{partition.partition}:{records[-1].offset + 1}" for partition, records in batches.items()]
        if self._group.commits == "async":
            consumer.commit_async(callback=lambda _, outcome: self._committed(ends, outcome))
            return
        try:
            consumer.commit()
        except Exception as error:
            self._notes.write("error", "commit", repr(error))
        else:
            self._notes.write("committed", *ends)

    def _committed(self, ends: list[str], outcome: Any) -> None:
        if isinstance(outcome, Exception):
            self._notes.write("error", "commit_async", repr(outcome))
        else:
            self._notes.write("committed", *ends)

    def _read(self, record: Any) -> None:
        producer, number = record.value.split()
        self._notes.write("read", record.partition, record.offset, int(producer), int(number))
        self.has_read = True
        self._reached[record.partition] = max(self._reached[record.partition], record.offset)


def open_sockets() -> int:
    """How many sockets this process has, as the kernel counts."""
    count = 0
    for entry in os.scandir("/proc/self/fd"):
        try:
            count += os.readlink(entry.path).startswith("socket:")
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return count


def threads() -> int:
    """How many threads this process has, as the kernel counts."""
    return len(os.listdir("/proc/self/task"))


def within(timeout_s: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def wait_to_be_told() -> threading.Event:
    """Set when a line comes on the standard input; the process ends where that is closed before."""
    told = threading.Event()

    def listen() -> None:
        if not sys.stdin.readline():
            os._exit(3)
        told.set()

    threading.Thread(target=listen, name="told-to-stop", daemon=True).start()
    return told


def unended_of(clients: Sequence[Producing | Consuming], timeout_s: float) -> int:
    """How many of those that were told to stop have not, within a time for all of them."""
    deadline = time.monotonic() + timeout_s
    return sum(not client.join(max(0.0, deadline - time.monotonic())) for client in clients)


def live(case: Case) -> dict[str, Any]:
    """Let all clients live until told to stop, and count what they leave behind."""
    told = wait_to_be_told()
    sockets_before, threads_before = open_sockets(), threads()
    library = LIBRARIES[case.library](case.bootstrap_servers)
    progress = Progress()
    producers = [Producing(number, library, case, progress) for number in range(PRODUCERS)]
    consumers = [
        Consuming(name, number, library, case, progress)
        for name, group in GROUPS.items()
        for number in range(group.members)
    ]
    within(_READY_WITHIN_S, lambda: all(consumer.has_read for consumer in consumers))
    print("ready", flush=True)
    told.wait()

    figures: dict[str, Any] = {"stopped_at": time.monotonic()}
    for producer in producers:
        producer.tell_to_stop()
    unended = unended_of(producers, _FLUSH_WITHIN_S + _CLOSE_WITHIN_S)
    figures["caught_up"] = within(_CAUGHT_UP_WITHIN_S, progress.is_caught_up)
    for consumer in consumers:
        consumer.tell_to_stop()
    figures["unended_clients"] = unended + unended_of(consumers, _CLOSE_WITHIN_S)
    try:
        library.close()
    except Exception as error:
        figures["error_at_the_end"] = repr(error)
    within(_GONE_WITHIN_S, lambda: open_sockets() <= sockets_before and threads() < threads_before)
    figures["sockets_left"] = open_sockets() - sockets_before
    figures["threads_left"] = threads() - (threads_before - 1)  # the one that waited to be told has ended
    figures["cpu_s"] = time.process_time()
    figures["names_of_threads_left"] = [thread.name for thread in threading.enumerate()][1:]
    return figures


def log_with_the_time_of_notes() -> None:
    """To the standard error stream."""

    def stamped(record: logging.LogRecord) -> bool:
        record.at = f"{time.monotonic():.4f}"
        return True

    handler = logging.StreamHandler()
    handler.addFilter(stamped)
    handler.setFormatter(logging.Formatter("%(at)s %(levelname)s %(name)s %(threadName)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def main() -> None:
    log_with_the_time_of_notes()
    case = Case(**json.loads(sys.argv[1]))
    with Path(case.directory, "threads.txt").open("w") as file:
        faulthandler.dump_traceback_later(case.at_most_s, exit=True, file=file)
        figures = live(case)
        faulthandler.cancel_dump_traceback_later()
    Path(case.directory, "figures.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
