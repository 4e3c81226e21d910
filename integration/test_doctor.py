"""``pooledkafka doctor`` on a real broker: of each failure that it can stage, the true cause is named.

Brokers that are too old: tests/_cli/test_doctor.py.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

from integration.clients import eventually
from pooledkafka import Consumer
from pooledkafka._cli import main
from pooledkafka.testing import KafkaCluster, Listener, _properties
from tests.pooled.certificates import Authority

WRONG_ADDRESS = "kafka.invalid:9095"
"""What the broker advertises for its SCRAM listener."""

pytestmark = pytest.mark.usefixtures("sockets_left_to_the_collector")


@pytest.fixture(scope="module")
def expired(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whose certificate for the TLS listener has expired."""
    return Authority(tmp_path_factory.mktemp("expired"))


def with_certificate(properties: dict[str, str], leaf: trustme.LeafCert) -> dict[str, str]:
    """The TLS listener with this certificate, in place of the one in the cluster's keystore."""
    prefix = "listener.name.tls.ssl.key"
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        **{name: value for name, value in properties.items() if not name.startswith(prefix)},
        f"{prefix}store.type": "PEM",
        f"{prefix}store.certificate.chain": b"".join(blob.bytes() for blob in leaf.cert_chain_pems).decode(),
        f"{prefix}store.key": key.decode(),
    }


@pytest.fixture(scope="module")
def cluster(expired: Authority) -> Iterator[KafkaCluster]:
    """One broker with every listener, on which the users of SASL may do what they are allowed to by name.

    The certificate of its TLS listener has expired; that of the one with TLS and SASL has not.
    """
    config = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",  # the brokers, and who comes without a login
        "auto.create.topics.enable": "false",
    }
    properties = _properties.server_properties

    def made_worse(node_id: int, node_ids: Any, ports: Any, *more: Any) -> dict[str, str]:
        made = properties(node_id, node_ids, ports, *more)
        right = f"127.0.0.1:{ports[Listener.SCRAM]}"
        made["advertised.listeners"] = made["advertised.listeners"].replace(right, WRONG_ADDRESS)
        return with_certificate(made, expired.issue("127.0.0.1", expired=True))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pooledkafka.testing._deployment.server_properties", made_worse)
        cluster = KafkaCluster(listeners=list(Listener), config=config)
        with cluster:
            allow(cluster)
            yield cluster


def allow(cluster: KafkaCluster) -> None:
    rights = [
        (ResourceType.TOPIC, "seen", ACLOperation.DESCRIBE),
        (ResourceType.TOPIC, "read", ACLOperation.READ),
        (ResourceType.GROUP, "ours", ACLOperation.READ),
    ]
    with KafkaAdminClient(**cluster.client_options()) as admin:
        topics = {name: {"num_partitions": 2} for name in ("hidden", "seen", "read")}
        admin.create_topics(topics, wait_for_metadata=True)
        admin.create_acls(
            [
                ACL("User:pooledkafka", "*", operation, ACLPermissionType.ALLOW, ResourcePattern(kind, name))
                for kind, name, operation in rights
            ]
        )


class Doctor:
    """Runs the command, with the options of a listener."""

    def __init__(self, cluster: KafkaCluster, capfd: pytest.CaptureFixture[str], patched: pytest.MonkeyPatch) -> None:
        self._cluster = cluster
        self._capfd = capfd
        self._patched = patched

    def at(self, listener: Listener) -> str:
        return str(self._cluster.client_options(listener)["bootstrap_servers"])

    def run(self, bootstrap: str, *arguments: str, password: str | None = None) -> tuple[int, list[dict[str, Any]]]:
        if password is not None:
            self._patched.setenv("POOLEDKAFKA_SASL_PASSWORD", password)
        self._capfd.readouterr()
        code = main(["doctor", bootstrap, "--json", *arguments])
        out, err = self._capfd.readouterr()
        assert err == ""
        assert password is None or password not in out
        return code, json.loads(out)["steps"]

    def as_user(self, listener: Listener, *arguments: str, **wrong: Any) -> tuple[int, list[dict[str, Any]]]:
        options = self._cluster.client_options(listener) | wrong
        tls = ("--ssl-cafile", options["ssl_cafile"]) if "ssl_cafile" in options else ()
        return self.run(
            options["bootstrap_servers"],
            "--security-protocol",
            options["security_protocol"],
            "--sasl-mechanism",
            options["sasl_mechanism"],
            "--sasl-username",
            options["sasl_plain_username"],
            *tls,
            *arguments,
            password=options["sasl_plain_password"],
        )

    @property
    def ssl_cafile(self) -> str:
        return str(self._cluster.client_options(Listener.TLS)["ssl_cafile"])


@pytest.fixture
def doctor(cluster: KafkaCluster, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Doctor:
    return Doctor(cluster, capfd, monkeypatch)


def failed(outcome: tuple[int, list[dict[str, Any]]], step: str, cause: str, advice: str, record: Any) -> None:
    """That this step failed, alone and for this cause."""
    code, steps = outcome
    assert code == 1
    bad = [each for each in steps if each["status"] == "failed"]
    assert len(bad) == 1, bad
    (found,) = bad
    record("told", f"{found['step']}: {found['cause']}. {found['advice']}. ({found['ms']:.0f} ms)")
    assert found["step"] == step
    assert cause in found["cause"]
    assert advice in found["advice"]


def test_where_all_is_well(doctor: Doctor, record_property: Any) -> None:
    code, steps = doctor.run(doctor.at(Listener.PLAINTEXT), "--topic", "read", "--write")
    record_property("steps", [f"{step['step']} {step['ms']:.0f} ms" for step in steps])
    assert code == 0, steps
    assert {step["status"] for step in steps} == {"ok"}
    assert [step["step"] for step in steps][-5:] == ["advertised listener", "topic", "fetch", "write", "group"]


def test_with_tls_and_a_login(doctor: Doctor) -> None:
    code, steps = doctor.as_user(Listener.SASL_TLS, "--topic", "read", "--group", "ours")
    assert code == 0, steps
    assert {"TLS handshake", "login by PLAIN", "fetch"} <= {step["step"] for step in steps}
    assert "joined and left; 2 partitions" in steps[-1]["found"]


def test_a_name_that_does_not_exist(doctor: Doctor, record_property: Any) -> None:
    failed(doctor.run("kafka.invalid:9092"), "name resolution", "DNS", "bootstrap_servers", record_property)


def test_a_closed_port(doctor: Doctor, record_property: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        outcome = doctor.run(f"127.0.0.1:{taken.getsockname()[1]}")
    failed(outcome, "TCP connection", "refused (ECONNREFUSED)", "a broker listens there", record_property)


@pytest.mark.parametrize("listener", [Listener.TLS, Listener.SASL_TLS])
def test_plain_text_to_tls(doctor: Doctor, listener: Listener, record_property: Any) -> None:
    outcome = doctor.run(doctor.at(listener))
    failed(outcome, "API versions", "speaks TLS, and was spoken to in plain text", "'SSL'", record_property)


@pytest.mark.parametrize("listener", [Listener.PLAINTEXT, Listener.SASL_PLAIN])
def test_tls_to_plain_text(doctor: Doctor, listener: Listener, record_property: Any) -> None:
    outcome = doctor.run(doctor.at(listener), "--security-protocol", "SSL")
    failed(outcome, "TLS handshake", "speaks plain text", "'PLAINTEXT'", record_property)


def test_an_authority_that_is_not_known(doctor: Doctor, record_property: Any) -> None:
    outcome = doctor.run(doctor.at(Listener.SASL_TLS), "--security-protocol", "SSL")
    failed(outcome, "TLS handshake", "not trusted: self-signed certificate", "ssl_cafile", record_property)


def test_a_certificate_that_has_expired(doctor: Doctor, expired: Authority, record_property: Any) -> None:
    options = ("--security-protocol", "SSL", "--ssl-cafile", expired.cafile)
    outcome = doctor.run(doctor.at(Listener.TLS), *options)
    failed(outcome, "TLS handshake", "not trusted: certificate has expired", "still valid", record_property)


def test_a_name_that_is_not_the_certificates(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more: resolve("127.0.0.1", *more))
    address = doctor.at(Listener.SASL_TLS).replace("127.0.0.1", "kafka.example")
    outcome = doctor.run(address, "--security-protocol", "SSL", "--ssl-cafile", doctor.ssl_cafile)
    failed(outcome, "TLS handshake", "not trusted: Hostname mismatch", "bootstrap_servers", record_property)


@pytest.mark.parametrize("listener", [Listener.SASL_PLAIN, Listener.SCRAM, Listener.SASL_TLS])
def test_a_wrong_password(doctor: Doctor, listener: Listener, record_property: Any) -> None:
    outcome = doctor.as_user(listener, sasl_plain_password="guessed-one")
    mechanism = "SCRAM-SHA-256" if listener is Listener.SCRAM else "PLAIN"
    failed(outcome, f"login by {mechanism}", "was refused: ", "sasl_plain_password", record_property)


def test_no_login_where_one_is_wanted(doctor: Doctor, record_property: Any) -> None:
    cause = "wants a login (SASL), and the client has none; it offers PLAIN"
    outcome = doctor.run(doctor.at(Listener.SASL_PLAIN))
    failed(outcome, "metadata", cause, "'SASL_PLAINTEXT'", record_property)
    over_tls = ("--security-protocol", "SSL", "--ssl-cafile", doctor.ssl_cafile)
    outcome = doctor.run(doctor.at(Listener.SASL_TLS), *over_tls)
    failed(outcome, "metadata", cause, "'SASL_SSL'", record_property)


def test_a_mechanism_that_is_not_offered(doctor: Doctor, record_property: Any) -> None:
    outcome = doctor.as_user(Listener.SASL_PLAIN, sasl_mechanism="SCRAM-SHA-512")
    cause = "does not offer SCRAM-SHA-512; it offers PLAIN"
    failed(outcome, "login by SCRAM-SHA-512", cause, "'PLAIN'", record_property)


def test_a_login_where_none_is_wanted(doctor: Doctor, cluster: KafkaCluster, record_property: Any) -> None:
    servers = cluster.client_options()["bootstrap_servers"]
    outcome = doctor.as_user(Listener.SASL_PLAIN, bootstrap_servers=servers)
    failed(outcome, "login by PLAIN", "wants no login", "'PLAINTEXT'", record_property)


@pytest.mark.parametrize(
    ("arguments", "step", "cause", "advice"),
    [
        (["--topic", "hidden", "--group", "ours"], "topic", "no right to topic 'hidden'", "DESCRIBE"),
        (["--topic", "seen", "--group", "ours"], "fetch", "no right to topic 'seen'", "READ"),
        (["--topic", "read", "--group", "ours", "--write"], "write", "no right to topic 'read'", "WRITE"),
        (["--topic", "read"], "group", "no right to group 'pooledkafka-doctor-", "--group"),
        (["--topic", "read", "--group", "theirs"], "group", "no right to group 'theirs'", "READ"),
        (["--topic", "absent", "--group", "ours"], "topic", "no right to topic 'absent'", "DESCRIBE"),
    ],
)
def test_no_rights(
    doctor: Doctor, arguments: list[str], step: str, cause: str, advice: str, record_property: Any
) -> None:
    failed(doctor.as_user(Listener.SASL_PLAIN, *arguments), step, cause, advice, record_property)


def test_a_topic_that_does_not_exist(doctor: Doctor, record_property: Any) -> None:
    outcome = doctor.run(doctor.at(Listener.PLAINTEXT), "--topic", "absent")
    failed(outcome, "topic", "topic 'absent' does not exist", "create it", record_property)


def test_a_listener_that_is_advertised_and_cannot_be_reached(doctor: Doctor, record_property: Any) -> None:
    outcome = doctor.as_user(Listener.SCRAM)
    cause = "advertises an address that cannot be reached from here: the name cannot be resolved"
    failed(outcome, "advertised listener", cause, "advertised.listeners", record_property)
    assert outcome[1][-1]["where"] == f"broker 1 at {WRONG_ADDRESS}", "nothing else can be tried then"


def test_a_group_that_is_in_use_is_not_disturbed(doctor: Doctor, cluster: KafkaCluster) -> None:
    with Consumer("read", group_id="busy", **cluster.client_options()) as consumer:

        def assigned() -> bool:
            consumer.poll(100)
            return bool(consumer.assignment())

        eventually(assigned, 30, "the group has a member")
        code, steps = doctor.run(doctor.at(Listener.PLAINTEXT), "--topic", "read", "--group", "busy")
    assert code == 0, steps
    assert steps[-1]["found"] == "in use (1 members, Stable), so not joined"
