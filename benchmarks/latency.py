"""Latency under load: how long a record takes to be acknowledged, and to arrive, at which rate."""

from __future__ import annotations

import argparse
import uuid
from dataclasses import dataclass
from typing import Any

from benchmarks.cases import Brokers, Case, Plan, Result, Topic
from benchmarks.libraries import Library
from benchmarks.load import all_arrived, measure_latency, started_probe
from benchmarks.options import PRODUCER
from benchmarks.polling import PollingConsumer, errors_of
from benchmarks.process import moment

__all__ = ["QUICK", "LatencyCase", "add_options", "plan"]

PARTITIONS = 6
WITHIN_S = 60.0
QUICK: dict[str, Any] = {"rates": [150], "load": 1.0}


@dataclass(frozen=True, kw_only=True)
class LatencyCase(Case):
    benchmark = "latency"
    named_by = ("rate", "size")

    topic: str
    partitions: int
    rate: int
    size: int
    load_s: float

    def about_s(self) -> float:
        return 4 + self.load_s

    def measure(self, library: Library) -> Result:
        senders = [library.sender(self.topic, PRODUCER)]
        group = f"bench-latency-{uuid.uuid4().hex[:8]}"
        probe, probes = started_probe(library, self.topic, self.partitions, senders, group)
        start = moment()
        figures = measure_latency(probe, senders, self.partitions, self.rate, self.load_s, WITHIN_S, self.size)
        end = moment()
        PollingConsumer.end([probe])
        figures["cpu_percent"] = 100 * (end.cpu - start.cpu) / (end.wall - start.wall)
        return {"probes": probes, **figures, "errors": errors_of([probe])}

    def check(self, figures: Result, brokers: Brokers) -> None:
        all_arrived(figures)


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rates", type=int, nargs="+", default=[100, 1_000, 5_000], help="records a second; a case each")
    add("--size", type=int, default=1_000, help="bytes of a value")
    add("--load", type=float, default=10.0, help="seconds of sending")


def plan(arguments: argparse.Namespace, name: str) -> Plan:
    """A case for each rate."""
    if min(arguments.rates) * arguments.load < 100:
        raise argparse.ArgumentTypeError("a rate times --load is a number of records; of less than 100 there is no p99")
    topic = Topic(f"{name}-latency", PARTITIONS)
    return Plan(
        [topic],
        [
            LatencyCase(topic=topic.name, partitions=PARTITIONS, rate=rate, size=arguments.size, load_s=arguments.load)
            for rate in arguments.rates
        ],
    )
