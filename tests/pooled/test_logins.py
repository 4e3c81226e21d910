"""Logging in, again and again, on every lane, while everything goes on."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from kafka.errors import SaslAuthenticationFailedError

from pooledkafka import ConnectionClosed, ConnectionPool, Kafka, Producer, Reauthenticated
from pooledkafka.testing import EmbeddedKafka, Hold
from tests.pooled.conftest import IMPATIENT
from tests.pooled.reading import Reader
from tests.pooled.tokens import Provider, unsecured_token
from tests.pooled.waiting import TIMEOUT_S, until
from tests.pooled.watching import POOL
from tests.pooled.writing import Writer

SESSION_MS = 2_000  # brokers take a second login a second after the first at the earliest
LASTING_LANES = {"control", "produce", "fetch"}


@pytest.fixture
def config() -> dict[str, str]:
    return {
        "connections.max.reauth.ms": str(SESSION_MS),
        "sasl.enabled.mechanisms": "PLAIN,OAUTHBEARER",
        "group.min.session.timeout.ms": "100",
    }


@pytest.fixture
def cluster(config: dict[str, str]) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(
        brokers=1, listeners=["sasl_plain"], config=config, credentials={"bob": "b", "eve": "e"}
    ) as cluster:
        cluster.create_topic("orders")
        yield cluster


@pytest.fixture
def lasting_cluster(config: dict[str, str]) -> Iterator[EmbeddedKafka]:
    """One whose sessions do not end."""
    with EmbeddedKafka(brokers=1, listeners=["sasl_plain"], config=config | {"connections.max.reauth.ms": "0"}) as made:
        made.create_topic("orders")
        yield made


@pytest.fixture
def kafka(cluster: EmbeddedKafka) -> Kafka:
    return Kafka(**cluster.client_options("sasl_plain"), **IMPATIENT, client_id=POOL)


def events(pool: ConnectionPool, kind: type) -> list[Any]:
    heard: list[Any] = []
    pool.add_listener(lambda event: heard.append(event) if isinstance(event, kind) else None)
    return heard


def lanes(heard: list[Any]) -> Counter[str]:
    return Counter(event.lane for event in list(heard))


def none_expired(cluster: EmbeddedKafka) -> bool:
    return not any(connection.expired for connection in cluster.connections)


def oauth(cluster: EmbeddedKafka, provider: Provider) -> dict[str, Any]:
    options = cluster.client_options("sasl_plain")
    del options["sasl_plain_username"], options["sasl_plain_password"]
    return (
        options
        | IMPATIENT
        | {
            "client_id": POOL,
            "sasl_mechanism": "OAUTHBEARER",
            "sasl_oauth_token_provider": provider,
        }
    )


# -- logging in again --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, 3], ids=["no limit", "3 in flight"])
def test_every_lane_logs_in_again_and_nobody_notices(
    cluster: EmbeddedKafka, kafka: Kafka, limit: int | None, record_property: Any
) -> None:
    with ExitStack() as stack:
        pool = stack.enter_context(kafka.connection_pool(max_in_flight_requests=limit))
        closed, again = events(pool, ConnectionClosed), events(pool, Reauthenticated)
        writer = Writer(stack.enter_context(kafka.producer(connection_pool=pool)))
        readers = [
            stack.enter_context(
                Reader(kafka.consumer("orders", connection_pool=pool, group_id=f"g{n}", auto_offset_reset="earliest"))
            )
            for n in range(2)
        ]
        while min(lanes(again)[lane] for lane in LASTING_LANES) < 3:
            writer.write("orders")
        for reader in readers:
            reader.gets(writer.written("orders"))
        assert not [event for event in closed if event.reason == "failed"]
        record_property("logins", dict(lanes(again)))
    assert none_expired(cluster)
    if limit is not None:
        assert cluster.most_outstanding() <= limit


def test_one_request_at_a_time_is_kept_to_by_logins_as_well(cluster: EmbeddedKafka, kafka: Kafka) -> None:
    with kafka.connection_pool(max_in_flight_requests=1) as pool, kafka.producer(connection_pool=pool) as producer:
        again, writer = events(pool, Reauthenticated), Writer(producer)
        while lanes(again)["produce"] < 2:
            writer.write("orders")
    assert cluster.most_outstanding() == 1
    assert none_expired(cluster)


@pytest.mark.parametrize("api", ["Fetch", "Produce"])
def test_a_request_that_outlasts_its_session_is_answered(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool, api: str
) -> None:
    closed, again = events(pool, ConnectionClosed), events(pool, Reauthenticated)
    with (
        kafka.producer(connection_pool=pool, linger_ms=0) as producer,
        Reader(kafka.consumer("orders", connection_pool=pool, group_id="g", auto_offset_reset="earliest")) as reader,
    ):
        writer = Writer(producer)
        writer.write("orders")
        reader.gets(writer.written("orders"))
        lane, other = api.lower(), {"Fetch": "produce", "Produce": "fetch"}[api]
        until(lambda: lanes(again)[lane] == 1)  # a session has just begun
        with cluster.intercept(api, Hold(), client_id=POOL, times=1) as hold:
            first = producer.send("orders", b"held", partition=0)
            hold.wait_for(1)
            others = lanes(again)[other]
            until(lambda: lanes(again)[other] >= others + 2)  # so the session of the one that is held is over
            second = producer.send("orders", b"meanwhile", partition=0)
            hold.release()
        assert (first.get(TIMEOUT_S).offset, second.get(TIMEOUT_S).offset) == (1, 2)
        reader.gets([*writer.written("orders"), b"held", b"meanwhile"])
        until(lambda: lanes(again)[lane] >= 2)
        assert not [event for event in closed if event.reason == "failed"]
    assert none_expired(cluster)


def test_a_join_that_outlasts_its_session_is_answered(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool
) -> None:
    closed, again = events(pool, ConnectionClosed), events(pool, Reauthenticated)
    with (
        cluster.intercept("JoinGroup", Hold(), client_id=POOL) as hold,
        Reader(kafka.consumer("orders", connection_pool=pool, group_id="g")) as reader,
    ):
        hold.wait_for(1)
        until(lambda: lanes(again)["control"] >= 2)
        hold.release()
        hold.remove()
        reader.is_assigned(1)
        assert not [event for event in closed if event.reason == "failed"]
        until(lambda: ("leased", "session ended") in {(event.lane, event.reason) for event in list(closed)})
    assert none_expired(cluster)


# -- tokens ------------------------------------------------------------------------------------------------------------


def test_a_fresh_token_for_each_login(cluster: EmbeddedKafka, record_property: Any) -> None:
    provider = Provider(lambda: unsecured_token(lifetime_s=2.5))
    kafka = Kafka(**oauth(cluster, provider))
    with kafka.connection_pool() as pool, kafka.producer(connection_pool=pool) as producer:
        again, writer = events(pool, Reauthenticated), Writer(producer)
        while lanes(again)["produce"] < 3:
            writer.write("orders")
        asked_by, given = provider.threads, provider.given
    assert asked_by == {"pooledkafka-token"}, "never on the I/O thread"
    assert len(set(given)) == len(given) >= 4
    assert none_expired(cluster)
    assert {connection.principal for connection in cluster.connections if POOL in connection.client_ids} == {"shop"}
    record_property("tokens", len(given))


def test_a_provider_that_takes_its_time_keeps_nobody_waiting(lasting_cluster: EmbeddedKafka) -> None:
    asked, go_on = threading.Event(), threading.Event()
    provider = Provider()
    kafka = Kafka(**oauth(lasting_cluster, provider))
    with kafka.connection_pool() as pool, kafka.producer(connection_pool=pool) as producer:
        writer = Writer(producer)
        writer.write("orders")

        def take_time() -> str:
            asked.set()
            assert go_on.wait(TIMEOUT_S)
            return unsecured_token()

        provider.make = take_time
        with Reader(kafka.consumer("orders", connection_pool=pool, auto_offset_reset="earliest")) as reader:
            assert asked.wait(TIMEOUT_S)  # for the lanes that the consumer needs
            writer.write("orders", 5)
            assert not reader.values
            go_on.set()
            reader.gets(writer.written("orders"))


def test_a_provider_that_fails_for_a_moment_is_asked_again(cluster: EmbeddedKafka) -> None:
    provider = Provider()
    kafka = Kafka(**oauth(cluster, provider))
    with kafka.connection_pool() as pool, kafka.producer(connection_pool=pool) as producer:
        writer, again = Writer(producer), events(pool, Reauthenticated)
        closed, failures = events(pool, ConnectionClosed), 0
        writer.write("orders")

        def fail_once() -> str:
            nonlocal failures
            failures += 1
            if failures == 1:
                raise OSError("the token server restarts")
            return unsecured_token()

        provider.make = fail_once
        while not lanes(again)["produce"]:
            writer.write("orders")
        assert failures >= 2
        assert not [event for event in closed if event.reason == "failed"]


def out_of_order() -> str:
    raise OSError("the token server is down")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (out_of_order, "Provider.* raised OSError.*the token server is down"),
        (lambda: "", "Provider.* raised TypeError.*empty string"),
        (lambda: unsecured_token(lifetime_s=-1), "login by OAUTHBEARER was refused: .*"),
    ],
    ids=["raises", "returns nothing", "returns an expired one"],
)
def test_a_provider_without_a_token_is_told_at_once(cluster: EmbeddedKafka, make: Any, says: str) -> None:
    pool = ConnectionPool(**oauth(cluster, Provider(make)))
    with pytest.raises(SaslAuthenticationFailedError, match=says) as error:
        pool.connect(timeout_ms=600_000)
    assert cluster.client_options("sasl_plain")["bootstrap_servers"] in str(error.value)
    if make is out_of_order:
        assert isinstance(error.value.__cause__, SaslAuthenticationFailedError)
        assert isinstance(error.value.__cause__.__cause__, OSError), "the cause is kept"


def test_a_provider_that_hangs_is_named(cluster: EmbeddedKafka) -> None:
    go_on = threading.Event()

    def hang() -> str:
        go_on.wait(TIMEOUT_S)
        return unsecured_token()

    pool = ConnectionPool(**oauth(cluster, Provider(hang)), socket_connection_setup_timeout_ms=300)
    try:
        with pytest.raises(SaslAuthenticationFailedError, match="has not returned a token within"):
            pool.connect(timeout_ms=600_000)
    finally:
        go_on.set()


# -- who is who --------------------------------------------------------------------------------------------------------


def test_pools_with_other_credentials_share_nothing(cluster: EmbeddedKafka) -> None:
    options = cluster.client_options("sasl_plain") | IMPATIENT
    with ExitStack() as stack:
        producers: dict[str, Producer] = {}
        for name, password in (("bob", "b"), ("eve", "e")):
            own = options | {"sasl_plain_username": name, "sasl_plain_password": password, "client_id": name}
            pool = stack.enter_context(ConnectionPool(**own))
            producers[name] = stack.enter_context(Producer(connection_pool=pool))
            stack.enter_context(Reader(Kafka(**own).consumer("orders", connection_pool=pool, group_id=name)))
            # One of equal credentials, but private.
            producers[f"{name}-private"] = stack.enter_context(Producer(**own | {"client_id": f"{name}-private"}))
        for producer in producers.values():
            Writer(producer).write("orders")
        seen = {
            (client_id, connection.principal)
            for connection in cluster.connections
            for client_id in connection.client_ids
            if connection.principal is not None  # else it is just being opened
        }
        assert {(name, name.partition("-")[0]) for name in producers} <= seen
        assert all(principal == client_id.partition("-")[0] for client_id, principal in seen if client_id in producers)
        assert all(len(connection.client_ids) == 1 for connection in cluster.connections), "no connection is shared"
        assert len({id(producer._opened()) for producer in producers.values()}) == len(producers)
        assert len({id(producer._pool.client.cluster) for producer in producers.values()}) == len(producers)


# -- a password that is changed ----------------------------------------------------------------------------------------


@pytest.fixture
def bobs_pool(cluster: EmbeddedKafka) -> Iterator[ConnectionPool]:
    options = cluster.client_options("sasl_plain") | IMPATIENT
    with ConnectionPool(**options | {"sasl_plain_username": "bob", "sasl_plain_password": "b"}) as pool:
        yield pool


def test_clients_are_told_when_the_pool_is_not_let_in_any_more(
    cluster: EmbeddedKafka, kafka: Kafka, bobs_pool: ConnectionPool
) -> None:
    with (
        kafka.producer(connection_pool=bobs_pool) as producer,
        kafka.consumer("orders", connection_pool=bobs_pool, group_id="g", auto_offset_reset="earliest") as consumer,
    ):
        producer.send("orders", b"before").get(TIMEOUT_S)
        until(lambda: consumer.poll(100))
        cluster.set_password("bob", "changed")
        address = cluster.client_options("sasl_plain")["bootstrap_servers"]
        for call in (lambda: consumer.poll(100), lambda: producer.send("orders", b"meanwhile")):
            error = until(lambda call=call: error_of(call))  # type: ignore[misc]
            assert isinstance(error, SaslAuthenticationFailedError)
            assert f"{address}: the login by PLAIN was refused: Authentication failed" in str(error)
        cluster.set_password("bob", "b")
        until(lambda: error_of(lambda: producer.send("orders", b"after").get(TIMEOUT_S)) is None)
        until(lambda: b"after" in values_of(consumer))


def error_of(call: Callable[[], Any]) -> SaslAuthenticationFailedError | None:
    try:
        call()
    except SaslAuthenticationFailedError as error:
        return error
    return None


def values_of(consumer: Any) -> set[bytes]:
    found: set[bytes] = set()

    def poll() -> None:
        found.update(record.value for records in consumer.poll(100).values() for record in records)

    assert error_of(poll) is None or not found
    return found


def test_what_was_sent_before_is_delivered_once_it_is_let_in_again(
    cluster: EmbeddedKafka, kafka: Kafka, bobs_pool: ConnectionPool
) -> None:
    with kafka.producer(connection_pool=bobs_pool) as producer:
        producer.send("orders", b"first").get(TIMEOUT_S)
        with cluster.intercept("Produce", Hold(), times=1) as hold:
            held = producer.send("orders", b"held")
            hold.wait_for(1)
            cluster.set_password("bob", "changed")
            cluster.kill(1)
        cluster.start(1)
        until(lambda: error_of(lambda: producer.send("orders", b"refused")))
        cluster.set_password("bob", "b")
        assert held.get(TIMEOUT_S) is not None
