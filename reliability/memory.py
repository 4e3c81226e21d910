"""What a pool holds in memory: of what slow consumers leave, of huge records, of thousands of partitions, of the gone.

Each case runs in a process of its own on one broker in Docker, with pooledkafka and with kafka-python. Prints what each
took, and ends with status 1 where pooledkafka holds more than it promises.

    python -m reliability.memory                       # everything, some ten minutes
    python -m reliability.memory --scenario slow       # slow consumers on fast topics
    python -m reliability.memory --quick               # everything on a small scale
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from pooledkafka.testing import KafkaCluster
from reliability.memory_clients import MIB, Case

__all__ = ["BROKER_CONFIG", "broken_promises", "main", "measure"]

ROOT = Path(__file__).parent.parent
_CASE_WITHIN_S = 900.0
RECORD = 10 * MIB
BROKER_CONFIG = {
    "message.max.bytes": str(RECORD + 1_000_000),
    "replica.fetch.max.bytes": str(RECORD + 1_000_000),
    "log.index.size.max.bytes": "65536",  # so that thousands of partitions take little room
    "broker.session.timeout.ms": "60000",  # while it makes them, on a busy machine, it may be late
}
PARTITION_FETCH = MIB  # max_partition_fetch_bytes, as it is by default
LIBRARIES = ("pooledkafka", "kafka-python")


def measure(case: Case) -> dict[str, Any]:
    """Run one case in a process of its own; raises with what it said where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "reliability.memory_clients", json.dumps(asdict(case))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=_CASE_WITHIN_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{case.scenario} with {case.library} failed:\n{done.stderr[-3_000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def make_topics(bootstrap: str, names: list[str], partitions: int) -> list[str]:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=60_000)
    admin.create_topics([NewTopic(name, partitions, 1) for name in names], timeout_ms=60_000)
    admin.close()
    return names


def fill(bootstrap: str, topic: str, partitions: int, size: int) -> None:
    """Write ``size`` bytes of values that do not compress."""
    values = [random.randbytes(8_192) for _ in range(64)]
    with KafkaProducer(bootstrap_servers=bootstrap, batch_size=MIB // 2, linger_ms=20) as producer:
        for number in range(size // 8_192):
            future = producer.send(topic, values[number % 64], partition=number % partitions)
            if number % 4_096 == 4_095:
                future.get(timeout=60)  # kafka-python does not bound what it has not sent yet
        producer.flush(60)


# -- the scenarios -----------------------------------------------------------------------------------------------------


def slow_cases(bootstrap: str, quick: bool) -> Iterator[Case]:
    size = 40 * MIB if quick else 512 * MIB
    topics = make_topics(bootstrap, ["fast-a", "fast-b"], 3)
    for topic in topics:
        fill(bootstrap, topic, 3, size)
    numbers = {"bytes": 2 * size, "slow": 12 if quick else 32}
    for bound in (8 * MIB, 64 * MIB):
        yield Case("slow", "pooledkafka", bootstrap, topics, 3, bound, numbers)
    yield Case("slow", "kafka-python", bootstrap, topics, 3, numbers=numbers)


def huge_cases(bootstrap: str, quick: bool) -> Iterator[Case]:
    numbers = {"size": RECORD, "count": 4 if quick else 20, "groups": 4}
    for number, library in enumerate(LIBRARIES):
        topics = make_topics(bootstrap, [f"huge-{number}"], 4)
        yield Case("huge", library, bootstrap, topics, 4, MIB, numbers)


def partitions_cases(bootstrap: str, quick: bool) -> Iterator[Case]:
    each = 100 if quick else 1_000
    topics = [f"wide-{number}" for number in range(10)]
    for topic in topics:
        make_topics(bootstrap, [topic], each)
    for readers in (1, 4):
        numbers = {"readers": readers, "idle_s": 2 if quick else 10, "rate": 2, "records": 10 if quick else 40}
        for library in LIBRARIES:
            yield Case("partitions", library, bootstrap, topics, each, numbers=numbers)


def churn_cases(bootstrap: str, quick: bool) -> Iterator[Case]:
    topics = make_topics(bootstrap, [f"churn-{number}" for number in range(4)], 2)
    numbers = {"consumers": 1_000, "handles": 1_000, "connections": 200}
    if quick:
        numbers = {name: count // 10 for name, count in numbers.items()}
    yield Case("churn", "pooledkafka", bootstrap, topics, 2, numbers=numbers)


SCENARIOS: dict[str, Callable[[str, bool], Iterator[Case]]] = {
    "slow": slow_cases,
    "huge": huge_cases,
    "partitions": partitions_cases,
    "churn": churn_cases,
}


# -- what is promised --------------------------------------------------------------------------------------------------


def broken_promises(case: Case, figures: dict[str, Any]) -> list[str]:
    """What pooledkafka promises and has not kept, in sentences."""
    promises = {"slow": slow_promises, "huge": huge_promises, "partitions": lambda *_: {}, "churn": churn_promises}
    kept: dict[str, bool] = promises[case.scenario](case, figures)
    return [f"{case.scenario}: {promise}" for promise, is_kept in kept.items() if not is_kept]


def slow_promises(case: Case, figures: dict[str, Any]) -> dict[str, bool]:
    answer = len(case.topics) * case.partitions * (PARTITION_FETCH + 512)
    # What a consumer was given is its own, as with kafka-python: at the most an answer as it came, and the records of
    # it that it decodes.
    most = 2 * case.fetch_buffer_bytes + figures["consumers"] * answer
    return {
        f"no more is read ahead than fetch_buffer_bytes and one answer, {mib(case.fetch_buffer_bytes + answer)}": (
            figures["read_ahead"] <= case.fetch_buffer_bytes + answer
        ),
        f"memory stays below twice fetch_buffer_bytes and an answer for each consumer, {mib(most)}": (
            figures["peak"] <= most
        ),
        "slow consumers take no more than three quarters of a fast one's rate": (
            figures["rate_beside"] >= figures["rate_alone"] / 4
        ),
    }


def huge_promises(case: Case, figures: dict[str, Any]) -> dict[str, bool]:
    most = case.fetch_buffer_bytes + 2 * (case.numbers["size"] + 2_048)
    return {
        "every group reads every record": set(figures["read"]) == {figures["records"]},
        "a record that is too large fails for its sender alone": figures["refused"][0] == figures["refused"][1],
        f"no more is read ahead than fetch_buffer_bytes and one record for each of two requests, {mib(most)}": (
            figures["read_ahead"] <= most
        ),
    }


def churn_promises(case: Case, figures: dict[str, Any]) -> dict[str, bool]:
    kept = {}
    for name in ("consumers", "handles", "connections"):
        grown = figures[name]
        kept[f"{grown['count']} {name} that are gone leave less than 200 bytes and half an object each"] = (
            grown["bytes"] < 100_000 + 200 * grown["count"] and grown["objects"] < 500 + grown["count"] / 2
        )
    kept["topics that nobody asks for any more are forgotten"] = figures["topics_known"] <= 1
    return kept


# -- the command -------------------------------------------------------------------------------------------------------


def mib(count: float | None) -> str:
    return "" if count is None else f"{count / MIB:,.1f} MiB"


def main(arguments: list[str] | None = None) -> int:
    from reliability.memory_figures import show

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--scenario", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS))
    add("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    add("--quick", action="store_true", help="on a small scale")
    add("--json", type=Path, metavar="FILE", help="where to write the figures")
    given = parser.parse_args(arguments)
    measured: list[dict[str, Any]] = []
    broken: list[str] = []
    for scenario in given.scenario:
        with KafkaCluster(brokers=1, config=BROKER_CONFIG) as cluster:
            for case in SCENARIOS[scenario](cluster.bootstrap_servers, given.quick):
                if case.library not in given.libraries:
                    continue
                print(f"{scenario} with {case.library} ...", file=sys.stderr, flush=True)
                figures = measure(case)
                measured.append({"case": asdict(case), "figures": figures})
                if case.library == "pooledkafka":
                    broken += broken_promises(case, figures)
    show(measured, broken)
    if given.json:
        given.json.write_text(json.dumps({"measured": measured, "broken": broken}, indent=2))
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
