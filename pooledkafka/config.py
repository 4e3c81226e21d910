"""Which options belong to the pool, to a consumer and to a producer, and what to say about the rest."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.net.manager import KafkaConnectionManager
from kafka.net.sasl import SASL_MECHANISMS
from kafka.net.sasl.oauth import AbstractTokenProvider

from pooledkafka._secrets import SECRETS, Options, hidden
from pooledkafka.errors import ConfigurationError

__all__ = ["check_sizes", "client_options", "pool_options"]

_NUMBERS = ("_ms", "_bytes", "_size", "_records", "_requests", "_per_connection", "_connections", "_per_second")
_PER_CLIENT = {"request_timeout_ms", "max_in_flight_requests_per_connection", "metrics", "metric_group_prefix"}
"""Options of kafka-python's connections that each pooled client keeps for itself."""

CONNECTION_OPTIONS = frozenset(
    set(KafkaConnectionManager.DEFAULT_CONFIG) - _PER_CLIENT
    | {"bootstrap_timeout_ms", "selector", "socks5_proxy", "allow_auto_create_topics", "exit_timeout_ms"}
)
"""What all clients of a pool share: where it connects, as whom, how, and what it asks the cluster for."""

POOL_OPTIONS = frozenset(
    {
        "max_in_flight_requests",
        "max_leased_connections",
        "leased_connections_per_second",
        "request_timeout_ms",
        "fetch_buffer_bytes",
    }
)
"""What a pool itself keeps to, and is given where it is made."""

CONSUMER_OPTIONS = frozenset(KafkaConsumer.DEFAULT_CONFIG) - {"kafka_client"}
ADMIN_OPTIONS = frozenset(KafkaAdminClient.DEFAULT_CONFIG) - {"kafka_client"}
PRODUCER_OPTIONS = frozenset(KafkaProducer.DEFAULT_CONFIG) - {"kafka_client"}

_DEFAULTS: dict[str, Any] = {
    **{name: KafkaConnectionManager.DEFAULT_CONFIG.get(name) for name in CONNECTION_OPTIONS},
    # where kafka-python's clients and its connection manager differ, the clients' defaults are what users know
    **{name: KafkaConsumer.DEFAULT_CONFIG[name] for name in CONNECTION_OPTIONS & CONSUMER_OPTIONS},
    "allow_auto_create_topics": True,
    "bootstrap_timeout_ms": 30_000,
    # kafka-python's 30 s are for clients that each try by themselves. A pool tries once for all of its clients: it can
    # afford to do so each second, as Java's client does, and all of them depend on it.
    "reconnect_backoff_max_ms": 1_000,
    "exit_timeout_ms": 5_000,
}

_SECURITY_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")


def pool_options(given: Mapping[str, Any]) -> Options:
    """The complete options of a pool's connections; raises ConfigurationError for one that is wrong, or unknown."""
    for name in sorted(POOL_OPTIONS & set(given)):
        others = ", and of each client" if name in _PER_CLIENT else ""
        raise ConfigurationError(
            f"{name} is an option of ConnectionPool() and Kafka.connection_pool(){others}, not of a connection: give "
            "it there, and leave it out here"
        )
    _refuse_unknown(given, CONNECTION_OPTIONS, "a connection pool", CONNECTION_OPTIONS | POOL_OPTIONS)
    check_sizes(given)
    options = Options({**_DEFAULTS, **given})
    _check_security(options)
    return options


def client_options(
    given: Mapping[str, Any], known: Collection[str], what: str, pool: Mapping[str, Any]
) -> dict[str, Any]:
    """The options to give to kafka-python's client: its own, and the pool's.

    Raises ConfigurationError for an option that is unknown, or that contradicts the pool's connection or security.
    """
    _refuse_unknown(given, known, what)
    check_sizes(given)
    for name in sorted(CONNECTION_OPTIONS & set(given)):
        if given[name] != pool[name]:
            raise ConfigurationError(
                f"{name}={hidden(name, given[name])!r} was given to {what}, but its connection pool has "
                f"{name}={hidden(name, pool[name])!r}. All clients of a pool share its connections: leave the option "
                "out, or use a pool that has this value."
            )
    # It connects by the pool, so it needs no secrets; and kafka-python's admin client logs what it is given.
    shared = {name: pool[name] for name in CONNECTION_OPTIONS & set(known)}
    return {name: value for name, value in {**given, **shared}.items() if name not in SECRETS}


def check_sizes(options: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for a size, time, count or rate that is no number, or too small a one."""
    for name, value in options.items():
        if not name.endswith(_NUMBERS) or value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigurationError(f"{name} must be a number, not {value!r}")
        if not isinstance(value, int) and not name.endswith(("_ms", "_per_second")):
            raise ConfigurationError(f"{name} must be a whole number, but is {value!r}")
        # kafka-python's own way to say "no limit" or "never" for these two
        if value < 0 and not (value == -1 and name in ("consumer_timeout_ms", "linger_ms")):
            raise ConfigurationError(f"{name} must not be negative, but is {value!r}")
        if name.endswith("_per_second") and not value:
            raise ConfigurationError(f"{name} must be above zero, but is {value!r}")


def _check_security(options: Mapping[str, Any]) -> None:
    # kafka-python takes a protocol that it does not know for plaintext, and then sends everything unencrypted.
    protocol = options["security_protocol"]
    if protocol not in _SECURITY_PROTOCOLS:
        near = difflib.get_close_matches(str(protocol).upper(), _SECURITY_PROTOCOLS, n=1, cutoff=0.3)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigurationError(
            f"security_protocol={protocol!r} does not exist; it is one of {', '.join(_SECURITY_PROTOCOLS)}.{hint}"
        )
    if protocol.startswith("SASL_") and options["sasl_mechanism"] is None:
        raise ConfigurationError(f"security_protocol={protocol!r} needs sasl_mechanism, e.g. sasl_mechanism='PLAIN'")
    if protocol.startswith("SASL_"):
        _check_sasl(options, options["sasl_mechanism"])


def _check_sasl(options: Mapping[str, Any], mechanism: str) -> None:
    if mechanism not in SASL_MECHANISMS:
        near = difflib.get_close_matches(str(mechanism).upper(), SASL_MECHANISMS, n=1, cutoff=0.3)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigurationError(
            f"sasl_mechanism={mechanism!r} is not known; it is one of {', '.join(sorted(SASL_MECHANISMS))}.{hint}"
        )
    needed: tuple[str, ...] = ()
    if mechanism == "PLAIN" or mechanism.startswith("SCRAM"):
        needed = ("sasl_plain_username", "sasl_plain_password")
    elif mechanism == "OAUTHBEARER":
        needed = ("sasl_oauth_token_provider",)
    for name in needed:
        value = options[name]
        if value is None:
            raise ConfigurationError(f"sasl_mechanism={mechanism!r} needs {name}, which was not given")
        right = AbstractTokenProvider if name == "sasl_oauth_token_provider" else str
        if not isinstance(value, right):
            raise ConfigurationError(f"{name} must be an instance of {right.__qualname__}")


def _refuse_unknown(
    given: Mapping[str, Any], known: Collection[str], what: str, may_be_meant: Collection[str] = ()
) -> None:
    for name in sorted(set(given) - set(known)):
        near = difflib.get_close_matches(name, may_be_meant or known, n=1)
        hint = f"Did you mean {near[0]}?" if near else "See kafka-python's documentation for the names."
        raise ConfigurationError(f"{name} is not an option of {what}. {hint}")
