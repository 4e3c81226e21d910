"""Nothing that is said, logged, or kept where it may be printed tells a password or a token."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.errors import KafkaError

from pooledkafka import ConnectionPool, Kafka
from pooledkafka.testing import EmbeddedKafka
from tests.pooled.conftest import IMPATIENT
from tests.pooled.reading import Reader
from tests.pooled.tokens import Provider
from tests.pooled.waiting import until
from tests.pooled.writing import Writer

PASSWORD = "correct-horse-battery"
MECHANISMS = ["PLAIN", "OAUTHBEARER"]


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    config = {"sasl.enabled.mechanisms": ",".join(MECHANISMS), "connections.max.reauth.ms": "1500"}
    with EmbeddedKafka(brokers=1, listeners=["sasl_plain"], config=config, credentials={"bob": PASSWORD}) as cluster:
        cluster.create_topic("orders")
        yield cluster


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture(params=MECHANISMS)
def options(request: pytest.FixtureRequest, cluster: EmbeddedKafka, provider: Provider) -> dict[str, Any]:
    options = cluster.client_options("sasl_plain") | IMPATIENT | {"sasl_mechanism": request.param}
    if request.param == "OAUTHBEARER":
        return options | {"sasl_oauth_token_provider": provider}
    return options | {"sasl_plain_username": "bob", "sasl_plain_password": PASSWORD}


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(1)
    for name in ("kafka.net.connection", "kafka.protocol.parser"):
        caplog.set_level(1, logger=name)
    return caplog


def said(caplog: pytest.LogCaptureFixture) -> str:
    """All that was logged, with what a formatter that shows more would show."""
    return "\n".join(
        f"{record.getMessage()} {record.args!r} {record.__dict__!r} {record.exc_text}" for record in caplog.records
    )


def secrets(provider: Provider) -> list[str]:
    return [PASSWORD, *provider.given]


def tells(text: str, provider: Provider) -> bool:
    return any(secret in text for secret in secrets(provider))


def test_nothing_is_told_while_all_goes_well(
    cluster: EmbeddedKafka,
    options: dict[str, Any],
    provider: Provider,
    everything_logged: pytest.LogCaptureFixture,
    record_property: Any,
) -> None:
    kafka = Kafka(**options)
    with kafka.connection_pool() as pool:
        again: list[Any] = []
        pool.add_listener(again.append)
        with kafka.producer(connection_pool=pool) as producer, kafka.admin(connection_pool=pool) as admin:
            consumer = kafka.consumer("orders", connection_pool=pool, group_id="g", auto_offset_reset="earliest")
            with Reader(consumer) as reader:
                writer = Writer(producer)
                writer.write("orders")
                reader.gets(writer.written("orders"))
                admin.list_topics()
                until(lambda: any(type(event).__name__ == "Reauthenticated" for event in again))
                shown = [repr(each) for each in (kafka, pool, producer, consumer, admin, pool.options, pool.stats())]
                shown += [
                    str(pool.options),
                    repr(dict(pool.options)),
                    f"{pool.options}",
                    repr(vars(kafka)),
                    repr(again),
                ]
                shown += [repr(client._options) for client in (producer, consumer, admin)]
                assert consumer._wired is not None
                shown += [repr(vars(pool)), repr(producer._opened().kafka.config), repr(consumer._wired.kafka.config)]
    records = [record for record in everything_logged.records if record.name.startswith("kafka.")]
    assert any("Request" in record.getMessage() for record in records), "kafka-python logs at DEBUG"
    assert not tells(said(everything_logged), provider)
    assert not any(tells(text, provider) for text in shown), shown
    record_property("records", len(everything_logged.records))


@pytest.mark.parametrize("wrong", ["password", "protocol", "address"])
def test_nothing_is_told_when_it_goes_wrong(
    cluster: EmbeddedKafka,
    options: dict[str, Any],
    provider: Provider,
    everything_logged: pytest.LogCaptureFixture,
    wrong: str,
) -> None:
    if wrong == "password":
        cluster.set_password("bob", "changed")
        provider.make = lambda: "no.token.at-all"
    elif wrong == "protocol":
        options["security_protocol"] = "SASL_SSL"
    else:
        options["bootstrap_servers"] = "127.0.0.1:1"
    pool = ConnectionPool(**options)
    with pytest.raises(KafkaError) as caught:
        pool.connect()
    shown = [said(everything_logged)]
    error: BaseException | None = caught.value
    while error is not None:
        shown += [repr(error), str(error), repr(error.args), repr(vars(error))]
        for frame in traceback.TracebackException.from_exception(error, capture_locals=True).stack:
            if frame.filename != __file__:  # as error reporters show them
                shown.append(repr(frame.locals))
        error = error.__cause__ or error.__context__
    assert not any(tells(text, provider) for text in shown)


def test_a_secret_is_as_good_as_any_string() -> None:
    options = ConnectionPool(
        bootstrap_servers="b:1",
        ssl_password=b"bytes",
        proxy_url="socks5://user:pass@proxy:1080",
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_plain_username="shop",
        sasl_plain_password=PASSWORD,
    ).options
    assert options["sasl_plain_password"] == PASSWORD
    assert "\0".join(["shop", options["sasl_plain_password"]]) == f"shop\0{PASSWORD}"
    assert options["ssl_password"] == b"bytes"
    assert repr(options).count("<hidden>") == repr(dict(options)).count("<hidden>") == 3
    assert "pass" not in repr(options).replace("ssl_password", "").replace("sasl_plain_password", "")


def test_what_kafka_python_logs_of_others_is_left_alone(
    cluster: EmbeddedKafka, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with ConnectionPool(**cluster.client_options()):
        pass
    assert any(record.name == "kafka.protocol.parser" for record in caplog.records)
    assert any(record.name == "kafka.net.connection" and "Request" in record.getMessage() for record in caplog.records)
