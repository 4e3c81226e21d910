"""One measurement of ``benchmarks.metrics``, in a process of its own: with metrics or without.

It imports nothing of the benchmarks, so that the package of another checkout can be measured by it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

from pooledkafka import ConnectionPool, Kafka, Producer

VALUE = b"x" * 200
SCRAPE_S = 1.0
THREADS = 8
WINDOW = 20_000
BATCH = 1_000


def send(kafka: Kafka, pool: ConnectionPool, topic: str, seconds: float) -> int:
    producer = kafka.producer(connection_pool=pool)
    waiting: deque[Any] = deque()
    count = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(100):
            waiting.append(producer.send(topic, VALUE))
        count += 100
        while len(waiting) > WINDOW:
            waiting.popleft().get(timeout=60)
    for future in waiting:
        future.get(timeout=60)
    return count


def send_batch(kafka: Kafka, pool: ConnectionPool, topic: str, seconds: float) -> int:
    producer = kafka.producer(connection_pool=pool)
    messages = [{"value": VALUE}] * BATCH
    waiting: deque[Any] = deque()
    count = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        waiting.append(producer.send_batch(topic, messages))
        count += BATCH
        while len(waiting) > WINDOW // BATCH:
            waiting.popleft().get(timeout=60)
    for future in waiting:
        future.get(timeout=60)
    return count


def request(kafka: Kafka, pool: ConnectionPool, topic: str, seconds: float) -> int:
    """One acknowledged record after another on each of some threads, as a web application sends."""
    counts: list[int] = []
    end = time.monotonic() + seconds

    def work(producer: Producer) -> None:
        count = 0
        while time.monotonic() < end:
            producer.send(topic, VALUE).get(timeout=60)
            count += 1
        counts.append(count)

    threads = [threading.Thread(target=work, args=(kafka.producer(connection_pool=pool),)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == THREADS, "a thread has failed"
    return sum(counts)


def read(kafka: Kafka, pool: ConnectionPool, topic: str, seconds: float, max_records: int = 500) -> int:
    """Read from the beginning, again and again."""
    options = {"auto_offset_reset": "earliest", "group_id": uuid.uuid4().hex}
    count = 0
    with kafka.consumer(topic, connection_pool=pool, **options) as consumer:
        while not consumer.poll(timeout_ms=1_000):
            pass
        ends = consumer.end_offsets(list(consumer.assignment()))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            batches = consumer.poll(timeout_ms=1_000, max_records=max_records)
            for partition, records in batches.items():
                count += len(records)
                if records[-1].offset + 1 >= ends[partition]:
                    consumer.seek(partition, 0)
    return count


def read_one(kafka: Kafka, pool: ConnectionPool, topic: str, seconds: float) -> int:
    """The same with a poll for each record."""
    return read(kafka, pool, topic, seconds, max_records=1)


CASES: dict[str, Callable[[Kafka, ConnectionPool, str, float], int]] = {
    "send": send,
    "send_batch": send_batch,
    "request": request,
    "read": read,
    "read_one": read_one,
}


def show_metrics(pool: ConnectionPool, mode: str) -> None:
    """Register the pool, and look at its metrics each second."""
    from prometheus_client import CollectorRegistry, generate_latest, multiprocess

    from pooledkafka.contrib.prometheus import register

    registry = CollectorRegistry()
    register(pool, registry=registry, interval_s=SCRAPE_S)
    if mode == "multiprocess":
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]

    def scrape() -> None:
        while True:
            time.sleep(SCRAPE_S)
            generate_latest(registry)

    threading.Thread(target=scrape, daemon=True).start()


def main() -> None:
    case, mode, bootstrap, topic, seconds = sys.argv[1:]
    kafka = Kafka(bootstrap_servers=bootstrap, client_id="bench")
    with kafka.connection_pool() as pool:
        if mode in ("on", "multiprocess"):
            show_metrics(pool, mode)
        CASES[case](kafka, pool, topic, 0.5)  # connections, metadata, and what Python makes at the first time
        began, cpu = time.monotonic(), time.process_time()
        count = CASES[case](kafka, pool, topic, float(seconds))
        wall_s, cpu_s = time.monotonic() - began, time.process_time() - cpu
    print(json.dumps({"per_s": count / wall_s, "cpu_us": cpu_s / count * 1e6}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
