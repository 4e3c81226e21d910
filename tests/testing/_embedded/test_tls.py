"""The TLS listener: who can use it, and that others do no harm."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from kafka import KafkaConsumer, KafkaProducer
from kafka.protocol.metadata import MetadataRequest

from pooledkafka import Kafka
from pooledkafka.testing import ClusterError, EmbeddedKafka
from tests.pooled.waiting import until
from tests.testing._embedded.leaks import leaks_forgiven
from tests.testing._embedded.wire import Wire


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=2, listeners=["tls"]) as cluster:
        yield cluster


@pytest.fixture
def options(cluster: EmbeddedKafka) -> dict[str, Any]:
    return cluster.client_options("tls")


def address(options: dict[str, Any]) -> tuple[str, int]:
    host, _, port = options["bootstrap_servers"].split(",")[0].partition(":")
    return host, int(port)


def assert_serves(options: dict[str, Any]) -> None:
    with ssl_wire(options) as wire:
        assert len(wire.ask(MetadataRequest(topics=[]), 9).brokers) == 2


def ssl_wire(options: dict[str, Any]) -> Wire:
    wire = Wire(options["bootstrap_servers"].split(",")[0])
    wire.secure(ssl.create_default_context(cafile=options["ssl_cafile"]))
    return wire


# -- clients -----------------------------------------------------------------------------------------------------------


def test_kafka_python_can_use_it(options: dict[str, Any]) -> None:
    with leaks_forgiven():
        with KafkaProducer(**options) as producer:
            producer.send("t", b"x").get(timeout=10)
        consumer = KafkaConsumer("t", **options, auto_offset_reset="earliest", consumer_timeout_ms=10_000)
        assert next(consumer).value == b"x"
        consumer.close()
        del producer, consumer


def test_librdkafka_can_use_it(cluster: EmbeddedKafka, options: dict[str, Any]) -> None:
    producer = Producer(
        {
            "bootstrap.servers": options["bootstrap_servers"],
            "security.protocol": "SSL",
            "ssl.ca.location": options["ssl_cafile"],
        }
    )
    producer.produce("t", b"x")
    assert producer.flush(10) == 0
    assert cluster.high_watermark_of("t") == 1


def test_a_pool_can_use_it(cluster: EmbeddedKafka, options: dict[str, Any]) -> None:
    with leaks_forgiven():
        kafka = Kafka(**options)
        with kafka.connection_pool() as pool, kafka.producer(connection_pool=pool) as producer:
            producer.send("t", b"x").get(timeout=10)
        del kafka, pool, producer
    assert cluster.high_watermark_of("t") == 1


def test_the_certificate_is_good_enough_for_the_strictest_client(options: dict[str, Any]) -> None:
    context = ssl.create_default_context(cafile=options["ssl_cafile"])
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default since Python 3.13
    with Wire(options["bootstrap_servers"].split(",")[0]) as wire:
        wire.secure(context)
        assert wire.ask(MetadataRequest(topics=[]), 9).brokers


def test_it_advertises_itself(cluster: EmbeddedKafka, options: dict[str, Any]) -> None:
    with ssl_wire(options) as wire:
        brokers = wire.ask(MetadataRequest(topics=[]), 9).brokers
    assert ",".join(f"{broker.host}:{broker.port}" for broker in brokers) == options["bootstrap_servers"]


# -- those who cannot --------------------------------------------------------------------------------------------------


def test_a_client_without_tls_is_closed(options: dict[str, Any]) -> None:
    with Wire(options["bootstrap_servers"].split(",")[0]) as wire:
        wire.send(MetadataRequest(topics=[]), 9)
        assert wire.socket.recv(1_000)[:1] in (b"", b"\x15"), "nothing, or an alert of TLS"
        assert wire.has_ended()
    assert_serves(options)


@pytest.mark.parametrize("garbage", [b"\x00", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 70_000])
def test_garbage_is_closed(options: dict[str, Any], garbage: bytes) -> None:
    with socket.create_connection(address(options), 10) as sent:
        sent.sendall(garbage)
        sent.shutdown(socket.SHUT_WR)
        try:
            while sent.recv(1_000):
                pass
        except ConnectionResetError:
            pass
    assert_serves(options)


def test_a_client_that_does_not_know_the_authority_turns_away(options: dict[str, Any]) -> None:
    with Wire(options["bootstrap_servers"].split(",")[0]) as wire, pytest.raises(ssl.SSLCertVerificationError):
        wire.secure(ssl.create_default_context())
    assert_serves(options)


def test_a_client_of_tls_on_the_plaintext_listener_is_closed(cluster: EmbeddedKafka, options: dict[str, Any]) -> None:
    with Wire(cluster.address_of(1)) as wire, pytest.raises((ssl.SSLError, ConnectionResetError)):
        wire.secure(ssl.create_default_context(cafile=options["ssl_cafile"]))
    assert_serves(options)


def test_handshakes_that_never_end_do_not_keep_it_from_closing(cluster: EmbeddedKafka, options: dict[str, Any]) -> None:
    with socket.create_connection(address(options), 10) as silent, socket.create_connection(address(options)) as begun:
        begun.sendall(b"\x16\x03\x01\x02\x00")
        assert_serves(options)
        cluster.close()
        assert "pooledkafka-embedded" not in {thread.name for thread in threading.enumerate()}
        for each in (silent, begun):
            each.settimeout(10)
            try:
                assert each.recv(1) == b""
            except ConnectionResetError:
                pass


def test_a_broker_that_stops_ends_its_connections(cluster: EmbeddedKafka, options: dict[str, Any]) -> None:
    with ssl_wire(options) as wire, socket.create_connection(address(options), 10) as silent:
        wire.ask(MetadataRequest(topics=[]), 9)
        cluster.restart(1)
        assert wire.has_ended()
        try:
            assert silent.recv(1) == b""
        except ConnectionResetError:
            pass
    assert_serves(options)


# -- its file ----------------------------------------------------------------------------------------------------------


def test_the_authoritys_file_is_there_while_it_is_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cluster = EmbeddedKafka(brokers=1, listeners=["tls"])
    for _ in range(2):
        with cluster:
            path = cluster.client_options("tls")["ssl_cafile"]
            assert os.listdir(tmp_path) == [os.path.basename(path)]
            with open(path) as file:
                assert file.read().count("BEGIN CERTIFICATE") == 1
        assert os.listdir(tmp_path) == []


def test_without_trustme_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    cluster = EmbeddedKafka(brokers=1, listeners=["tls"])
    with pytest.raises(ClusterError, match=r"pip install 'pooledkafka\[embedded\]'"):
        cluster.open()
    with EmbeddedKafka(brokers=1) as plain:
        assert plain.node_ids == (1,)


def test_a_connection_that_is_cut_off_has_ended(cluster: EmbeddedKafka, options: dict[str, Any]) -> None:
    """Also one whose socket TLS has given up by then: as when a handshake is over that the client wanted no more."""
    context = ssl.create_default_context(cafile=options["ssl_cafile"])
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # where a broker has done its part when the client has
    for _ in range(20):
        secured = context.wrap_socket(socket.create_connection(address(options)), server_hostname="127.0.0.1")
        secured.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes by a reset
        secured.close()
    until(lambda: len(cluster.connections) == 20 and all(each.closed_at for each in cluster.connections))
