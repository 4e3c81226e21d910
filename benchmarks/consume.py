"""How fast consumers read a topic that is full already."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.cases import Brokers, Case, Fill, Plan, Result, Topic, WrongCountError
from benchmarks.libraries import Counted, Library, Reading
from benchmarks.options import CONSUMER
from benchmarks.process import peak_rss

__all__ = ["KINDS", "MANY", "QUICK", "ConsumeCase", "add_options", "of_size", "plan"]

MANY = 8
KINDS = {
    "1 consumer": "one consumer, the only member of its group",
    f"{MANY} consumers": f"{MANY} consumers with an equal share of the partitions each, by assign()",
    f"{MANY} groups": f"{MANY} consumers in groups of their own, each of which reads everything",
}
QUICK: dict[str, Any] = {"consume_records": 2_000}
FILL_BYTES = 200_000_000
"""As much as a topic holds at most; then it has fewer records."""


@dataclass(frozen=True, kw_only=True)
class ConsumeCase(Case):
    benchmark = "consume"
    named_by = ("kind", "size", "codec")

    topic: str
    kind: str
    size: int
    codec: str
    records: int
    ends: tuple[int, ...] = ()
    """The records in each partition."""

    def about_s(self) -> float:
        return 2 + self.records * (MANY if self.kind == f"{MANY} groups" else 1) / 150_000

    @contextmanager
    def prepared(self, brokers: Brokers) -> Iterator[ConsumeCase]:
        yield replace(self, ends=tuple(brokers.ends(self.topic)))

    def readings(self) -> list[Reading]:
        """What each consumer reads."""
        name = f"bench-read-{uuid.uuid4().hex[:8]}"
        count = 1 if self.kind.startswith("1 ") else MANY
        everything = tuple(range(len(self.ends)))
        readings = []
        for number in range(count):
            shares = self.kind == f"{MANY} consumers"
            mine = everything[number::count] if shares else everything
            expected = sum(self.ends[partition] for partition in mine)
            readings.append(Reading(self.topic, f"{name}-{number}", mine, not shares, expected))
        return readings

    def measure(self, library: Library) -> Result:
        readings = self.readings()
        start, read, received = library.consume(readings, {**CONSUMER, "auto_offset_reset": "earliest"})
        last = max(read, key=lambda one: one.last.wall).last
        first = min(one.first.wall for one in read)
        records = sum(one.records for one in read)
        value_bytes = sum(one.value_bytes for one in read)
        return {
            "records": records,
            "value_bytes": value_bytes,
            "wrong": wrong(readings, read, self.ends, self.size),
            "seconds": last.wall - start.wall,
            "records_per_s": records / (last.wall - start.wall),
            "records_per_s_after_first": records / max(last.wall - first, 1e-9),
            "cpu_s": last.cpu - start.cpu,
            "cpu_s_per_million": (last.cpu - start.cpu) / records * 1e6,
            "peak_rss_mb": peak_rss() / 1e6,
            "received_bytes": received,
            # Over what is in the topic, once, uncompressed: 1 where a broker sends everything once.
            "received_times": None if received is None else received / (sum(self.ends) * self.size),
        }

    def check(self, figures: Result, brokers: Brokers) -> None:
        if figures["wrong"]:
            raise WrongCountError("; ".join(figures["wrong"]))


def wrong(readings: list[Reading], read: list[Counted], ends: tuple[int, ...], size: int) -> list[str]:
    """What is not as it must be: each reader has every record once when it has so many and is at every end."""
    found = []
    for reading, one in zip(readings, read, strict=True):
        if one.records != reading.expected:
            found.append(f"{one.records} of {reading.expected} records were read")
        if one.value_bytes != one.records * size:
            found.append(f"{one.value_bytes} bytes were read in {one.records} records of {size}")
        wanted = {partition: ends[partition] for partition in reading.partitions if ends[partition]}
        at = {partition: one.positions.get(partition) for partition in wanted}
        if at != wanted:
            found.append(f"the reader is at {at}, not at {wanted}")
    return found


def of_size(name: str, arguments: argparse.Namespace, size: int, codec: str, kinds: tuple[str, ...]) -> Plan:
    """Topics full of records of that size, and those who read them."""
    records = min(arguments.consume_records, FILL_BYTES // size)
    done = Plan()
    for kind in kinds:
        # Everything is read so many times, so there is less of it; and each of many needs its equal share.
        share = 4 if kind == f"{MANY} groups" else 1
        partitions = arguments.partitions * 4 if kind == f"{MANY} consumers" else arguments.partitions
        fill = Fill(max(partitions, records // share), size, codec)
        topic_name = f"{name}-{kind.replace(' ', '-')}-{size}-{codec}"
        topic = Topic(topic_name, partitions, replicas=1, fill=fill)  # who reads does not see the others, but disks do
        done.topics.append(topic)
        done.cases.append(ConsumeCase(topic=topic.name, kind=kind, size=size, codec=codec, records=fill.records))
    return done


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--consume-records", type=int, default=1_000_000, help="how many are in a topic that is read, at most")
    add("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS), help="who reads; none: no reading")


def plan(arguments: argparse.Namespace, name: str) -> Plan:
    """All kinds of readers for each size uncompressed, and one consumer for each codec."""
    done = Plan()
    if not arguments.kinds:
        return done
    for size in arguments.sizes:
        done += of_size(name, arguments, size, "none", tuple(arguments.kinds))
    for codec in arguments.codecs:
        if codec != "none":
            done += of_size(name, arguments, arguments.codec_size, codec, ("1 consumer",))
    return done
