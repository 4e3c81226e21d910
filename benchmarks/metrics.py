"""What metrics cost: throughput and processor time with Prometheus' metrics on, against off.

``on``: registered in one process and scraped every second. ``multiprocess``: written every second, and scraped, in
prometheus_client's multiprocess mode. Each measurement has a process of its own, all modes come one right after another
in each round, and another one begins each time. A ratio is taken within a round; shown is the median of all rounds.

    python -m benchmarks.metrics                              # three brokers in Docker, about ten minutes
    python -m benchmarks.metrics --backend embedded --rounds 1 --seconds 0.5    # whether it works
    python -m benchmarks.metrics --against ../before          # off, against the package of another checkout as well
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from benchmarks.cases import Topic
from benchmarks.cluster import running
from benchmarks.figures import in_columns, number, spread
from benchmarks.metrics_worker import BATCH, CASES, VALUE
from pooledkafka import Kafka

__all__ = ["main"]

ROOT = Path(__file__).parent.parent
WORKER = Path(__file__).with_name("metrics_worker.py")
PARTITIONS = 6
FILLED = 200_000
"""Records in the topic that is read."""
WITHIN_S = 300

Figures = dict[str, float]


def fill(bootstrap: str, topic: str, records: int) -> None:
    kafka = Kafka(bootstrap_servers=bootstrap)
    with kafka.connection_pool() as pool, kafka.producer(connection_pool=pool) as producer:
        for _ in range(records // BATCH):
            producer.send_batch(topic, [{"value": VALUE}] * BATCH).get(timeout=60)


def measured(case: str, mode: str, bootstrap: str, topic: str, seconds: float, checkout: Path) -> Figures:
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "PYTHONPATH": str(checkout), "POOLEDKAFKA_DEBUG": ""}
        environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
        if mode == "multiprocess":
            environment["PROMETHEUS_MULTIPROC_DIR"] = directory
        # By its text, so that the directory of the benchmarks is not where Python looks for modules.
        command = [sys.executable, "-c", WORKER.read_text(), case, mode, bootstrap, topic, str(seconds)]
        done = subprocess.run(
            command, cwd=directory, env=environment, capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
    if done.returncode:
        raise RuntimeError(f"{case}, {mode}: {done.stderr[-4000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def table(results: list[dict[str, Any]], modes: list[str]) -> str:
    rows = [["", *(f"{mode}, records a second" for mode in modes)]]
    rows[0] += [f"{mode}, of {modes[0]}: {what}" for mode in modes[1:] for what in ("throughput", "CPU a record")]
    for case in CASES:
        of_case = {mode: [r for r in results if (r["case"], r["mode"]) == (case, mode)] for mode in modes}
        if not of_case[modes[0]]:
            continue
        row = [case, *(number(statistics.median(r["per_s"] for r in of_case[mode])) for mode in modes)]
        for mode in modes[1:]:
            for name in ("per_s", "cpu_us"):
                pairs = zip(of_case[mode], of_case[modes[0]], strict=True)
                row.append(spread([one[name] / other[name] for one, other in pairs]))
        rows.append(row)
    return in_columns(rows)


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.metrics", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--bootstrap", metavar="HOST:PORT", help="a running cluster")
    add("--backend", choices=["docker", "embedded"], default="docker", help="or three brokers, started for this")
    add("--rounds", type=int, default=5)
    add("--seconds", type=float, default=3.0, help="of each measurement")
    add("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    add("--against", type=Path, metavar="DIRECTORY", help="another checkout, to measure as `before`, without metrics")
    add("--json", type=Path, metavar="FILE", help="where to write all figures")
    arguments = parser.parse_args(given)
    checkouts = {"off": ROOT, "on": ROOT, "multiprocess": ROOT}
    if arguments.against is not None:
        checkouts = {"before": arguments.against.resolve(), **checkouts}
    modes = list(checkouts)
    results: list[dict[str, Any]] = []
    with running(arguments.backend, arguments.bootstrap) as brokers:
        written, full = (f"bench-metrics-{what}-{uuid.uuid4().hex[:8]}" for what in ("written", "full"))
        brokers.create([Topic(written, PARTITIONS), Topic(full, PARTITIONS, replicas=1)])
        try:
            fill(brokers.bootstrap, full, FILLED)
            for turn in range(arguments.rounds):
                for position, case in enumerate(arguments.cases):
                    at = (turn + position) % len(modes)
                    for mode in modes[at:] + modes[:at]:
                        print(f"round {turn + 1} of {arguments.rounds}: {case}, {mode}", file=sys.stderr, flush=True)
                        topic = full if case.startswith("read") else written
                        figures = measured(case, mode, brokers.bootstrap, topic, arguments.seconds, checkouts[mode])
                        results.append({"round": turn, "case": case, "mode": mode, **figures})
        finally:
            brokers.delete([written, full])
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1))
    print(table(results, modes))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
