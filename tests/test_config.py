from __future__ import annotations

import inspect
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

from pooledkafka import ConfigurationError, ConnectionPool
from pooledkafka.config import (
    CONNECTION_OPTIONS,
    CONSUMER_OPTIONS,
    POOL_OPTIONS,
    PRODUCER_OPTIONS,
    check_sizes,
    client_options,
    pool_options,
)


def test_a_pool_has_the_defaults_that_users_of_the_clients_know() -> None:
    options = pool_options({})
    for name in (CONNECTION_OPTIONS & CONSUMER_OPTIONS) - {"reconnect_backoff_max_ms"}:
        assert options[name] == KafkaConsumer.DEFAULT_CONFIG[name], name
    assert options["reconnect_backoff_max_ms"] == 1_000, "a pool tries once for all of its clients, so it may try soon"
    assert set(options) == CONNECTION_OPTIONS


def test_what_is_given_wins_over_the_default() -> None:
    assert pool_options({"client_id": "shop"})["client_id"] == "shop"


@pytest.mark.parametrize(
    ("wrong", "right"), [("bootstrap_server", "bootstrap_servers"), ("security_protcol", "security_protocol")]
)
def test_an_unknown_option_is_refused_with_the_nearest_name(wrong: str, right: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"{wrong} is not an option of a connection pool. Did you mean {right}"
    ):
        pool_options({wrong: "x"})


def test_an_unknown_option_that_resembles_nothing_points_to_the_documentation() -> None:
    with pytest.raises(ConfigurationError, match="See kafka-python's documentation"):
        pool_options({"zzzzzzzz": 1})


@pytest.mark.parametrize("option", sorted(POOL_OPTIONS))
def test_an_option_of_the_pool_itself_is_sent_there(option: str) -> None:
    assert option in inspect.signature(ConnectionPool).parameters
    with pytest.raises(ConfigurationError, match=rf"{option} is an option of ConnectionPool\(\)"):
        pool_options({option: 1})


def test_what_a_pool_takes_by_name_is_its_own_or_its_connections() -> None:
    named = {name for name in inspect.signature(ConnectionPool).parameters if name != "options"}
    assert named <= POOL_OPTIONS | CONNECTION_OPTIONS


@pytest.mark.parametrize("option", ["group_id", "acks", "kafka_client", "max_in_flight_requests_per_connection"])
def test_options_of_a_client_are_not_the_pools(option: str) -> None:
    with pytest.raises(ConfigurationError, match=option):
        pool_options({option: 1})


@pytest.mark.parametrize(
    "options",
    [
        {"request_timeout_ms": -1},
        {"metadata_max_age_ms": "5000"},
        {"fetch_max_bytes": True},
        {"max_poll_records": -5},
        {"batch_size": None, "linger_ms": -2},
        {"max_in_flight_requests_per_connection": -1},
        {"max_in_flight_requests": 1.5},
        {"fetch_buffer_bytes": 1e6},
    ],
)
def test_a_size_that_cannot_be_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=list(options)[-1]):
        check_sizes(options)


def test_kafka_pythons_own_ways_to_say_never_are_kept() -> None:
    check_sizes({"consumer_timeout_ms": -1, "linger_ms": 0.5, "fetch_max_wait_ms": 0, "send_buffer_bytes": None})
    check_sizes({"consumer_timeout_ms": float("inf"), "security_protocol": "-1"})


def test_a_client_gets_the_pools_connection_and_its_own_options() -> None:
    pool = pool_options({"bootstrap_servers": "b:1", "client_id": "shop"})
    options = client_options({"group_id": "g"}, CONSUMER_OPTIONS, "a consumer", pool)
    assert options["group_id"] == "g"
    assert options["client_id"] == "shop"
    assert options["bootstrap_servers"] == "b:1"
    assert set(options) <= CONSUMER_OPTIONS
    assert "auto_offset_reset" not in options, "kafka-python's own defaults stay its own"


def test_an_option_that_contradicts_the_pool_is_refused_with_both_values() -> None:
    pool = pool_options({"client_id": "shop"})
    with pytest.raises(ConfigurationError, match=r"client_id='other' .* client_id='shop'"):
        client_options({"client_id": "other"}, PRODUCER_OPTIONS, "a producer", pool)
    client_options({"client_id": "shop"}, PRODUCER_OPTIONS, "a producer", pool)  # the same value is no contradiction


@pytest.mark.parametrize("secret", ["sasl_plain_password", "ssl_password"])
def test_a_contradiction_never_shows_a_password(secret: str) -> None:
    pool = pool_options({secret: "of-the-pool"})
    with pytest.raises(ConfigurationError) as refused:
        client_options({secret: "of-the-client"}, PRODUCER_OPTIONS, "a producer", pool)
    assert secret in str(refused.value)
    assert "of-the" not in str(refused.value)


@pytest.mark.parametrize("option", ["request_timeout_ms", "max_in_flight_requests_per_connection", "metric_reporters"])
def test_some_options_are_each_clients_own(option: str) -> None:
    value: Any = [] if option == "metric_reporters" else 1
    options = client_options({option: value}, PRODUCER_OPTIONS, "a producer", pool_options({}))
    assert options[option] == value


def test_consumers_and_producers_know_all_of_kafka_pythons_options_but_its_client() -> None:
    assert set(KafkaConsumer.DEFAULT_CONFIG) - CONSUMER_OPTIONS == {"kafka_client"}
    assert set(KafkaProducer.DEFAULT_CONFIG) - PRODUCER_OPTIONS == {"kafka_client"}


def test_a_configuration_error_is_a_value_error_and_a_kafka_error() -> None:
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(ConfigurationError, KafkaError)


@pytest.mark.parametrize(("wrong", "right"), [("SASL_SLL", "SASL_SSL"), ("ssl", "SSL"), ("PLAIN", "PLAINTEXT")])
def test_a_security_protocol_that_does_not_exist_is_never_taken_for_plaintext(wrong: str, right: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"security_protocol='{wrong}' does not exist.*mean {right}\?"):
        pool_options({"security_protocol": wrong})


def test_sasl_needs_a_mechanism() -> None:
    with pytest.raises(ConfigurationError, match="needs sasl_mechanism"):
        pool_options({"security_protocol": "SASL_SSL"})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sasl_mechanism": "PLAN"}, "sasl_mechanism='PLAN' is not known; .* Did you mean PLAIN"),
        ({"sasl_mechanism": "PLAIN", "sasl_plain_username": "shop"}, "needs sasl_plain_password"),
        ({"sasl_mechanism": "SCRAM-SHA-512", "sasl_plain_password": "hunter2"}, "needs sasl_plain_username"),
        ({"sasl_mechanism": "OAUTHBEARER"}, "needs sasl_oauth_token_provider"),
        (
            {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": print},
            "must be an instance of AbstractTokenProvider",
        ),
        (
            {"sasl_mechanism": "PLAIN", "sasl_plain_username": "shop", "sasl_plain_password": b"hunter2"},
            "must be an instance of str",
        ),
    ],
)
def test_what_a_login_needs_is_asked_for_before_anything_connects(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as error:
        pool_options({"security_protocol": "SASL_SSL", **options})
    assert "hunter2" not in str(error.value)
