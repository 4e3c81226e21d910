"""Signals that end a program, wherever its main thread is: in time, with the right status, and out of its group."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kafka.structs import TopicPartition

from pooledkafka import Kafka
from pooledkafka.testing import EmbeddedKafka, Hold
from tests.pooled.waiting import until
from tests.shutdown.program import RECORDS
from tests.watchdog import Child, Ended, child

WITHIN_S = 20.0
HELD = {"join": "JoinGroup", "sync": "SyncGroup", "commit": "OffsetCommit", "flush": "Produce", "get": "Produce"}
ENDS = [
    pytest.param(signal.SIGINT, "default", -signal.SIGINT, id="SIGINT"),
    pytest.param(signal.SIGTERM, "exit", 7, id="SIGTERM-exit"),
]
MEMBERS = ["poll", "busy_poll", "iterate", "run_idle", "run_handler", "commit"]


@pytest.fixture
def kafka(cluster: EmbeddedKafka) -> Kafka:
    return Kafka(**cluster.client_options())


@pytest.fixture
def records(kafka: Kafka) -> None:
    with kafka.producer() as producer:
        producer.send_batch("orders", [{"value": b"%d" % n} for n in range(RECORDS)]).get(timeout=10)


@contextmanager
def program(cluster: EmbeddedKafka, where: str, handler: str, how: str) -> Iterator[Child]:
    bootstrap = cluster.client_options()["bootstrap_servers"]
    with child("-m", "tests.shutdown.program", where, handler, how, bootstrap, "g") as started:
        yield started


def only_said(ended: Ended, wanted: str) -> None:
    """Its standard error has the traceback of ``wanted`` alone, where there is one at all."""
    assert ended.err.count("Traceback") == (1 if wanted == "KeyboardInterrupt" else 0), ended.err
    for bad in ("Exception ignored", "During handling", "ResourceWarning", "Unhandled"):
        assert bad not in ended.err, ended.err


def committed(kafka: Kafka) -> int | None:
    with kafka.consumer(group_id="g") as consumer:
        offset: int | None = consumer.committed(TopicPartition("orders", 0))
        return offset


def takes_over(kafka: Kafka) -> None:
    """Another member gets the partition at once, long before the session timeout of 45 s."""
    began = time.monotonic()
    with kafka.consumer("orders", group_id="g") as consumer:
        while not consumer.assignment():
            consumer.poll(timeout_ms=50)
            assert time.monotonic() - began < 15, "the one that has ended is still a member"


@pytest.mark.parametrize(("number", "handler", "status"), ENDS)
@pytest.mark.parametrize("how", ["with", "without"])
@pytest.mark.parametrize("where", [*MEMBERS, "join", "sync", "flush", "get"])
def test_it_ends(
    cluster: EmbeddedKafka,
    kafka: Kafka,
    records: None,
    where: str,
    how: str,
    number: signal.Signals,
    handler: str,
    status: int,
) -> None:
    leaving = cluster.intercept("LeaveGroup")
    hold = cluster.intercept(HELD[where], Hold()) if where in HELD else None
    raises = "KeyboardInterrupt" if handler == "default" else "SystemExit"
    with program(cluster, where, handler, how) as started:
        started.says("ready")
        if hold is not None:
            hold.wait_for(1)
        started.send(number)
        started.says(f"interrupted by {raises}")
        if hold is not None and how == "with":
            hold.release()  # what closes it in order needs an answer
        ended = started.ends(WITHIN_S)
    assert ended.status == status, ended
    only_said(ended, raises)
    if where in ("flush", "get"):
        lost = how == "without"
        assert ("records.not_delivered" in ended.err) is lost, ended.err
        assert cluster.high_watermark_of("orders") == RECORDS + (not lost)
        return
    if where in MEMBERS:
        # What was read is committed by a close; at the end of the interpreter nobody knows whether it was dealt with.
        # A run commits what its handler has returned from, however it ends; it says that it is ready within the last.
        promised = {"run_handler": {1}, "run_idle": {RECORDS - 1, RECORDS}}
        assert committed(kafka) in promised.get(where, {RECORDS if how == "with" else None})
    if hold is not None:
        hold.remove()
    if where != "join":  # one that joins for the first time may have no id yet
        until(lambda: len(leaving.requests), lambda count: count == 1)
    takes_over(kafka)


@pytest.mark.parametrize("where", ["poll", "run_idle", "run_handler", "sync"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_in_a_handler_ends_it_in_order(
    cluster: EmbeddedKafka, kafka: Kafka, records: None, where: str, number: signal.Signals
) -> None:
    leaving = cluster.intercept("LeaveGroup")
    hold = cluster.intercept("SyncGroup", Hold()) if where == "sync" else None
    with program(cluster, where, "stop", "with") as started:
        started.says("ready")
        if hold is not None:
            hold.wait_for(1)
        started.send(number)
        ended = started.ends(WITHIN_S)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.endswith("done")
    if hold is not None:
        hold.remove()
    else:
        assert committed(kafka) == (2 if where == "run_handler" else RECORDS)
    assert len(leaving.requests) == 1
    takes_over(kafka)


def test_a_storm_of_signals_whose_handler_stops_it_finds_no_lock_taken(cluster: EmbeddedKafka, records: None) -> None:
    """Each comes wherever the busy main thread is."""
    with program(cluster, "storm", "stop", "with") as started:
        started.says("ready")
        deadline = time.monotonic() + 60
        while started.runs and time.monotonic() < deadline:
            started.send(signal.SIGTERM)
            time.sleep(0.0005)  # two that come at once are one
        ended = started.ends(WITHIN_S)
    assert (ended.status, ended.err) == (0, "")


@pytest.mark.parametrize("where", ["poll", "flush", "connect"])
def test_sigterm_without_a_handler_is_death(cluster: EmbeddedKafka, records: None, where: str) -> None:
    fault = {"flush": "Produce", "connect": "ApiVersions"}.get(where)
    hold = cluster.intercept(fault, Hold()) if fault else None
    with program(cluster, where, "default", "with") as started:
        started.says("ready")
        if hold is not None:
            hold.wait_for(1)
        started.send(signal.SIGTERM)
        assert started.ends(WITHIN_S).status == -signal.SIGTERM


@pytest.mark.parametrize(("number", "handler", "status"), ENDS)
@pytest.mark.parametrize("answer", [None, "ApiVersions"], ids=["no-broker", "no-answer"])
def test_connecting(
    cluster: EmbeddedKafka, answer: str | None, number: signal.Signals, handler: str, status: int
) -> None:
    raises = "KeyboardInterrupt" if handler == "default" else "SystemExit"
    silent = cluster.intercept(answer, Hold()) if answer is not None else None
    with program(cluster, "connect", handler, "with") as started:
        if silent is None:
            cluster.kill(1)
        started.says("ready")
        if silent is not None:
            silent.wait_for(1)
        started.send(number)
        started.says(f"interrupted by {raises}")
        ended = started.ends(WITHIN_S)
    assert ended.status == status, ended
    only_said(ended, raises)


@pytest.mark.parametrize(("number", "handler", "status"), ENDS)
@pytest.mark.parametrize(("where", "held"), [("close", "LeaveGroup"), ("disconnect", "Produce")])
def test_a_second_signal_ends_what_the_first_has_begun(
    cluster: EmbeddedKafka, records: None, where: str, held: str, number: signal.Signals, handler: str, status: int
) -> None:
    raises = "KeyboardInterrupt" if handler == "default" else "SystemExit"
    hold = cluster.intercept(held, Hold())
    with program(cluster, where, handler, "with") as started:
        started.says("ready")
        hold.wait_for(1)
        started.send(number)
        started.says(f"interrupted by {raises}")
        ended = started.ends(WITHIN_S)
    assert ended.status == status, ended
    only_said(ended, raises)


def test_a_signal_while_the_interpreter_flushes_ends_it_at_once(cluster: EmbeddedKafka) -> None:
    hold = cluster.intercept("Produce", Hold())
    with child("-m", "tests.shutdown.patient", cluster.client_options()["bootstrap_servers"]) as started:
        started.says("ready")
        hold.wait_for(1)
        started.send(signal.SIGINT)
        ended = started.ends(WITHIN_S)
    assert "1 of orders" in ended.err or "'orders': 1" in ended.err
    assert ended.seconds < 60
