"""Stock kafka-python over TLS and both SASL mechanisms; who has no right to come in is refused."""

from __future__ import annotations

import re
import ssl
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.errors import KafkaError

from integration.traffic import create_topic, group_consumer
from pooledkafka.testing import KafkaCluster, Listener
from tests.testing._embedded.leaks import leaks_forgiven

SASL = [Listener.SASL_PLAIN, Listener.SCRAM]
# How long a client that is refused keeps trying. One that is let in connects in a fraction of it.
REFUSAL_TIMEOUT_MS = 3_000


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    """One broker with every listener."""
    with KafkaCluster(listeners=list(Listener)) as cluster:
        yield cluster


def produce_and_consume(options: dict[str, Any]) -> None:
    topic = f"secured-{uuid.uuid4().hex[:8]}"
    sent = {b"%d" % number for number in range(100)}
    received = []
    with leaks_forgiven():
        create_topic(options, topic, partitions=3)
        with KafkaProducer(**options) as producer:
            for future in [producer.send(topic, value) for value in sent]:
                future.get(timeout=20)
        with group_consumer(topic, **options, group_id=topic, consumer_timeout_ms=20_000) as consumer:
            for record in consumer:
                received.append(record.value)
                if len(received) == len(sent):
                    break
        del producer, consumer, future
    assert sorted(received) == sorted(sent)


def broker_log_of_refusal(cluster: KafkaCluster, options: dict[str, Any]) -> str:
    """What the broker logged while kafka-python tried in vain to connect."""
    before = cluster.logs(1, tail=100_000)
    clients = []

    def client(**config: Any) -> Any:
        clients.append(KafkaProducer.DEFAULT_CONFIG["kafka_client"](**config))
        return clients[-1]

    with leaks_forgiven():
        with pytest.raises(KafkaError, match="Unable to bootstrap"):
            KafkaProducer(**options, bootstrap_timeout_ms=REFUSAL_TIMEOUT_MS, kafka_client=client)
        clients.pop().close()
    return cluster.logs(1, tail=100_000).removeprefix(before)


@pytest.mark.parametrize("listener", Listener, ids=lambda listener: listener.value)
def test_those_with_credentials_are_let_in(cluster: KafkaCluster, listener: Listener) -> None:
    produce_and_consume(cluster.client_options(listener))


@pytest.mark.parametrize("wrong", [{"sasl_plain_password": "guessed"}, {"sasl_plain_username": "somebody"}])
@pytest.mark.parametrize("listener", SASL, ids=lambda listener: listener.value)
def test_wrong_credentials_are_refused(cluster: KafkaCluster, listener: Listener, wrong: dict[str, str]) -> None:
    log = broker_log_of_refusal(cluster, cluster.client_options(listener) | wrong)
    assert re.search("Failed authentication.*(Invalid username or password|due to invalid credentials)", log)


@pytest.mark.parametrize("listener", SASL, ids=lambda listener: listener.value)
def test_no_credentials_are_refused(cluster: KafkaCluster, listener: Listener) -> None:
    servers = cluster.client_options(listener)["bootstrap_servers"]
    log = broker_log_of_refusal(cluster, {"bootstrap_servers": servers})
    assert re.search("Unexpected Kafka request of type METADATA during SASL handshake", log)


def test_plaintext_is_refused_where_tls_is_expected(cluster: KafkaCluster) -> None:
    servers = cluster.client_options(Listener.TLS)["bootstrap_servers"]
    log = broker_log_of_refusal(cluster, {"bootstrap_servers": servers})
    assert re.search(r"Failed authentication.*SSL handshake failed", log)


def test_a_client_refuses_a_broker_whose_certificate_it_does_not_know(cluster: KafkaCluster) -> None:
    options = cluster.client_options(Listener.TLS)
    del options["ssl_cafile"]
    log = broker_log_of_refusal(cluster, options)
    assert re.search(r"Failed authentication.*SSL handshake failed", log)


def test_the_certificate_is_good_enough_for_the_strictest_client(cluster: KafkaCluster) -> None:
    options = cluster.client_options(Listener.TLS)
    context = ssl.create_default_context(cafile=options.pop("ssl_cafile"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default since Python 3.13
    produce_and_consume(options | {"ssl_context": context})
