"""The interpreter ends, and nobody has closed anything: what is buffered is sent, groups are left, and never a hang."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pooledkafka import Kafka
from pooledkafka.testing import EmbeddedKafka, Hold, Never
from tests.shutdown.program import EXIT_MS, RECORDS
from tests.watchdog import Child, child

WITHIN_S = EXIT_MS / 1000 + 10.0  # the grace is for a busy machine
QUIET = ["Traceback", "Exception", "Warning", "not_delivered"]


@pytest.fixture(autouse=True)
def records(cluster: EmbeddedKafka) -> None:
    cluster.create_topic("bills")
    with Kafka(**cluster.client_options()).producer() as producer:
        producer.send_batch("orders", [{"value": b"%d" % n} for n in range(RECORDS)]).get(timeout=10)


@contextmanager
def program(cluster: EmbeddedKafka, where: str, keeping: str = "kept") -> Iterator[Child]:
    """``keeping``: whether its clients are still there when the interpreter ends, or were dropped just before."""
    bootstrap = cluster.client_options()["bootstrap_servers"]
    with child("-m", "tests.shutdown.program", where, "default", keeping, bootstrap, "g") as started:
        yield started


@pytest.mark.parametrize("keeping", ["kept", "dropped"])
@pytest.mark.parametrize(("where", "status"), [("delivered", 0), ("exit_in_thread", 0), ("daemons", 0)])
def test_records_are_delivered_and_groups_left(cluster: EmbeddedKafka, where: str, status: int, keeping: str) -> None:
    leaving = cluster.intercept("LeaveGroup")
    commits = cluster.intercept("OffsetCommit")
    with program(cluster, where, keeping) as started:
        ended = started.ends(30)
    assert ended.status == status, ended
    assert not any(word in ended.err for word in QUIET), ended.err
    assert len(leaving.requests) == (4 if where == "daemons" else 1)
    assert commits.requests == []
    assert cluster.high_watermark_of("orders") == RECORDS + (where != "daemons")


@pytest.mark.parametrize("keeping", ["kept", "dropped"])
@pytest.mark.parametrize("fault", ["held", "never answered", "dead"])
def test_what_is_not_delivered_in_time_is_told(cluster: EmbeddedKafka, fault: str, keeping: str) -> None:
    hold = cluster.intercept("Produce", Never() if fault == "never answered" else Hold())
    with program(cluster, "undelivered", keeping) as started:
        started.says("ready")
        if fault == "dead":
            hold.wait_for(1)
            cluster.kill(1)
        ended = started.ends(WITHIN_S)
    assert ended.status == 0
    told = "cause='the interpreter ended"
    assert ended.err.count(told) == 1, ended.err
    assert "undelivered=4 topics={'bills': 1, 'orders': 3}" in ended.err
    assert "Traceback" not in ended.err


def test_a_group_that_cannot_be_left_holds_up_nothing(cluster: EmbeddedKafka) -> None:
    cluster.intercept("LeaveGroup", Never())
    with program(cluster, "delivered") as started:
        ended = started.ends(WITHIN_S)
    assert ended.status == 0
    assert cluster.high_watermark_of("orders") == RECORDS + 1


def test_sys_exit_in_a_handler(cluster: EmbeddedKafka) -> None:
    leaving = cluster.intercept("LeaveGroup")
    with program(cluster, "exit_in_handler") as started:
        ended = started.ends(WITHIN_S)
    assert (ended.status, ended.err) == (3, "")
    assert len(leaving.requests) == 1


def test_what_the_application_registered_runs_first(cluster: EmbeddedKafka) -> None:
    leaving, commits = cluster.intercept("LeaveGroup"), cluster.intercept("OffsetCommit")
    with program(cluster, "closes_at_exit") as started:
        ended = started.ends(30)
    assert (ended.status, ended.err) == (0, "")
    assert len(leaving.requests) == len(commits.requests) == 1


def test_an_io_thread_that_a_callback_has_blocked_holds_up_nothing(cluster: EmbeddedKafka) -> None:
    with program(cluster, "stuck_io_thread") as started:
        ended = started.ends(WITHIN_S)
    assert ended.status == 0
