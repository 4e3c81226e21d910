"""The benchmarks run on real brokers and count right. What they time is never looked at."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psutil")

from benchmarks import wsgi
from benchmarks.goals import GOALS
from benchmarks.libraries import LIBRARIES, WAYS, missing

ROOT = Path(__file__).parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)


def measured(name: str, bootstrap: str, file: Path, *more: str) -> list[dict[str, Any]]:
    """What a quick run measures; counts that are not right make it fail."""
    for library in filter(missing, LIBRARIES):
        pytest.skip(f"{library} is not installed")
    done = run(name, "--quick", "--bootstrap", bootstrap, "--json", str(file), *more)
    assert done.returncode in (0, 1), done.stderr
    measurements = json.loads(file.read_text())
    ours = [failure for failure in measurements["failures"] if not is_left_with_nothing(failure)]
    assert ours == [], done.stderr
    assert done.returncode == bool(measurements["failures"]), done.stderr
    results: list[dict[str, Any]] = measurements["results"]
    return results


def is_left_with_nothing(failure: str) -> bool:
    """A consumer of stock kafka-python may stay without partitions for ever, each time that it is tried."""
    return (
        re.fullmatch(r"round 1, kafka-python, consume, .*: 5 times: 0 of \d+ records came, then nothing", failure)
        is not None
    )


def test_many_clients(kafka_bootstrap_servers: str, tmp_path: Path) -> None:
    file = tmp_path / "many_clients.json"
    results = measured("many_clients", kafka_bootstrap_servers, file)
    cases = [(r["library"], r.get("consumers"), r.get("groups"), r.get("members")) for r in results]
    each = [(1, None, None), (3, None, None), (None, 1, 3), (None, 2, 3)]
    assert sorted(map(str, cases)) == sorted(str((name, *case)) for name in LIBRARIES for case in each)
    for figures in results:
        assert figures["errors"] == []
        if figures["benchmark"] == "groups":
            assert len(figures["balanced_s"]) == figures["groups"]
            continue
        assert figures["failed"] == []
        assert figures["sent"] == figures["acknowledged"] == figures["received"] == 150
        assert figures["received_twice"] == 0
        assert figures["sockets"] >= figures["sockets_to_one_broker"] >= 1
        assert figures["threads"] >= (0 if figures["library"] == "aiokafka" else 1)
    # What one of stock kafka-python has is its own affair, and a group's start is not to be timed.
    for figures in results:
        if figures["library"] == "pooledkafka":
            assert figures.get("assigned") == figures.get("consumers")
            assert None not in figures.get("balanced_s", [])
            assert figures.get("balanced_at_the_end") == figures.get("groups")

    shown = run("show", str(file), str(file))
    assert shown.returncode == 0, shown.stderr
    for library in LIBRARIES:
        assert f"| {library:15} | 3 / 1     | 2      |" in shown.stdout, "the ratio, of both files' rounds"


def test_throughput(kafka_bootstrap_servers: str, tmp_path: Path) -> None:
    sizes = ["--sizes", "100", "10000", "--codecs", "none", "lz4"]
    results = measured("throughput", kafka_bootstrap_servers, tmp_path / "throughput.json", *sizes)
    produced = [r for r in results if r["benchmark"] == "produce"]
    assert sorted((f"{r['library']} {r['way']}", r["size"], r["codec"]) for r in produced) == sorted(
        (way, size, codec) for way in WAYS for size, codec in [(100, "none"), (10_000, "none"), (1_000, "lz4")]
    )
    assert {(r["records"], r["in_log"]) for r in produced} == {(2_000, 2_000)}
    read = [r for r in results if r["benchmark"] == "consume"]
    assert sum(r["library"] != "kafka-python" for r in read) == (len(LIBRARIES) - 1) * (3 + 3 + 1)
    for figures in read:
        assert figures["wrong"] == []
        assert figures["records"] == (500 * 8 if figures["kind"] == "8 groups" else 2_000)
        assert figures["value_bytes"] == figures["records"] * figures["size"]


def test_latency(kafka_bootstrap_servers: str, tmp_path: Path) -> None:
    results = measured("latency", kafka_bootstrap_servers, tmp_path / "latency.json")
    assert sorted(r["library"] for r in results) == sorted(LIBRARIES)
    assert {(r["sent"], r["acknowledged"], r["received"], r["received_twice"]) for r in results} == {(150, 150, 150, 0)}


def test_clients(kafka_bootstrap_servers: str, tmp_path: Path) -> None:
    results = measured("clients", kafka_bootstrap_servers, tmp_path / "clients.json")
    assert sorted((r["library"], r["clients"]) for r in results) == sorted((n, c) for n in LIBRARIES for c in (1, 3))
    for figures in results:
        assert figures["received"] == 0
        assert figures["errors"] == []
        if figures["library"] == "pooledkafka":
            assert figures["assigned"] == figures["clients"]


def test_partitions(kafka_bootstrap_servers: str, tmp_path: Path) -> None:
    results = measured("partitions", kafka_bootstrap_servers, tmp_path / "partitions.json")
    assert sorted((r["library"], r["partitions"]) for r in results) == sorted(
        (name, count) for name in LIBRARIES for count in (1, 20)
    )
    assert {(r["sent"], r["received"], r["received_twice"]) for r in results} == {(500, 500, 0)}


def test_goals(kafka_bootstrap_servers: str, tmp_path: Path) -> None:
    file = tmp_path / "goals.json"
    measured("goals", kafka_bootstrap_servers, file)
    shown = run("show", str(file))
    answers = shown.stdout.count("| yes |") + shown.stdout.count("| no  |")
    assert answers == len(GOALS), "each goal has an answer"


def test_what_cannot_be_measured_is_said() -> None:
    no_cluster = run("--quick", "--bootstrap", "127.0.0.1:1")
    assert no_cluster.returncode == 2
    assert "the benchmark needs a Kafka cluster: no Kafka broker answers at 127.0.0.1:1" in no_cluster.stderr
    too_few = run("many_clients", "--rate", "1", "--load", "10")
    assert too_few.returncode == 2
    assert "of less than 100 there is no p99" in too_few.stderr


@pytest.mark.parametrize("name", ["wsgi", "django_shop"])
def test_servers(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In short: connections need not settle, and orders that stock kafka-python never sends are not waited for."""
    for constant, value in {"SETTLED_AFTER_S": 0.2, "SETTLED_WITHIN_S": 1.0, "FORKED_WITHIN_S": 3.0}.items():
        monkeypatch.setattr(wsgi, constant, value)
    monkeypatch.setattr(wsgi, "SHOPS", wsgi.SHOPS[:1])
    run = importlib.import_module(f"benchmarks.{name}").main
    assert run(["--backend", "embedded", "--rounds", "1", "--seconds", "1"]) == 0, "nothing is lost over a pool"
    _, loaded, forked = capsys.readouterr().out.split("\n\n")
    (pooled,) = (row.split("|") for row in loaded.splitlines() if row.startswith("| pooledkafka"))
    *_, acknowledged, failed, lost, twice, ended, _ = (cell.strip() for cell in pooled)
    assert int(acknowledged) > 0
    assert (failed, lost, twice) == ("0", "0", "0")
    assert ended.endswith(" s")
    assert "kafka-python" in forked
