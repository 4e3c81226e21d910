"""What clients connect to: a broker's listeners, as the broker is told of them and as clients are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

USERNAME = "pooledkafka"
SECRETS_DIRECTORY = "/etc/kafka/secrets"
KEYSTORE_FILE = "keystore.p12"


class Listener(str, Enum):
    """A way for clients to connect. The plain string is accepted wherever a Listener is."""

    PLAINTEXT = "plaintext"
    TLS = "tls"
    SASL_PLAIN = "sasl_plain"
    SCRAM = "scram"
    SASL_TLS = "sasl_tls"


@dataclass(frozen=True)
class _Kind:
    # The start script of the official image takes a listener called SSL or SASL_... for its own to configure.
    name: str
    port: int  # inside the container
    security_protocol: str
    mechanism: str | None = None


KINDS = {
    Listener.PLAINTEXT: _Kind("HOST", 9092, "PLAINTEXT"),
    Listener.TLS: _Kind("TLS", 9093, "SSL"),
    Listener.SASL_PLAIN: _Kind("PLAIN", 9094, "SASL_PLAINTEXT", "PLAIN"),
    Listener.SCRAM: _Kind("SCRAM", 9095, "SASL_PLAINTEXT", "SCRAM-SHA-256"),
    Listener.SASL_TLS: _Kind("PLAINTLS", 9096, "SASL_SSL", "PLAIN"),
}
TLS = frozenset({Listener.TLS, Listener.SASL_TLS})
"""The listeners that need a certificate."""


def parse_listener(listener: Listener | str) -> Listener:
    """The Listener of that name. Raises ValueError that lists the names there are."""
    try:
        return Listener(listener)
    except ValueError:
        known = ", ".join(repr(known.value) for known in Listener)
        raise ValueError(f"unknown listener {listener!r}; expected one of {known}") from None


def parse_listeners(listeners: Collection[Listener | str]) -> tuple[Listener, ...]:
    """All that a cluster has to open. The plaintext one is always among them: readiness is asked through it."""
    if isinstance(listeners, str):
        raise ValueError(f"listeners must be a collection of listeners, not the one string {listeners!r}")
    asked = {parse_listener(listener) for listener in listeners} | {Listener.PLAINTEXT}
    return tuple(listener for listener in Listener if listener in asked)


def listener_properties(listeners: Collection[Listener], password: str) -> dict[str, str]:
    """The broker's properties that make the listeners secure."""
    properties = {}
    for listener in listeners:
        kind = KINDS[listener]
        prefix = f"listener.name.{kind.name.lower()}."
        if listener in TLS:
            properties[prefix + "ssl.keystore.location"] = f"{SECRETS_DIRECTORY}/{KEYSTORE_FILE}"
            properties[prefix + "ssl.keystore.type"] = "PKCS12"
            properties[prefix + "ssl.keystore.password"] = password
            properties[prefix + "ssl.key.password"] = password
        if kind.mechanism is not None:
            module = "plain.PlainLoginModule" if kind.mechanism == "PLAIN" else "scram.ScramLoginModule"
            # The users of SCRAM live in the cluster's metadata; those of PLAIN are listed here.
            users = f' user_{USERNAME}="{password}"' if kind.mechanism == "PLAIN" else ""
            properties[prefix + "sasl.enabled.mechanisms"] = kind.mechanism
            properties[f"{prefix}{kind.mechanism.lower()}.sasl.jaas.config"] = (
                f"org.apache.kafka.common.security.{module} required{users};"
            )
    return properties


def client_options(
    listener: Listener, ports: Collection[Mapping[Listener, int]], host: str, password: str, ssl_cafile: str | None
) -> dict[str, Any]:
    """Keyword arguments for any kafka-python client; `ports` has one mapping a broker."""
    kind = KINDS[listener]
    options: dict[str, Any] = {
        "bootstrap_servers": ",".join(f"{host}:{of_broker[listener]}" for of_broker in ports),
        "security_protocol": kind.security_protocol,
    }
    if listener in TLS:
        options["ssl_cafile"] = ssl_cafile
    if kind.mechanism is not None:
        options.update(sasl_mechanism=kind.mechanism, sasl_plain_username=USERNAME, sasl_plain_password=password)
    return options
