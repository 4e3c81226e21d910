"""SASL/PLAIN: who is let in, and what those are told who are not."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import (
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)
from kafka.protocol.metadata import ApiVersionsRequest, MetadataRequest
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from pooledkafka import Kafka
from pooledkafka.testing import EmbeddedKafka, Error
from tests.testing._embedded.leaks import leaks_forgiven
from tests.testing._embedded.wire import Wire


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=2, listeners=["sasl_plain"], credentials={"bob": "b\u00e4r"}) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: EmbeddedKafka) -> EmbeddedKafka:
    return shared_cluster


@pytest.fixture
def options(cluster: EmbeddedKafka) -> dict[str, Any]:
    return cluster.client_options("sasl_plain")


@pytest.fixture
def wire(options: dict[str, Any]) -> Iterator[Wire]:
    with Wire(options["bootstrap_servers"].split(",")[0]) as wire:
        yield wire


def token(username: str, password: str, authorization_id: str = "") -> bytes:
    return f"{authorization_id}\0{username}\0{password}".encode()


# -- clients -----------------------------------------------------------------------------------------------------------


def test_kafka_python_is_let_in(cluster: EmbeddedKafka, options: dict[str, Any]) -> None:
    with KafkaProducer(**options) as producer:
        producer.send("python", b"x").get(timeout=10)
    consumer = KafkaConsumer("python", **options, auto_offset_reset="earliest", consumer_timeout_ms=10_000)
    assert next(consumer).value == b"x"
    consumer.close()


def test_librdkafka_is_let_in(cluster: EmbeddedKafka, options: dict[str, Any]) -> None:
    producer = Producer(
        {
            "bootstrap.servers": options["bootstrap_servers"],
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "bob",
            "sasl.password": "b\u00e4r",
        }
    )
    producer.produce("confluent", b"x")
    assert producer.flush(10) == 0
    assert cluster.high_watermark_of("confluent") == 1


def test_a_pool_is_let_in(cluster: EmbeddedKafka, options: dict[str, Any]) -> None:
    kafka = Kafka(**options)
    with kafka.connection_pool() as pool, kafka.producer(connection_pool=pool) as producer:
        producer.send("pooled", b"x").get(timeout=10)
    assert cluster.high_watermark_of("pooled") == 1


@pytest.mark.parametrize("wrong", [{"sasl_plain_password": "guessed"}, {"sasl_plain_username": "somebody"}])
def test_kafka_python_is_told_why_not(options: dict[str, Any], wrong: dict[str, str]) -> None:
    clients = []

    def client(**config: Any) -> Any:
        clients.append(KafkaProducer.DEFAULT_CONFIG["kafka_client"](**config))
        return clients[-1]

    with leaks_forgiven():
        with pytest.raises(KafkaError, match="Unable to bootstrap"):
            KafkaProducer(**options | wrong, bootstrap_timeout_ms=500, kafka_client=client)
        clients.pop().close()


# -- the exchange ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(3))
def test_all_versions_of_the_exchange(wire: Wire, version: int) -> None:
    assert wire.ask(ApiVersionsRequest(), 0).error_code == 0, "what the broker serves anybody may know"
    shaken = wire.ask(SaslHandshakeRequest(mechanism="PLAIN"), 1)
    assert (shaken.error_code, shaken.mechanisms) == (0, ["PLAIN"])
    answered = wire.ask(SaslAuthenticateRequest(auth_bytes=token("bob", "b\u00e4r", "bob")), version)
    assert (answered.error_code, answered.error_message, answered.auth_bytes) == (0, None, b"")
    assert wire.ask(MetadataRequest(topics=[]), 9).brokers
    again = wire.ask(SaslHandshakeRequest(mechanism="PLAIN"), 1)
    assert (again.error_code, again.mechanisms) == (IllegalSaslStateError.errno, [])
    late = wire.ask(SaslAuthenticateRequest(auth_bytes=token("bob", "b\u00e4r")), version)
    assert late.error_code == IllegalSaslStateError.errno
    assert "after successful authentication" in late.error_message
    assert wire.ask(MetadataRequest(topics=[]), 9).brokers


INVALID = "due to invalid credentials with SASL mechanism PLAIN"


@pytest.mark.parametrize(
    ("auth_bytes", "said"),
    [
        (token("bob", "bar"), "Invalid username or password"),
        (token("alice", "b\u00e4r"), "Invalid username or password"),
        (token("bob", "b\u00e4r", "alice"), "an authorization id that is different from username"),
        (token("", "b\u00e4r"), INVALID),
        (token("bob", ""), INVALID),
        (b"bob b\xe4r", INVALID),
        (b"\0bob\0b\xe4r", "Invalid username or password"),
        (b"", INVALID),
    ],
)
def test_wrong_credentials_are_answered_and_the_connection_closed(wire: Wire, auth_bytes: bytes, said: str) -> None:
    wire.ask(SaslHandshakeRequest(mechanism="PLAIN"), 1)
    answered = wire.ask(SaslAuthenticateRequest(auth_bytes=auth_bytes), 2)
    assert answered.error_code == SaslAuthenticationFailedError.errno
    assert said in answered.error_message
    assert wire.has_ended()


def test_an_unknown_mechanism_is_answered_with_those_there_are_and_the_connection_closed(wire: Wire) -> None:
    answered = wire.ask(SaslHandshakeRequest(mechanism="SCRAM-SHA-256"), 1)
    assert (answered.error_code, answered.mechanisms) == (UnsupportedSaslMechanismError.errno, ["PLAIN"])
    assert wire.has_ended()


def test_nothing_else_is_served_before(wire: Wire) -> None:
    wire.send(MetadataRequest(topics=[]), 9)
    assert wire.has_ended()


def is_refused_and_ended(wire: Wire) -> bool:
    """Whether another request than the token is answered with an error and ends the connection."""
    asked = MetadataRequest.MetadataRequestTopic(name="any")
    (topic,) = wire.ask(MetadataRequest(topics=[asked]), 9).topics
    return topic.error_code == IllegalSaslStateError.errno and wire.has_ended()


def test_nothing_else_is_served_between(wire: Wire) -> None:
    wire.ask(SaslHandshakeRequest(mechanism="PLAIN"), 1)
    assert is_refused_and_ended(wire)


def test_credentials_without_a_handshake_close_the_connection(wire: Wire) -> None:
    wire.send(SaslAuthenticateRequest(auth_bytes=token("bob", "b\u00e4r")), 2)
    assert wire.has_ended()


def test_a_second_handshake_ends_the_connection(wire: Wire) -> None:
    wire.ask(SaslHandshakeRequest(mechanism="PLAIN"), 1)
    assert wire.ask(SaslHandshakeRequest(mechanism="PLAIN"), 1).error_code == IllegalSaslStateError.errno
    assert wire.has_ended()


# -- without headers ---------------------------------------------------------------------------------------------------


def send_raw(wire: Wire, data: bytes) -> None:
    wire.socket.sendall(struct.pack(">i", len(data)) + data)


def test_an_old_clients_token_comes_without_a_header(cluster: EmbeddedKafka, wire: Wire) -> None:
    assert wire.ask(SaslHandshakeRequest(mechanism="PLAIN"), 0).error_code == 0
    send_raw(wire, token("bob", "b\u00e4r"))
    assert wire.receive_frame() == b""
    assert wire.ask(MetadataRequest(topics=[]), 9).brokers
    record = cluster.connections[-1]
    assert [exchange.api for exchange in record.exchanges] == ["SaslHandshake", "token", "Metadata"]


def test_an_old_client_with_a_wrong_password_hears_nothing(wire: Wire) -> None:
    wire.ask(SaslHandshakeRequest(mechanism="PLAIN"), 0)
    send_raw(wire, token("bob", "wrong"))
    assert wire.has_ended()


# -- elsewhere ---------------------------------------------------------------------------------------------------------


def test_on_a_plaintext_listener_there_is_nothing_to_authenticate(cluster: EmbeddedKafka) -> None:
    with Wire(cluster.address_of(1)) as wire:
        shaken = wire.ask(SaslHandshakeRequest(mechanism="PLAIN"), 1)
        assert (shaken.error_code, shaken.mechanisms) == (IllegalSaslStateError.errno, [])
        answered = wire.ask(SaslAuthenticateRequest(auth_bytes=token("bob", "b\u00e4r")), 2)
        assert answered.error_code == IllegalSaslStateError.errno
        assert wire.ask(MetadataRequest(topics=[]), 9).brokers


def test_a_fault_refuses_both_and_lets_nobody_in(cluster: EmbeddedKafka, wire: Wire) -> None:
    with cluster.intercept("SaslHandshake", Error(UnsupportedSaslMechanismError), times=1):
        refused = wire.ask(SaslHandshakeRequest(mechanism="PLAIN"), 1)
    assert refused.error_code == UnsupportedSaslMechanismError.errno
    wire.ask(SaslHandshakeRequest(mechanism="PLAIN"), 1)
    with cluster.intercept("SaslAuthenticate", Error(SaslAuthenticationFailedError), times=1):
        answered = wire.ask(SaslAuthenticateRequest(auth_bytes=token("bob", "b\u00e4r")), 2)
    assert answered.error_code == SaslAuthenticationFailedError.errno
    assert is_refused_and_ended(wire)
