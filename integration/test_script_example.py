"""The example script on real brokers, ended in the middle by signals and started again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from kafka.structs import TopicPartition

from integration.clients import eventually
from pooledkafka import ConnectionPool, Kafka

WORKER = Path(__file__).parent.parent / "examples" / "script" / "worker.py"
ORDERS = 3_000
BAD = frozenset(range(499, ORDERS, 500))


@pytest.fixture
def _topics(kafka: Kafka, pool: ConnectionPool) -> Any:
    """The worker's topics have names of their own; they are made for this test and removed after it."""
    with kafka.admin(connection_pool=pool) as admin:
        admin.create_topics(
            {name: {"num_partitions": 3, "replication_factor": 3} for name in ("orders", "orders.dead")}
        )
        yield
        admin.delete_topics(["orders", "orders.dead"])


def billed(ledger: Path) -> Counter[int]:
    return Counter(int(line.split()[0]) for line in ledger.read_text().splitlines()) if ledger.exists() else Counter()


@pytest.mark.usefixtures("_topics")
def test_every_order_is_billed_though_the_worker_is_ended_in_the_middle(
    kafka: Kafka, pool: ConnectionPool, kafka_bootstrap_servers: str, tmp_path: Path
) -> None:
    orders = [{"id": number, "amount": -1 if number in BAD else number} for number in range(ORDERS)]
    with kafka.producer(connection_pool=pool) as producer:
        producer.send_batch("orders", [{"value": json.dumps(order).encode()} for order in orders]).get(timeout=30)
    ledger = tmp_path / "ledger.txt"
    command = [sys.executable, str(WORKER), kafka_bootstrap_servers, "--ledger", str(ledger)]
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        before = billed(ledger).total()
        with subprocess.Popen(command, stderr=subprocess.PIPE) as worker:
            # Of a member that was killed the group learns when its session has timed out.
            eventually(lambda: billed(ledger).total() >= min(before + 300, ORDERS - len(BAD)), 90, "orders are billed")  # noqa: B023
            worker.send_signal(number)
            assert worker.wait(30) == (-signal.SIGKILL if number == signal.SIGKILL else 0), worker.stderr
        if number == signal.SIGTERM:
            assert max(billed(ledger).values()) == 1, "a soft end bills nothing twice"
    subprocess.run([*command, "--until-end"], timeout=120, check=True)
    assert set(billed(ledger)) == set(range(ORDERS)) - BAD
    with kafka.consumer("orders.dead", connection_pool=pool, auto_offset_reset="earliest", group_id=None) as dead:
        came: set[int] = set()

        def read() -> set[int]:
            for records in dead.poll(timeout_ms=500).values():
                for record in records:
                    came.add(json.loads(record.value)["id"])
                    assert b"negative amount" in dict(record.headers)["dead-letter.error.message"]
            return came

        eventually(lambda: read() == BAD, 30, "what cannot be billed is set aside")
    with kafka.consumer(group_id="billing", connection_pool=pool) as consumer:
        partitions = [TopicPartition("orders", number) for number in range(3)]
        ends = consumer.end_offsets(partitions)
        assert {each: consumer.committed(each) for each in partitions} == ends


def test_the_demonstration_needs_no_broker(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(WORKER)], cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert b"997 of 1000 orders are in ledger.txt" in done.stdout
    assert b"\r" not in done.stderr, "no progress where there is no terminal"


def test_its_own_tests_pass() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--kafka-backend=embedded",
        "examples/script",
    ]
    done = subprocess.run(command, cwd=WORKER.parents[2], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
