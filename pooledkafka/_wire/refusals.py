"""What a failed connection means, and when another attempt would not help."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from kafka.errors import (
    BrokerResponseError,
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaTimeoutError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)

from pooledkafka._wire.lanes import Lane, LaneKey
from pooledkafka.errors import ConnectFailedError

__all__ = ["LOGIN_ERRORS", "Attempts", "Kind", "Refusal", "Refusals", "refusal_of"]

GRACE_S = 1.0
"""How long a cluster that cannot be reached is tried again: a broker that restarts is not there for a moment."""

LOGIN_ERRORS = (SaslAuthenticationFailedError, UnsupportedSaslMechanismError, IllegalSaslStateError)
_NETWORK_ERROR = re.compile(r"\d+ (ECONNREFUSED|EHOSTUNREACH|ENETUNREACH)")


class Kind(Enum):
    """Why a connection could not be used."""

    LOGIN = "login"
    TLS = "TLS"
    DNS = "DNS"
    REFUSED = "refused"
    HUNG_UP = "hung up"
    OTHER = "other"


_FINAL = (Kind.LOGIN, Kind.TLS)


@dataclass(frozen=True)
class Refusal:
    """A connection that failed."""

    address: str
    kind: Kind
    cause: str
    """What happened."""
    advice: str
    """What to do; may be empty."""
    error: BaseException

    @property
    def what(self) -> str:
        """What happened, and what to do."""
        return f"{self.cause}. {self.advice}" if self.advice else self.cause

    def __str__(self) -> str:
        return f"{self.address}: {self.what}"

    def as_error(self, message: str) -> Exception:
        """What to raise for it: kafka-python's error for a login, ConnectFailedError for all else."""
        if self.kind is Kind.LOGIN:
            assert isinstance(self.error, BrokerResponseError)
            error: Exception = type(self.error)(message)
        else:
            error = ConnectFailedError(message)
        error.__cause__ = self.error
        return error


def refusal_of(address: str, error: BaseException, options: Any) -> Refusal:
    """What ``error`` means, that a connection to ``address`` has ended with; ``options`` are those of the pool."""
    kind, cause, advice = _meaning(error, options)
    return Refusal(address, kind, cause, advice, error)


def _meaning(error: BaseException, options: Any) -> tuple[Kind, str, str]:
    """Of what kind it is, what happened, and what to do."""
    if isinstance(error, LOGIN_ERRORS):
        return Kind.LOGIN, *_of_login(error, options)
    for each in _chain(error):
        if isinstance(each, ssl.SSLError) and not isinstance(each, ssl.SSLEOFError):
            return Kind.TLS, *_of_tls(each)
        if isinstance(each, FileNotFoundError | PermissionError):
            return Kind.TLS, f"a file with a key or certificate cannot be read: {each}", ""
    text = str(error)
    if any(isinstance(each, KafkaTimeoutError) for each in _chain(error)):
        return Kind.OTHER, f"no answer in time ({text})", ""
    if "DNS" in text:
        return (
            Kind.DNS,
            "the name cannot be resolved (DNS)",
            "Check bootstrap_servers, and the advertised listeners",
        )
    if found := _NETWORK_ERROR.search(text):
        return (
            Kind.REFUSED,
            f"the connection was refused ({found[1]})",
            "Check that a broker listens there, and that no firewall is in between",
        )
    protocol = options["security_protocol"]
    if "Handshake failed" in text:
        return (
            Kind.HUNG_UP,
            f"the connection was closed during the TLS handshake ({text})",
            (
                f"Check that security_protocol={protocol!r} is the listener's, and whether the broker wants a client "
                "certificate (ssl_certfile)"
            ),
        )
    if "InvalidReceiveError" in repr(error):  # itself, or what the manager makes of it
        return (
            Kind.HUNG_UP,
            f"what answers does not speak Kafka's protocol in plain text ({text})",
            "Check the port, and whether the listener wants TLS (security_protocol 'SSL' or 'SASL_SSL')",
        )
    if isinstance(error, KafkaConnectionError) and "timed out" not in text:
        return (
            Kind.HUNG_UP,
            f"the broker closed the connection ({text})",
            (
                f"Check that security_protocol={protocol!r} is the listener's: one that wants a login or TLS does that "
                "without a word"
            ),
        )
    return Kind.OTHER, repr(error), ""


def _of_login(error: BaseException, options: Any) -> tuple[str, str]:
    mechanism = options["sasl_mechanism"]
    # kafka-python puts the name of the error in front of the broker's words.
    said = str(error.args[0]).removeprefix(f"{type(error).__name__}: ") if error.args else type(error).__name__
    if isinstance(error, UnsupportedSaslMechanismError):
        return f"the broker does not offer sasl_mechanism={mechanism!r} ({said})", "Check the mechanism, and the port"
    if isinstance(error, IllegalSaslStateError):
        return (
            f"the listener wants no login ({said})",
            "Check the port, and security_protocol: without a login it is 'PLAINTEXT' or 'SSL'",
        )
    check = "sasl_oauth_token_provider" if mechanism == "OAUTHBEARER" else "sasl_plain_username and sasl_plain_password"
    return f"the login by {mechanism} was refused: {said}", f"Check {check}"


def _of_tls(error: ssl.SSLError) -> tuple[str, str]:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the broker's certificate is not trusted: {error.verify_message.rstrip('.')}",
            "Check ssl_cafile, the name in bootstrap_servers, and that the certificate is still valid",
        )
    said = str(error.args[-1] if error.args else error)
    if error.reason == "WRONG_VERSION_NUMBER":
        return (
            f"what answers does not speak TLS ({said})",
            "Check the port, and that security_protocol is the listener's",
        )
    if "ALERT" in (error.reason or ""):
        return (
            f"the broker refused the TLS handshake ({said})",
            "Check the client certificate (ssl_certfile, ssl_keyfile), and which TLS versions the broker allows",
        )
    return f"TLS failed ({said})", "Check ssl_certfile, ssl_keyfile and ssl_password, and the broker's TLS versions"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it comes from; kafka-python also wraps errors as arguments of others."""
    todo, seen = [error], set()
    while todo:
        each = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        todo += [other for other in (each.__cause__, each.__context__, *each.args) if isinstance(other, BaseException)]


class Attempts:
    """What became of the attempts to find the cluster, by address; the I/O thread's.

    Nothing is decided before every address was tried, since one good one is enough. A refused login or a certificate
    that is not trusted will not change. What else fails at once may be a broker that restarts, and is tried for
    ``GRACE_S``. A connection that is not answered at all decides nothing.
    """

    def __init__(self, addresses: Collection[str]) -> None:
        self._untried = set(addresses)
        self._last: dict[str, Refusal] = {}
        self._began_at = time.monotonic()

    def add(self, refusal: Refusal) -> None:
        """An attempt has failed."""
        known = self._last.get(refusal.address)
        if known is None or known.kind not in _FINAL:  # at times a broker hangs up before its reason is heard
            self._last[refusal.address] = refusal
        self._untried.discard(refusal.address)

    def verdict(self) -> Exception | None:
        """The error to give up with; None while another attempt may help."""
        if self._untried or not self._last:
            return None
        decisive = self._decisive()
        if decisive.kind not in _FINAL and (
            any(each.kind is Kind.OTHER for each in self._last.values()) or time.monotonic() - self._began_at < GRACE_S
        ):
            return None
        return decisive.as_error(f"could not connect to the Kafka cluster. {self}.")

    def _decisive(self) -> Refusal:
        order = list(Kind)
        return min(self._last.values(), key=lambda refusal: order.index(refusal.kind))

    def __str__(self) -> str:
        return "; ".join(str(each) for each in self._last.values())

    def __bool__(self) -> bool:
        return bool(self._last)


class Refusals:
    """Who does not let the pool in any more, though it did once.

    The credentials are the pool's: whichever broker lets it in, they are good again. Changed on the I/O thread; ``of``
    is for any other.
    """

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        self._by_broker: dict[int, tuple[Refusal, float]] = {}  # replaced, never changed

    def add(self, node_id: int, refusal: Refusal) -> bool:
        """Remember a failed connection, where it is a refusal; whether it is."""
        if refusal.kind not in _FINAL:
            return False
        self._by_broker = {**self._by_broker, node_id: (refusal, time.monotonic())}
        return True

    def clear(self) -> None:
        """A broker has let the pool in."""
        if self._by_broker:
            self._by_broker = {}

    def of(self, lane: Lane) -> Exception | None:
        """The error to raise to a client that needs ``lane``, where a broker refuses to open it.

        What is still connected goes on. One that is told so tries again by that: maybe nobody else does.
        """
        for node_id, (refusal, at) in self._by_broker.items():
            key = LaneKey(node_id, lane)
            # While somebody needs the broker it is tried this often at least; an older refusal tells nothing.
            if self._manager.is_connected(key) or time.monotonic() - at > self._longest_pause_s():
                continue
            self._manager.try_soon(key)
            return refusal.as_error(f"the pool is not let in any more. {refusal}. It is tried again meanwhile.")
        return None

    def _longest_pause_s(self) -> float:
        return float(self._manager.config["reconnect_backoff_max_ms"]) / 1000 * 1.5 + 1
