"""Logins on real brokers: every mechanism, sessions that end, secrets, and what is said where one is refused."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from kafka.admin import KafkaAdminClient, UserScramCredentialUpsertion
from kafka.errors import KafkaError, SaslAuthenticationFailedError, UnsupportedSaslMechanismError
from kafka.net.sasl.oauth import AbstractTokenProvider

from integration.clients import Reader, eventually
from pooledkafka import ConnectFailedError, ConnectionClosed, ConnectionPool, Consumer, Producer, Reauthenticated
from pooledkafka.testing import KafkaCluster, Listener

SESSION_MS = 6_000
LONG_MS = 600_000
PASSWORDS = {"bob": "bobs-own-secret", "eve": "eves-own-secret"}
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
_MODULES = {
    "PLAIN": "plain.PlainLoginModule required " + " ".join(f'user_{n}="{p}"' for n, p in PASSWORDS.items()),
    "SCRAM-SHA-256": "scram.ScramLoginModule required",
    "SCRAM-SHA-512": "scram.ScramLoginModule required",
    "OAUTHBEARER": 'oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker"',
}

pytestmark = pytest.mark.usefixtures("sockets_left_to_the_collector")


def config() -> dict[str, str]:
    """Every mechanism on the SASL listeners, with TLS and without; sessions end soon."""
    properties = {"connections.max.reauth.ms": str(SESSION_MS), "auto.create.topics.enable": "true"}
    for listener in ("plain", "plaintls"):
        prefix = f"listener.name.{listener}."
        properties[prefix + "sasl.enabled.mechanisms"] = ",".join(MECHANISMS)
        for mechanism, module in _MODULES.items():
            name = f"{prefix}{mechanism.lower()}.sasl.jaas.config"
            properties[name] = f"org.apache.kafka.common.security.{module};"
    return properties


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    with KafkaCluster(listeners=[Listener.TLS, Listener.SASL_PLAIN, Listener.SASL_TLS], config=config()) as cluster:
        set_scram_passwords(cluster, PASSWORDS)
        yield cluster


def set_scram_passwords(cluster: KafkaCluster, passwords: dict[str, str]) -> None:
    with KafkaAdminClient(**cluster.client_options()) as admin:
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
            users = [UserScramCredentialUpsertion(name, mechanism, password) for name, password in passwords.items()]
            assert not any(admin.alter_user_scram_credentials(users).values())


class Tokens(AbstractTokenProvider):  # type: ignore[misc]
    """JSON Web Tokens without a signature, as Kafka's own validator for tests takes them."""

    def __init__(self, lifetime_s: float = 60.0) -> None:
        self.lifetime_s = lifetime_s
        self.given: list[str] = []
        self.threads: set[str] = set()

    def token(self) -> str:
        now = time.time()
        claims = {"sub": "bob", "iat": now - 1, "exp": now + self.lifetime_s}
        parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
        token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "."
        self.given.append(token)
        self.threads.add(threading.current_thread().name)
        return token


def login(cluster: KafkaCluster, listener: Listener, mechanism: str, user: str = "bob") -> dict[str, Any]:
    options = cluster.client_options(listener) | {"sasl_mechanism": mechanism}
    if mechanism == "OAUTHBEARER":
        del options["sasl_plain_username"], options["sasl_plain_password"]
        return options | {"sasl_oauth_token_provider": Tokens()}
    return options | {"sasl_plain_username": user, "sasl_plain_password": PASSWORDS[user]}


def topic() -> str:
    return f"logins-{uuid.uuid4().hex[:8]}"


# -- letting in --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(
    ("listener", "sessions"), [(Listener.SASL_PLAIN, 0), (Listener.SASL_TLS, 1)], ids=["in the clear", "over TLS"]
)
def test_every_mechanism(
    cluster: KafkaCluster, listener: Listener, mechanism: str, sessions: int, record_property: Any
) -> None:
    options = login(cluster, listener, mechanism)
    record_property("logins", dict(live_for_sessions(options, consumers=4, producers=2, sessions=sessions)))


def live_for_sessions(options: dict[str, Any], *, consumers: int, producers: int, sessions: int) -> Counter[str]:
    """Clients of one pool that read and write while its lanes log in again; counts that by lane."""
    name = topic()
    with ExitStack() as stack:
        pool = stack.enter_context(ConnectionPool(**options))
        heard: list[Any] = []
        pool.add_listener(heard.append)
        writing = [stack.enter_context(Producer(connection_pool=pool, acks="all")) for _ in range(producers)]
        writing[0].send(name, b"first").get(timeout=30)
        readers = [
            Reader(Consumer(name, connection_pool=pool, group_id=f"{name}-{number // 2}", auto_offset_reset="earliest"))
            for number in range(consumers)
        ]
        sent = 1

        def logins() -> Counter[str]:
            return Counter(event.lane for event in list(heard) if isinstance(event, Reauthenticated))

        deadline = time.monotonic() + 120
        while sent < 20 or min(logins()[lane] for lane in ("control", "produce", "fetch")) < sessions:
            assert time.monotonic() < deadline, logins()
            for future in [producer.send(name, b"%d" % sent) for producer in writing]:
                future.get(timeout=30)
                sent += 1
            time.sleep(0.01)  # a rate, not a wait
        groups = (consumers + 1) // 2
        eventually(
            lambda: (
                any(reader.error for reader in readers)
                or sum(sum(reader.values.values()) for reader in readers) == sent * groups
            ),
            30,
            "all was received once by each group",
        )
        for reader in readers:
            reader.stop()
        assert [reader.error for reader in readers] == [None] * consumers
        # A broker that meets a request after a session's end closes the connection.
        lost = [event for event in list(heard) if isinstance(event, ConnectionClosed) and event.reason == "failed"]
        assert not lost
        return logins() + Counter(records=sent)


def test_a_minute_of_sessions_with_twenty_clients(cluster: KafkaCluster, record_property: Any) -> None:
    options = login(cluster, Listener.SASL_PLAIN, "OAUTHBEARER")
    tokens = options["sasl_oauth_token_provider"]
    sessions = live_for_sessions(options, consumers=20, producers=5, sessions=5)
    assert tokens.threads == {"pooledkafka-token"}
    assert len(set(tokens.given)) > 5
    for name, count in sessions.items():
        record_property(name, count)
    record_property("tokens", len(tokens.given))


# -- refusing ----------------------------------------------------------------------------------------------------------


def refused(options: dict[str, Any], kind: type[KafkaError], says: str, record_property: Any) -> str:
    began = time.monotonic()
    with pytest.raises(kind, match=says) as error:
        ConnectionPool(**options).connect(LONG_MS)
    record_property("told_ms", round((time.monotonic() - began) * 1000))
    assert str(options["bootstrap_servers"]) in str(error.value)
    assert not any(secret in str(error.value) for secret in PASSWORDS.values())
    return str(error.value)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("wrong", [{"sasl_plain_password": "guessed"}, {"sasl_plain_username": "somebody"}])
def test_wrong_credentials(cluster: KafkaCluster, mechanism: str, wrong: dict[str, str], record_property: Any) -> None:
    options = login(cluster, Listener.SASL_PLAIN, mechanism) | wrong
    refused(options, SaslAuthenticationFailedError, f"login by {mechanism} was refused: .*nvalid", record_property)


def test_an_expired_token(cluster: KafkaCluster, record_property: Any) -> None:
    options = login(cluster, Listener.SASL_PLAIN, "OAUTHBEARER")
    options["sasl_oauth_token_provider"].lifetime_s = -120
    refused(options, SaslAuthenticationFailedError, "login by OAUTHBEARER was refused", record_property)


def test_a_mechanism_that_is_not_offered(cluster: KafkaCluster, record_property: Any) -> None:
    options = login(cluster, Listener.SASL_PLAIN, "PLAIN")
    options |= {"sasl_mechanism": "AWS_MSK_IAM"}
    refused(options, UnsupportedSaslMechanismError, "does not offer sasl_mechanism='AWS_MSK_IAM'", record_property)


WRONG_PROTOCOLS = [
    (Listener.SASL_PLAIN, "PLAINTEXT", "security_protocol"),
    (Listener.TLS, "PLAINTEXT", "TLS"),
    (Listener.PLAINTEXT, "SSL", "security_protocol"),
    (Listener.SASL_TLS, "SSL", "security_protocol"),
    (Listener.SASL_TLS, "PLAINTEXT", "TLS"),
]


@pytest.mark.parametrize(("listener", "protocol", "says"), WRONG_PROTOCOLS)
def test_the_wrong_protocol(
    cluster: KafkaCluster, listener: Listener, protocol: str, says: str, record_property: Any
) -> None:
    options = cluster.client_options(listener)
    ssl_cafile = cluster.client_options(Listener.TLS)["ssl_cafile"]
    options = {
        "bootstrap_servers": options["bootstrap_servers"],
        "security_protocol": protocol,
        "ssl_cafile": ssl_cafile,
    }
    refused(options, ConnectFailedError, says, record_property)


def test_a_broker_that_is_not_trusted(cluster: KafkaCluster, record_property: Any) -> None:
    options = cluster.client_options(Listener.TLS)
    del options["ssl_cafile"]
    refused(options, ConnectFailedError, "not trusted: self.signed certificate", record_property)


def test_a_name_that_is_not_the_certificates(
    cluster: KafkaCluster, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more: resolve("127.0.0.1", *more))
    options = cluster.client_options(Listener.TLS)
    options["bootstrap_servers"] = options["bootstrap_servers"].replace("127.0.0.1", "kafka.example")
    refused(options, ConnectFailedError, "not trusted: Hostname mismatch", record_property)


def test_a_port_that_nobody_listens_on(record_property: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        options = {"bootstrap_servers": f"127.0.0.1:{taken.getsockname()[1]}"}
        refused(options, ConnectFailedError, "refused .ECONNREFUSED", record_property)


def test_a_name_that_does_not_exist(record_property: Any) -> None:
    refused({"bootstrap_servers": "kafka.invalid:9092"}, ConnectFailedError, "DNS", record_property)


def test_one_good_server_is_enough(cluster: KafkaCluster) -> None:
    good = cluster.client_options(Listener.SASL_PLAIN)["bootstrap_servers"]
    wrong = cluster.client_options(Listener.TLS)["bootstrap_servers"]
    options = login(cluster, Listener.SASL_PLAIN, "SCRAM-SHA-512")
    with ConnectionPool(**options | {"bootstrap_servers": f"127.0.0.1:1,{wrong},{good}"}) as pool:
        assert pool.stats().metadata_age_ms is not None


# -- a password that is changed ----------------------------------------------------------------------------------------


def test_a_password_that_is_changed_and_changed_back(cluster: KafkaCluster, record_property: Any) -> None:
    name, options = topic(), login(cluster, Listener.SASL_PLAIN, "SCRAM-SHA-256", user="eve")
    with (
        ConnectionPool(**options | {"reconnect_backoff_max_ms": 500}) as pool,
        Producer(connection_pool=pool) as producer,
        Consumer(name, connection_pool=pool, group_id=name, auto_offset_reset="earliest") as consumer,
    ):
        producer.send(name, b"before").get(timeout=30)
        eventually(lambda: bool(consumer.poll(100)), 30, "the first record")
        set_scram_passwords(cluster, {"eve": "another"})
        try:
            began = time.monotonic()
            for call in (lambda: consumer.poll(100), lambda: producer.send(name, b"meanwhile")):
                eventually(lambda call=call: told(call), 30, "told")  # type: ignore[misc]
            record_property("told_ms", round((time.monotonic() - began) * 1000))
        finally:
            set_scram_passwords(cluster, {"eve": PASSWORDS["eve"]})
        began = time.monotonic()
        eventually(lambda: not told(lambda: producer.send(name, b"after").get(timeout=30)), 30, "let in again")
        record_property("recovered_ms", round((time.monotonic() - began) * 1000))
        got: set[bytes] = set()

        def poll() -> None:
            got.update(record.value for records in consumer.poll(100).values() for record in records)

        eventually(lambda: not told(poll) and b"after" in got, 30, "the last record")


def told(call: Callable[[], Any]) -> bool:
    try:
        call()
    except SaslAuthenticationFailedError:
        return True
    return False


def test_client_certificates(cluster: KafkaCluster) -> None:
    """A context of the user's own is what every lane uses."""
    options = cluster.client_options(Listener.SASL_TLS)
    context = ssl.create_default_context(cafile=options.pop("ssl_cafile"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with ConnectionPool(**login(cluster, Listener.SASL_TLS, "PLAIN") | {"ssl_cafile": None, "ssl_context": context}):
        assert context.session_stats()["connect_good"] >= 1
