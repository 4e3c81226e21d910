"""What a topic costs the more partitions it has: one consumer of all, and one producer to all."""

from __future__ import annotations

import argparse
import time
import uuid
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.cases import Brokers, Case, Plan, Result, Topic, WrongCountError
from benchmarks.libraries import Library, Sender
from benchmarks.options import streaming
from benchmarks.polling import PollingConsumer, errors_of, record, wait_until
from benchmarks.process import cpu_percent, moment, peak_rss
from benchmarks.reading import NothingCameError

__all__ = ["QUICK", "PartitionsCase", "add_options", "plan"]

QUICK: dict[str, Any] = {"partitions": [1, 20], "records": 500, "settle": 0.5, "idle": 0.5, "within": 20.0}


@dataclass(frozen=True, kw_only=True)
class PartitionsCase(Case):
    benchmark = "partitions"
    named_by = ("partitions",)

    topic: str
    partitions: int
    records: int
    within_s: float
    settle_s: float
    idle_s: float

    def about_s(self) -> float:
        return 5 + self.settle_s + self.idle_s + self.partitions / 500

    def measure(self, library: Library) -> Result:
        rss = psutil.Process().memory_info().rss
        start = time.monotonic()
        consumer = PollingConsumer(library, self.topic, f"bench-partitions-{uuid.uuid4().hex[:8]}")
        if not wait_until(lambda: len(consumer.owned) == self.partitions, self.within_s):
            raise NothingCameError(f"{len(consumer.owned)} of {self.partitions} partitions were assigned")
        figures: Result = {"assigned_s": consumer.changed_at - start}
        send = library.sender(self.topic, streaming("same", "none"))
        self._reach_each(consumer, send)
        figures["reached_s"] = time.monotonic() - start
        time.sleep(self.settle_s)
        figures["rss_mb"] = (psutil.Process().memory_info().rss - rss) / 1e6
        figures["idle_cpu_percent"] = cpu_percent(self.idle_s)
        figures.update(self._send_all(consumer, send))
        figures["peak_rss_mb"] = peak_rss() / 1e6
        PollingConsumer.end([consumer])
        return {**figures, "errors": errors_of([consumer])}

    def _reach_each(self, consumer: PollingConsumer, send: Sender) -> None:
        """One record from each partition: only then is it known that the consumer reads there."""
        deadline = time.monotonic() + self.within_s
        unread = set(range(self.partitions))
        while unread:
            if time.monotonic() > deadline:
                raise NothingCameError(f"nothing came from {len(unread)} of {self.partitions} partitions")
            for partition in unread:  # counted below zero, so that none is taken for one of those that are timed
                send(record(-1 - partition), partition, ignore)
            # Where the consumer did not read yet, the record is missed, and one more is needed.
            wait_until(lambda: len(self._reached(consumer)) == self.partitions, 0.2 + self.partitions / 2_000)
            unread -= self._reached(consumer)

    @staticmethod
    def _reached(consumer: PollingConsumer) -> set[int]:
        return {-1 - number for number, _ in list(consumer.received)}

    @staticmethod
    def _timed(consumer: PollingConsumer) -> list[int]:
        return [number for number, _ in list(consumer.received) if number >= 0]

    def _send_all(self, consumer: PollingConsumer, send: Sender) -> Result:
        before = len(consumer.received)
        failed: list[str] = []

        def done(error: Any) -> None:
            if error is not None:
                failed.append(repr(error))

        start = moment()
        for number in range(self.records):
            send(record(number), number % self.partitions, done)
        wait_until(lambda: len(consumer.received) - before >= self.records, self.within_s)
        # Some of these may be of those sent before; looking at each all the time would slow down what is timed.
        wait_until(lambda: len(self._timed(consumer)) >= self.records, self.within_s)
        end = moment()
        numbers = self._timed(consumer)
        return {
            "sent": self.records,
            "received": len(set(numbers)),
            "received_twice": len(numbers) - len(set(numbers)),
            "failed": failed,
            "records_per_s": len(numbers) / (end.wall - start.wall),
            "cpu_s_per_million": (end.cpu - start.cpu) / self.records * 1e6,
        }

    def check(self, figures: Result, brokers: Brokers) -> None:
        if figures["received"] != figures["sent"] or figures["received_twice"] or figures["failed"]:
            raise WrongCountError(
                f"of {figures['sent']} records {figures['received']} came, {figures['received_twice']} of them twice; "
                f"failed: {figures['failed'][:1]}"
            )


def ignore(_: Any) -> None: ...


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--partitions", type=int, nargs="+", default=[1, 10, 100, 1_000, 10_000], help="of a topic; a case each")
    add("--records", type=int, default=20_000, help="how many are sent, over all partitions")
    add("--settle", type=float, default=5.0, help="seconds after the start before idle CPU is measured")
    add("--idle", type=float, default=5.0, help="seconds over which idle CPU is measured")
    add("--within", type=float, default=120.0, help="seconds to wait for partitions and for records")


def plan(arguments: argparse.Namespace, name: str) -> Plan:
    """A case, and a topic, for each number of partitions."""
    if min(*arguments.partitions, arguments.records) < 1:
        raise argparse.ArgumentTypeError("partitions and records are counts from 1 on")
    done = Plan()
    for partitions in arguments.partitions:
        topic = Topic(f"{name}-partitions-{partitions}", partitions, replicas=1)  # so many are hard on small brokers
        done.topics.append(topic)
        done.cases.append(
            PartitionsCase(
                topic=topic.name,
                partitions=partitions,
                records=arguments.records,
                within_s=arguments.within,
                settle_s=arguments.settle,
                idle_s=arguments.idle,
            )
        )
    return done
