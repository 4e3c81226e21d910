"""What many clients in one process cost: pooledkafka, stock kafka-python and confluent-kafka on the same brokers.

For each library, in a process of its own and in turns: N consumers in groups of their own, then N consumers in one
group, all at the end of a topic; then one more consumer and a producer on a second topic, which measure the latency
beside the N that wait. Prints a table of the medians of all rounds and writes everything as JSON.

    python benchmarks/many_clients.py --bootstrap localhost:9092 --consumers 1 50 --rounds 3 --json many_clients.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import psutil
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic

from pooledkafka import Kafka

POLL_S = 0.2
PARTITIONS = 6
SETTLE_S = 6.0  # connections that a start needed and that are not used any more go away in this time
TIMEOUT_S = 120.0
ASSIGNED_WITHIN_S = 60.0

COLUMNS = {
    "assigned": "assigned",
    "assigned_s": "assigned s",
    "sockets": "sockets",
    "threads": "threads",
    "rss_mb": "RSS MB",
    "idle_cpu_percent": "idle CPU %",
    "produce_p50_ms": "produce p50 ms",
    "produce_p99_ms": "p99",
    "end_to_end_p50_ms": "end-to-end p50 ms",
    "end_to_end_p99_ms": "p99",
}


class Reader(Protocol):
    """One library's consumer."""

    def poll(self) -> list[bytes]:
        """The values that came within POLL_S."""

    def assigned(self) -> int:
        """How many partitions it has."""

    def close(self) -> None:
        """Leave and disconnect."""


class Library(Protocol):
    """One library's way to make clients."""

    def reader(self, topic: str, group: str) -> Reader:
        """A consumer that reads from the end of the topic."""

    def sender(self, topic: str) -> Callable[[bytes, Callable[[], None]], None]:
        """A function that sends a value and calls back when it is acknowledged."""

    def close(self) -> None:
        """End what is shared."""


class KafkaPythonReader:
    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    def poll(self) -> list[bytes]:
        batches = self._consumer.poll(timeout_ms=POLL_S * 1000)
        return [record.value for records in batches.values() for record in records]

    def assigned(self) -> int:
        return len(self._consumer.assignment())

    def close(self) -> None:
        self._consumer.close()


class Stock:
    """Stock kafka-python."""

    def __init__(self, bootstrap: str) -> None:
        self._options = {"bootstrap_servers": bootstrap}
        self._producers: list[Any] = []

    def reader(self, topic: str, group: str) -> Reader:
        return KafkaPythonReader(KafkaConsumer(topic, group_id=group, **self._options))

    def sender(self, topic: str) -> Callable[[bytes, Callable[[], None]], None]:
        producer = KafkaProducer(**self._options)
        self._producers.append(producer)
        return lambda value, done: producer.send(topic, value).add_callback(lambda _: done())

    def close(self) -> None:
        for producer in self._producers:
            producer.close()


class Pooled:
    """pooledkafka: all clients over one pool."""

    def __init__(self, bootstrap: str) -> None:
        self._kafka = Kafka(bootstrap_servers=bootstrap)
        self._pool = self._kafka.connection_pool()

    def reader(self, topic: str, group: str) -> Reader:
        return KafkaPythonReader(self._kafka.consumer(topic, group_id=group, connection_pool=self._pool))

    def sender(self, topic: str) -> Callable[[bytes, Callable[[], None]], None]:
        producer = self._kafka.producer(connection_pool=self._pool)
        return lambda value, done: producer.send(topic, value).add_callback(lambda _: done())

    def close(self) -> None:
        self._pool.disconnect()


class ConfluentReader:
    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    def poll(self) -> list[bytes]:
        message = self._consumer.poll(POLL_S)
        return [] if message is None or message.error() else [message.value()]

    def assigned(self) -> int:
        return len(self._consumer.assignment())

    def close(self) -> None:
        self._consumer.close()


class Confluent:
    """confluent-kafka (librdkafka)."""

    def __init__(self, bootstrap: str) -> None:
        import confluent_kafka

        self._module = confluent_kafka
        self._options = {"bootstrap.servers": bootstrap}
        self._stop = threading.Event()

    def reader(self, topic: str, group: str) -> Reader:
        consumer = self._module.Consumer({**self._options, "group.id": group, "auto.offset.reset": "latest"})
        consumer.subscribe([topic])
        return ConfluentReader(consumer)

    def sender(self, topic: str) -> Callable[[bytes, Callable[[], None]], None]:
        producer = self._module.Producer({**self._options, "linger.ms": 0})

        def serve() -> None:
            while not self._stop.is_set():
                producer.poll(0.1)

        threading.Thread(target=serve, daemon=True).start()
        return lambda value, done: producer.produce(topic, value, on_delivery=lambda *_: done())

    def close(self) -> None:
        self._stop.set()


LIBRARIES: dict[str, Callable[[str], Library]] = {"pooledkafka": Pooled, "kafka-python": Stock, "confluent": Confluent}


class ReaderThread:
    """Polls one consumer, as an application would."""

    def __init__(self, make: Callable[[], Reader], stop: threading.Event) -> None:
        self.assigned = 0
        self.latencies_ms: list[float] = []
        self._make = make
        self._stop = stop
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        reader = self._make()
        while not self._stop.is_set():
            values = reader.poll()
            now = time.monotonic_ns()
            self.assigned = reader.assigned()
            self.latencies_ms.extend((now - int(value)) / 1e6 for value in values)
        reader.close()

    def join(self) -> None:
        self._thread.join(TIMEOUT_S)


def measure(library: Library, topic: str, consumers: int, one_group: bool, idle_s: float, load_s: float) -> Any:
    """Run one library with so many consumers; returns the figures."""
    process = psutil.Process()
    before_mb = process.memory_info().rss / 1e6
    before_threads = process.num_threads()
    name = uuid.uuid4().hex[:8]
    stop = threading.Event()
    start = time.monotonic()

    def make(number: int) -> Callable[[], Reader]:
        return lambda: library.reader(topic, f"bench-{name}" if one_group else f"bench-{name}-{number}")

    readers = [ReaderThread(make(number), stop) for number in range(consumers)]
    wanted = PARTITIONS if one_group else PARTITIONS * consumers
    # Stock kafka-python leaves about one consumer in twenty without partitions for ever; that is a result too.
    while sum(reader.assigned for reader in readers) != wanted and time.monotonic() - start < ASSIGNED_WITHIN_S:
        time.sleep(0.005)
    assigned_s = time.monotonic() - start

    probe = ReaderThread(lambda: library.reader(f"{topic}-probe", f"bench-{name}-probe"), stop)
    send = library.sender(f"{topic}-probe")
    while not probe.latencies_ms:  # both ends are at work
        send(b"%d" % time.monotonic_ns(), lambda: None)
        time.sleep(0.1)
    time.sleep(SETTLE_S)

    figures: dict[str, Any] = {"assigned": sum(reader.assigned > 0 for reader in readers), "assigned_s": assigned_s}
    figures["sockets"] = sum(c.status == psutil.CONN_ESTABLISHED for c in process.net_connections(kind="inet"))
    # Each consumer is polled by a thread of the application; those are not the library's.
    figures["threads"] = process.num_threads() - before_threads - consumers - 1
    figures["rss_mb"] = process.memory_info().rss / 1e6 - before_mb
    cpu, wall = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(idle_s)
    figures["idle_cpu_percent"] = 100 * (sum(process.cpu_times()[:2]) - cpu) / (time.monotonic() - wall)

    probe.latencies_ms.clear()
    produce_ms: list[float] = []
    next_at = time.monotonic()
    end = next_at + load_s
    while next_at < end:
        sent = time.monotonic_ns()
        acknowledged = threading.Event()

        def done(sent: int = sent, acknowledged: threading.Event = acknowledged) -> None:
            produce_ms.append((time.monotonic_ns() - sent) / 1e6)
            acknowledged.set()

        send(b"%d" % sent, done)
        acknowledged.wait(TIMEOUT_S)
        next_at += 0.01
        time.sleep(max(0.0, next_at - time.monotonic()))
    deadline = time.monotonic() + TIMEOUT_S
    while len(probe.latencies_ms) < len(produce_ms) and time.monotonic() < deadline:
        time.sleep(0.01)
    figures["records"] = {"sent": len(produce_ms), "received": len(probe.latencies_ms)}
    for what, values in (("produce", produce_ms), ("end_to_end", probe.latencies_ms)):
        cuts = statistics.quantiles(values, n=100)
        figures[f"{what}_p50_ms"], figures[f"{what}_p99_ms"] = cuts[49], cuts[98]
    stop.set()
    for reader in [*readers, probe]:
        reader.join()
    return figures


def in_a_process(arguments: argparse.Namespace, library: str, consumers: int, one_group: bool, topic: str) -> Any:
    command = [sys.executable, __file__, "--bootstrap", arguments.bootstrap, "--worker", library, "--topic", topic]
    command += ["--consumers", str(consumers), "--idle", str(arguments.idle), "--load", str(arguments.load)]
    result = subprocess.run(
        command + ["--one-group"] * one_group, capture_output=True, text=True, timeout=600, check=False
    )
    if result.returncode:
        raise RuntimeError(f"{library} with {consumers} consumers failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def table(results: list[dict[str, Any]]) -> str:
    header = ["library", "consumers", "groups", *COLUMNS.values()]
    rows = [header]
    cases = dict.fromkeys((r["one_group"], r["consumers"], r["library"]) for r in results)
    for one_group, consumers, library in cases:
        mine = [r for r in results if (r["one_group"], r["consumers"], r["library"]) == (one_group, consumers, library)]
        medians = [statistics.median(r[name] for r in mine) for name in COLUMNS]
        rows.append(
            [library, str(consumers), "one" if one_group else "own"]
            + [f"{value:.0f}" if value >= 100 or float(value).is_integer() else f"{value:.2f}" for value in medians]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", required=True, help="host:port of the brokers")
    parser.add_argument("--consumers", type=int, nargs="+", default=[1, 50])
    parser.add_argument("--libraries", nargs="+", choices=list(LIBRARIES), default=list(LIBRARIES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle", type=float, default=10.0, help="seconds over which idle CPU is measured")
    parser.add_argument("--load", type=float, default=10.0, help="seconds of sending one by one, 100 a second")
    parser.add_argument("--groups", choices=("own", "one", "both"), default="both")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--worker", choices=list(LIBRARIES), help=argparse.SUPPRESS)
    parser.add_argument("--topic", help=argparse.SUPPRESS)
    parser.add_argument("--one-group", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    if arguments.worker:
        library = LIBRARIES[arguments.worker](arguments.bootstrap)
        (consumers,) = arguments.consumers
        figures = measure(library, arguments.topic, consumers, arguments.one_group, arguments.idle, arguments.load)
        library.close()
        print(json.dumps(figures))
        return 0

    topic = f"bench-{uuid.uuid4().hex[:8]}"
    admin = KafkaAdminClient(bootstrap_servers=arguments.bootstrap)
    brokers = len(admin.describe_cluster()["brokers"])
    topics = [topic, f"{topic}-probe"]
    admin.create_topics([NewTopic(t, num_partitions=PARTITIONS, replication_factor=min(3, brokers)) for t in topics])
    results = []
    try:
        for _ in range(arguments.rounds):
            for one_group in {"own": [False], "one": [True], "both": [False, True]}[arguments.groups]:
                for consumers in arguments.consumers:
                    for name in arguments.libraries:
                        figures = in_a_process(arguments, name, consumers, one_group, topic)
                        figures.update(library=name, consumers=consumers, one_group=one_group)
                        results.append(figures)
                        print(json.dumps(figures), file=sys.stderr, flush=True)
    finally:
        admin.delete_topics(topics)
        admin.close()
        if arguments.json is not None:
            arguments.json.write_text(json.dumps({"brokers": brokers, "results": results}, indent=2))
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
