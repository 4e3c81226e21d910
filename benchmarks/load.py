"""Records at a steady rate, and how long each took to be acknowledged and to arrive at one consumer, the probe."""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.cases import Result, WrongCountError
from benchmarks.libraries import Library, Sender
from benchmarks.polling import PollingConsumer, record, wait_until

__all__ = ["all_arrived", "measure_latency", "started_probe"]

PROBE_WITHIN_S = 10.0
PROBES = 5


def started_probe(
    library: Library, topic: str, partitions: int, senders: list[Sender], group: str
) -> tuple[PollingConsumer, int]:
    """A consumer that has received a record of each partition from each producer, and how many it took.

    Stock kafka-python leaves about one consumer in twenty without partitions for ever; then another one is tried.
    """
    wanted = len(senders) * partitions
    for attempt in range(1, PROBES + 1):
        probe = PollingConsumer(library, topic, f"{group}-{attempt}")
        deadline = time.monotonic() + PROBE_WITHIN_S
        while len({number for number, _ in probe.received}) < wanted and time.monotonic() < deadline:
            if len(probe.owned) == partitions:
                for number in range(wanted):  # counted below zero, so that none is taken for one of the load
                    senders[number // partitions](record(-1 - number), number % partitions, ignore)
            time.sleep(0.1)
        if len({number for number, _ in probe.received}) >= wanted:
            return probe, attempt
        PollingConsumer.end([probe])
    raise RuntimeError(f"none of {PROBES} consumers received anything; the last error was {probe.error!r}")


def ignore(_: Any) -> None: ...


def measure_latency(
    probe: PollingConsumer,
    senders: list[Sender],
    partitions: int,
    rate: float,
    load_s: float,
    within_s: float,
    size: int = 0,
) -> Result:
    """Send ``rate`` records a second, whatever is acknowledged, and time acknowledgements and arrivals."""
    produce_ms: list[float] = []
    failed: list[str] = []
    late_ms: list[float] = []
    count = int(load_s * rate)
    start = time.monotonic()
    for number in range(count):
        due = start + number / rate
        time.sleep(max(0.0, due - time.monotonic()))
        late_ms.append((time.monotonic() - due) * 1000)
        sent = time.monotonic_ns()

        def done(error: Any, sent: int = sent) -> None:
            if error is None:
                produce_ms.append((time.monotonic_ns() - sent) / 1e6)
            else:
                failed.append(repr(error))

        senders[number % len(senders)](record(number, size), number % partitions, done)
    took_s = time.monotonic() - start

    def arrived() -> list[float]:
        return [ms for number, ms in probe.received if number >= 0]

    wait_until(lambda: len(produce_ms) + len(failed) == count and len(arrived()) >= len(produce_ms), within_s)
    figures: Result = {"sent": count, "acknowledged": len(produce_ms), "failed": failed}
    figures["records_per_s"] = count / took_s
    figures["received"] = len({number for number, _ in probe.received if number >= 0})
    figures["received_twice"] = len(arrived()) - figures["received"]
    for what, values in (("produce", produce_ms), ("end_to_end", arrived()), ("late", late_ms)):
        cuts = statistics.quantiles(values, n=100) if len(values) > 1 else [float("nan")] * 99
        figures[f"{what}_p50_ms"], figures[f"{what}_p99_ms"] = cuts[49], cuts[98]
    return figures


def all_arrived(figures: Result) -> None:
    """Raise WrongCountError where a record of the load failed, was lost or came twice."""
    counts = [figures[name] for name in ("sent", "acknowledged", "received")]
    if len(set(counts)) > 1 or figures["failed"] or figures["received_twice"]:
        raise WrongCountError(
            "of {} records {} were acknowledged and {} received".format(*counts)
            + f", {figures['received_twice']} twice; failed: {figures['failed'][:1]}"
        )
