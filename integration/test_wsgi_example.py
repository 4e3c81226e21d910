"""The application in examples/wsgi under gunicorn and uWSGI, as its README and docs/wsgi.md say."""

from __future__ import annotations

import http.client
import json
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient

from integration.clients import eventually
from integration.servers.checks import PARTITIONS, check_log, settled_connections
from integration.servers.running import Load, Server
from integration.servers.shop import EXAMPLE, GROUPS, gunicorn, order, run_shop, uwsgi
from pooledkafka.testing import EmbeddedKafka

WORKERS = 4
CLIENTS = 16
ORDERS = 3_000

EXPECTED = ("you are running uWSGI as root", "is rebalancing")


def order_of(value: str) -> str:
    """What a record says that the load asked for."""
    return str(json.loads(value)["id"])


def committed(admin: Any, topic: str) -> dict[str, int]:
    """How many records each group has committed."""
    groups = [f"{topic}.{group}" for group in GROUPS]
    offsets = admin.list_group_offsets(dict.fromkeys(groups))
    return {group: sum(offset.offset for offset in offsets[group].values()) for group in groups}


def refusal(server: Server, path: str, posted: Any = None) -> str:
    """What it says in place of what it was asked for; nothing where it does that."""
    try:
        server.ask(path, posted)
    except http.client.HTTPException as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(gunicorn("--worker-class", "sync", "--threads", "1"), id="gunicorn-sync"),
        pytest.param(gunicorn(), id="gunicorn-gthread"),
        pytest.param(uwsgi(), id="uwsgi"),
    ],
)
def test_every_order_that_is_taken_arrives_once_though_the_server_reloads(
    command: list[str],
    kafka_bootstrap_servers: str,
    kafka_topic_factory: Callable[..., str],
    tmp_path: Path,
    record_property: Callable[[str, Any], None],
) -> None:
    topic = kafka_topic_factory(partitions=PARTITIONS)
    with (
        run_shop(command, kafka_bootstrap_servers, topic, tmp_path) as server,
        closing(KafkaAdminClient(bootstrap_servers=kafka_bootstrap_servers)) as admin,
    ):
        load = Load(server, CLIENTS, order)
        load.go_on(ORDERS // 2)
        before = server.workers()
        server.send(signal.SIGHUP)
        eventually(lambda: not before & server.workers() and len(server.workers()) == WORKERS, 60, "all are replaced")
        load.go_on(ORDERS // 2)
        load.stop()
        assert load.errors == [], "a graceful reload fails no request"

        answers = server.ask_each_worker("/stats", WORKERS)
        assert all(set(answer["read"]) == set(GROUPS) for answer in answers.values())
        taken = len(load.acked)
        eventually(lambda: set(committed(admin, topic).values()) == {taken}, 60, "every group has read every order")
        most = settled_connections(server)
        for pid, health in server.ask_each_worker("/health", WORKERS).items():
            assert health["consumers"] == len(GROUPS)
            assert 0 < server.connections()[pid] <= 4

        server.terminate()
        states = admin.describe_groups([f"{topic}.{group}" for group in GROUPS])
        assert {state["group_state"] for state in states.values()} == {"Empty"}, "every consumer has left its group"
        figures = check_log(kafka_bootstrap_servers, topic, server, [load], sent_as=order_of)
        complaints = [line for line in server.complaints() if not any(words in line for words in EXPECTED)]
        assert not complaints, "\n".join(complaints)
    for name, value in figures.items():
        record_property(name, value)
    record_property("workers that sent", len(load.pids))
    record_property("most connections of a process to a broker", most)


def test_health_and_orders_tell_that_kafka_is_away_and_that_it_is_back(
    embedded_kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    embedded_kafka.create_topic("orders", partitions=PARTITIONS)
    command = gunicorn("--workers", "1")
    with run_shop(command, embedded_kafka.bootstrap_servers, "orders", tmp_path) as server:
        assert server.ask("/health")["status"] == "ok"
        assert order(server, "first")["id"] == "first"
        assert "400" in refusal(server, "/orders", {"id": 1})

        for node_id in embedded_kafka.node_ids:
            embedded_kafka.kill(node_id)
        assert "503" in (said := refusal(server, "/orders", {"id": "second"}))
        assert "KafkaTimeoutError" in said
        eventually(lambda: "no broker answers" in refusal(server, "/health"), 60, "its health says so")
        assert server.ask("/alive"), "for that nobody need restart it"

        for node_id in embedded_kafka.node_ids:
            embedded_kafka.start(node_id)
        eventually(lambda: not refusal(server, "/health"), 60, "it is well again, without a request that needs Kafka")
        assert order(server, "third")["id"] == "third"
        server.terminate()


def test_a_worker_that_never_reached_kafka_says_so(tmp_path: Path) -> None:
    with run_shop(gunicorn("--workers", "1"), "127.0.0.1:1", "orders", tmp_path, SHOP_CONSUMERS="0") as server:
        assert "127.0.0.1:1" in refusal(server, "/health")
        assert "ConnectFailedError" in refusal(server, "/orders", {"id": "lost"})
        server.terminate()


def test_the_example_runs_without_a_cluster(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE / "embedded_kafka.py"), *gunicorn()]
    with run_shop(command, "127.0.0.1:1", "orders", tmp_path) as server:
        taken = [order(server, str(number))["id"] for number in range(20)]
        assert taken == [str(number) for number in range(20)]

        def read() -> bool:
            counts = [answer["read"]["billing"] for answer in server.ask_each_worker("/stats", WORKERS).values()]
            return sum(map(int, counts)) == len(taken)

        eventually(read, 60, "the workers have read every order together")
        server.terminate()
        assert not server.complaints(), "the brokers stay until the workers have ended"
