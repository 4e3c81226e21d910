"""Many threads create, use and close the clients of a few pools at random, while brokers restart.

Nothing may hang, leak or be lost: each call ends within its bound, all threads, sockets and objects are gone at the
end, every acknowledged record is in the log exactly once, and no call raises what it has no reason to.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import random
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("POOLEDKAFKA_DEBUG", "1")  # before the package is imported

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient
from rich.console import Console
from rich.table import Table

from pooledkafka import Kafka, _locks
from pooledkafka.testing import KafkaCluster
from reliability.embedded_process import embedded_process
from reliability.thread_work import LOG_TOPICS, PARTITIONS, Shared, Worker

GONE_WITHIN_S = 20.0
NODE_IDS = (1, 2, 3)
WATCHED = (
    *("Consumer", "Producer", "Admin", "WiredConsumer", "WiredProducer", "WiredAdmin", "Engine", "Senders"),
    *("ConsumerFacade", "ProducerFacade", "AdminFacade", "ClusterView", "SharedManager", "Multiplexer", "Stream"),
    *("KafkaConsumer", "KafkaProducer", "KafkaAdminClient", "KafkaConnection", "NetworkSelector", "_CheckedSelector"),
)
ALARMING = (
    *("Error processing callback", "Error processing errback", "Unhandled exception in task", "IO loop crashed"),
    *("Uncaught error in", "Closing socket", "Exception in thread"),
)
"""Beginnings of what is logged where an exception had nobody to go to."""


class Alarms(logging.Handler):
    """Keeps what no call raises."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith(ALARMING):
            cause = "".join(traceback.format_exception(*record.exc_info)[-10:]) if record.exc_info else ""
            self.heard[f"{message[:60]}: {cause}"] += 1


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m reliability.threads", description=__doc__)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1, help="of what the threads choose; their timing is their own")
    parser.add_argument("--pools", type=int, default=3)
    parser.add_argument("--backend", choices=["embedded", "docker"], default="embedded")
    parser.add_argument("--restart-every", type=float, default=15.0, metavar="S", help="a broker; 0: never")
    parser.add_argument("--bound", type=float, default=60.0, metavar="S", help="the longest that any call may take")
    parser.add_argument("--json", metavar="FILE")
    return parser.parse_args(arguments)


@contextmanager
def brokers(backend: str) -> Iterator[Any]:
    config = {"group.initial.rebalance.delay.ms": "0"}
    if backend == "docker":
        with KafkaCluster(brokers=3, config=config) as cluster:
            yield cluster
    else:
        with embedded_process(brokers=3, config=config) as remote:
            yield remote


def create_topics(options: dict[str, Any]) -> None:
    with KafkaAdminClient(**options) as admin:
        wanted = {topic: {"num_partitions": PARTITIONS, "replication_factor": 3} for topic in LOG_TOPICS}
        admin.create_topics(wanted, wait_for_metadata=True)


def read_log(options: dict[str, Any]) -> Counter[str]:
    """How often each committed record is in the log."""
    found: Counter[str] = Counter()
    partitions = [TopicPartition(topic, number) for topic in LOG_TOPICS for number in range(PARTITIONS)]
    with KafkaConsumer(**options) as consumer:  # what is committed ends before the first transaction that is not
        ends = consumer.end_offsets(partitions)
    with KafkaConsumer(
        **options, enable_auto_commit=False, auto_offset_reset="earliest", isolation_level="read_committed"
    ) as consumer:
        consumer.assign(partitions)
        deadline = time.monotonic() + 120
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            assert time.monotonic() < deadline, "the log could not be read to its end"
            for records in consumer.poll(timeout_ms=500).values():
                found.update(record.value.decode() for record in records)
    return found


class Held:
    """What this process has: threads, descriptors, objects."""

    def __init__(self) -> None:
        gc.collect()
        self.threads = Counter(
            thread.name for thread in threading.enumerate() if "network-thread" in thread.name or "kafka" in thread.name
        )
        self.descriptors = len(os.listdir("/proc/self/fd"))
        self.objects: Counter[str] = Counter(
            type(each).__name__
            for each in gc.get_objects()
            if type(each).__name__ in WATCHED and type(each).__module__.startswith(("kafka", "pooledkafka"))
        )

    def beyond(self, before: Held) -> list[str]:
        found = [f"{count} threads {name}" for name, count in (self.threads - before.threads).items()]
        found += [f"{count} objects of {name}" for name, count in (self.objects - before.objects).items()]
        if self.descriptors > before.descriptors:
            found.append(f"{self.descriptors - before.descriptors} descriptors")
        return found


def leaked_since(before: Held) -> list[str]:
    deadline = time.monotonic() + GONE_WITHIN_S
    while leaked := Held().beyond(before):
        if time.monotonic() > deadline:
            return leaked
        time.sleep(0.2)
    return []


def watch(workers: list[Worker], cluster: Any, options: argparse.Namespace) -> int:
    """Let them work for the time, and restart brokers meanwhile; returns how many restarts there were."""
    choose = random.Random(options.seed)
    ends_at = time.monotonic() + options.minutes * 60
    next_restart = time.monotonic() + (options.restart_every or float("inf"))
    restarts = 0
    while time.monotonic() < ends_at:
        time.sleep(0.1)
        look(workers, options.bound)
        for worker in workers:
            worker.end_a_long_run()
        if time.monotonic() > next_restart:
            cluster.restart(choose.choice(NODE_IDS))
            restarts += 1
            next_restart = time.monotonic() + options.restart_every
    return restarts


def look(workers: list[Worker], bound_s: float) -> None:
    """End the process, with the stacks of all threads, if one is in a call for longer than it may be."""
    for worker in workers:
        kind, since = worker.doing
        if kind is not None and time.monotonic() - since > bound_s:
            print(f"STUCK: thread {worker.number} is in {kind} for more than {bound_s:.0f} s", file=sys.stderr)
            dump()
            os._exit(1)


def dump() -> None:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        print(f"\n--- {names.get(ident, ident)}", file=sys.stderr)
        traceback.print_stack(frame, file=sys.stderr)
    sys.stderr.flush()


def end(workers: list[Worker], shared: Shared, bound_s: float) -> None:
    shared.over.set()
    while any(worker.thread.is_alive() for worker in workers):
        time.sleep(0.1)
        look(workers, bound_s)
        for worker in workers:
            worker.end_a_long_run()
    for pool in shared.pools:
        worker = Worker(-1, shared)
        worker.call("pool.disconnect", lambda pool=pool: pool.disconnect(timeout_ms=20_000))  # type: ignore[misc]
        workers.append(worker)


def run(options: argparse.Namespace) -> dict[str, Any]:
    alarms = Alarms()
    for name in ("kafka", "pooledkafka"):
        logging.getLogger(name).addHandler(alarms)
        logging.getLogger(name).propagate = False
    threading.excepthook = lambda args: alarms.heard.update(
        [f"Exception in thread {args.thread.name if args.thread else '?'}: {args.exc_value!r}"]
    )
    with brokers(options.backend) as cluster:
        given = cluster.client_options()
        create_topics(given)
        before = Held()
        kafka = Kafka(**given, reconnect_backoff_max_ms=500)
        shared = Shared(kafka, options.pools)
        workers = [Worker(number, shared, options.seed) for number in range(options.threads)]
        for worker in workers:
            worker.thread.start()
        restarts = watch(workers, cluster, options)
        end(workers, shared, options.bound)
        found = read_log(given)
    outcome = shared.outcome()
    figures = gather(workers)
    del workers, worker
    shared.forget_clients()
    acknowledged, may_be = outcome
    return {
        **figures,
        "seconds": round(options.minutes * 60),
        "restarts": restarts,
        "acknowledged": len(acknowledged),
        "lost": [f"{record}: {acknowledged[record]}" for record in sorted(acknowledged.keys() - found.keys())],
        "twice": sorted(record for record, count in found.items() if count > 1)[:20],
        "never sent": sorted(found.keys() - acknowledged.keys() - may_be)[:20],
        "leaked": leaked_since(before),
        "lock order": _locks.violations[:20],
        "alarms": dict(alarms.heard),
    }


def gather(workers: list[Worker]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    longest: dict[str, float] = {}
    expected: Counter[str] = Counter()
    unexpected: list[str] = []
    for worker in workers:
        counts += worker.counts
        expected += worker.expected
        unexpected += worker.unexpected
        for kind, seconds in worker.longest.items():
            longest[kind] = max(longest.get(kind, 0.0), seconds)
    return {
        "operations": dict(counts),
        "longest": longest,
        "expected": dict(expected),
        "unexpected": unexpected,
        "read": sum(worker.read for worker in workers),
    }


def show(result: dict[str, Any], options: argparse.Namespace) -> None:
    console = Console()
    table = Table("operation", "calls", "longest s")
    for kind, count in sorted(result["operations"].items()):
        table.add_row(kind, f"{count:,}", f"{result['longest'][kind]:.2f}")
    console.print(table)
    table = Table("expected error", "times")
    for error, count in sorted(result["expected"].items()):
        table.add_row(error, f"{count:,}")
    console.print(table)
    console.print(
        f"{options.threads} threads, {options.pools} pools, {result['seconds']} s, seed {options.seed}, "
        f"{result['restarts']} restarts of brokers: {sum(result['operations'].values()):,} operations, "
        f"{result['acknowledged']:,} records acknowledged, {result['read']:,} read"
    )
    for problem in PROBLEMS:
        what = result[problem]
        console.print(f"{problem}: {len(what)}")
        for each in list(what.items() if isinstance(what, dict) else what)[:10]:
            console.print(f"  {each}", markup=False)


PROBLEMS = ("lost", "twice", "never sent", "unexpected", "leaked", "lock order", "alarms")


def main(arguments: list[str] | None = None) -> int:
    options = options_of(arguments)
    result = run(options)
    show(result, options)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(result, file, indent=1)
    return 1 if any(result[problem] for problem in PROBLEMS) else 0


if __name__ == "__main__":
    sys.exit(main())
