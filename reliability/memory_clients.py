"""One case of ``reliability.memory``, measured in a process of its own: prints its figures as JSON."""

from __future__ import annotations

import gc
import hashlib
import json
import random
import statistics
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psutil
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

__all__ = ["CASES", "Case"]

MIB = 1_048_576
_WITHIN_S = 300.0


@dataclass(frozen=True)
class Case:
    """What to measure, over which library; numbers are those of ``numbers``."""

    scenario: str
    library: str
    bootstrap: str
    topics: list[str]
    partitions: int  # of each topic
    fetch_buffer_bytes: int = 64 * MIB
    numbers: dict[str, int] = field(default_factory=dict)


class Clients:
    """Makes the clients of one library, whose methods are the same."""

    def __init__(self, case: Case) -> None:
        self.pool: Any = None
        self._bootstrap = case.bootstrap
        if case.library == "pooledkafka":
            from pooledkafka import ConnectionPool

            self.pool = ConnectionPool(bootstrap_servers=case.bootstrap, fetch_buffer_bytes=case.fetch_buffer_bytes)
            self.pool.connect()

    def consumer(self, **options: Any) -> Any:
        if self.pool is None:
            return KafkaConsumer(bootstrap_servers=self._bootstrap, **options)
        from pooledkafka import Consumer

        return Consumer(connection_pool=self.pool, **options)

    def producer(self, **options: Any) -> Any:
        if self.pool is None:
            return KafkaProducer(bootstrap_servers=self._bootstrap, **options)
        from pooledkafka import Producer

        return Producer(connection_pool=self.pool, **options)

    def close(self) -> None:
        if self.pool is not None:
            self.pool.disconnect()


class Watch:
    """Looks all the time at the process's memory and at what the pool has read ahead; keeps the most of each."""

    def __init__(self, clients: Clients, baseline: int | None = None) -> None:
        self._pool = clients.pool
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        gc.collect()
        self.baseline = self._process.memory_info().rss if baseline is None else baseline
        self.peak = self.baseline
        self.read_ahead = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            self.peak = max(self.peak, self._process.memory_info().rss)
            if self._pool is not None:
                self.read_ahead = max(self.read_ahead, self._pool.stats().read_ahead_bytes)

    def figures(self) -> dict[str, Any]:
        """In bytes; memory is what came on top of the process as it was before."""
        return {
            "baseline": self.baseline,
            "peak": self.peak - self.baseline,
            "left": self._process.memory_info().rss - self.baseline,
            "read_ahead": self.read_ahead if self._pool is not None else None,
        }


@contextmanager
def threads(actions: Iterable[Callable[[threading.Event], None]]) -> Iterator[list[BaseException]]:
    """Runs each on a thread until the end, of which it is told; gives what they raised."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def guarded(action: Callable[[threading.Event], None]) -> None:
        try:
            action(stop)
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=guarded, args=(action,), daemon=True) for action in actions]
    for thread in running:
        thread.start()
    try:
        yield errors
    finally:
        stop.set()
        for thread in running:
            thread.join(60)
        errors.extend(RuntimeError(f"{thread.name} did not end") for thread in running if thread.is_alive())


def wait_until(condition: Callable[[], bool], errors: list[BaseException], what: str) -> None:
    deadline = time.monotonic() + _WITHIN_S
    while not condition():
        if errors:
            raise errors[0]
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {_WITHIN_S:.0f} s: {what}")
        time.sleep(0.02)


# -- slow consumers on fast topics -------------------------------------------------------------------------------------


def slow(case: Case) -> dict[str, Any]:
    """A fast consumer reads everything, alone and then beside those that hold on to what they have."""
    clients = Clients(case)
    partitions = [TopicPartition(topic, index) for topic in case.topics for index in range(case.partitions)]
    with Watch(clients) as alone:
        rate_alone = read_all(clients, partitions, case.numbers["bytes"])
    ready: Counter[str] = Counter()

    def behave(kind: str, number: int, stop: threading.Event) -> None:
        consumer = clients.consumer(group_id=f"{kind}-{number}", auto_offset_reset="earliest", max_poll_records=1)
        consumer.subscribe(case.topics)
        try:
            while not consumer.poll(timeout_ms=200):
                if stop.is_set():
                    return
            if kind == "paused":
                consumer.pause(*consumer.assignment())
            ready[kind] += 1
            while not stop.wait(0.5 if kind in ("seldom", "far back") else 0.1):
                if kind == "far back":
                    partition = random.choice(sorted(consumer.assignment()) or partitions[:1])
                    with suppress(AssertionError, KafkaError):
                        consumer.seek(partition, random.randrange(100))
                if kind != "stopped":
                    consumer.poll(timeout_ms=100)
        finally:
            consumer.close(autocommit=False)

    each = case.numbers["slow"] // 4
    actions = [
        partial(behave, kind, number) for kind in ("stopped", "seldom", "paused", "far back") for number in range(each)
    ]
    with Watch(clients, alone.baseline) as watch, threads(actions) as errors:
        wait_until(lambda: ready.total() == len(actions), errors, "every slow consumer has a first record")
        rate_beside = read_all(clients, partitions, case.numbers["bytes"])
    if errors:
        raise errors[0]
    figures = {
        "consumers": len(actions) + 1,
        "rate_alone": rate_alone,
        "rate_beside": rate_beside,
        "peak_alone": alone.peak - alone.baseline,
        **watch.figures(),
    }
    clients.close()
    return figures


def read_all(clients: Clients, partitions: list[TopicPartition], size: int) -> float:
    """Bytes a second at which one more consumer reads all there is."""
    consumer = clients.consumer(auto_offset_reset="earliest")
    consumer.assign(partitions)
    taken, start = 0, time.monotonic()
    while taken < size:
        batches = consumer.poll(timeout_ms=1_000)
        taken += sum(len(record.value) for records in batches.values() for record in records)
        if time.monotonic() - start > _WITHIN_S:
            raise TimeoutError(f"the fast consumer had {taken} of {size} bytes after {_WITHIN_S:.0f} s")
    seconds = time.monotonic() - start
    consumer.close()
    return taken / seconds


# -- huge records ------------------------------------------------------------------------------------------------------


def huge(case: Case) -> dict[str, Any]:
    """Records of many times what may be read ahead, to several groups at once."""
    clients = Clients(case)
    size, count, groups = case.numbers["size"], case.numbers["count"], case.numbers["groups"]
    topic = case.topics[0]
    sent: Counter[str] = Counter()
    got: dict[int, Counter[str]] = {group: Counter() for group in range(groups)}
    refused = 0

    def read(group: int, stop: threading.Event) -> None:
        consumer = clients.consumer(
            group_id=f"huge-{group}", auto_offset_reset="earliest", max_partition_fetch_bytes=MIB // 16
        )
        consumer.subscribe([topic])
        try:
            while not stop.is_set():
                for records in consumer.poll(timeout_ms=500).values():
                    got[group].update(digest(record.value) for record in records)
        finally:
            consumer.close()

    with Watch(clients) as watch, threads(partial(read, group) for group in range(groups)) as errors:
        for number, compression in enumerate((None, "gzip")):
            options = {"max_request_size": size + 100_000, "compression_type": compression}
            producer, other = clients.producer(**options), clients.producer(**options)
            for index in range(count):
                # Half of it cannot be compressed.
                value = random.randbytes(size // 2) + bytes([number]) * (size - size // 2)
                futures = [
                    producer.send(topic, value, partition=index % case.partitions),
                    other.send(topic, b"small %d %d" % (number, index), partition=index % case.partitions),
                ]
                sent.update([digest(value), digest(b"small %d %d" % (number, index))])
                try:
                    producer.send(topic, value + bytes(200_000), partition=index % case.partitions)
                except KafkaError as error:
                    refused += type(error).__name__ == "MessageSizeTooLargeError"
                for future in futures:
                    future.get(timeout=60)
                del value
            producer.close()
            other.close()
        wait_until(lambda: all(group == sent for group in got.values()), errors, "all groups have all records")
    if errors:
        raise errors[0]
    figures = {
        "records": sent.total(),
        "read": [group.total() for group in got.values()],
        "refused": [refused, 2 * count],
        **watch.figures(),
    }
    clients.close()
    return figures


def digest(value: bytes) -> str:
    return hashlib.sha1(value).hexdigest()


# -- thousands of partitions -------------------------------------------------------------------------------------------


def partitions(case: Case) -> dict[str, Any]:
    """Consumers of thousands of partitions, of which none and then one has records; and one of few beside them."""
    clients = Clients(case)
    every = [TopicPartition(topic, index) for topic in case.topics for index in range(case.partitions)]
    hot, beside = TopicPartition(case.topics[0], 7), TopicPartition(case.topics[-1], 1)
    process = psutil.Process()
    first: list[float] = []
    arrived: dict[str, list[float]] = {"hot": [], "beside": []}
    started = time.monotonic()

    def read(assigned: list[TopicPartition], into: list[float], stop: threading.Event) -> None:
        consumer = clients.consumer(auto_offset_reset="latest")
        consumer.assign(assigned)
        got_any = False
        try:
            while not stop.is_set():
                for records in consumer.poll(timeout_ms=200).values():
                    for record in records:
                        if record.value != b"warm":
                            into.append(1000 * (time.time() - float(record.value)))
                        elif not got_any:
                            got_any = True
                            first.append(time.monotonic() - started)
        finally:
            consumer.close()

    readers = case.numbers["readers"]
    wide = [partial(read, [p for p in every if p != beside], arrived["hot"])] * readers
    stalls: list[float] = []
    stall_probe = [partial(probe, clients.pool, stalls)] if clients.pool is not None else []
    with (
        Watch(clients) as watch,
        KafkaProducer(bootstrap_servers=case.bootstrap, linger_ms=0) as producer,
        threads([*wide, partial(read, [beside], arrived["beside"]), *stall_probe]) as errors,
    ):

        def everybody_has_a_record() -> bool:
            for partition in (hot, beside):
                producer.send(partition.topic, b"warm", partition=partition.partition).get(timeout=30)
            time.sleep(0.2)
            return len(first) == readers + 1

        wait_until(everybody_has_a_record, errors, "everybody has a first record")
        stalls_at_start, stalls[:] = list(stalls), []
        time.sleep(case.numbers["idle_s"])
        idle = cpu_percent(process, case.numbers["idle_s"])
        idle_stalls, stalls[:] = list(stalls), []
        count = case.numbers["records"]
        start, cpu = time.monotonic(), process.cpu_times()
        for number in range(count):
            time.sleep(max(0.0, start + number / case.numbers["rate"] - time.monotonic()))
            for partition in (hot, beside):
                producer.send(partition.topic, b"%r" % time.time(), partition=partition.partition)
        wait_until(
            lambda: len(arrived["hot"]) >= count * readers and len(arrived["beside"]) >= count, errors, "all have all"
        )
        used = process.cpu_times()
        busy_ms = 1000 * (used.user + used.system - cpu.user - cpu.system) / count
        figures = watch.figures()
    if errors:
        raise errors[0]
    clients.close()
    return {
        "partitions": len(every),
        "consumers": readers,
        "first_s": max(first),
        "idle_cpu_percent": idle,
        "cpu_ms_a_record": busy_ms,
        **{f"{name}_p50_ms": statistics.median(values) for name, values in arrived.items()},
        **{f"{name}_max_ms": max(values) for name, values in arrived.items()},
        "stall_start_ms": max(stalls_at_start, default=None),
        "stall_idle_ms": max(idle_stalls, default=None),
        "stall_load_ms": max(stalls, default=None),
        **figures,
    }


def probe(pool: Any, stalls: list[float], stop: threading.Event) -> None:
    """How long the pool's I/O thread keeps others waiting, in milliseconds."""
    while not stop.wait(0.01):
        came, asked = threading.Event(), time.monotonic()
        pool._connection.engine.net.call_soon_threadsafe(came.set)
        came.wait(60)
        stalls.append(1000 * (time.monotonic() - asked))


def cpu_percent(process: psutil.Process, seconds: float) -> float:
    """Of one core."""
    before, start = process.cpu_times(), time.monotonic()
    time.sleep(seconds)
    now = process.cpu_times()
    return 100 * (now.user + now.system - before.user - before.system) / (time.monotonic() - start)


# -- clients that come and go ------------------------------------------------------------------------------------------


def churn(case: Case) -> dict[str, Any]:
    """Whether anything is left of clients that are gone: the second half of them must add nothing to the first."""
    clients = Clients(case)
    with clients.producer(linger_ms=0) as producer:
        for index in range(20):
            producer.send(case.topics[0], b"x" * 100, partition=index % case.partitions).get(timeout=30)

    def consumers(number: int) -> None:
        topics = [case.topics[number % len(case.topics)]]
        consumer = clients.consumer(group_id=None, auto_offset_reset="earliest", max_poll_records=5)
        with consumer:
            consumer.subscribe(topics)
            consumer.poll(timeout_ms=20)
            consumer.subscribe(case.topics)
            consumer.poll(timeout_ms=20)
            if consumer.assignment():
                consumer.seek_to_beginning()
                consumer.poll(timeout_ms=20)

    def handles(number: int) -> None:
        with clients.producer(linger_ms=0) as producer:
            producer.send(case.topics[0], b"%d" % number, partition=0).get(timeout=30)

    def connections(number: int) -> None:
        clients.pool.disconnect()
        clients.pool.connect()
        handles(number)

    figures: dict[str, Any] = {}
    with Watch(clients) as watch:
        for name, action in (("consumers", consumers), ("handles", handles), ("connections", connections)):
            figures[name] = growth(action, case.numbers[name])
            if name == "consumers":
                figures["topics_known"] = topics_after_a_refresh(clients.pool)
    figures["threads"] = threading.active_count()
    figures.update(watch.figures())
    clients.close()
    return figures


def topics_after_a_refresh(pool: Any) -> int:
    """How many topics a pool has metadata of, when all who asked for them have gone."""
    cluster = pool._connection.engine.manager.cluster
    before = len(cluster.topics())
    assert before > 1, "they were asked for"
    refreshed = threading.Event()
    cluster.request_update().add_both(lambda _: refreshed.set())
    refreshed.wait(30)
    return len(cluster.topics())


def growth(action: Callable[[int], None], count: int) -> dict[str, Any]:
    """What the second half of so many leaves behind, after the first half has filled every cache."""

    def now() -> tuple[int, int]:
        for _ in range(3):
            gc.collect()
        return tracemalloc.get_traced_memory()[0], len(gc.get_objects())

    tracemalloc.start()
    for number in range(count // 2):
        action(number)
    before, kinds_before = now(), Counter(type(each).__qualname__ for each in gc.get_objects())
    for number in range(count // 2, count):
        action(number)
    after, kinds = now(), Counter(type(each).__qualname__ for each in gc.get_objects())
    tracemalloc.stop()
    return {
        "count": count // 2,
        "bytes": after[0] - before[0],
        "objects": after[1] - before[1],
        "most": dict((kinds - kinds_before).most_common(5)),
    }


CASES: dict[str, Callable[[Case], dict[str, Any]]] = {
    "slow": slow,
    "huge": huge,
    "partitions": partitions,
    "churn": churn,
}


def main() -> None:
    case = Case(**json.loads(sys.argv[1]))
    print(json.dumps(CASES[case.scenario](case)))


if __name__ == "__main__":
    main()
