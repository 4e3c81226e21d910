"""The embedded cluster under a hundred clients that come and go for a minute: nothing is left, and it ends at once."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import psutil
import pytest
from kafka import KafkaConsumer, KafkaProducer

PROCESSES, PRODUCERS, GROUPS, MEMBERS = 2, 40, 20, 3
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


def keep_alive(client: Callable[[Callable[[], bool]], None], ends_at: float, errors: list[str]) -> None:
    try:
        while time.monotonic() < ends_at:
            until = min(ends_at, time.monotonic() + LIVES_S)
            client(lambda until=until: time.monotonic() >= until)  # type: ignore[misc]
    except BaseException:
        errors.append(traceback.format_exc())


def load(bootstrap: str, groups: list[str]) -> list[str]:
    """In a process of its own: kafka-python leaves a socket to the garbage collector now and then, which warns."""
    ends_at = time.monotonic() + LASTS_S
    errors: list[str] = []
    clients: list[Callable[[Callable[[], bool]], None]] = [
        lambda ends: produce(bootstrap, ends) for _ in range(PRODUCERS // PROCESSES)
    ]
    for group in groups:
        clients += [lambda ends, group=group: consume(bootstrap, group, ends)] * MEMBERS  # type: ignore[misc]
    threads = [threading.Thread(target=keep_alive, args=(client, ends_at, errors), daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LASTS_S + 60)
        if thread.is_alive():
            errors.append(f"{thread.name} hangs")
    return errors


@pytest.mark.timeout(240)
def test_a_hundred_clients_for_a_minute_leave_nothing(server: subprocess.Popen[str]) -> None:
    assert server.stdout is not None
    assert server.stdin is not None
    bootstrap = server.stdout.readline().strip()
    process = psutil.Process(server.pid)
    before = (process.num_threads(), process.num_fds())
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as processes:
        groups = [f"g{number}" for number in range(GROUPS)]
        loads = [processes.submit(load, bootstrap, groups[number::PROCESSES]) for number in range(PROCESSES)]
        time.sleep(SETTLED_AFTER_S)  # the load lasts a minute, whatever happens
        settled = process.memory_info().rss
        assert [each.result() for each in loads] == [[]] * PROCESSES
    growth = process.memory_info().rss - settled
    assert growth < MOST_GROWTH
    deadline = time.monotonic() + 10
    while (left := (process.num_threads(), process.num_fds())) != before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == before, "threads and file descriptors are as before"
    server.stdin.write("\n")
    server.stdin.flush()
    assert float(server.stdout.readline()) < 2
