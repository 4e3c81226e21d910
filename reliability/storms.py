"""What many clients in one process do to brokers that fail and come back: pooledkafka, kafka-python, confluent-kafka.

Each library has its clients in a process of its own: consumers of one group each, or of several, and producers. Brokers
are killed, paused and cut off for a while; every attempt to connect, every connection and every request is counted on
the network (needs root). Then all clients have to be served again.

Ends with status 1 where pooledkafka attempts more connections to a broker than its backoff allows, opens more than
so many when it is back, or leaves a client unserved.

    python -m reliability.storms                                  # three brokers in Docker, about 15 minutes
    python -m reliability.storms --brokers 1 --clients 200 --outage 20 --rounds 3
    python -m reliability.storms --clients 20 --faults killed --outage 5 --libraries pooledkafka
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from rich.console import Console
from rich.table import Table

from pooledkafka.testing import Cluster, ClusterError, KafkaCluster
from reliability.sniffing import Seen, Sniffer, SnifferUnavailableError

__all__ = ["FAULTS", "Clients", "Figures", "attempts_allowed", "broken_promises", "parsed", "run", "storm"]

LIBRARIES = ("pooledkafka", "kafka-python", "confluent-kafka")
PARTITIONS = 6
FIND_COORDINATOR, METADATA, JOIN_GROUP = 10, 3, 11
RECONNECT_BACKOFF_S, RECONNECT_BACKOFF_MAX_S = 0.05, 1.0
"""The pool's defaults."""
SHORTEST = 0.8
"""Of a pause; the jitter is 20% either way."""
LANES = 4
LEASED_AT_ONCE = 10
SETTLE_S = 6.0
"""After which what only the start, or the last outage, needed has been closed."""

Brokers = Collection[int]


def to_all(act: Callable[[int], None], brokers: Brokers) -> None:
    for node_id in brokers:
        act(node_id)


Act = Callable[[Cluster, int], None]
FAULTS: dict[str, tuple[Callable[[Cluster], Brokers], Act, Act]] = {
    "killed": (lambda cluster: cluster.node_ids[:1], lambda c, n: c.kill(n), lambda c, n: c.start(n)),
    "paused": (lambda cluster: cluster.node_ids[:1], lambda c, n: c.pause(n), lambda c, n: c.resume(n)),
    "cut off": (lambda cluster: cluster.node_ids[:1], lambda c, n: c.partition(n, "clients"), lambda c, n: c.heal(n)),
    "all killed": (lambda cluster: cluster.node_ids, lambda c, n: c.kill(n), lambda c, n: c.start(n)),
}
"""Which brokers, what is done to each, and what ends it."""


@dataclass
class Start:
    """How all clients of a library began, at one moment."""

    library: str
    brokers: int
    consumers: int  # that got their partitions
    assigned_s: float
    connections: int
    peak_a_second: int


@dataclass
class Figures:
    """Of one outage. Times in seconds; attempts are to connect, to the brokers that failed if not said otherwise."""

    library: str
    brokers: int
    fault: str
    outage_s: float
    connections_before: int
    attempts: int
    most_attempts_to_one: int
    peak_attempts_a_second: int
    peak_attempts_a_tenth: int
    attempts_after: int
    peak_after_a_second: int
    opened_after_to_one: int
    most_connections_after: int
    ready_after_s: float | None  # the last of the brokers that were started again
    all_served_after_s: float | None
    unserved: int
    longest_without_s: float
    metadata: int
    find_coordinator: int
    join_group: int
    errors: int
    attempted_at: dict[int, list[float]]  # by broker: seconds since the outage began


class Clients:
    """One library's clients, in processes of their own; a context manager."""

    def __init__(self, processes: int, options: dict[str, Any]) -> None:
        self.started: list[dict[str, Any]] = []
        command = [sys.executable, "-m", "reliability.storm_clients"]
        self._processes = [
            subprocess.Popen(
                [*command, json.dumps({**options, "number": number})],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for number in range(processes)
        ]

    def __enter__(self) -> Clients:
        self.started = [self._line(process) for process in self._processes]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()  # nothing is to be closed in order: the brokers are thrown away
            process.communicate()

    def ask(self, since: float, until: float) -> list[dict[str, Any]]:
        """How the clients fared; see storm_clients.py."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps([since, until]) + "\n")
            process.stdin.flush()
        return [self._line(process) for process in self._processes]

    @staticmethod
    def _line(process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the clients ended by themselves, with status {process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def attempts_allowed(seconds: float, pools: int = 1) -> int:
    """The most attempts to one broker that pools make while it cannot be reached: the backoff of one, for each.

    And one more at the beginning, for what was on the control lane and is sent again.
    """
    attempts, elapsed = 1, 0.0
    while elapsed <= seconds:
        elapsed += SHORTEST * min(RECONNECT_BACKOFF_S * 2 ** (attempts - 1), RECONNECT_BACKOFF_MAX_S)
        attempts += 1
    return pools * (attempts + 1)


def most_within(times: list[float], width_s: float) -> int:
    """The most that any window of that width holds."""
    ordered = sorted(times)
    first = most = 0
    for last, at in enumerate(ordered):
        while ordered[first] < at - width_s:
            first += 1
        most = max(most, last - first + 1)
    return most


def open_at(sniffer: Sniffer, moment: float) -> int:
    return sum(seen.at <= moment for seen in list(sniffer.opened)) - sum(
        seen.at <= moment for seen in list(sniffer.closed)
    )


def most_open(sniffer: Sniffer, since: float) -> int:
    count = most = open_at(sniffer, since)
    changes = [(seen.at, 1) for seen in list(sniffer.opened)] + [(seen.at, -1) for seen in list(sniffer.closed)]
    for at, change in sorted(changes):
        if at > since:
            count += change
            most = max(most, count)
    return most


def times_ready(cluster: Cluster, node_id: int) -> int:
    """How often the broker has become ready; asked without a connection, which would be counted."""
    return cluster.logs(node_id, tail=100_000).count("Kafka Server started")


def storm(
    cluster: Cluster, sniffer: Sniffer, clients: Clients, library: str, fault: str, outage_s: float, within_s: float
) -> Figures:
    """One outage, from when everybody is served until everybody is again."""
    choose, break_, mend = FAULTS[fault]
    failed = choose(cluster)
    ports = {int(cluster.address_of(node_id).rpartition(":")[2]): node_id for node_id in failed}
    time.sleep(SETTLE_S)
    began = time.monotonic()
    before = open_at(sniffer, began)
    started = {node_id: times_ready(cluster, node_id) for node_id in failed}
    to_all(lambda node_id: break_(cluster, node_id), failed)
    time.sleep(max(0.0, began + outage_s - time.monotonic()))
    ended = time.monotonic()
    to_all(lambda node_id: mend(cluster, node_id), failed)
    deadline = ended + within_s
    ready_after_s: float | None = None
    while True:
        answers = clients.ask(began, ended)
        served = [after for answer in answers for after in answer["served_after_s"]]
        if ready_after_s is None and all(times_ready(cluster, node_id) > started[node_id] for node_id in failed):
            ready_after_s = round(time.monotonic() - ended, 1)
        if None not in served or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    time.sleep(SETTLE_S)
    until = time.monotonic()
    answers = clients.ask(began, until)

    def within(what: list[Seen], since: float, till: float) -> list[Seen]:
        return [seen for seen in list(what) if since <= seen.at < till and seen.port in ports]

    attempts = within(sniffer.attempts, began, ended)
    after = within(sniffer.attempts, ended, until)
    opened = Counter(seen.port for seen in within(sniffer.opened, ended, until))
    requests = Counter(seen.api_key for seen in list(sniffer.requests) if began <= seen.at < until)
    attempted_at: dict[int, list[float]] = {node_id: [] for node_id in failed}
    for seen in [*attempts, *after]:
        attempted_at[ports[seen.port]].append(round(seen.at - began, 4))
    return Figures(
        library=library,
        brokers=len(cluster.node_ids),
        fault=fault,
        outage_s=round(ended - began, 1),
        connections_before=before,
        attempts=len(attempts),
        most_attempts_to_one=max(Counter(seen.port for seen in attempts).values(), default=0),
        peak_attempts_a_second=most_within([seen.at for seen in attempts], 1.0),
        peak_attempts_a_tenth=most_within([seen.at for seen in attempts], 0.1),
        attempts_after=len(after),
        peak_after_a_second=most_within([seen.at for seen in after], 1.0),
        opened_after_to_one=max(opened.values(), default=0),
        most_connections_after=most_open(sniffer, ended),
        ready_after_s=ready_after_s,
        all_served_after_s=None if None in served else round(max(served), 1),
        unserved=served.count(None),
        longest_without_s=round(max(answer["longest_without_s"] for answer in answers), 1),
        metadata=requests[METADATA],
        find_coordinator=requests[FIND_COORDINATOR],
        join_group=requests[JOIN_GROUP],
        errors=sum(answer["errors"] for answer in answers),
        attempted_at=attempted_at,
    )


def broken_promises(figures: Figures, pools: int) -> list[str]:
    """What pooledkafka promises and did not keep in this outage."""
    broken = []
    where = f"{figures.brokers} brokers, {figures.fault}"
    allowed = attempts_allowed(figures.outage_s, pools)
    if figures.most_attempts_to_one > allowed:
        broken.append(f"{where}: {figures.most_attempts_to_one} attempts to one broker; the backoff allows {allowed}")
    most = pools * (LANES + LEASED_AT_ONCE) + attempts_allowed(figures.ready_after_s or 0.0, pools)
    if figures.opened_after_to_one > most:
        broken.append(f"{where}: {figures.opened_after_to_one} connections to one broker when it was back, not {most}")
    if figures.unserved:
        broken.append(f"{where}: {figures.unserved} clients were not served again")
    return broken


def table(results: list[Figures]) -> Table:
    shown: dict[str, Callable[[Figures], object]] = {
        "brokers": lambda f: f.brokers,
        "fault": lambda f: f"{f.fault} {f.outage_s:.0f} s",
        "library": lambda f: f.library,
        "connections before": lambda f: f.connections_before,
        "attempts": lambda f: f.attempts,
        "most in 1 s": lambda f: f.peak_attempts_a_second,
        "in 0.1 s": lambda f: f.peak_attempts_a_tenth,
        "after": lambda f: f.attempts_after,
        "after, most in 1 s": lambda f: f.peak_after_a_second,
        "opened to one broker": lambda f: f.opened_after_to_one,
        "most connections": lambda f: f.most_connections_after,
        "ready after s": lambda f: "" if f.ready_after_s is None else f.ready_after_s,
        "all served after s": lambda f: f"never ({f.unserved})" if f.unserved else f.all_served_after_s,
        "longest without s": lambda f: f.longest_without_s,
        "Metadata": lambda f: f.metadata,
        "FindCoordinator": lambda f: f.find_coordinator,
        "JoinGroup": lambda f: f.join_group,
        "errors": lambda f: f.errors,
    }
    made = Table(*shown, title="attempts to connect to the brokers that failed, and what followed")
    for figures in results:
        made.add_row(*(str(show(figures)) for show in shown.values()))
    return made


def starts_table(starts: list[Start]) -> Table:
    made = Table(
        "brokers", "library", "consumers", "assigned after s", "connections made", "most in 1 s", title="start"
    )
    for start in starts:
        made.add_row(
            str(start.brokers),
            start.library,
            str(start.consumers),
            f"{start.assigned_s:.1f}",
            str(start.connections),
            str(start.peak_a_second),
        )
    return made


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--clients", type=int, default=200, help="three quarters of them consumers, the others producers")
    add("--groups", type=int, help="of the consumers; default: each has one of its own")
    add("--processes", type=int, default=1, help="among which the clients are divided, each with a pool of its own")
    add("--brokers", type=int, choices=[1, 3], nargs="+", default=[3])
    add("--faults", choices=list(FAULTS), nargs="+", default=list(FAULTS))
    add("--libraries", choices=LIBRARIES, nargs="+", default=list(LIBRARIES))
    add("--outage", type=float, default=20.0, help="seconds")
    add("--rounds", type=int, default=1)
    add("--within", type=float, default=90.0, help="seconds for all to be served, at the start and after an outage")
    add("--interval", type=float, default=5.0, help="seconds between two records of a producer")
    add("--json", type=Path, metavar="FILE", help="where to write all figures, and the time of each attempt")
    return parser.parse_args(arguments)


def run(cluster: Cluster, arguments: argparse.Namespace, library: str) -> tuple[Start, list[Figures]]:
    """All faults, several times, with one library's clients."""
    topic = f"storm-{uuid.uuid4().hex[:8]}"
    with closing(KafkaAdminClient(bootstrap_servers=cluster.bootstrap_servers)) as admin:
        admin.create_topics([NewTopic(topic, PARTITIONS, min(3, len(cluster.node_ids)))])
    cluster.wait_until_healthy()
    clients = arguments.clients // arguments.processes
    consumers = max(1, clients * 3 // 4)
    options = {
        "library": library,
        "bootstrap": cluster.bootstrap_servers,
        "topic": topic,
        "partitions": PARTITIONS,
        "consumers": consumers,
        "groups": arguments.groups or consumers,
        "producers": max(1, clients - consumers),
        "interval_s": arguments.interval,
        "within_s": arguments.within,
    }
    ports = [int(cluster.address_of(node_id).rpartition(":")[2]) for node_id in cluster.node_ids]
    results = []
    with Sniffer(ports) as sniffer, Clients(arguments.processes, options) as running:
        start = Start(
            library=library,
            brokers=len(cluster.node_ids),
            consumers=sum(options["assigned"] for options in running.started),
            assigned_s=max(options["assigned_s"] for options in running.started),
            connections=len(sniffer.opened),
            peak_a_second=most_within([seen.at for seen in list(sniffer.attempts)], 1.0),
        )
        for _ in range(arguments.rounds):
            for fault in arguments.faults:
                figures = storm(cluster, sniffer, running, library, fault, arguments.outage, arguments.within)
                results.append(figures)
                print(f"{library}: {fault}, served after {figures.all_served_after_s} s", file=sys.stderr, flush=True)
                cluster.wait_until_healthy()
        if sniffer.missed:
            print(f"{sniffer.missed} packets were missed; requests are undercounted", file=sys.stderr)
    return start, results


def main() -> int:
    arguments = parsed()
    starts: list[Start] = []
    results: list[Figures] = []
    try:
        for brokers in arguments.brokers:
            with KafkaCluster(brokers=brokers) as cluster:
                for library in arguments.libraries:
                    start, figures = run(cluster, arguments, library)
                    starts.append(start)
                    results += figures
    except (ClusterError, SnifferUnavailableError) as error:
        print(f"this cannot run here: {error}", file=sys.stderr)
        return 2
    if arguments.json is not None:
        everything = {"starts": [asdict(each) for each in starts], "outages": [asdict(each) for each in results]}
        arguments.json.write_text(json.dumps(everything, indent=1))
    console = Console(width=240)
    console.print(starts_table(starts))
    console.print(table(results))
    broken = [
        promise
        for each in results
        if each.library == "pooledkafka"
        for promise in broken_promises(each, arguments.processes)
    ]
    for promise in broken:
        print(f"NOT KEPT: {promise}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
