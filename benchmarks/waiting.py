"""Consumers that wait, each in a group of its own, and the latency of a producer and one more consumer beside them."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass

import psutil

from benchmarks.cases import Brokers, Case, Result
from benchmarks.libraries import Library
from benchmarks.load import all_arrived, measure_latency, started_probe
from benchmarks.options import PRODUCER
from benchmarks.polling import PollingConsumer, errors_of, wait_until
from benchmarks.process import cpu_percent, sockets

__all__ = ["WaitingCase"]


@dataclass(frozen=True, kw_only=True)
class WaitingCase(Case):
    benchmark = "waiting"
    named_by = ("consumers",)

    topic: str
    partitions: int
    consumers: int
    probe_topic: str
    producers: int
    within_s: float  # for all consumers to get partitions
    settle_s: float  # after the start, for what only the start needed to go away
    idle_s: float
    load_s: float
    rate: float  # records a second

    def about_s(self) -> float:
        return 3 + self.consumers / 40 + self.settle_s + self.idle_s + self.load_s

    def measure(self, library: Library) -> Result:
        """Start consumers that wait at the end of a topic; then producers and one more consumer on a second topic."""
        process = psutil.Process()
        rss, threads = process.memory_info().rss, process.num_threads()
        name = uuid.uuid4().hex[:8]
        start = time.monotonic()
        consumers = [PollingConsumer(library, self.topic, f"bench-{name}-{n}") for n in range(self.consumers)]
        wait_until(lambda: all(len(consumer.owned) == self.partitions for consumer in consumers), self.within_s)
        times = [consumer.changed_at - start for consumer in consumers if len(consumer.owned) == self.partitions]

        senders = [library.sender(self.probe_topic, PRODUCER) for _ in range(self.producers)]
        probe, probes = started_probe(library, self.probe_topic, self.partitions, senders, f"bench-{name}-probe")
        time.sleep(self.settle_s)

        figures: Result = {"assigned_s": max(times, default=None), "probes": probes}
        figures["sockets"], figures["sockets_to_one_broker"] = sockets()
        # Those that poll are the application's.
        figures["threads"] = process.num_threads() - threads - library.threads_for_each * (self.consumers + 1)
        figures["rss_mb"] = (process.memory_info().rss - rss) / 1e6
        figures["idle_cpu_percent"] = cpu_percent(self.idle_s)
        figures.update(measure_latency(probe, senders, self.partitions, self.rate, self.load_s, self.within_s))
        figures["sockets_under_load"], figures["sockets_to_one_broker_under_load"] = sockets()

        everybody = [*consumers, probe]
        PollingConsumer.end(everybody)
        figures["assigned"] = sum(len(consumer.held) == self.partitions for consumer in consumers)
        figures["errors"] = errors_of(everybody)
        return figures

    def check(self, figures: Result, brokers: Brokers) -> None:
        all_arrived(figures)
