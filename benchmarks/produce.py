"""How fast one producer gets records acknowledged."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.cases import Brokers, Case, Plan, Result, Topic, WrongCountError
from benchmarks.libraries import WAYS, Library
from benchmarks.options import streaming, window
from benchmarks.process import peak_rss
from benchmarks.values import Supply

__all__ = ["CODECS", "QUICK", "ProduceCase", "add_options", "plan"]

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
MOST_BYTES = 1_000_000_000  # of one measurement, so that no broker's disk fills
QUICK: dict[str, Any] = {"produce_records": 2_000}


@dataclass(frozen=True, kw_only=True)
class ProduceCase(Case):
    benchmark = "produce"
    named_by = ("way", "size", "codec", "options")

    partitions: int
    size: int
    codec: str
    options: str
    records: int
    seconds: float
    ways: tuple[str, ...] = WAYS
    way: str = ""
    topic: str = ""

    def of(self, library: str) -> list[ProduceCase]:
        ways = [way.split(" ", 1) for way in self.ways]
        return [replace(self, library=library, way=way) for of_library, way in ways if of_library == library]

    def about_s(self) -> float:
        return 2 + min(self.seconds, self.records / 20_000)

    @contextmanager
    def prepared(self, brokers: Brokers) -> Iterator[ProduceCase]:
        topic = f"bench-produce-{uuid.uuid4().hex[:8]}"
        brokers.create([Topic(topic, self.partitions)])
        try:
            yield replace(self, topic=topic)
        finally:
            brokers.delete([topic])

    def measure(self, library: Library) -> Result:
        supply = Supply(self.size, min(self.records, MOST_BYTES // self.size), self.seconds)
        options = streaming(self.options, self.codec)
        start, end = library.produce(self.topic, self.partitions, self.way, options, window(self.size), iter(supply))
        seconds = end.wall - start.wall
        return {
            "records": supply.taken,
            "seconds": seconds,
            "records_per_s": supply.taken / seconds,
            "mb_per_s": supply.taken * self.size / seconds / 1e6,
            "cpu_s": end.cpu - start.cpu,
            "cpu_s_per_million": (end.cpu - start.cpu) / supply.taken * 1e6,
            "peak_rss_mb": peak_rss() / 1e6,
        }

    def check(self, figures: Result, brokers: Brokers) -> None:
        figures["in_log"] = sum(brokers.ends(self.topic)) - self.partitions  # one was sent to each before the clock ran
        if figures["in_log"] != figures["records"]:
            raise WrongCountError(f"{figures['records']} records were sent, but {figures['in_log']} are in the log")


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--seconds", type=float, default=3.0, help="how long each producer sends")
    add("--produce-records", type=int, default=10_000_000, help="... or until it has sent so many")
    add("--ways", nargs="*", choices=WAYS, default=list(WAYS), help="ways to send; none: no producing")


def plan(arguments: argparse.Namespace, name: str) -> Plan:
    """Each size uncompressed, and each codec with one of the sizes."""

    def case(size: int, codec: str) -> ProduceCase:
        return ProduceCase(
            partitions=arguments.partitions,
            size=size,
            codec=codec,
            options=arguments.options,
            records=arguments.produce_records,
            seconds=arguments.seconds,
            ways=tuple(arguments.ways),
        )

    if not arguments.ways:
        return Plan()
    codecs = [codec for codec in arguments.codecs if codec != "none"]
    done = Plan()
    done.cases += [case(size, "none") for size in arguments.sizes]
    done.cases += [case(arguments.codec_size, codec) for codec in codecs]
    return done
