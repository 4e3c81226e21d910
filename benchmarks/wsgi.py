"""What the shop of examples/wsgi holds and how it answers, over a pool and over stock kafka-python.

Each runs under gunicorn with four gthread workers of eight threads, preloaded, with five consumers in each worker, and
is asked by 16 clients for some seconds. Then, with the producer in use before the workers are forked, what becomes of
the orders. Ends with status 1 where one that was acknowledged over a pool is lost, or is there twice.

    python -m benchmarks.wsgi                        # three brokers in Docker, about ten minutes
    python -m benchmarks.wsgi --backend embedded --rounds 1 --seconds 2    # whether it works
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from kafka import KafkaAdminClient
from kafka.structs import TopicPartition

from benchmarks.cases import Topic
from benchmarks.cluster import RunningBrokers, running
from benchmarks.figures import in_columns, number
from benchmarks.rounds import machine
from integration.logs import plain_log
from integration.servers.running import Load, Server
from integration.servers.shop import GROUPS, gunicorn, order, run_shop

__all__ = ["main"]

WORKERS = 4
PARTITIONS = 6
CLIENTS = 16
JOINED_WITHIN_S = 60.0
SETTLED_AFTER_S = 7.0
"""Without a change; what only joins needed is closed after five idle seconds."""
SETTLED_WITHIN_S = 40.0
FORKED_CLIENTS = 4
FORKED_ORDERS = 50
FORKED_WITHIN_S = 40.0
ENDED_WITHIN_S = 60.0


@dataclass(frozen=True)
class Shop:
    """One way to write it."""

    name: str
    application: str
    environment: dict[str, str] = field(default_factory=dict)


SHOPS = [
    Shop("pooledkafka, a handle a request", "app:app"),
    Shop("kafka-python, a producer a process", "stock_app:app", {"SHOP_PRODUCER": "process"}),
    Shop("kafka-python, a producer a request", "stock_app:app", {"SHOP_PRODUCER": "request"}),
]
USED_BEFORE_FORKS = [
    Shop("pooledkafka", "connected_app:app"),
    Shop("kafka-python", "stock_app:app", {"SHOP_PRODUCER": "import"}),
]

Figures = dict[str, Any]
Ask = Callable[[Server, str], dict[str, Any]]


class Stage:
    """Runs shops on the cluster, each on a new topic."""

    def __init__(self, brokers: RunningBrokers, directory: Path) -> None:
        self._brokers = brokers
        self._directory = directory

    def run(self, shop: Shop, consumers: int) -> tuple[Server, str]:
        topic = f"bench-{uuid.uuid4().hex[:8]}"
        self._brokers.create([Topic(topic, PARTITIONS)])
        environment = {**shop.environment, "SHOP_CONSUMERS": str(consumers), "POOLEDKAFKA_DEBUG": ""}
        command = gunicorn(application=shop.application)
        return run_shop(command, self._brokers.bootstrap, topic, self._directory, **environment), topic

    def left_in_log(self, topic: str, load: Load) -> Figures:
        """What is there of that which was acknowledged."""
        found = left_in_log(self._brokers.bootstrap, topic, load, "id")
        self._brokers.delete([topic])
        return found

    def wait_for_members(self, topic: str) -> bool:
        """Whether every worker is a member of every group, after a while."""

        def joined() -> bool:
            states = admin.describe_groups([f"{topic}.{group}" for group in GROUPS]).values()
            return all(state["group_state"] == "Stable" and len(state["members"]) == WORKERS for state in states)

        with closing(KafkaAdminClient(bootstrap_servers=self._brokers.bootstrap)) as admin:
            return came_true(joined, JOINED_WITHIN_S)


def left_in_log(bootstrap_servers: str, topic: str, load: Load, named: str) -> Figures:
    """What is there of that which was acknowledged, by the field of the value that says which order it is."""
    log = plain_log(bootstrap_servers, [TopicPartition(topic, number) for number in range(PARTITIONS)])
    orders = Counter(json.loads(entry[3])[named] for entries in log.values() for entry in entries)
    return {
        "lost": len(set(load.acked) - orders.keys()),
        "twice": sum(count > 1 for count in orders.values()),
    }


def came_true(condition: Callable[[], bool], within_s: float, each_s: float = 0.2) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(each_s)
    return True


def held(server: Server) -> tuple[int, int]:
    """Connections to all brokers, and to the one with the most."""
    by_broker: Counter[int] = sum(server.sockets().values(), Counter())
    return by_broker.total(), max(by_broker.values(), default=0)


def held_idle(server: Server) -> tuple[int, int]:
    """What is held once that has not changed for a while."""
    last, since = held(server), time.monotonic()

    def settled() -> bool:
        nonlocal last, since
        now = held(server)
        if now != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > SETTLED_AFTER_S

    came_true(settled, SETTLED_WITHIN_S)
    return last


def first_orders_ms(server: Server, ask: Ask = order) -> list[float]:
    """How long the first order of each worker took, one after the other."""
    took: dict[int, float] = {}

    def all_have_answered() -> bool:
        asked = time.monotonic()
        pid = ask(server, uuid.uuid4().hex)["pid"]
        took.setdefault(pid, (time.monotonic() - asked) * 1000)
        return len(took) == WORKERS

    came_true(all_have_answered, 60, each_s=0)
    return list(took.values())


def ended_after_s(server: Server) -> float | None:
    """How long it took from SIGTERM; None where something was left, which is killed."""
    told = time.monotonic()
    processes = server.processes()
    server.process.terminate()
    _, left = psutil.wait_procs(processes, timeout=ENDED_WITHIN_S)
    return None if left else time.monotonic() - told


def under_load(server: Server, seconds: float, ask: Ask = order) -> tuple[Load, Figures]:
    """Ask for so long; what was asked for, and how it went."""
    load = Load(server, CLIENTS, ask)
    began, most = time.monotonic(), held(server)
    while time.monotonic() < began + seconds:
        most = max(most, held(server))
        time.sleep(0.5)
    load.stop()
    took_s = time.monotonic() - began
    cuts = statistics.quantiles(load.took_s, n=100) if len(load.took_s) > 1 else [float("nan")] * 99
    return load, {
        "most": most[0],
        "p50_ms": cuts[49] * 1000,
        "p99_ms": cuts[98] * 1000,
        "per_s": len(load.acked) / took_s,
        **taken(load),
    }


def measure(stage: Stage, shop: Shop, seconds: float) -> Figures:
    server, topic = stage.run(shop, consumers=0)
    with server:
        first = first_orders_ms(server)
    server, topic = stage.run(shop, consumers=len(GROUPS))
    with server:
        server.ask_each_worker("/stats", WORKERS)
        joined = stage.wait_for_members(topic)
        idle = held_idle(server)
        load, loaded = under_load(server, seconds)
        ended_s = ended_after_s(server)
    return {
        "first_ms": statistics.median(first),
        "idle": idle[0],
        "idle_one_broker": idle[1],
        **loaded,
        "joined": joined,
        "ended_s": ended_s,
        **stage.left_in_log(topic, load),
    }


def measure_forked(stage: Stage, shop: Shop) -> Figures:
    """What becomes of orders where the producer was in use before the fork."""
    server, topic = stage.run(shop, consumers=0)
    with server:
        load = Load(server, FORKED_CLIENTS, order)
        came_true(lambda: len(load.acked) >= FORKED_ORDERS, FORKED_WITHIN_S)
        load.stop()
        ended_s = ended_after_s(server)
    return {**taken(load), "ended_s": ended_s, **stage.left_in_log(topic, load)}


def taken(load: Load) -> Figures:
    errors = Counter(reason_in(error) for error in load.errors)
    return {
        "acknowledged": len(load.acked),
        "failed": len(load.errors),
        "errors": [error for error, _ in errors.most_common(1)],
    }


def reason_in(error: str) -> str:
    reason = re.search(r'"reason":"([^"]*)"', error)
    return reason[1] if reason else error.partition(" ")[2]


def said(seconds: float | None) -> str:
    return f"not within {ENDED_WITHIN_S:.0f} s" if seconds is None else f"{seconds:.1f} s"


def table(rows: list[dict[str, str]]) -> str:
    return in_columns([list(rows[0]), *(list(row.values()) for row in rows)])


def loaded_row(name: str, rounds: list[Figures]) -> dict[str, str]:
    def middle(figure: str) -> str:
        return number(statistics.median(each[figure] for each in rounds))

    def all_in_all(figure: str) -> str:
        return str(sum(each[figure] for each in rounds))

    return {
        "": name,
        "first order": f"{middle('first_ms')} ms",
        "connections, idle": middle("idle"),
        "to one broker": middle("idle_one_broker"),
        "most under load": middle("most"),
        "p50 / p99": f"{middle('p50_ms')} / {middle('p99_ms')} ms",
        "orders a second": middle("per_s"),
        "acknowledged": all_in_all("acknowledged"),
        "failed": all_in_all("failed"),
        "lost": all_in_all("lost"),
        "twice": all_in_all("twice"),
        "ends after": said(max((each["ended_s"] for each in rounds), key=lambda took: took or float("inf"))),
    }


def forked_row(name: str, found: Figures) -> dict[str, str]:
    counts = {figure: str(found[figure]) for figure in ("acknowledged", "failed", "lost", "twice")}
    error = (found["errors"] or ["none"])[0]
    return {"in use before the forks": name, **counts, "ends after": said(found["ended_s"]), "error": error}


def carry_out(stage: Stage, rounds: int, seconds: float) -> bool:
    """Whether nothing was lost or doubled over a pool."""
    loaded: dict[str, list[Figures]] = {shop.name: [] for shop in SHOPS}
    for turn in range(rounds):
        for shop in SHOPS[turn % len(SHOPS) :] + SHOPS[: turn % len(SHOPS)]:
            figures = measure(stage, shop, seconds)
            print(f"round {turn + 1}, {shop.name}: {figures}", file=sys.stderr, flush=True)
            loaded[shop.name].append(figures)
    print(table([loaded_row(*each) for each in loaded.items()]), end="\n\n", flush=True)
    forked = {shop.name: measure_forked(stage, shop) for shop in USED_BEFORE_FORKS}
    print(table([forked_row(*each) for each in forked.items()]))
    pooled = [*loaded[SHOPS[0].name], forked[USED_BEFORE_FORKS[0].name]]
    return not any(figures["lost"] or figures["twice"] or figures["failed"] for figures in pooled)


def options(program: str, says: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}", description=says, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bootstrap", metavar="HOST:PORT", help="a running cluster")
    parser.add_argument("--backend", choices=["docker", "embedded"], default="docker")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="of load, for each way and round")
    return parser


def versions(*names: str) -> str:
    return ", ".join(f"{name} {version(name)}" for name in names)


def main(given: list[str]) -> int:
    arguments = options("benchmarks.wsgi", __doc__).parse_args(given)
    with (
        running(arguments.backend, arguments.bootstrap) as brokers,
        tempfile.TemporaryDirectory(prefix="benchmarks-wsgi-") as directory,
    ):
        print(f"{machine(brokers)}, {versions('gunicorn', 'flask')}", end="\n\n", flush=True)
        return 0 if carry_out(Stage(brokers, Path(directory)), arguments.rounds, arguments.seconds) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
