"""What N clients in one process cost, and what one more costs then: its start."""

from __future__ import annotations

import argparse
import statistics
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.cases import Brokers, Case, Plan, Result, Topic, WrongCountError
from benchmarks.libraries import Library
from benchmarks.options import PRODUCER
from benchmarks.polling import PollingConsumer, errors_of, record, wait_until
from benchmarks.process import cpu_percent, sockets

__all__ = ["QUICK", "ClientsCase", "add_options", "plan"]

PARTITIONS = 6
QUICK: dict[str, Any] = {"clients": [1, 3], "more": 1, "settle": 0.5, "idle": 0.5, "within": 15.0}


@dataclass(frozen=True, kw_only=True)
class ClientsCase(Case):
    benchmark = "clients"
    named_by = ("clients",)

    topic: str
    other_topic: str
    partitions: int
    clients: int
    more: int
    within_s: float
    settle_s: float
    idle_s: float

    def about_s(self) -> float:
        return 3 + self.clients / 15 + self.settle_s + self.idle_s + self.more

    def measure(self, library: Library) -> Result:
        process = psutil.Process()
        rss, threads = process.memory_info().rss, process.num_threads()
        name = uuid.uuid4().hex[:8]
        start = time.monotonic()
        consumers = [PollingConsumer(library, self.topic, f"bench-{name}-{n}") for n in range(self.clients)]
        wait_until(lambda: all(len(consumer.owned) == self.partitions for consumer in consumers), self.within_s)
        times = [consumer.changed_at - start for consumer in consumers if len(consumer.owned) == self.partitions]
        figures: Result = {"assigned_s": max(times, default=None)}
        time.sleep(self.settle_s)
        figures["sockets"], figures["sockets_to_one_broker"] = sockets()
        figures["threads"] = process.num_threads() - threads - library.threads_for_each * self.clients
        figures["rss_mb"] = (process.memory_info().rss - rss) / 1e6
        figures["idle_cpu_percent"] = cpu_percent(self.idle_s)

        more = [self._one_more_consumer(library, f"bench-{name}-more-{n}") for n in range(self.more)]
        sent_s = [self._one_more_producer(library) for _ in range(self.more)]
        ready_s = [seconds for _, seconds in more if seconds is not None]
        figures["next_consumer_s"] = statistics.median(ready_s) if ready_s else None
        figures["next_producer_s"] = statistics.median(sent_s)

        everybody = [*consumers, *(consumer for consumer, _ in more)]
        PollingConsumer.end(everybody)
        figures["assigned"] = sum(len(consumer.held) == self.partitions for consumer in consumers)
        figures["received"] = sum(len(consumer.received) for consumer in everybody)
        return {**figures, "errors": errors_of(everybody)}

    def _one_more_consumer(self, library: Library, group: str) -> tuple[PollingConsumer, float | None]:
        start = time.monotonic()
        consumer = PollingConsumer(library, self.topic, group)
        ready = wait_until(lambda: len(consumer.owned) == self.partitions, min(10.0, self.within_s))
        return consumer, consumer.changed_at - start if ready else None

    def _one_more_producer(self, library: Library) -> float:
        """To the topic that nobody reads, so that it costs no more the more consumers there are."""
        acknowledged = threading.Event()
        errors: list[Any] = []
        times: list[float] = []

        def done(error: Any) -> None:
            times.append(time.monotonic())
            if error is not None:
                errors.append(error)
            acknowledged.set()

        start = time.monotonic()
        library.sender(self.other_topic, PRODUCER)(record(0), 0, done)
        if not acknowledged.wait(self.within_s) or errors:
            raise RuntimeError(f"the record of a producer among {self.clients} clients was not sent: {errors}")
        return times[0] - start

    def check(self, figures: Result, brokers: Brokers) -> None:
        if figures["received"]:
            raise WrongCountError(f"{figures['received']} records came from a topic to which nothing was sent")


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--clients", type=int, nargs="+", default=[1, 10, 50, 100, 200, 500], help="how many; a case each")
    add("--more", type=int, default=5, help="how many more consumers and producers start then, one after another")
    add("--settle", type=float, default=5.0, help="seconds after the start before anything but time is measured")
    add("--idle", type=float, default=5.0, help="seconds over which idle CPU is measured")
    add("--within", type=float, default=60.0, help="seconds to wait for partitions")


def plan(arguments: argparse.Namespace, name: str) -> Plan:
    """A case for each number of clients."""
    if min([*arguments.clients, arguments.more]) < 1:
        raise argparse.ArgumentTypeError("clients and more are counts from 1 on")
    topic, other = Topic(f"{name}-clients", PARTITIONS), Topic(f"{name}-clients-sent", PARTITIONS)
    return Plan(
        [topic, other],
        [
            ClientsCase(
                topic=topic.name,
                other_topic=other.name,
                partitions=PARTITIONS,
                clients=clients,
                more=arguments.more,
                within_s=arguments.within,
                settle_s=arguments.settle,
                idle_s=arguments.idle,
            )
            for clients in arguments.clients
        ],
    )
