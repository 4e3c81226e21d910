"""Measures one library in one case, in this process: ``python measuring.py '<the case as JSON>'`` prints the figures.

many_clients.py starts one such process for each measurement, so that nothing of one is left in another.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import psutil
from libraries import LIBRARIES, Library, Partitions, Reader, Sender

__all__ = ["Case", "balanced"]

CLOSED_WITHIN_S = 60.0
PROBE_WITHIN_S = 10.0
PROBES = 5


@dataclass(frozen=True)
class Case:
    """What to measure. Without ``members``: ``consumers`` in groups of their own; else ``groups`` of ``members``."""

    library: str
    bootstrap: str
    topic: str
    partitions: int
    within_s: float  # for all consumers to get partitions
    settle_s: float  # after the start, for what only the start needed to go away
    consumers: int = 0
    groups: int = 0
    members: int = 0
    probe_topic: str = ""
    producers: int = 1
    idle_s: float = 0
    load_s: float = 0
    rate: float = 0  # records a second


class PollingConsumer:
    """One consumer on a thread of its own, polled all the time, as in an application."""

    def __init__(self, library: Library, topic: str, group: str) -> None:
        self.owned: Partitions = frozenset()  # replaced by the rebalance listener
        self.changed_at = 0.0
        self.held: Partitions = frozenset()  # what assignment() says when polling has ended
        self.received: list[tuple[int, float]] = []  # number, and ms since it was sent
        self.error: Exception | None = None
        self._stop = threading.Event()
        self._stopped = threading.Event()
        self._leave = threading.Event()
        self._make: Callable[[], Reader] = lambda: library.reader(topic, group, self)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def gained(self, partitions: Partitions) -> None:
        self.changed_at = time.monotonic()
        self.owned |= partitions

    def lost(self, partitions: Partitions) -> None:
        self.changed_at = time.monotonic()
        self.owned -= partitions

    def _run(self) -> None:
        try:
            reader = self._make()
            while not self._stop.is_set():
                for value in reader.poll():
                    sent, number = map(int, value.split())
                    self.received.append((number, (time.monotonic_ns() - sent) / 1e6))
            self.held = reader.assignment()
            self._stopped.set()
            self._leave.wait()
            reader.close()
        except Exception as error:
            self.error = error
        finally:
            self._stopped.set()

    @staticmethod
    def end(consumers: list[PollingConsumer]) -> None:
        """Stop polling, and let the consumers leave when each has said what it holds: no leaving rebalances another."""
        for consumer in consumers:
            consumer._stop.set()
        for consumer in consumers:
            consumer._stopped.wait(CLOSED_WITHIN_S)
        for consumer in consumers:
            consumer._leave.set()
        for consumer in consumers:
            consumer._thread.join(CLOSED_WITHIN_S)


def wait_until(condition: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return met


# -- a group of several members ---------------------------------------------------------------------------------------


def balanced(views: Iterable[Partitions], partitions: int) -> bool:
    """Whether, as the members see it, each partition has exactly one owner and they are evenly spread."""
    owned = list(views)
    owners = Counter(partition for view in owned for partition in view)
    sizes = [len(view) for view in owned]
    return len(owners) == partitions == owners.total() and max(sizes) - min(sizes) <= 1


def measure_groups(library: Library, case: Case) -> dict[str, Any]:
    """Start all members of all groups at once, and time each group until it is balanced."""
    name = uuid.uuid4().hex[:8]
    start = time.monotonic()
    everybody = [
        [PollingConsumer(library, case.topic, f"bench-{name}-{group}") for _ in range(case.members)]
        for group in range(case.groups)
    ]
    balanced_s: list[float | None] = [None] * case.groups

    def all_balanced() -> bool:
        for number, members in enumerate(everybody):
            if balanced_s[number] is None and balanced((member.owned for member in members), case.partitions):
                balanced_s[number] = max(member.changed_at for member in members) - start
        return None not in balanced_s

    wait_until(all_balanced, case.within_s)
    time.sleep(case.settle_s)
    consumers = [member for members in everybody for member in members]
    PollingConsumer.end(consumers)
    stayed = sum(balanced((member.held for member in members), case.partitions) for members in everybody)
    return {"balanced_s": balanced_s, "balanced_at_the_end": stayed, "errors": errors_of(consumers)}


# -- consumers that wait, and the latency of others beside them -------------------------------------------------------


def measure_waiting(library: Library, case: Case) -> dict[str, Any]:
    """Start consumers that wait at the end of a topic; then producers and one more consumer on a second topic."""
    process = psutil.Process()
    rss, threads = process.memory_info().rss, process.num_threads()
    name = uuid.uuid4().hex[:8]
    start = time.monotonic()
    consumers = [PollingConsumer(library, case.topic, f"bench-{name}-{n}") for n in range(case.consumers)]
    wait_until(lambda: all(len(consumer.owned) == case.partitions for consumer in consumers), case.within_s)
    times = [consumer.changed_at - start for consumer in consumers if len(consumer.owned) == case.partitions]

    senders = [library.sender(case.probe_topic) for _ in range(case.producers)]
    probe, probes = started_probe(library, case, senders, f"bench-{name}-probe")
    time.sleep(case.settle_s)

    figures: dict[str, Any] = {"assigned_s": max(times, default=None), "probes": probes}
    figures["sockets"], figures["sockets_to_one_broker"] = sockets(process)
    # Those that poll are the application's.
    figures["threads"] = process.num_threads() - threads - case.consumers - 1
    figures["rss_mb"] = (process.memory_info().rss - rss) / 1e6
    figures["idle_cpu_percent"] = cpu_percent(process, case.idle_s)
    figures.update(measure_latency(probe, senders, case))
    figures["sockets_under_load"], figures["sockets_to_one_broker_under_load"] = sockets(process)

    everybody = [*consumers, probe]
    PollingConsumer.end(everybody)
    figures["assigned"] = sum(len(consumer.held) == case.partitions for consumer in consumers)
    figures["errors"] = errors_of(everybody)
    return figures


def started_probe(library: Library, case: Case, senders: list[Sender], group: str) -> tuple[PollingConsumer, int]:
    """A consumer that has received a record of each partition from each producer, and how many it took.

    Stock kafka-python leaves about one consumer in twenty without partitions for ever; then another one is tried.
    """
    wanted = len(senders) * case.partitions
    for attempt in range(1, PROBES + 1):
        probe = PollingConsumer(library, case.probe_topic, f"{group}-{attempt}")
        deadline = time.monotonic() + PROBE_WITHIN_S
        while len({number for number, _ in probe.received}) < wanted and time.monotonic() < deadline:
            if len(probe.owned) == case.partitions:
                for number in range(wanted):  # counted below zero, so that none is taken for one of the load
                    send = senders[number // case.partitions]
                    send(b"%d %d" % (time.monotonic_ns(), -1 - number), number % case.partitions, ignore)
            time.sleep(0.1)
        if len({number for number, _ in probe.received}) >= wanted:
            return probe, attempt
        PollingConsumer.end([probe])
    raise RuntimeError(f"none of {PROBES} consumers received anything; the last error was {probe.error!r}")


def ignore(_: Any) -> None: ...


def measure_latency(probe: PollingConsumer, senders: list[Sender], case: Case) -> dict[str, Any]:
    """Send records at a steady rate, whatever is acknowledged, and time acknowledgements and arrivals."""
    produce_ms: list[float] = []
    failed: list[str] = []
    late_ms: list[float] = []
    count = int(case.load_s * case.rate)
    start = time.monotonic()
    for number in range(count):
        due = start + number / case.rate
        time.sleep(max(0.0, due - time.monotonic()))
        late_ms.append((time.monotonic() - due) * 1000)
        sent = time.monotonic_ns()

        def done(error: Any, sent: int = sent) -> None:
            if error is None:
                produce_ms.append((time.monotonic_ns() - sent) / 1e6)
            else:
                failed.append(repr(error))

        senders[number % len(senders)](b"%d %d" % (sent, number), number % case.partitions, done)

    def arrived() -> list[float]:
        return [ms for number, ms in probe.received if number >= 0]

    wait_until(lambda: len(produce_ms) + len(failed) == count and len(arrived()) >= len(produce_ms), case.within_s)
    figures: dict[str, Any] = {"sent": count, "acknowledged": len(produce_ms), "failed": failed}
    figures["received"] = len({number for number, _ in probe.received if number >= 0})
    figures["received_twice"] = len(arrived()) - figures["received"]
    for what, values in (("produce", produce_ms), ("end_to_end", arrived()), ("late", late_ms)):
        cuts = statistics.quantiles(values, n=100)
        figures[f"{what}_p50_ms"], figures[f"{what}_p99_ms"] = cuts[49], cuts[98]
    return figures


def sockets(process: psutil.Process) -> tuple[int, int]:
    """Connections to all brokers, and to the one with the most; this process has no others."""
    open_now = [c for c in process.net_connections(kind="tcp") if c.status == psutil.CONN_ESTABLISHED]
    # A library's event loop may wake itself by a pair of connected sockets; those are no connections to a broker.
    own = {c.laddr for c in open_now}
    by_broker = Counter(c.raddr for c in open_now if c.raddr not in own)
    return by_broker.total(), max(by_broker.values(), default=0)


def cpu_percent(process: psutil.Process, seconds: float) -> float:
    """Of one core, while nothing happens."""
    times, start = process.cpu_times(), time.monotonic()
    time.sleep(seconds)
    now = process.cpu_times()
    return 100 * (now.user + now.system - times.user - times.system) / (time.monotonic() - start)


def errors_of(consumers: list[PollingConsumer]) -> list[str]:
    return [repr(consumer.error) for consumer in consumers if consumer.error is not None]


def main() -> None:
    case = Case(**json.loads(sys.argv[1]))
    library = LIBRARIES[case.library](case.bootstrap)
    figures = measure_groups(library, case) if case.members else measure_waiting(library, case)
    library.close()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
