from __future__ import annotations

import pytest

from pooledkafka.testing import Listener
from pooledkafka.testing._listeners import KINDS, client_options, listener_properties, parse_listener, parse_listeners

PORTS = [{listener: 1000 * node + KINDS[listener].port for listener in Listener} for node in (1, 2)]


def options(listener: Listener) -> dict[str, str]:
    return client_options(listener, PORTS, "127.0.0.1", "secret", "/ca.pem")


def test_strings_are_accepted_and_the_plaintext_listener_is_always_there() -> None:
    assert parse_listeners(["tls", Listener.SCRAM]) == (Listener.PLAINTEXT, Listener.TLS, Listener.SCRAM)
    assert parse_listeners(()) == (Listener.PLAINTEXT,)


def test_an_unknown_listener() -> None:
    with pytest.raises(
        ValueError, match="unknown listener 'ssl'; expected one of 'plaintext', 'tls', 'sasl_plain', 'scram'"
    ):
        parse_listener("ssl")


def test_one_string_is_no_collection_of_listeners() -> None:
    with pytest.raises(ValueError, match="not the one string 'tls'"):
        parse_listeners("tls")


def test_what_clients_are_told() -> None:
    assert options(Listener.PLAINTEXT) == {
        "bootstrap_servers": "127.0.0.1:10092,127.0.0.1:11092",
        "security_protocol": "PLAINTEXT",
    }
    assert options(Listener.TLS) == {
        "bootstrap_servers": "127.0.0.1:10093,127.0.0.1:11093",
        "security_protocol": "SSL",
        "ssl_cafile": "/ca.pem",
    }
    credentials = {"sasl_plain_username": "pooledkafka", "sasl_plain_password": "secret"}
    assert options(Listener.SASL_PLAIN) == credentials | {
        "bootstrap_servers": "127.0.0.1:10094,127.0.0.1:11094",
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
    }
    assert options(Listener.SCRAM) == credentials | {
        "bootstrap_servers": "127.0.0.1:10095,127.0.0.1:11095",
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-256",
    }


def test_what_brokers_are_told() -> None:
    assert listener_properties([Listener.PLAINTEXT], "secret") == {}
    properties = listener_properties(list(Listener), "secret")
    assert properties["listener.name.tls.ssl.keystore.location"] == "/etc/kafka/secrets/keystore.p12"
    assert properties["listener.name.tls.ssl.keystore.password"] == "secret"
    assert properties["listener.name.plain.sasl.enabled.mechanisms"] == "PLAIN"
    assert 'user_pooledkafka="secret"' in properties["listener.name.plain.plain.sasl.jaas.config"]
    assert properties["listener.name.scram.sasl.enabled.mechanisms"] == "SCRAM-SHA-256"
    assert "secret" not in properties["listener.name.scram.scram-sha-256.sasl.jaas.config"]


def test_the_official_image_configures_none_of_the_listeners_itself() -> None:
    for kind in KINDS.values():
        assert not kind.name.endswith("SSL")
        assert "SASL_" not in kind.name
