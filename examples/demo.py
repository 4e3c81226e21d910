"""Fifty consumers in fifty groups and five producers share one connection pool.

Run it with ``make demo``: on three embedded brokers, for which it needs nothing but Python. With ``make demo
BACKEND=docker`` they are Apache Kafka's, in containers that it starts and removes itself, and with ``make demo
BOOTSTRAP=host:port`` those of a cluster that runs already. It exits with 1 if a group misses a record or gets one
twice. At the end it runs the same clients without a pool, to count what they hold.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
from demo_apart import sockets_to
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.errors import KafkaError
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from pooledkafka import ConnectionPool, Consumer, Kafka, Producer
from pooledkafka.testing import Cluster, ClusterError, EmbeddedKafka, KafkaCluster

PARTITIONS = 6
TIMEOUT_S = 60.0
SETTLED_WITHIN_S = 15.0  # connections that only joining needed go away when they have been idle

console = Console(soft_wrap=True)


class Reader:
    """One consumer in a group of its own, on a thread of its own, that counts what it receives."""

    def __init__(self, consumer: Consumer, records: int) -> None:
        self.received: Counter[bytes] = Counter()  # by key; written by the thread alone, as are the next three
        self.latencies_ms: list[float] = []
        self.assigned = False
        self.error: BaseException | None = None
        self._consumer = consumer
        self._records = records
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return len(self.latencies_ms) >= self._records or self.error is not None

    def _run(self) -> None:
        try:
            with self._consumer:
                while not self._stop.is_set():
                    batches = self._consumer.poll(timeout_ms=200)
                    now = time.monotonic_ns()
                    self.assigned = self.assigned or bool(self._consumer.assignment())
                    for records in batches.values():
                        self.received.update(record.key for record in records)
                        self.latencies_ms.extend((now - int(record.value)) / 1e6 for record in records)
        except BaseException as error:
            self.error = error

    def tell_to_stop(self) -> None:
        self._stop.set()

    def join(self) -> None:
        self._thread.join(TIMEOUT_S)


class Load(threading.Thread):
    """Sends the records at a steady rate, by all producers in turn."""

    def __init__(self, producers: list[Producer], topic: str, records: int, rate: float) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self.acknowledged_ms: list[float] = []  # how long each took, in the order of their acknowledgement
        self.error: BaseException | None = None
        self._producers = producers
        self._topic = topic
        self._records = records
        self._rate = rate

    def run(self) -> None:
        start = time.monotonic()
        futures = []
        try:
            for number in range(self._records):
                time.sleep(max(0.0, start + number / self._rate - time.monotonic()))  # the pace of the load
                at = time.monotonic_ns()
                producer = self._producers[number % len(self._producers)]
                future = producer.send(self._topic, key=b"%d" % number, value=b"%d" % at, partition=number % PARTITIONS)
                future.add_callback(lambda _, at=at: self.acknowledged_ms.append((time.monotonic_ns() - at) / 1e6))
                futures.append(future)
                self.sent += 1
            for future in futures:
                future.get(timeout=TIMEOUT_S)
        except BaseException as error:
            self.error = error


def percentiles(latencies_ms: list[float]) -> str:
    if not latencies_ms:
        return "none"
    ordered = sorted(latencies_ms)
    p50, p99 = (ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def live(pool: ConnectionPool, load: Load, readers: list[Reader]) -> Group:
    """What is going on now, as a table."""
    stats = pool.stats()
    names = ["control", "produce", "fetch", "catch-up", "leased"]
    connections = Table("broker", *names, "all", title=f"{stats.consumers} consumers, {stats.producers} producers")
    for node_id, lanes in stats.connections.items():
        counts = [str(lanes.get(name, "")) for name in names]
        connections.add_row(str(node_id), *counts, str(sum(lanes.values())))
    received = sum(len(reader.latencies_ms) for reader in readers)
    recent = [ms for reader in readers for ms in reader.latencies_ms[-20:]]
    return Group(
        connections,
        f"sent {load.sent}, received {received} by {len(readers)} groups, "
        f"{sum(reader.done for reader in readers)} groups have all",
        f"send to receipt, lately: {percentiles(recent)}; "
        f"{stats.logical_fetches} fetches of consumers in {stats.wire_fetches} requests",
    )


def watch(pool: ConnectionPool, load: Load, readers: list[Reader]) -> None:
    """Show what is going on until every group has everything, or the time is up."""
    deadline = time.monotonic() + TIMEOUT_S + load._records / load._rate
    shown_at = 0.0
    with Live(console=console, auto_refresh=False, transient=True) as display:
        while time.monotonic() < deadline and not (load.error or all(reader.done for reader in readers)):
            if console.is_terminal:
                display.update(live(pool, load, readers), refresh=True)
            elif time.monotonic() - shown_at > 5:
                shown_at = time.monotonic()
                received = sum(len(reader.latencies_ms) for reader in readers)
                console.print(f"sent {load.sent}, received {received}, {pool.stats().connections_open} connections")
            time.sleep(0.2)  # the pace of the display
    load.join(TIMEOUT_S)


def measured(ports: set[int]) -> dict[str, float]:
    """What this process holds, as the operating system says."""
    process = psutil.Process()
    return {
        "connections": sockets_to(ports),
        "threads": process.num_threads(),
        "rss_mb": process.memory_info().rss / 1e6,
    }


def run(bootstrap_servers: str, options: argparse.Namespace) -> bool:
    """Run the demonstration; True if every group received every record once."""
    topic = f"pooledkafka-demo-{uuid.uuid4().hex[:8]}"
    admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers, bootstrap_timeout_ms=10_000)
    try:
        brokers = admin.describe_cluster()["brokers"]
        ports = {broker["port"] for broker in brokers}
        admin.create_topics([NewTopic(topic, num_partitions=PARTITIONS, replication_factor=min(3, len(brokers)))])
        try:
            with ExitStack() as stack:
                exact, pooled = run_pooled(topic, bootstrap_servers, ports, options, stack)
            compare(pooled, run_apart(topic, bootstrap_servers, ports, options), options)
            return exact
        finally:
            admin.delete_topics([topic])
    finally:
        admin.close()


def run_pooled(
    topic: str, bootstrap_servers: str, ports: set[int], options: argparse.Namespace, stack: ExitStack
) -> tuple[bool, dict[str, float]]:
    """Run the clients over one pool; returns whether all went well, and what they held."""
    kafka = Kafka(bootstrap_servers=bootstrap_servers, client_id="pooledkafka-demo")
    before = measured(ports)
    pool = stack.enter_context(kafka.connection_pool())
    started = time.monotonic()
    readers = [
        Reader(
            kafka.consumer(topic, group_id=f"{topic}-{n}", connection_pool=pool, auto_offset_reset="earliest"),
            options.records,
        )
        for n in range(options.consumers)
    ]
    for reader in readers:
        stack.callback(reader.join)
    for reader in readers:  # runs first: all are told, then all are waited for
        stack.callback(reader.tell_to_stop)
    while not all(reader.assigned or reader.error for reader in readers):
        if time.monotonic() > started + TIMEOUT_S:
            break
        time.sleep(0.01)
    assigned = sum(reader.assigned for reader in readers)
    console.print(
        f"{assigned} of {len(readers)} consumers have their partitions after {time.monotonic() - started:.2f} s"
    )

    producers = [stack.enter_context(kafka.producer(connection_pool=pool)) for _ in range(options.producers)]
    load = Load(producers, topic, options.records, options.rate)
    load.start()
    watch(pool, load, readers)
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while any("leased" in lanes for lanes in pool.stats().connections.values()) and time.monotonic() < deadline:
        time.sleep(0.1)
    held = measured(ports) | {"assigned": assigned}
    held["connections"] -= before["connections"]
    held["threads"] -= before["threads"] + len(readers)

    exact = sum(len(r.received) == r.received.total() == options.records for r in readers)
    console.print(f"\n{exact} of {len(readers)} groups received each of the {load.sent} records sent exactly once")
    console.print(f"  send to acknowledgement: {percentiles(load.acknowledged_ms)}")
    console.print(f"  send to receipt        : {percentiles([ms for r in readers for ms in r.latencies_ms])}")
    stats = pool.stats()
    console.print(
        f"  the pool says          : {stats.connections_open} connections to {len(stats.connections)} brokers, "
        f"{stats.connections_created} made in all; {stats.logical_fetches} fetches of consumers in "
        f"{stats.wire_fetches} requests"
    )
    for error in [load.error, *(reader.error for reader in readers)]:
        if error is not None:
            console.print(f"  a client failed: {error!r}", style="red")
    return exact == len(readers) and load.error is None, held


def run_apart(topic: str, bootstrap_servers: str, ports: set[int], options: argparse.Namespace) -> dict[str, float]:
    """Run the same clients without a pool, in a process of its own; returns what they held."""
    console.print("\nnow the same clients of stock kafka-python, without a pool ...")
    script = Path(__file__).with_name("demo_apart.py")
    arguments = [bootstrap_servers, topic, options.consumers, options.producers, ",".join(map(str, ports))]
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)], stdout=subprocess.PIPE, check=True, text=True
    )
    held: dict[str, float] = json.loads(done.stdout)
    return held


def compare(pooled: dict[str, float], apart: dict[str, float], options: argparse.Namespace) -> None:
    """Show both side by side."""
    title = f"{options.consumers} consumers in groups of their own and {options.producers} producers hold"
    table = Table("", "with one pool", "without", title=title)
    rows: list[tuple[str, str, str]] = [
        ("connections to brokers", "connections", "d"),
        ("threads, besides those that poll", "threads", "d"),
        ("memory of the process, MB", "rss_mb", ".0f"),
        ("consumers with partitions", "assigned", "d"),
    ]
    for name, key, shape in rows:
        table.add_row(name, format(pooled[key], shape), format(apart[key], shape))
    console.print(table)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", default=os.environ.get("BOOTSTRAP"), help="host:port of a running cluster")
    parser.add_argument(
        "--backend",
        choices=["embedded", "docker"],
        default=os.environ.get("BACKEND") or "embedded",
        help="brokers in this process, or Apache Kafka in Docker; without --bootstrap",
    )
    parser.add_argument("--consumers", type=int, default=50)
    parser.add_argument("--producers", type=int, default=5)
    parser.add_argument("--records", type=int, default=600)
    parser.add_argument("--rate", type=float, default=30.0, help="records a second")
    options = parser.parse_args()
    if options.backend not in ("embedded", "docker"):  # argparse does not check a default
        parser.error(f"BACKEND is {options.backend!r}; expected embedded or docker")
    return options


def main() -> Any:
    options = arguments()
    try:
        if options.bootstrap:
            console.print(f"using the Kafka cluster at {options.bootstrap}")
            return 0 if run(options.bootstrap, options) else 1
        cluster: Cluster
        if options.backend == "docker":
            cluster, what = KafkaCluster(brokers=3), "brokers of Apache Kafka in Docker"
        else:
            cluster, what = EmbeddedKafka(brokers=3), "embedded brokers, in this process"
        console.print(f"starting three {what} ...")
        started = time.monotonic()
        with cluster:
            console.print(f"three {what} are ready after {time.monotonic() - started:.2f} s")
            return 0 if run(cluster.bootstrap_servers, options) else 1
    except ClusterError as error:
        print(f"make demo needs a Kafka cluster: {error}", file=sys.stderr)
        return 2
    except KafkaError as error:
        print(f"the demo failed: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
