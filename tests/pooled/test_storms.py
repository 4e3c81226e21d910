"""What many clients do to a broker that fails and comes back: little more than one would, counted by the broker."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import pytest
from kafka.errors import CoordinatorNotAvailableError

from pooledkafka import ConnectionPool, Kafka
from pooledkafka._wire.leases import AT_ONCE
from pooledkafka.testing import EmbeddedKafka, Error, Hold
from tests.pooled.reading import Reader
from tests.pooled.waiting import until
from tests.pooled.watching import POOL, outstanding
from tests.pooled.writing import Writer

LANES = 4
BACKOFF = {"reconnect_backoff_ms": 20, "reconnect_backoff_max_ms": 100}
SHORTEST = 0.8
"""Of a pause; the jitter is 20% either way."""
PATIENT: dict[str, Any] = {"session_timeout_ms": 30_000}


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=1) as cluster:
        cluster.create_topic("orders")
        yield cluster


class Refuser:
    """Listens where a broker was and ends each connection at once; a context manager. Counts them."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_server((host, int(port)))
        self.at: list[float] = []  # when each was seen; the thread's, read by any
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Refuser:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while True:
            try:
                accepted, _ = self._socket.accept()
            except OSError:
                return
            self.at.append(time.monotonic())
            accepted.close()


def many(kafka: Kafka, pool: ConnectionPool, stack: ExitStack, count: int) -> list[Reader]:
    """Consumers in groups of their own, all started at once."""
    options = {"connection_pool": pool, "auto_offset_reset": "earliest", **PATIENT}
    return [stack.enter_context(Reader(kafka.consumer("orders", group_id=f"g{n}", **options))) for n in range(count)]


def opened(cluster: EmbeddedKafka, since: float = 0.0) -> int:
    """How many connections the pool has made."""
    return sum(POOL in each.client_ids and each.opened_at > since for each in cluster.connections)


# -- an outage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clients", [1, 30])
def test_a_broker_that_is_down_is_tried_as_the_backoff_says_whatever_the_number_of_clients(
    cluster: EmbeddedKafka, clients: int
) -> None:
    kafka = Kafka(**cluster.client_options(), **BACKOFF, client_id=POOL)
    with kafka.connection_pool() as pool, ExitStack() as stack:
        readers = many(kafka, pool, stack, clients)
        # Each setting has a sender of its own, which looks after its connection by itself.
        writers = [
            Writer(stack.enter_context(kafka.producer(connection_pool=pool, linger_ms=n)))
            for n in range(min(clients, 5))
        ]
        for writer in writers:
            writer.write("orders")
        written = len(writers)
        for each in readers:
            until(lambda each=each: len(each.values) == written)  # type: ignore[misc]
        began = time.monotonic()
        cluster.kill(1)
        with Refuser(cluster.address_of(1)) as refuser:
            until(lambda: len(refuser.at) >= 12)
        # Two may come at once: of what was on the control lane, to be sent again, and of what was the first to fail.
        earliest = began
        for number, at in enumerate(refuser.at[1:]):
            assert at >= earliest, f"attempt {number + 2} came too soon"
            earliest += SHORTEST * min(BACKOFF["reconnect_backoff_ms"] * 2**number, 100) / 1000
        back = time.monotonic()
        cluster.start(1)
        for writer in writers:
            writer.write("orders")
        for each in readers:
            until(lambda each=each: len(each.values) == 2 * written)  # type: ignore[misc]
        assert opened(cluster, since=back) <= LANES


# -- joins -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def kafka(cluster: EmbeddedKafka) -> Kafka:
    return Kafka(**cluster.client_options(), **BACKOFF, client_id=POOL)


def test_many_groups_that_join_at_once_take_turns_on_few_connections(cluster: EmbeddedKafka, kafka: Kafka) -> None:
    began = time.monotonic()
    with kafka.connection_pool(leased_connections_per_second=1) as pool, ExitStack() as stack:
        for each in many(kafka, pool, stack, 60):
            each.is_assigned(1)
        leased = pool.stats().connections[1].get("leased", 0)
        assert 0 < leased <= AT_ONCE + (time.monotonic() - began)
        assert opened(cluster) <= 1 + LANES + AT_ONCE + (time.monotonic() - began)


def test_joins_that_wait_for_others_keep_nobody_out(cluster: EmbeddedKafka, kafka: Kafka) -> None:
    """Whom they wait for may be in another pool, where it waits for groups that have not had their turn here."""
    with kafka.connection_pool(leased_connections_per_second=200) as pool, ExitStack() as stack:
        hold = stack.enter_context(cluster.intercept("JoinGroup", Hold(), client_id=POOL))
        readers = many(kafka, pool, stack, 3 * AT_ONCE)
        until(lambda: len(outstanding(cluster, "JoinGroup")) == 3 * AT_ONCE)
        hold.release()
        for each in readers:
            each.is_assigned(1)


def test_all_members_of_a_group_join_together(cluster: EmbeddedKafka, kafka: Kafka) -> None:
    cluster.create_topic("wide", partitions=2 * AT_ONCE)
    with kafka.connection_pool(leased_connections_per_second=0.001) as pool, ExitStack() as stack:
        members = [
            stack.enter_context(Reader(kafka.consumer("wide", group_id="g", connection_pool=pool, **PATIENT)))
            for _ in range(2 * AT_ONCE)
        ]
        until(lambda: all(len(each.assignment) == 1 for each in members))


def test_a_broker_that_takes_no_more_connections_serves_all_on_those_it_took(kafka: Kafka) -> None:
    with EmbeddedKafka(brokers=1, config={"max.connections.per.ip": str(LANES + 2)}) as cluster, ExitStack() as stack:
        cluster.create_topic("orders")
        kafka = Kafka(**cluster.client_options(), **BACKOFF, client_id=POOL)
        pool = stack.enter_context(kafka.connection_pool())
        for each in many(kafka, pool, stack, 20):
            each.is_assigned(1)
        writer = Writer(stack.enter_context(kafka.producer(connection_pool=pool)))
        writer.write("orders")


# -- looking for coordinators ------------------------------------------------------------------------------------------


def test_many_groups_look_for_their_coordinators_together(cluster: EmbeddedKafka, kafka: Kafka) -> None:
    with kafka.connection_pool() as pool, ExitStack() as stack:
        searches = cluster.intercept("FindCoordinator", Error(CoordinatorNotAvailableError), client_id=POOL)
        readers = many(kafka, pool, stack, 30)
        # Who asks for the first time waits for what is on its way only: once they all have, they wait for each other.
        until(lambda: len({key for each in searches.requests for key in each.coordinator_keys}) == 30)
        began, first = time.monotonic(), len(searches.requests)
        until(lambda: len(searches.requests) >= first + 10 and len(searches.requests[-1].coordinator_keys) == 30)
        assert len(searches.requests) - first <= 1 + (time.monotonic() - began) / (0.1 * SHORTEST)
        searches.remove()
        for each in readers:
            each.is_assigned(1)
