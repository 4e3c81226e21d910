"""TLS on every lane, and what is said where it fails."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError

from pooledkafka import ConfigurationError, ConnectFailedError, ConnectionPool, Kafka, PoolTimeoutError
from pooledkafka.testing import EmbeddedKafka
from tests.pooled.certificates import Authority, server_context
from tests.pooled.conftest import IMPATIENT
from tests.pooled.reading import Reader
from tests.pooled.watching import POOL
from tests.pooled.writing import Writer

A_LONG_TIME_MS = 600_000


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    (tmp_path / "stranger").mkdir()
    return Authority(tmp_path / "stranger")


@contextmanager
def brokers(context: ssl.SSLContext) -> Iterator[dict[str, Any]]:
    """An embedded cluster with this side of TLS; the options to reach it."""
    with EmbeddedKafka(brokers=1, listeners=["tls"], ssl_context=context) as cluster:
        cluster.create_topic("orders")
        yield cluster.client_options("tls") | IMPATIENT | {"client_id": POOL}
        assert not [each for each in cluster.connections if POOL in each.client_ids and each.listener != "tls"]


def uses_every_lane(options: dict[str, Any]) -> None:
    kafka = Kafka(**options)
    with kafka.connection_pool() as pool, kafka.producer(connection_pool=pool) as producer:
        consumer = kafka.consumer("orders", connection_pool=pool, group_id="g", auto_offset_reset="earliest")
        with Reader(consumer) as reader:
            writer = Writer(producer)
            writer.write("orders")
            reader.gets(writer.written("orders"))
            (lanes,) = pool.stats().connections.values()
            assert {"control", "produce", "leased"} <= set(lanes)
            engine = pool._connection.engine  # type: ignore[union-attr]
            used = {each.transport._sock for _, each in engine.manager.connections() if each.connected}
            assert used.difference(engine.net.sockets) == set(), "a forked process would not close them"


def refused(options: dict[str, Any], says: str, record_property: Any) -> ConnectFailedError:
    address = re.escape(str(options["bootstrap_servers"]))
    began = time.monotonic()
    with pytest.raises(ConnectFailedError, match=f"{address}: .*{says}") as error:
        ConnectionPool(**options).connect(A_LONG_TIME_MS)
    record_property("told_ms", round((time.monotonic() - began) * 1000))
    assert isinstance(error.value, KafkaTimeoutError), "who catches kafka-python's catches ours"
    return error.value  # type: ignore[no-any-return]


def test_a_certificate_that_is_right(authority: Authority) -> None:
    with brokers(server_context(authority.issue("127.0.0.1"))) as options:
        uses_every_lane(options | {"ssl_cafile": authority.cafile})


def test_an_authority_that_is_not_known(authority: Authority, stranger: Authority, record_property: Any) -> None:
    with brokers(server_context(authority.issue("127.0.0.1"))) as options:
        error = refused(options, "not trusted: .*unable to get local issuer", record_property)  # by default
        assert error.__cause__ is not None
        assert isinstance(error.__cause__.__cause__, ssl.SSLCertVerificationError)
        refused(options | {"ssl_cafile": stranger.cafile}, "not trusted: ", record_property)


def test_a_certificate_that_has_expired(authority: Authority, record_property: Any) -> None:
    with brokers(server_context(authority.issue("127.0.0.1", expired=True))) as options:
        refused(options | {"ssl_cafile": authority.cafile}, "not trusted: certificate has expired", record_property)


def test_a_certificate_of_another_host(authority: Authority, record_property: Any) -> None:
    with brokers(server_context(authority.issue("kafka.example"))) as options:
        options["ssl_cafile"] = authority.cafile
        refused(options, "not trusted: .*IP address mismatch", record_property)
        uses_every_lane(options | {"ssl_check_hostname": False})


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
class TestClientCertificates:
    @pytest.fixture
    def options(self, authority: Authority, version: ssl.TLSVersion) -> Iterator[dict[str, Any]]:
        context = server_context(authority.issue("127.0.0.1"), clients=authority)
        context.minimum_version = context.maximum_version = version
        with brokers(context) as options:
            yield options | {"ssl_cafile": authority.cafile}

    def test_with(self, options: dict[str, Any], authority: Authority) -> None:
        uses_every_lane(options | authority.files_of(authority.issue("shop"), "shop"))

    def test_with_an_encrypted_key(self, options: dict[str, Any], authority: Authority) -> None:
        options |= authority.files_of(authority.issue("shop"), "shop", password="hunter2")
        uses_every_lane(options | {"ssl_password": "hunter2"})
        for wrong in (None, "guessed"):  # None: OpenSSL would ask for it on the terminal
            with pytest.raises(ConfigurationError, match=r"TLS cannot be set up .*shop\.key.* ssl_password") as error:
                ConnectionPool(**options, ssl_password=wrong).connect(A_LONG_TIME_MS)
            assert "guessed" not in str(error.value)

    def test_with_a_context_of_the_users(self, options: dict[str, Any], authority: Authority) -> None:
        context = ssl.create_default_context(cafile=options.pop("ssl_cafile"))
        context.load_cert_chain(*authority.files_of(authority.issue("shop"), "shop").values())
        uses_every_lane(options | {"ssl_context": context})

    def test_without(self, options: dict[str, Any], record_property: Any) -> None:
        refused(options, "(refused the TLS handshake|closed the connection|closed during the TLS)", record_property)

    def test_with_one_that_the_broker_does_not_know(
        self, options: dict[str, Any], stranger: Authority, record_property: Any
    ) -> None:
        options |= stranger.files_of(stranger.issue("shop"), "shop")
        refused(options, "(refused the TLS handshake|closed the connection|closed during the TLS)", record_property)


def test_brokers_that_are_too_old(authority: Authority, record_property: Any) -> None:
    context = server_context(authority.issue("127.0.0.1"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    ours = ssl.create_default_context(cafile=authority.cafile)
    ours.maximum_version = ssl.TLSVersion.TLSv1_2
    with brokers(context) as options:
        refused(options | {"ssl_context": ours}, "(refused the TLS handshake|closed during the TLS)", record_property)


@pytest.mark.parametrize("option", ["ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile"])
def test_a_file_that_is_not_there(option: str) -> None:
    options: dict[str, Any] = {"bootstrap_servers": "127.0.0.1:1", "security_protocol": "SSL", option: "/nowhere.pem"}
    pool = ConnectionPool(**options)
    with pytest.raises(ConfigurationError, match=f"{option}='/nowhere.pem' is not there"):
        pool.connect(A_LONG_TIME_MS)


def test_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    pool = ConnectionPool(security_protocol="SSL", ssl_cafile=str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigurationError, match=r"TLS cannot be set up with ssl_cafile=.*ca\.pem"):
        pool.connect(A_LONG_TIME_MS)


def test_tls_where_there_is_none(record_property: Any) -> None:
    with EmbeddedKafka(brokers=1) as cluster:
        options = cluster.client_options() | {"security_protocol": "SSL"}
        refused(options, "security_protocol", record_property)


def test_plain_text_where_there_is_tls(authority: Authority, record_property: Any) -> None:
    with brokers(server_context(authority.issue("127.0.0.1"))) as options:
        refused(options | {"security_protocol": "PLAINTEXT"}, "TLS", record_property)


def test_a_handshake_that_is_not_answered() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        pool = ConnectionPool(bootstrap_servers=address, security_protocol="SSL")
        with pytest.raises(PoolTimeoutError, match=f"within 500 ms; .*{address}: .*Handshake failed: .*no answer"):
            pool.connect(timeout_ms=500)


def test_a_login_over_tls(authority: Authority) -> None:
    context = server_context(authority.issue("127.0.0.1"))
    with EmbeddedKafka(brokers=1, listeners=["sasl_tls"], ssl_context=context) as cluster:
        cluster.create_topic("orders")
        options = cluster.client_options("sasl_tls") | IMPATIENT
        assert options["security_protocol"] == "SASL_SSL"
        uses_every_lane(options | {"ssl_cafile": authority.cafile})
