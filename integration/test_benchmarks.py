"""The benchmark runs on real brokers and counts right. What it times is never looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "many_clients.py"
LIBRARIES = ["pooledkafka", "kafka-python", "confluent-kafka"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARK), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_a_quick_run_counts_right(kafka_bootstrap_servers: str, tmp_path: Path) -> None:
    pytest.importorskip("confluent_kafka")
    file = tmp_path / "many_clients.json"
    done = run("--quick", "--bootstrap", kafka_bootstrap_servers, "--json", str(file))
    assert done.returncode == 0, done.stderr
    results = json.loads(file.read_text())["results"]
    cases = [(r["library"], r["consumers"], r["groups"], r["members"]) for r in results]
    assert sorted(cases) == sorted(
        (name, *case) for name in LIBRARIES for case in [(1, 0, 0), (3, 0, 0), (0, 1, 3), (0, 2, 3)]
    )

    for figures in results:
        assert figures["errors"] == []
        if figures["members"]:
            assert len(figures["balanced_s"]) == figures["groups"]
            continue
        assert figures["failed"] == []
        assert figures["sent"] == figures["acknowledged"] == figures["received"] == 150
        assert figures["received_twice"] == 0
        assert figures["sockets"] >= figures["sockets_to_one_broker"] >= 1
        assert figures["threads"] >= 1
    # A consumer of stock kafka-python may stay without partitions for ever, and a group's start is not to be timed.
    for figures in results:
        if figures["library"] == "pooledkafka":
            assert figures.get("assigned", 0) == figures["consumers"]
            assert None not in figures.get("balanced_s", [])
            assert figures.get("balanced_at_the_end", 0) == figures["groups"]

    shown = run("--show", str(file), str(file))
    assert shown.returncode == 0, shown.stderr
    for library in LIBRARIES:
        assert f"| {library:15} | 3 / 1     | 2      |" in shown.stdout, "the ratio, of both files' rounds"


def test_what_cannot_be_measured_is_said() -> None:
    no_cluster = run("--quick", "--bootstrap", "127.0.0.1:1")
    assert no_cluster.returncode == 2
    assert "the benchmark needs a Kafka cluster: no Kafka broker answers at 127.0.0.1:1" in no_cluster.stderr
    too_few = run("--rate", "1", "--load", "10")
    assert too_few.returncode == 2
    assert "of less than 100 there is no p99" in too_few.stderr
