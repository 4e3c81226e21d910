"""The project in examples/django under gunicorn, with its commands beside it."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient

from integration.clients import eventually
from integration.servers.checks import PARTITIONS, check_log, settled_connections
from integration.servers.placing import TOPIC, manage, place, run_django, told
from integration.servers.running import Load

WORKERS = 4
CLIENTS = 8
ORDERS = 2_000


@pytest.fixture
def topics(kafka_bootstrap_servers: str) -> Iterator[None]:
    """Those of the example, which have fixed names."""
    names = [TOPIC, "orders.cancelled", "orders.failed"]
    with closing(KafkaAdminClient(bootstrap_servers=kafka_bootstrap_servers)) as admin:
        wanted = {name: {"num_partitions": PARTITIONS, "replication_factor": 1} for name in names}
        admin.create_topics(wanted, wait_for_metadata=True)
        yield
        admin.delete_topics(names)


def invoiced(database: Path) -> list[str]:
    with closing(sqlite3.connect(database, timeout=20)) as connection:
        return [item for (item,) in connection.execute("select item from orders_invoice")]


@pytest.mark.usefixtures("topics")
def test_every_order_that_is_placed_is_told_and_billed_once_though_the_server_reloads(
    kafka_bootstrap_servers: str, tmp_path: Path, record_property: Any
) -> None:
    environment = told(kafka_bootstrap_servers, tmp_path)
    with run_django(kafka_bootstrap_servers, tmp_path) as server:
        billing = manage("kafka_consume", "--group", "billing", environment=environment)
        try:
            load = Load(server, CLIENTS, place)
            load.go_on(ORDERS // 2)
            before = server.workers()
            server.send(signal.SIGHUP)
            eventually(lambda: not before & server.workers() and len(server.workers()) == WORKERS, 60, "a reload")
            load.go_on(ORDERS // 2)
            load.stop()
            assert load.errors == [], "a graceful reload fails no request"
            most = settled_connections(server)
            server.terminate()
            figures = check_log(
                kafka_bootstrap_servers, TOPIC, server, [load], sent_as=lambda value: str(json.loads(value)["item"])
            )
            database = Path(environment["DATABASE"])
            eventually(lambda: len(invoiced(database)) >= len(load.acked), 60, "every order is billed")
            assert sorted(invoiced(database)) == sorted(load.acked), "and none twice"
            billing.send_signal(signal.SIGTERM)
            said, _ = billing.communicate(timeout=30)
            assert billing.returncode == 0, said
        finally:
            billing.kill()
            billing.wait()
        assert not server.complaints(), "\n".join(server.complaints())
    for name, value in figures.items():
        record_property(name, value)
    record_property("processes that served", len(load.pids))
    record_property("most connections of a process to a broker", most)


@pytest.mark.usefixtures("topics")
def test_a_producer_that_was_in_use_before_the_fork_works_in_each_worker(
    kafka_bootstrap_servers: str, tmp_path: Path
) -> None:
    with run_django(kafka_bootstrap_servers, tmp_path, SHOP_IN_MASTER="1") as server:
        load = Load(server, CLIENTS, place)
        load.go_on(200)
        load.stop()
        server.terminate()
        assert load.errors == []
        check_log(kafka_bootstrap_servers, TOPIC, server, [load], sent_as=lambda value: str(json.loads(value)["item"]))
