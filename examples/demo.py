"""Ten consumers in ten groups and three producers share one connection pool on a real Kafka cluster.

Run it with ``make demo``: on three brokers in Docker, which it starts and removes itself, or on a running cluster with
``make demo BOOTSTRAP=host:port``. It exits with 1 if a group misses a record or gets one twice.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from collections import Counter
from contextlib import ExitStack

from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from pooledkafka import ConnectionPool, Consumer, Kafka, Producer
from pooledkafka.testing import ClusterError, KafkaCluster

CONSUMERS = 10
PRODUCERS = 3
RECORDS = 3_000
RECORDS_PER_SECOND = 250
PARTITIONS = 6
TIMEOUT_S = 60.0


class Group:
    """One consumer in a group of its own, on a thread of its own, that counts what it receives."""

    def __init__(self, consumer: Consumer) -> None:
        self.assigned = threading.Event()
        self.complete = threading.Event()
        self.error: BaseException | None = None
        self.received: Counter[bytes] = Counter()  # by key; the thread's until it has ended
        self.latencies_ms: list[float] = []  # likewise
        self._consumer = consumer
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self.complete.is_set():
                batches = self._consumer.poll(timeout_ms=200)
                now = time.monotonic_ns()
                if self._consumer.assignment():
                    self.assigned.set()
                for records in batches.values():
                    self.received.update(record.key for record in records)
                    self.latencies_ms.extend((now - int(record.value)) / 1e6 for record in records)
                if self.received.total() >= RECORDS:
                    self.complete.set()
        except BaseException as error:
            self.error = error
            self.assigned.set()
            self.complete.set()

    def join(self) -> None:
        self.complete.set()
        self._thread.join(TIMEOUT_S)


def send_all(producers: list[Producer], topic: str) -> list[float]:
    """Send the records at a steady rate, in turn; returns how long each took to be acknowledged, in ms."""
    acknowledged: list[float] = []
    futures = []
    start = time.monotonic()
    for number in range(RECORDS):
        pause = start + number / RECORDS_PER_SECOND - time.monotonic()
        if pause > 0:
            time.sleep(pause)  # this sets the pace of the load; nothing is waited for
        sent = time.monotonic_ns()
        future = producers[number % len(producers)].send(topic, key=b"%d" % number, value=b"%d" % sent)
        future.add_callback(lambda _, sent=sent: acknowledged.append((time.monotonic_ns() - sent) / 1e6))
        futures.append(future)
    for future in futures:
        future.get(timeout=TIMEOUT_S)
    return acknowledged


def percentiles(latencies_ms: list[float]) -> str:
    ordered = sorted(latencies_ms)
    p50, p99 = (ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
    return f"p50 {p50:6.1f} ms   p99 {p99:6.1f} ms"


def show_connections(pool: ConnectionPool, when: str) -> None:
    stats = pool.stats()
    print(f"\n{when}, the pool of {stats.consumers} consumers and {stats.producers} producers holds")
    for node_id, lanes in stats.connections.items():
        described = ", ".join(f"{count} {lane}" for lane, count in sorted(lanes.items()))
        print(f"  broker {node_id}: {sum(lanes.values()):3d} connections ({described})")
    print(f"  in all  : {stats.connections_open:3d}")


def run(bootstrap_servers: str) -> bool:
    """Run the demonstration; True if every group received every record once."""
    topic = f"pooledkafka-demo-{uuid.uuid4().hex[:8]}"
    admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers)
    try:
        brokers = len(admin.describe_cluster()["brokers"])
        admin.create_topics([NewTopic(topic, num_partitions=PARTITIONS, replication_factor=min(3, brokers))])
        try:
            with ExitStack() as stack:
                return run_on(topic, bootstrap_servers, stack)
        finally:
            admin.delete_topics([topic])
    finally:
        admin.close()


def run_on(topic: str, bootstrap_servers: str, stack: ExitStack) -> bool:
    kafka = Kafka(bootstrap_servers=bootstrap_servers, client_id="pooledkafka-demo")
    pool = stack.enter_context(kafka.connection_pool())

    started = time.monotonic()
    consumers = [
        kafka.consumer(topic, group_id=f"{topic}-{n}", connection_pool=pool, auto_offset_reset="earliest")
        for n in range(CONSUMERS)
    ]
    groups = [Group(consumer) for consumer in consumers]
    for group in groups:
        stack.callback(group.join)
    assigned = sum(group.assigned.wait(TIMEOUT_S) and group.error is None for group in groups)
    print(f"{assigned} of {CONSUMERS} consumers have their partitions after {time.monotonic() - started:.2f} s")

    producers = [stack.enter_context(kafka.producer(connection_pool=pool)) for _ in range(PRODUCERS)]
    print(f"sending {RECORDS} records at {RECORDS_PER_SECOND} a second ...")
    acknowledged_ms = send_all(producers, topic)
    deadline = time.monotonic() + TIMEOUT_S
    for group in groups:
        group.complete.wait(max(0.0, deadline - time.monotonic()))
    show_connections(pool, "Under load")
    for group in groups:
        group.join()

    exact = sum(len(group.received) == group.received.total() == RECORDS for group in groups)
    print(f"\n{exact} of {CONSUMERS} groups received each of the {RECORDS} records exactly once")
    print(f"  send to acknowledgement: {percentiles(acknowledged_ms)}")
    print(f"  send to receipt        : {percentiles([ms for group in groups for ms in group.latencies_ms] or [0.0])}")
    for group in groups:
        if group.error is not None:
            print(f"  a consumer failed: {group.error!r}", file=sys.stderr)
    return exact == CONSUMERS


def main() -> int:
    bootstrap = os.environ.get("BOOTSTRAP")
    try:
        if bootstrap:
            print(f"using the Kafka cluster at {bootstrap}")
            return 0 if run(bootstrap) else 1
        print("starting three Kafka brokers in Docker ...", flush=True)
        started = time.monotonic()
        with KafkaCluster(brokers=3) as cluster:
            print(f"three brokers of Apache Kafka are ready after {time.monotonic() - started:.1f} s")
            return 0 if run(cluster.bootstrap_servers) else 1
    except ClusterError as error:
        print(f"make demo needs a Kafka cluster: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
