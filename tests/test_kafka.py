from __future__ import annotations

import threading

import pytest

from pooledkafka import ConfigurationError, ConnectionPool, Consumer, Kafka, Producer


def test_the_settings_reach_the_pool() -> None:
    pool = Kafka(bootstrap_servers="b:1", client_id="shop").connection_pool(
        metadata_max_age_ms=5, allow_auto_create_topics=False
    )
    assert isinstance(pool, ConnectionPool)
    assert pool.options["bootstrap_servers"] == "b:1"
    assert pool.options["client_id"] == "shop"
    assert pool.options["metadata_max_age_ms"] == 5
    assert pool.options["allow_auto_create_topics"] is False


def test_the_settings_reach_a_client_without_a_pool() -> None:
    kafka = Kafka(bootstrap_servers="b:1")
    consumer, producer = kafka.consumer("orders", group_id="g"), kafka.producer(acks=1)
    assert isinstance(consumer, Consumer)
    assert isinstance(producer, Producer)
    assert consumer._pool.options["bootstrap_servers"] == "b:1"
    assert producer._pool.options["bootstrap_servers"] == "b:1"
    assert consumer._pool is not producer._pool, "each has a private pool"


def test_a_client_over_a_pool_uses_that_pool() -> None:
    kafka = Kafka(bootstrap_servers="b:1")
    pool = kafka.connection_pool()
    assert kafka.consumer(connection_pool=pool)._pool is pool
    assert kafka.producer(connection_pool=pool)._pool is pool


def test_a_wrong_option_is_noticed_at_once() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean client_id"):
        Kafka(client_di="shop")
    with pytest.raises(ConfigurationError, match="Did you mean group_id"):
        Kafka().consumer(group_di="g")


def test_nothing_starts_before_it_is_used() -> None:
    before = set(threading.enumerate())
    kafka = Kafka(bootstrap_servers="127.0.0.1:1")
    pool = kafka.connection_pool()
    kafka.consumer("orders", connection_pool=pool), kafka.producer(connection_pool=pool), kafka.consumer("orders")
    assert set(threading.enumerate()) == before


def test_its_repr_shows_no_password() -> None:
    kafka = Kafka(bootstrap_servers="b:1", client_id="shop", sasl_plain_password="hunter2")
    assert repr(kafka) == "Kafka(bootstrap_servers='b:1', client_id='shop')"


def test_settings_of_kafka_reach_the_pool_unless_the_pool_has_its_own() -> None:
    kafka = Kafka(bootstrap_servers="broker:1", metadata_max_age_ms=5_000, allow_auto_create_topics=False)
    options = kafka.connection_pool().options
    assert (options["metadata_max_age_ms"], options["allow_auto_create_topics"]) == (5_000, False)
    assert kafka.connection_pool(metadata_max_age_ms=7_000).options["metadata_max_age_ms"] == 7_000
