"""Why a step of ``doctor`` failed, where the error alone does not tell: it tries what would have worked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from kafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    KafkaError,
    KafkaTimeoutError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
)

from pooledkafka._wire.probing import Probe, Prober
from pooledkafka._wire.refusals import Kind, Refusal

__all__ = ["advice_on", "second_look"]

_T = TypeVar("_T")

_TOO_OLD = "Use Kafka 0.11 or later: clients with the default options need its record batches, and its ids of producers"


def second_look(
    prober: Prober, probe: Probe, step: str, refusal: Refusal, host: str, port: int
) -> tuple[str, str] | None:
    """A better cause and advice than those of ``refusal``, found by trying something else; None where there is none.

    A listener that is spoken to in the wrong way mostly hangs up without a word. No secret is sent.
    """
    error = refusal.error
    protocol = str(prober.options["security_protocol"])
    if isinstance(error, IncompatibleBrokerVersion):
        version = f" (Kafka {probe.broker_version})" if probe.broker_version else ""
        return f"the broker is too old{version}: {error}", _TOO_OLD
    if step == "TCP connection" and refusal.kind is Kind.OTHER:
        return (
            f"no answer within {prober.timeout_ms / 1000:g} s",
            "Check the address, and whether a firewall is in between that drops what it does not let through",
        )
    if isinstance(error, KafkaTimeoutError | RequestTimedOutError):
        return (
            f"what listens there did not answer within {prober.timeout_ms / 1000:g} s",
            "Check that it is a Kafka broker, and that it does not hang; or give --timeout more seconds",
        )
    if isinstance(error, UnsupportedSaslMechanismError):
        offered = _offered(prober, probe, host, port)
        if offered:
            return (
                f"the broker does not offer {prober.options['sasl_mechanism']}; it offers {', '.join(offered)}",
                f"Set sasl_mechanism to {_one_of(offered)}, with a user of that mechanism",
            )
        return None
    if refusal.kind in (Kind.LOGIN, Kind.DNS, Kind.REFUSED) or "not trusted" in refusal.cause:
        return None
    if step == "TLS handshake" and _tried(lambda: _speaks_plain_text(prober, host, port)):
        right = protocol.replace("SASL_SSL", "SASL_PLAINTEXT") if probe.logs_in else "PLAINTEXT"
        return (
            "the listener speaks plain text, without TLS",
            f"Set security_protocol to '{right}', or take the port of the listener with TLS",
        )
    if step == "API versions" and not probe.is_secure and _tried(lambda: _speaks_tls(prober, host, port)):
        right = "SASL_SSL" if probe.logs_in else "SSL"
        return (
            "the listener speaks TLS, and was spoken to in plain text",
            f"Set security_protocol to '{right}'"
            + ("" if probe.logs_in else " (or 'SASL_SSL', where it wants a login)"),
        )
    if step == "API versions" and _tried(lambda: _is_ancient(prober, probe, host, port)):
        return "the broker is too old: it is from before Kafka 0.10, which has no ApiVersions", _TOO_OLD
    if step == "metadata" and not probe.logs_in:
        offered = _offered(prober, probe, host, port)
        if offered:
            right = "SASL_SSL" if probe.is_secure else "SASL_PLAINTEXT"
            return (
                f"the listener wants a login (SASL), and the client has none; it offers {', '.join(offered)}",
                f"Set security_protocol to '{right}', sasl_mechanism to {_one_of(offered)}, and name and password",
            )
    return None


def advice_on(error: Exception, what: str) -> tuple[str, str]:
    """Cause and advice for an error that a broker answers, or a client raises, about ``what``."""
    kinds: list[tuple[type[Exception], str, str]] = [
        (
            TopicAuthorizationFailedError,
            f"the user has no right to {what}",
            "Allow it with an ACL: DESCRIBE and READ on the topic to read it, WRITE to write to it",
        ),
        (
            GroupAuthorizationFailedError,
            f"the user has no right to {what}",
            "Allow READ on the group with an ACL, or name a group that the user may use (--group)",
        ),
        (
            ClusterAuthorizationFailedError,
            f"the user may write to {what}, but not with an idempotent producer, which is the default",
            "Allow IDEMPOTENT_WRITE on the cluster with an ACL, or set enable_idempotence=False",
        ),
        (
            TransactionalIdAuthorizationFailedError,
            f"the user has no right to the transactional id of {what}",
            "Allow WRITE on it with an ACL",
        ),
        (
            UnknownTopicOrPartitionError,
            f"{what} does not exist, or the user may not know of it",
            "Check its name, create it, or allow DESCRIBE on it with an ACL",
        ),
    ]
    for kind, cause, advice in kinds:
        if isinstance(error, kind) or isinstance(error.__cause__, kind):
            return cause, advice
    return str(error) or repr(error), ""


def _speaks_tls(prober: Prober, host: str, port: int) -> bool:
    with prober.trusting_probe(host, port) as other:
        other.connect()
        other.shake_hands()
        return True


def _speaks_plain_text(prober: Prober, host: str, port: int) -> bool:
    with prober.plain_probe(host, port) as other:
        other.connect()
        other.shake_hands()
        other.ask_versions()
        return True


def _is_ancient(prober: Prober, probe: Probe, host: str, port: int) -> bool:
    with _like(prober, probe, host, port) as other:
        other.connect()
        other.shake_hands()
        return other.answers_without_versions()


def _offered(prober: Prober, probe: Probe, host: str, port: int) -> list[str]:
    def ask() -> list[str]:
        with _like(prober, probe, host, port) as other:
            other.connect()
            other.shake_hands()
            other.ask_versions()
            return other.offered_mechanisms()

    return _tried(ask) or []


def _like(prober: Prober, probe: Probe, host: str, port: int) -> Probe:
    return prober.probe(host, port) if probe.is_secure else prober.plain_probe(host, port)


def _tried(attempt: Callable[[], _T]) -> _T | None:
    try:
        return attempt()
    except KafkaError:
        return None


def _one_of(mechanisms: list[str]) -> str:
    return " or ".join(f"'{each}'" for each in mechanisms)
