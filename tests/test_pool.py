from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
from kafka.errors import (
    KafkaConnectionError,
    KafkaTimeoutError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)
from kafka.protocol.metadata import ApiVersionsRequest, MetadataRequest
from kafka.protocol.sasl import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
    SaslHandshakeRequest,
    SaslHandshakeResponse,
)

from pooledkafka import (
    Admin,
    ConfigurationError,
    ConnectFailedError,
    ConnectionPool,
    Consumer,
    PoolClosedError,
    PoolTimeoutError,
    Producer,
)
from pooledkafka._wire import manager
from pooledkafka._wire.lanes import Lane, LaneKey
from pooledkafka._wire.receiving import receive_in_bulk
from tests.scripted_broker import Farewell, Hangup, ScriptedBroker, closed_port

SASL: dict[str, Any] = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_plain_username": "shop",
    "sasl_plain_password": "hunter2",
}


class Client:
    """As little of a client as a pool needs."""

    def __init__(
        self, kind: str = "consumer", ended: list[Client] | None = None, error: Exception | None = None
    ) -> None:
        self.kind = kind
        self.ended = [] if ended is None else ended
        self.timeouts_ms: list[float] = []
        self._error = error

    def _tell_to_end(self) -> None:
        """It is in no call."""

    def _detach(self, timeout_ms: float, wait_ms: float) -> bool:
        self.timeouts_ms.append(timeout_ms)
        self.ended.append(self)
        if self._error is not None:
            raise self._error
        return True

    def _waits_for_me(self) -> bool:
        return False


def attach(pool: ConnectionPool, client: Any) -> Any:
    pool._connect_if_new()  # as clients do, before they take a lock of theirs
    return pool._attach(client)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(("kafka-io", "pooledkafka"))}


def open_control_lane(pool: ConnectionPool) -> None:
    pool.client._net.run(pool.client._manager.get_connection, LaneKey(1, Lane.CONTROL))


# -- options -----------------------------------------------------------------------------------------------------------


def test_options_are_checked_when_the_pool_is_made() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean bootstrap_servers"):
        ConnectionPool(bootstrap_serves="b:1")
    with pytest.raises(ConfigurationError, match="metadata_max_age_ms must not be negative"):
        ConnectionPool(metadata_max_age_ms=-1)


@pytest.mark.parametrize("option", ["max_in_flight_requests", "max_leased_connections", "fetch_buffer_bytes"])
@pytest.mark.parametrize("value", [-1, "many", True])
def test_a_limit_that_cannot_be_is_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=option):
        ConnectionPool(**{option: value})


@pytest.mark.parametrize("value", [-1, "soon", 500])
def test_a_request_timeout_that_cannot_be_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="request_timeout_ms"):
        ConnectionPool(request_timeout_ms=value)


def test_a_private_pool_has_the_request_timeout_of_its_client() -> None:
    assert Consumer(request_timeout_ms=7_000)._pool.options["request_timeout_ms"] == 7_000
    assert Producer(request_timeout_ms=100)._pool.options["request_timeout_ms"] == 501, "a fetch may wait for 500"
    assert Admin()._pool.options["request_timeout_ms"] == 30_000
    pool = ConnectionPool(request_timeout_ms=9_000)
    assert Consumer(request_timeout_ms=7_000, connection_pool=pool)._pool is pool, "each has its own"


# -- connecting --------------------------------------------------------------------------------------------------------


def test_nothing_starts_before_connect(broker: ScriptedBroker) -> None:
    before = threads()
    pool = ConnectionPool(bootstrap_servers=broker.address)
    assert threads() == before
    assert broker.connections == 0
    with pytest.raises(PoolClosedError, match=r"the connection pool is new; call connect\(\) first"):
        _ = pool.client
    assert pool.stats().metadata_age_ms is None
    pool.disconnect()  # nothing to do


def test_connecting_finds_the_cluster_and_keeps_no_bootstrap_connection(
    pool: ConnectionPool, broker: ScriptedBroker
) -> None:
    pool.connect()
    assert [node.node_id for node in pool.client.cluster.brokers()] == [1]
    stats = pool.stats()
    assert stats.connections == {}
    assert stats.metadata_age_ms is not None
    assert broker.requests(MetadataRequest)


def test_connecting_twice_is_connecting_once(pool: ConnectionPool, broker: ScriptedBroker) -> None:
    pool.connect()
    client = pool.client
    pool.connect()
    assert pool.client is client
    assert broker.connections == 1


def test_two_threads_that_connect_at_once_share_one_connection(pool: ConnectionPool, broker: ScriptedBroker) -> None:
    both_came, answer = threading.Event(), broker._api_versions

    def slowly(request: Any) -> Any:
        assert both_came.wait(5)  # the first is in the middle of connecting when the second calls
        return answer(request)

    broker.on(ApiVersionsRequest, slowly)
    callers = [threading.Thread(target=pool.connect, daemon=True) for _ in range(2)]
    callers[0].start()
    broker.wait_for(ApiVersionsRequest)
    callers[1].start()
    both_came.set()
    for caller in callers:
        caller.join(5)
        assert not caller.is_alive()
    assert broker.connections == 1


def test_it_connects_anew_after_it_was_disconnected(pool: ConnectionPool, broker: ScriptedBroker) -> None:
    pool.connect()
    first = pool.client
    pool.disconnect()
    with pytest.raises(PoolClosedError, match="the connection pool is disconnected"):
        _ = pool.client
    pool.connect()
    assert pool.client is not first


def test_with_connects_and_disconnects(broker: ScriptedBroker) -> None:
    before = threads()
    with ConnectionPool(bootstrap_servers=broker.address, client_id="with") as pool:
        assert threads() - before == {"kafka-io-with", "pooledkafka-metadata"}
        assert pool.client is not None
    assert threads() == before


# -- not being able to connect -----------------------------------------------------------------------------------------


A_LONG_TIME_MS = 600_000  # what makes waiting useless is told long before


def test_a_refused_port_is_named() -> None:
    before = threads()
    with closed_port() as port:
        pool = ConnectionPool(bootstrap_servers=f"127.0.0.1:{port}")
        with pytest.raises(ConnectFailedError, match=f"127.0.0.1:{port}: .*ECONNREFUSED") as error:
            pool.connect(A_LONG_TIME_MS)
    assert isinstance(error.value, KafkaTimeoutError), "who catches kafka-python's catches ours"
    assert threads() == before
    assert repr(pool).count("[new |") == 1, "it may be tried again"


def test_a_name_that_does_not_resolve_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ConnectFailedError, match=r"kafka\.invalid:9092: .*DNS"):
        ConnectionPool(bootstrap_servers="kafka.invalid:9092").connect(A_LONG_TIME_MS)


def test_a_port_where_something_else_answers_is_named(broker: ScriptedBroker) -> None:
    broker.on(ApiVersionsRequest, lambda request: b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ConnectFailedError, match=f"{broker.address}: .*does not speak Kafka.*Invalid"):
        ConnectionPool(bootstrap_servers=broker.address).connect(A_LONG_TIME_MS)


@pytest.mark.parametrize("request_class", [ApiVersionsRequest, MetadataRequest])
def test_a_broker_that_hangs_up_is_named(broker: ScriptedBroker, request_class: Any) -> None:
    def hang_up(request: Any) -> Any:
        raise Hangup

    broker.on(request_class, hang_up)
    with pytest.raises(ConnectFailedError, match=f"{broker.address}: the broker closed the connection"):
        ConnectionPool(bootstrap_servers=broker.address).connect(A_LONG_TIME_MS)


def test_a_timeout_names_the_last_cause_of_each_address(broker: ScriptedBroker) -> None:
    broker.on(ApiVersionsRequest, lambda request: None)
    with closed_port() as port:
        pool = ConnectionPool(bootstrap_servers=[broker.address, f"127.0.0.1:{port}"])
        with pytest.raises(PoolTimeoutError, match=r"within 1000 ms; the last attempts failed") as error:
            pool.connect(timeout_ms=1_000)
    assert f"127.0.0.1:{port}: the connection was refused" in str(error.value)
    assert f"{broker.address}: RequestTimedOutError" in str(error.value)


def test_an_address_that_does_not_answer_leaves_time_for_the_others(broker: ScriptedBroker) -> None:
    with ScriptedBroker() as silent:
        silent.on(ApiVersionsRequest, lambda request: None)
        for _ in range(5):  # kafka-python picks one at random
            with ConnectionPool(bootstrap_servers=[silent.address, broker.address], bootstrap_timeout_ms=2_000) as pool:
                assert pool.stats().metadata_age_ms is not None


def test_one_address_that_answers_is_enough(broker: ScriptedBroker) -> None:
    with closed_port() as port:
        bad = [f"127.0.0.1:{port}", f"localhost:{port}"]
        with ConnectionPool(bootstrap_servers=[*bad, broker.address]) as pool:
            assert pool.stats().metadata_age_ms is not None


def test_a_broker_that_says_nothing_is_given_up_in_time(broker: ScriptedBroker) -> None:
    broker.on(ApiVersionsRequest, lambda request: None)
    before = threads()
    with pytest.raises(PoolTimeoutError, match=broker.address):
        ConnectionPool(bootstrap_servers=broker.address).connect(timeout_ms=200)
    assert threads() == before


def test_the_timeout_may_be_an_option(broker: ScriptedBroker) -> None:
    broker.on(ApiVersionsRequest, lambda request: None)
    with pytest.raises(PoolTimeoutError, match="within 150 ms"):
        ConnectionPool(bootstrap_servers=broker.address, bootstrap_timeout_ms=150).connect()


@pytest.mark.parametrize("hangs_up", [False, True], ids=["stays", "hangs up behind its answer"])
def test_wrong_credentials_are_refused_at_once(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch, hangs_up: bool
) -> None:
    broker.on(
        SaslHandshakeRequest,
        lambda request: SaslHandshakeResponse(version=request.API_VERSION, error_code=0, mechanisms=["PLAIN"]),
    )

    def refuse(request: Any) -> Any:
        response = SaslAuthenticateResponse(
            version=request.API_VERSION, error_code=58, error_message="wrong password", auth_bytes=b""
        )
        return Farewell(response) if hangs_up else response

    broker.on(SaslAuthenticateRequest, refuse)

    def receive_after_the_end(transport: Any) -> None:
        receive_in_bulk(transport)
        receive = transport._sock_recv

        def received() -> Any:
            if hangs_up and broker.requests(SaslAuthenticateRequest):
                assert broker.hung_up.wait(5)
            return receive()

        transport._sock_recv = received

    monkeypatch.setattr(manager, "receive_in_bulk", receive_after_the_end)
    with pytest.raises(SaslAuthenticationFailedError, match="wrong password"):
        ConnectionPool(bootstrap_servers=broker.address, **SASL).connect(timeout_ms=600_000)
    assert broker.connections == 1, "trying again would not have helped"


def test_a_mechanism_that_the_broker_lacks_is_refused_at_once(broker: ScriptedBroker) -> None:
    broker.on(
        SaslHandshakeRequest,
        lambda request: SaslHandshakeResponse(version=request.API_VERSION, error_code=33, mechanisms=["GSSAPI"]),
    )
    with pytest.raises(UnsupportedSaslMechanismError):
        ConnectionPool(bootstrap_servers=broker.address, **SASL).connect(timeout_ms=600_000)


def test_after_it_could_not_connect_it_can_be_tried_again(broker: ScriptedBroker) -> None:
    answer = broker._api_versions
    broker.on(ApiVersionsRequest, lambda request: None)
    pool = ConnectionPool(bootstrap_servers=broker.address)
    with pytest.raises(PoolTimeoutError):
        pool.connect(timeout_ms=100)
    broker.on(ApiVersionsRequest, answer)
    with pool:
        assert pool.stats().metadata_age_ms is not None


# -- disconnecting -----------------------------------------------------------------------------------------------------


def test_disconnecting_ends_consumers_first_within_the_timeout(pool: ConnectionPool) -> None:
    ended: list[Client] = []
    admin, consumer = Client("admin", ended=ended), Client("consumer", ended=ended)
    for client in (admin, consumer):
        attach(pool, client)
    pool.disconnect(timeout_ms=1_000)
    assert ended == [consumer, admin]
    assert all(0 <= timeout_ms <= 1_000 for client in ended for timeout_ms in client.timeouts_ms)
    assert pool.stats().consumers == pool.stats().admins == 0


def test_a_client_that_does_not_end_in_order_holds_up_no_other(
    pool: ConnectionPool, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[Client] = []
    clients = [Client(ended=ended, error=KafkaConnectionError("lost")) for _ in range(3)]
    for client in clients:
        attach(pool, client)
    pool.disconnect()
    assert len(ended) == 3
    assert caplog.text.count("client.not_ended") == 3
    assert threads() == set()


def test_disconnecting_closes_every_connection_and_the_thread(pool: ConnectionPool, broker: ScriptedBroker) -> None:
    before = threads()
    pool.connect()
    open_control_lane(pool)
    assert pool.stats().connections == {1: {"control": 1}}
    pool.disconnect()
    assert pool.stats().connections == {}
    assert threads() == before
    pool.disconnect()


def test_a_client_that_was_forgotten_is_not_ended(pool: ConnectionPool) -> None:
    gone, stays = Client(), Client()
    attach(pool, gone)
    attach(pool, stays)
    pool._forget(gone)
    pool._forget(gone)
    pool.disconnect()
    assert gone.ended == []
    assert stays.ended == [stays]


# -- attaching ---------------------------------------------------------------------------------------------------------


def test_the_first_client_connects_a_new_pool(pool: ConnectionPool) -> None:
    client, admin = Client(), Client("admin")
    engine = attach(pool, client)
    assert pool.client is engine.client
    assert attach(pool, admin) is engine
    assert (pool.stats().consumers, pool.stats().admins) == (1, 1)


def test_a_client_does_not_connect_a_pool_that_somebody_disconnected(pool: ConnectionPool) -> None:
    pool.connect()
    pool.disconnect()
    with pytest.raises(PoolClosedError, match=r"was disconnected; call connect\(\)"):
        attach(pool, Client())
    assert pool.stats().consumers == 0


def test_a_client_that_attaches_while_the_pool_connects_waits_for_it(
    pool: ConnectionPool, broker: ScriptedBroker
) -> None:
    go_on, answer = threading.Event(), broker._api_versions

    def slowly(request: Any) -> Any:
        assert go_on.wait(5)
        return answer(request)

    broker.on(ApiVersionsRequest, slowly)
    engines: list[Any] = []
    connecting = threading.Thread(target=pool.connect, daemon=True)
    attaching = threading.Thread(target=lambda: engines.append(attach(pool, Client())), daemon=True)
    connecting.start()
    broker.wait_for(ApiVersionsRequest)
    attaching.start()
    go_on.set()
    for thread in (connecting, attaching):
        thread.join(5)
        assert not thread.is_alive()
    assert engines[0].client is pool.client
    assert broker.connections == 1


# -- looking at it -----------------------------------------------------------------------------------------------------


def test_its_numbers_follow_what_happens(pool: ConnectionPool, broker: ScriptedBroker) -> None:
    pool.connect()
    open_control_lane(pool)
    stats = pool.stats()
    assert stats.connections == {1: {"control": 1}}
    assert stats.connections_open == 1
    assert stats.connections_created == 2, "bootstrap and control"
    assert stats.connections_closed == 1
    assert stats.requests_in_flight == 0
    pool.disconnect()
    assert (pool.stats().connections_created, pool.stats().connections_closed) == (2, 2)
    pool.connect()
    assert (pool.stats().connections_created, pool.stats().connections_closed) == (3, 3)


def test_requests_in_flight_are_counted(pool: ConnectionPool, broker: ScriptedBroker) -> None:
    pool.connect()
    open_control_lane(pool)
    broker.on(MetadataRequest, lambda request: None)
    request = MetadataRequest(topics=[], allow_auto_topic_creation=True)
    pool.client._net.run(lambda: pool.client._manager.send(request, 1) and None)
    assert pool.stats().requests_in_flight == 1


def test_a_glance_at_its_repr_says_how_it_is(pool: ConnectionPool, broker: ScriptedBroker) -> None:
    assert repr(pool) == (
        f"<ConnectionPool '{broker.address}' [new | clients: 0 consumers, 0 producers | "
        "connections: 0 to 0 brokers | in flight: 0]>"
    )
    client = Client()
    attach(pool, client)
    open_control_lane(pool)
    assert "[connected | clients: 1 consumers, 0 producers | connections: 1 to 1 brokers" in repr(pool)
    pool.disconnect()
    assert "[disconnected | clients: 0 consumers" in repr(pool)


def test_no_password_is_shown(broker: ScriptedBroker) -> None:
    assert "hunter2" not in repr(ConnectionPool(bootstrap_servers=broker.address, **SASL))


def test_the_pools_own_options_reach_the_broker(broker: ScriptedBroker) -> None:
    with ConnectionPool(bootstrap_servers=broker.address, client_id="shop", allow_auto_create_topics=False):
        (_, request), *_ = broker.requests(MetadataRequest)
        assert request.allow_auto_topic_creation is False
        assert request.header.client_id == "shop"


@pytest.mark.parametrize("options", [{"bootstrap_servers": "localhost:http"}, {"client_dns_lookup": "never"}])
def test_options_that_kafka_python_cannot_use_are_a_configuration_error(options: dict[str, Any]) -> None:
    pool = ConnectionPool(**options)
    with pytest.raises(ConfigurationError, match="cannot be set up"):
        pool.connect(timeout_ms=100)
    with pytest.raises(PoolClosedError):
        pool.client  # noqa: B018


def test_every_connection_is_in_the_stats_those_of_its_client_too() -> None:
    with ScriptedBroker() as broker, ConnectionPool(bootstrap_servers=broker.address) as pool:
        pool.client._net.run(pool.client._manager.get_connection, 1)
        assert pool.stats().connections == {1: {"control": 1}}
