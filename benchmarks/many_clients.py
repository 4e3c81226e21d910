"""What many clients in one process cost: pooledkafka, stock kafka-python and confluent-kafka on the same brokers.

Each measurement runs in a process of its own, and the libraries take turns, for several rounds:

- N consumers in groups of their own, which wait at the end of a topic: the time until all have their partitions,
  connections, threads, memory, idle CPU, and the latency of producers and one more consumer on another topic;
- groups of several members: the time until each is balanced, for one group and for several that start together.

Prints tables of the medians, and writes every figure as JSON. See README.md for what the figures mean.

    python benchmarks/many_clients.py                                # three brokers in Docker, about 20 minutes
    python benchmarks/many_clients.py --bootstrap localhost:9092 --consumers 1 50 --rounds 5 --json many_clients.json
    python benchmarks/many_clients.py --show many_clients.json       # the tables of earlier runs, taken together
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from figures import tables
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from libraries import LIBRARIES, missing, version_of
from measuring import Case

from pooledkafka.testing import ClusterError, ExternalCluster, KafkaCluster

PARTITIONS = 6
GROUP_PARTITIONS = 20  # at least; each member must be able to get one
QUICK: dict[str, Any] = {
    "consumers": [1, 3],
    "members": [3],
    "together": 2,
    "rounds": 1,
    "warm_up": 0.0,
    "settle": 0.5,
    "idle": 0.5,
    "load": 1.0,
    "within": 15.0,
}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--bootstrap", metavar="HOST:PORT", help="a running cluster; default: three brokers in Docker")
    add("--libraries", nargs="+", choices=list(LIBRARIES), default=list(LIBRARIES))
    add("--consumers", type=int, nargs="*", default=[1, 50], help="how many wait; one case for each number")
    add("--members", type=int, nargs="*", default=[3, 20], help="sizes of the group; one case for each number")
    add("--together", type=int, default=10, help="how many groups of the smallest size start together; 0: no such case")
    add("--rounds", type=int, default=3)
    add("--producers", type=int, default=1, help="how many send in turn")
    add("--rate", type=float, default=150.0, help="records a second, of all producers together")
    add("--load", type=float, default=20.0, help="seconds of sending")
    add("--warm-up", type=float, default=10.0, help="seconds of sending with each library before anything is measured")
    add("--settle", type=float, default=8.0, help="seconds after the start before anything but time is measured")
    add("--idle", type=float, default=8.0, help="seconds over which idle CPU is measured")
    add("--within", type=float, default=30.0, help="seconds to wait for partitions, and for balance")
    add("--json", type=Path, metavar="FILE", help="where to write all figures, after each measurement")
    add("--quick", action="store_true", help="few clients, once, under a minute: to see that it works")
    add("--show", type=Path, nargs="+", metavar="FILE", help="measure nothing, show what was measured earlier")
    if parser.parse_args().quick:
        parser.set_defaults(**QUICK)
    arguments = parser.parse_args()
    if min([*arguments.consumers, *arguments.members, arguments.rounds, arguments.producers], default=1) < 1:
        parser.error("consumers, members, rounds and producers are counts from 1 on")
    if arguments.rate * arguments.load < 100:
        parser.error("--rate times --load is the number of records; of less than 100 there is no p99")
    return arguments


def cases(arguments: argparse.Namespace, bootstrap: str, topic: str, partitions: int) -> list[Case]:
    """All that is measured in one round, but for the library."""
    common: dict[str, Any] = {"library": "", "bootstrap": bootstrap, "within_s": arguments.within}
    latency = {
        "probe_topic": f"{topic}-probe",
        "settle_s": arguments.settle,
        "producers": arguments.producers,
        "idle_s": arguments.idle,
        "load_s": arguments.load,
        "rate": arguments.rate,
    }
    sizes = [(1, members) for members in arguments.members]
    if arguments.members and arguments.together:
        sizes.append((arguments.together, min(arguments.members)))
    return [
        Case(**common, **latency, topic=topic, partitions=PARTITIONS, consumers=consumers)
        for consumers in arguments.consumers
    ] + [
        Case(
            **common,
            topic=f"{topic}-group",
            partitions=partitions,
            settle_s=min(2.0, arguments.settle),  # to see whether they stay balanced
            groups=groups,
            members=members,
        )
        for groups, members in sizes
    ]


def warm_up(todo: list[Case], libraries: list[str], seconds: float) -> Iterator[Case]:
    """Brokers that have just started answer slowly at first; without this the first to be measured would suffer."""
    shortened = {"settle_s": 0.0, "idle_s": 0.1, "load_s": seconds}
    for case in todo[:1]:
        for library in libraries:
            yield Case(**{**asdict(case), **shortened, "library": library})


def in_turns(todo: list[Case], libraries: list[str], rounds: int) -> Iterator[tuple[int, Case]]:
    """Every case with every library, in every round; none is always the first, nor always after the same other."""
    for number in range(rounds):
        turn = number % len(libraries)
        for library in libraries[turn:] + libraries[:turn]:
            for case in todo if number % 2 == 0 else reversed(todo):
                yield number, Case(**{**asdict(case), "library": library})


def measured_in_a_process(case: Case) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name("measuring.py")), json.dumps(asdict(case))]
    result = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if result.returncode:
        raise RuntimeError(f"{case} failed:\n{result.stderr[-4000:]}")
    figures: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    what = {"library": case.library, "consumers": case.consumers, "groups": case.groups, "members": case.members}
    return {**what, **figures}


def described(case: Case) -> str:
    what = f"{case.groups} x {case.members} members" if case.members else f"{case.consumers} waiting"
    return f"{case.library:15} {what}"


def measure(arguments: argparse.Namespace, libraries: list[str], bootstrap: str, cluster: Any) -> dict[str, Any]:
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    brokers = len(cluster.node_ids)
    group_partitions = max([GROUP_PARTITIONS, *arguments.members])
    topics = {topic: PARTITIONS, f"{topic}-probe": PARTITIONS, f"{topic}-group": group_partitions}
    with closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        kafka = ".".join(map(str, admin.get_broker_version_data(cluster.node_ids[0]).broker_version))
        admin.create_topics([NewTopic(name, number, min(3, brokers)) for name, number in topics.items()])
        versions = ", ".join(f"{name} {version_of(name)}" for name in LIBRARIES if not missing(name))
        measured: dict[str, Any] = {
            "machine": f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}; "
            f"{brokers} brokers of Kafka {kafka}; {versions}",
            "settings": {name: value for name, value in vars(arguments).items() if not isinstance(value, Path)},
            "results": [],
        }
        try:
            cluster.wait_until_healthy()
            todo = cases(arguments, bootstrap, topic, group_partitions)
            for case in warm_up(todo, libraries, arguments.warm_up) if arguments.warm_up else ():
                print(f"to warm up: {described(case)}", file=sys.stderr, flush=True)
                measured_in_a_process(case)
            for number, case in in_turns(todo, libraries, arguments.rounds):
                print(f"round {number + 1} of {arguments.rounds}: {described(case)}", file=sys.stderr, flush=True)
                measured["results"].append({"round": number, **measured_in_a_process(case)})
                if arguments.json is not None:
                    arguments.json.write_text(json.dumps(measured, indent=2))
        finally:
            admin.delete_topics(list(topics))
    return measured


def taken_together(files: list[Path]) -> dict[str, Any]:
    """What several runs measured, as one run of so many rounds."""
    together: dict[str, Any] = {"machine": "", "results": []}
    machines: dict[str, None] = {}
    for file in files:
        measured = json.loads(file.read_text())
        machines[measured["machine"]] = None
        first = 1 + max((result["round"] for result in together["results"]), default=-1)
        together["results"] += [{**result, "round": first + result["round"]} for result in measured["results"]]
    together["machine"] = "\n".join(machines)
    return together


def main() -> int:
    arguments = parsed()
    if arguments.show:
        print(tables(taken_together(arguments.show)))
        return 0
    for name in filter(missing, arguments.libraries):
        print(f"{name} is not installed and is left out; to compare with it: pip install {name}", file=sys.stderr)
    libraries = [name for name in arguments.libraries if not missing(name)]
    try:
        with ExternalCluster(arguments.bootstrap) if arguments.bootstrap else KafkaCluster(brokers=3) as cluster:
            print(tables(measure(arguments, libraries, cluster.bootstrap_servers, cluster)))
    except ClusterError as error:
        print(f"the benchmark needs a Kafka cluster: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
