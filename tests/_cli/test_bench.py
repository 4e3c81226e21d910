"""``bench`` measures what it says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient

from pooledkafka._bench import cases
from pooledkafka._bench.cases import CLIENTS, Task, measure
from pooledkafka.testing import EmbeddedKafka
from tests._cli.conftest import Command

SMALL = ("--records", "600", "--runs", "1", "--partitions", "2")


def topics(cluster: EmbeddedKafka) -> list[str]:
    with KafkaAdminClient(**cluster.client_options()) as admin:
        return [name for name in admin.list_topics() if name.startswith("pooledkafka-bench")]


@pytest.fixture(scope="module")
def secure() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(1, listeners=["sasl_plain"], credentials={"shop": "hunter2"}) as cluster:
        yield cluster


def test_each_case_with_both(command: Command, secure: EmbeddedKafka, tmp_path: Path) -> None:
    """With a login, of which the processes that measure have to know."""
    picture = tmp_path / "bench.png"
    login = ("--security-protocol", "SASL_PLAINTEXT", "--sasl-mechanism", "PLAIN", "--sasl-username", "shop")
    where = ("-b", secure.client_options("sasl_plain")["bootstrap_servers"], *login)
    chosen = [argument for case in ("send", "send_batch", "consume") for argument in ("--case", case)]
    result = command("bench", *where, *SMALL, *chosen, "--json", "--plot", str(picture), SASL_PASSWORD="hunter2")
    assert result.code == 0, result
    found = result.json
    assert list(found["cases"]) == ["send", "send_batch", "consume"]
    for of_case in found["cases"].values():
        for client in CLIENTS:
            assert len(of_case[client]["runs"]) == 1
            assert of_case[client]["median"]["records_per_second"] > 0
    assert found["setting"]["records"] == 600
    assert set(found["versions"]) == {"python", *CLIENTS}
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "hunter2" not in result.out + result.err
    assert topics(secure) == [], "nothing is left"


@pytest.mark.parametrize("client", CLIENTS)
def test_idle_consumers_are_counted(cluster: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch, client: str) -> None:
    monkeypatch.setattr(cases, "_SETTLE_S", 0.0)
    topic = f"idle-{client}"
    cluster.create_topic(topic)
    options: dict[str, Any] = cluster.client_options()
    found = measure(Task("idle", client, topic, options, records=0, size=0, consumers=3, seconds=0.1))
    assert found["assigned"] == 3
    assert found["cpu_percent"] >= 0
    if client == "kafka-python":
        assert found["connections"] >= 3


def test_medians_are_shown(command: Command, cluster: EmbeddedKafka) -> None:
    result = command("bench", "-b", cluster.bootstrap_servers, *SMALL, "--case", "send")
    assert result.code == 0, result
    lines = [line.split() for line in result.out.splitlines()]
    assert lines[1] == ["records_per_second", "cpu_us_per_record"]
    assert [line[0] for line in lines[2:]] == list(CLIENTS)


def test_a_measurement_that_fails(command: Command, cluster: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setattr("sys.executable", "/bin/false")
    result = command("bench", "-b", cluster.bootstrap_servers, *SMALL, "--case", "send")
    assert result.code == 1
    assert "send with pooledkafka failed: it said nothing" in result.err
    assert topics(cluster) == []


def test_a_plot_without_matplotlib(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = command("bench", "-b", "127.0.0.1:1", "--plot", "x.png")
    assert result.code == 1
    assert "pip install matplotlib" in result.err
