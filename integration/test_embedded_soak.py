"""The embedded cluster under a hundred clients that come and go for a minute: nothing is left, and it ends at once."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
from kafka import KafkaConsumer, KafkaProducer

PRODUCERS, GROUPS, MEMBERS = 40, 20, 3
LASTS_S = 60.0
LIVES_S = 10.0  # a client, before another takes its place
SETTLED_AFTER_S = 25.0  # by then every client has come and gone twice
MOST_GROWTH = 20_000_000  # bytes; the records sent meanwhile take two millions

SERVER = """
import sys, time
from pooledkafka.testing import EmbeddedKafka
cluster = EmbeddedKafka(brokers=3)
with cluster:
    cluster.create_topic("soak", partitions=6)
    print(cluster.bootstrap_servers, flush=True)
    sys.stdin.readline()
    started = time.monotonic()
print(time.monotonic() - started, flush=True)
"""


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    """A process of its own, so that what it holds is its alone."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def produce(bootstrap: str, ends: Callable[[], bool]) -> None:
    with KafkaProducer(bootstrap_servers=bootstrap) as producer:
        while not ends():
            producer.send("soak", b"x" * 50).get(timeout=20)
            time.sleep(0.2)  # the pace of the load


def consume(bootstrap: str, group: str, ends: Callable[[], bool]) -> None:
    consumer = KafkaConsumer("soak", bootstrap_servers=bootstrap, group_id=group)
    try:
        while not ends():
            consumer.poll(timeout_ms=500)
    finally:
        consumer.close()


def keep_alive(client: Callable[[Callable[[], bool]], None], ends_at: float, errors: list[BaseException]) -> None:
    try:
        while time.monotonic() < ends_at:
            until = min(ends_at, time.monotonic() + LIVES_S)
            client(lambda until=until: time.monotonic() >= until)  # type: ignore[misc]
    except BaseException as error:
        errors.append(error)


@pytest.mark.timeout(240)
def test_a_hundred_clients_for_a_minute_leave_nothing(server: subprocess.Popen[str]) -> None:
    assert server.stdout is not None
    assert server.stdin is not None
    bootstrap = server.stdout.readline().strip()
    process = psutil.Process(server.pid)
    before = (process.num_threads(), process.num_fds())
    ends_at = time.monotonic() + LASTS_S
    errors: list[BaseException] = []
    clients: list[Callable[[Callable[[], bool]], None]] = [
        lambda ends: produce(bootstrap, ends) for _ in range(PRODUCERS)
    ]
    for group in range(GROUPS):
        clients += [lambda ends, group=group: consume(bootstrap, f"g{group}", ends)] * MEMBERS  # type: ignore[misc]
    threads = [threading.Thread(target=keep_alive, args=(client, ends_at, errors)) for client in clients]
    for thread in threads:
        thread.start()
    time.sleep(SETTLED_AFTER_S)  # the load lasts a minute, whatever happens
    settled = process.memory_info().rss
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert errors == []
    growth = process.memory_info().rss - settled
    assert growth < MOST_GROWTH
    deadline = time.monotonic() + 10
    while (left := (process.num_threads(), process.num_fds())) != before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == before, "threads and file descriptors are as before"
    server.stdin.write("\n")
    server.stdin.flush()
    assert float(server.stdout.readline()) < 2
