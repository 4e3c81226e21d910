"""Fifty consumers in fifty groups and five producers share one connection pool; then they do without one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, field

import psutil
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from pooledkafka._demo import apart
from pooledkafka._demo.clients import PARTITIONS, TIMEOUT_S, Load, Reader
from pooledkafka._demo.leaving import take_back
from pooledkafka.kafka import Kafka
from pooledkafka.pool import ConnectionPool

__all__ = ["Demonstration", "Result"]

SETTLED_WITHIN_S = 15.0  # connections that only joining needed go away when they have been idle


@dataclass(frozen=True)
class Result:
    """What came of it."""

    groups: int
    exact: int
    """How many groups received each record once."""
    sent: int
    acknowledged_ms: list[float]
    received_ms: list[float]
    """How long each took to a consumer."""
    pooled: dict[str, float]
    apart: dict[str, float] = field(default_factory=dict)
    """What the clients held with the pool, and what they hold without one."""
    errors: list[str] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        """Whether every group received every record once, and no client failed."""
        return self.exact == self.groups and not self.errors


@dataclass(frozen=True)
class Demonstration:
    """So many clients on one cluster; ``console`` is where it shows what goes on."""

    bootstrap_servers: str
    console: Console
    consumers: int = 50
    producers: int = 5
    records: int = 600
    rate: float = 30.0
    """Records a second."""

    def run(self) -> Result:
        """With a pool, and without one; in a topic of its own, which it deletes.

        Raises:
            KafkaError: the cluster cannot be reached, or refuses the topic.
        """
        kafka = Kafka(bootstrap_servers=self.bootstrap_servers, client_id="pooledkafka-demo")
        with kafka.connection_pool():  # which says sooner than kafka-python's admin client why there is no cluster
            pass
        topic = f"pooledkafka-demo-{uuid.uuid4().hex[:8]}"
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers, bootstrap_timeout_ms=10_000)
        try:
            brokers = admin.describe_cluster()["brokers"]
            ports = {broker["port"] for broker in brokers}
            admin.create_topics([NewTopic(topic, num_partitions=PARTITIONS, replication_factor=min(3, len(brokers)))])
            try:
                with ExitStack() as stack:
                    result = self._run_pooled(kafka, topic, ports, stack)
                result.apart.update(self._run_apart(topic, ports))
                self._compare(result)
                return result
            finally:
                take_back(admin, topic)
        finally:
            admin.close()

    def _run_pooled(self, kafka: Kafka, topic: str, ports: set[int], stack: ExitStack) -> Result:
        before = _measured(ports)
        pool = stack.enter_context(kafka.connection_pool())
        started = time.monotonic()
        readers = [
            Reader(
                kafka.consumer(topic, group_id=f"{topic}-{n}", connection_pool=pool, auto_offset_reset="earliest"),
                self.records,
            )
            for n in range(self.consumers)
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
        self.console.print(
            f"{assigned} of {len(readers)} consumers have their partitions after {time.monotonic() - started:.2f} s"
        )
        producers = [stack.enter_context(kafka.producer(connection_pool=pool)) for _ in range(self.producers)]
        load = Load(producers, topic, self.records, self.rate)
        load.start()
        self._watch(pool, load, readers)
        deadline = time.monotonic() + SETTLED_WITHIN_S
        while any("leased" in lanes for lanes in pool.stats().connections.values()) and time.monotonic() < deadline:
            time.sleep(0.1)
        held = _measured(ports) | {"assigned": assigned}
        held["connections"] -= before["connections"]
        held["threads"] -= before["threads"] + len(readers)
        result = Result(
            groups=len(readers),
            exact=sum(len(r.received) == r.received.total() == self.records for r in readers),
            sent=load.sent,
            acknowledged_ms=load.acknowledged_ms,
            received_ms=[ms for reader in readers for ms in reader.latencies_ms],
            pooled=held,
            errors=[repr(error) for error in [load.error, *(reader.error for reader in readers)] if error is not None],
        )
        self._tell(result, pool)
        return result

    def _watch(self, pool: ConnectionPool, load: Load, readers: list[Reader]) -> None:
        """Show what is going on until every group has everything, or the time is up."""
        deadline = time.monotonic() + TIMEOUT_S + self.records / self.rate
        shown_at = 0.0
        with Live(console=self.console, auto_refresh=False, transient=True) as display:
            while time.monotonic() < deadline and not (load.error or all(reader.done for reader in readers)):
                if self.console.is_terminal:
                    display.update(_live(pool, load, readers), refresh=True)
                elif time.monotonic() - shown_at > 5:
                    shown_at = time.monotonic()
                    received = sum(len(reader.latencies_ms) for reader in readers)
                    self.console.print(
                        f"sent {load.sent}, received {received}, {pool.stats().connections_open} connections"
                    )
                time.sleep(0.2)  # the pace of the display
        load.join(TIMEOUT_S)

    def _tell(self, result: Result, pool: ConnectionPool) -> None:
        stats = pool.stats()
        self.console.print(
            f"\n{result.exact} of {result.groups} groups received each of the {result.sent} records sent exactly once"
        )
        self.console.print(f"  send to acknowledgement: {_percentiles(result.acknowledged_ms)}")
        self.console.print(f"  send to receipt        : {_percentiles(result.received_ms)}")
        self.console.print(
            f"  the pool says          : {stats.connections_open} connections to {len(stats.connections)} brokers, "
            f"{stats.connections_created} made in all; {stats.logical_fetches} fetches of consumers in "
            f"{stats.wire_fetches} requests"
        )
        for error in result.errors:
            self.console.print(f"  a client failed: {error}", style="red", markup=False)

    def _run_apart(self, topic: str, ports: set[int]) -> dict[str, float]:
        """Run the same clients without a pool, in a process of its own; returns what they held."""
        self.console.print("\nnow the same clients of stock kafka-python, without a pool ...")
        arguments = [self.bootstrap_servers, topic, self.consumers, self.producers, ",".join(map(str, ports))]
        done = subprocess.run(
            [sys.executable, "-m", apart.__name__, *map(str, arguments)],
            stdout=subprocess.PIPE,
            check=False,
            text=True,
        )
        if done.returncode != 0:
            code = done.returncode
            how = f"ended with exit code {code}; why is said above" if code > 0 else f"was killed by signal {-code}"
            raise ChildProcessError(
                f"the process of the clients without a pool {how}. Try fewer with --consumers and --producers."
            )
        held: dict[str, float] = json.loads(done.stdout)
        return held

    def _compare(self, result: Result) -> None:
        """Show both side by side."""
        title = f"{self.consumers} consumers in groups of their own and {self.producers} producers hold"
        table = Table("", "with one pool", "without", title=title)
        rows: list[tuple[str, str, str]] = [
            ("connections to brokers", "connections", "d"),
            ("threads, besides those that poll", "threads", "d"),
            ("memory of the process, MB", "rss_mb", ".0f"),
            ("consumers with partitions", "assigned", "d"),
        ]
        for name, key, shape in rows:
            table.add_row(name, format(result.pooled[key], shape), format(result.apart[key], shape))
        self.console.print(table)


def _measured(ports: set[int]) -> dict[str, float]:
    """What this process holds, as the operating system says."""
    process = psutil.Process()
    return {
        "connections": apart.sockets_to(ports),
        "threads": process.num_threads(),
        "rss_mb": process.memory_info().rss / 1e6,
    }


def _percentiles(latencies_ms: list[float]) -> str:
    if not latencies_ms:
        return "none"
    ordered = sorted(latencies_ms)
    p50, p99 = (ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def _live(pool: ConnectionPool, load: Load, readers: list[Reader]) -> Group:
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
        f"send to receipt, lately: {_percentiles(recent)}; "
        f"{stats.logical_fetches} fetches of consumers in {stats.wire_fetches} requests",
    )
