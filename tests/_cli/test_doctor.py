"""``doctor`` names the true cause; of each kind, on brokers that stage it."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka.errors import ClusterAuthorizationFailedError, GroupAuthorizationFailedError, TopicAuthorizationFailedError
from kafka.protocol.broker_version_data import BrokerVersionData
from kafka.protocol.metadata import ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataResponse

from pooledkafka import Consumer
from pooledkafka.testing import EmbeddedKafka, Error
from tests._cli.conftest import Command, Result
from tests.pooled.certificates import Authority, server_context
from tests.scripted_broker import Hangup, ScriptedBroker, closed_port, metadata_answer

PASSWORD = "hunter2-and-more"
SASL = ("--security-protocol", "SASL_PLAINTEXT", "--sasl-username", "shop")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(authority: Authority) -> Iterator[EmbeddedKafka]:
    """One broker with every listener."""
    context = server_context(authority.issue("127.0.0.1"))
    listeners = ["tls", "sasl_plain", "sasl_tls"]
    with EmbeddedKafka(1, listeners=listeners, credentials={"shop": PASSWORD}, ssl_context=context) as cluster:
        cluster.create_topic("orders")
        yield cluster


def at(cluster: EmbeddedKafka, listener: str = "plaintext") -> str:
    return str(cluster.client_options(listener)["bootstrap_servers"])


def failed(result: Result) -> dict[str, Any]:
    """The one step that failed."""
    assert result.code == 1, result
    assert "Traceback" not in result.err
    assert PASSWORD not in result.out + result.err
    bad = [step for step in result.json["steps"] if step["status"] == "failed"]
    assert len(bad) == 1, bad
    (step,) = bad
    assert not result.json["ok"]
    assert step["ms"] >= 0
    return step  # type: ignore[no-any-return]


def says(step: dict[str, Any], where: str, cause: str, advice: str) -> None:
    assert (step["step"], step["cause"], step["advice"]) == (where, step["cause"], step["advice"])
    assert cause in step["cause"]
    assert advice in step["advice"]


def test_where_all_is_well(command: Command, secure: EmbeddedKafka) -> None:
    result = command("doctor", at(secure), "--topic", "orders", "--write", "--json")
    assert result.code == 0, result
    assert {step["status"] for step in result.json["steps"]} == {"ok"}
    assert [step["step"] for step in result.json["steps"]] == [
        "name resolution",
        "TCP connection",
        "API versions",
        "metadata",
        "advertised listener",
        "topic",
        "fetch",
        "write",
        "group",
    ]
    assert "joined and left; 1 partitions" in result.json["steps"][-1]["found"]
    assert result.err == ""
    groups = [group["group"] for group in command("groups", "list", "-b", at(secure), "--json").json]
    assert not [name for name in groups if name.startswith("pooledkafka-doctor")], "it was thrown away"


def test_it_is_shown_for_people(command: Command, secure: EmbeddedKafka) -> None:
    result = command("doctor", at(secure))
    assert result.code == 0
    assert "all is well" in result.out
    result = command("doctor", at(secure, "tls"))
    assert result.code == 1
    assert "failed  API versions" in result.out
    assert "        the listener speaks TLS, and was spoken to in plain text.\n" in result.out
    assert "1 of 3 steps failed" in result.out


def test_over_tls_with_a_login(command: Command, secure: EmbeddedKafka, authority: Authority) -> None:
    options = ("--security-protocol", "SASL_SSL", "--sasl-mechanism", "PLAIN", "--sasl-username", "shop")
    result = command(
        "doctor",
        at(secure, "sasl_tls"),
        *options,
        "--ssl-cafile",
        authority.cafile,
        "--topic",
        "orders",
        "--json",
        SASL_PASSWORD=PASSWORD,
    )
    assert result.code == 0, result
    steps = [step["step"] for step in result.json["steps"]]
    assert steps[2:5] == ["TLS handshake", "API versions", "login by PLAIN"]
    assert PASSWORD not in result.out + result.err


def test_a_name_that_does_not_exist(command: Command) -> None:
    step = failed(command("doctor", "kafka.invalid:9092", "--json"))
    says(step, "name resolution", "cannot be resolved (DNS)", "bootstrap_servers")


def test_a_closed_port(command: Command) -> None:
    with closed_port() as port:
        step = failed(command("doctor", f"127.0.0.1:{port}", "--json"))
    says(step, "TCP connection", "refused (ECONNREFUSED)", "a broker listens there")


def test_every_address_is_tried_and_one_that_works_is_enough_to_go_on(command: Command, secure: EmbeddedKafka) -> None:
    with closed_port() as port:
        result = command("doctor", f"127.0.0.1:{port},{at(secure)}", "--json")
    assert failed(result)["where"] == f"127.0.0.1:{port}"
    assert [step["status"] for step in result.json["steps"] if step["step"] == "group"] == ["ok"]


def test_plain_text_to_tls(command: Command, secure: EmbeddedKafka) -> None:
    step = failed(command("doctor", at(secure, "tls"), "--json"))
    says(step, "API versions", "speaks TLS, and was spoken to in plain text", "'SSL'")
    step = failed(
        command("doctor", at(secure, "sasl_tls"), *SASL, "--sasl-mechanism", "PLAIN", "--json", SASL_PASSWORD=PASSWORD)
    )
    says(step, "API versions", "speaks TLS, and was spoken to in plain text", "'SASL_SSL'")


def test_tls_to_plain_text(command: Command, secure: EmbeddedKafka) -> None:
    step = failed(command("doctor", at(secure), "--security-protocol", "SSL", "--json"))
    says(step, "TLS handshake", "speaks plain text", "'PLAINTEXT'")


def test_an_authority_that_is_not_known(command: Command, secure: EmbeddedKafka) -> None:
    step = failed(command("doctor", at(secure, "tls"), "--security-protocol", "SSL", "--json"))
    says(step, "TLS handshake", "not trusted: unable to get local issuer", "ssl_cafile")


@pytest.mark.parametrize(
    ("name", "expired", "cause"),
    [("127.0.0.1", True, "certificate has expired"), ("kafka.example", False, "IP address mismatch")],
)
def test_a_certificate_that_is_wrong(
    command: Command, authority: Authority, name: str, expired: bool, cause: str
) -> None:
    context = server_context(authority.issue(name, expired=expired))
    with EmbeddedKafka(1, listeners=["tls"], ssl_context=context) as cluster:
        arguments = (at(cluster, "tls"), "--security-protocol", "SSL", "--ssl-cafile", authority.cafile, "--json")
        says(failed(command("doctor", *arguments)), "TLS handshake", f"not trusted: {cause}", "")
        # all that is wrong is the name
        assert command("doctor", *arguments, "--ssl-no-check-hostname").code == (1 if expired else 0)


def test_a_wrong_password(command: Command, secure: EmbeddedKafka) -> None:
    result = command(
        "doctor", at(secure, "sasl_plain"), *SASL, "--sasl-mechanism", "PLAIN", "--json", SASL_PASSWORD="guessed-one"
    )
    says(failed(result), "login by PLAIN", "was refused: ", "sasl_plain_password")
    assert "guessed-one" not in result.out + result.err


def test_no_login_where_one_is_wanted(command: Command, secure: EmbeddedKafka, authority: Authority) -> None:
    step = failed(command("doctor", at(secure, "sasl_plain"), "--json"))
    says(step, "metadata", "wants a login (SASL), and the client has none; it offers PLAIN", "'SASL_PLAINTEXT'")
    over_tls = ("--security-protocol", "SSL", "--ssl-cafile", authority.cafile)
    step = failed(command("doctor", at(secure, "sasl_tls"), *over_tls, "--json"))
    says(step, "metadata", "wants a login (SASL), and the client has none; it offers PLAIN", "'SASL_SSL'")


def test_a_mechanism_that_is_not_offered(command: Command, secure: EmbeddedKafka) -> None:
    where = at(secure, "sasl_plain")
    result = command("doctor", where, *SASL, "--sasl-mechanism", "SCRAM-SHA-512", "--json", SASL_PASSWORD=PASSWORD)
    says(failed(result), "login by SCRAM-SHA-512", "does not offer SCRAM-SHA-512; it offers PLAIN", "'PLAIN'")


def test_a_login_where_none_is_wanted(command: Command, secure: EmbeddedKafka) -> None:
    result = command("doctor", at(secure), *SASL, "--sasl-mechanism", "PLAIN", "--json", SASL_PASSWORD=PASSWORD)
    says(failed(result), "login by PLAIN", "wants no login", "'PLAINTEXT'")


def test_no_right_to_a_topic(command: Command, secure: EmbeddedKafka) -> None:
    with secure.intercept("Fetch", Error(TopicAuthorizationFailedError)):
        step = failed(command("doctor", at(secure), "--topic", "orders", "--json"))
    says(step, "fetch", "no right to topic 'orders'", "READ")  # and the group is none the worse for it
    with secure.intercept("Produce", Error(TopicAuthorizationFailedError)):
        step = failed(command("doctor", at(secure), "--topic", "orders", "--write", "--json"))
    says(step, "write", "no right to topic 'orders'", "WRITE")


def test_no_right_to_be_idempotent(command: Command, secure: EmbeddedKafka) -> None:
    with secure.intercept("InitProducerId", Error(ClusterAuthorizationFailedError)):
        step = failed(command("doctor", at(secure), "--topic", "orders", "--write", "--json"))
    says(step, "write", "may write to topic 'orders', but not with an idempotent producer", "IDEMPOTENT_WRITE")


def test_a_topic_that_does_not_exist(command: Command, secure: EmbeddedKafka) -> None:
    result = command("doctor", at(secure), "--topic", "nothing", "--json")
    says(failed(result), "topic", "topic 'nothing' does not exist", "create it")
    assert "nothing" not in {topic["topic"] for topic in command("topics", "list", "-b", at(secure), "--json").json}


def test_no_right_to_a_group(command: Command, secure: EmbeddedKafka) -> None:
    with secure.intercept("JoinGroup", Error(GroupAuthorizationFailedError)):
        step = failed(command("doctor", at(secure), "--json"))
    says(step, "group", "no right to group 'pooledkafka-doctor-", "--group")


def test_a_group_that_is_in_use_is_not_disturbed(command: Command, secure: EmbeddedKafka) -> None:
    with Consumer("orders", group_id="busy", bootstrap_servers=at(secure)) as consumer:
        while not consumer.assignment():
            consumer.poll(20)
        joins = secure.intercept("JoinGroup", Error(GroupAuthorizationFailedError))
        result = command("doctor", at(secure), "--group", "busy", "--json")
        joins.remove()
        assert result.code == 0, result
        assert result.json["steps"][-1]["found"].startswith("in use (1 members, Stable)")
        assert not joins.requests
    assert "joined and left" in command("doctor", at(secure), "--group", "busy", "--json").json["steps"][-1]["found"]


def test_a_listener_that_is_advertised_and_cannot_be_reached(command: Command) -> None:
    with closed_port() as port, ScriptedBroker() as broker:
        wrong = {1: ("127.0.0.1", port), 2: ("kafka.invalid", 9092)}
        broker.on(MetadataRequest, lambda request: metadata_answer(brokers=wrong, version=request.API_VERSION))
        result = command("doctor", broker.address, "--json")
    assert result.code == 1
    bad = [step for step in result.json["steps"] if step["status"] == "failed"]
    assert [step["where"] for step in bad] == [f"broker 1 at 127.0.0.1:{port}", "broker 2 at kafka.invalid:9092"]
    for step, cause in zip(bad, ("ECONNREFUSED", "DNS"), strict=True):
        says(step, "advertised listener", "advertises an address that cannot be reached from here", "advertised.listen")
        assert cause in step["cause"]


def test_a_broker_that_is_too_old(command: Command) -> None:
    def versions(request: Any) -> Any:
        keys = [
            ApiVersionsResponse.ApiVersion(version=0, api_key=int(key), min_version=low, max_version=high)
            for key, (low, high) in BrokerVersionData((0, 10, 0)).api_versions.items()
        ]
        return ApiVersionsResponse(version=0, error_code=35 if request.API_VERSION else 0, api_keys=keys)

    with ScriptedBroker() as broker:
        broker.on(ApiVersionsRequest, versions)
        step = failed(command("doctor", broker.address, "--json"))
    says(step, "API versions", "too old (Kafka 0.10.0): ", "Kafka 0.11")


def test_a_broker_from_before_versions_were_told(command: Command) -> None:
    def hang_up(_: Any) -> None:
        raise Hangup

    with ScriptedBroker() as broker:
        broker.on(ApiVersionsRequest, hang_up)
        broker.on(MetadataRequest, lambda _: MetadataResponse(version=0, brokers=[], topics=[]))
        step = failed(command("doctor", broker.address, "--json"))
    says(step, "API versions", "too old: it is from before Kafka 0.10", "Kafka 0.11")


def test_a_port_that_does_not_answer(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        step = failed(command("doctor", address, "--timeout", "0.2", "--json"))
    says(step, "API versions", "did not answer within 0.2 s", "is a Kafka broker")


def test_a_server_that_is_no_broker_over_tls(command: Command, authority: Authority) -> None:
    """What it says is found out from it, and not by waiting."""
    context = server_context(authority.issue("127.0.0.1"))

    def refuse(listener: socket.socket) -> None:
        while True:
            try:
                with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
                    connection.recv(1_000)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    connection.recv(1)  # until the other end has had enough
            except ssl.SSLError:
                pass
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as web:
        thread = threading.Thread(target=refuse, args=(web,), daemon=True)
        thread.start()
        address = f"127.0.0.1:{web.getsockname()[1]}"
        secured = ("--security-protocol", "SSL", "--ssl-cafile", authority.cafile)
        step = failed(command("doctor", address, *secured, "--timeout", "60", "--json"))
        web.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    assert step["step"] == "API versions"
    assert step["ms"] < 30_000


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["kafka:notaport"], "must be host:port"),
        (["--write", "localhost:1"], "--write needs --topic"),
        (["localhost:1", "--sasl-mechanism", "PLAIN"], "needs --security-protocol"),
        (["localhost:1", *SASL, "--sasl-mechanism", "PLAIN"], "POOLEDKAFKA_SASL_PASSWORD"),
        (["localhost:1", "--security-protocol", "SSL", "--ssl-cafile", "/nowhere.pem"], "/nowhere.pem"),
    ],
)
def test_wrong_usage(command: Command, arguments: list[str], why: str) -> None:
    result = command("doctor", *arguments)
    assert result.code == 2
    assert why in result.err
    assert result.out == ""


def test_a_file_that_is_not_there(command: Command) -> None:
    result = command("doctor", "localhost:9093", "--security-protocol", "SSL", "--ssl-cafile", "/not/there")
    assert result.code == 2
    assert "ssl_cafile='/not/there'" in result.err
    assert "BOOTSTRAP must be" not in result.err


def test_options_from_a_file(command: Command, secure: EmbeddedKafka, tmp_path: Path) -> None:
    address = at(secure, "sasl_plain")
    lines = {
        "bootstrap.servers": address,
        "security_protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl_plain_username": "shop",
        "sasl_plain_password": PASSWORD,
        "reconnect_backoff_ms": "20",
    }
    (tmp_path / "kafka.properties").write_text("# ours\n" + "".join(f"{name} = {lines[name]}\n" for name in lines))
    assert command("doctor", "--config", str(tmp_path / "kafka.properties")).code == 0
    (tmp_path / "kafka.json").write_text('{"bootstrap_servers": "localhost:1", "sasl_plain_pasword": "hunter3"}')
    result = command("doctor", "--config", str(tmp_path / "kafka.json"))
    assert result.code == 2
    assert "sasl_plain_pasword is not an option" in result.err
    assert "hunter3" not in result.err
