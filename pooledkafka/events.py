"""What a pool tells its listeners; see ``ConnectionPool.add_listener``."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ClientAttached",
    "ClientDetached",
    "ConnectionClosed",
    "ConnectionCreated",
    "ConnectionReady",
    "MetadataRefreshed",
    "PoolEvent",
    "Reauthenticated",
    "Throttled",
]


@dataclass(frozen=True)
class ConnectionCreated:
    """A connection is being opened."""

    broker: int
    """Its node id; -1 for a bootstrap address, whose node id is not known yet."""
    lane: str
    """What it is for: ``bootstrap``, ``control``, ``produce``, ``fetch``, ``catch-up`` or ``leased``."""
    address: str
    """``host:port``."""


@dataclass(frozen=True)
class ConnectionReady:
    """A connection is up: TCP, TLS, authentication and the exchange of versions are done."""

    broker: int
    lane: str
    address: str


@dataclass(frozen=True)
class Reauthenticated:
    """A connection has logged in again before its session ended (KIP-368)."""

    broker: int
    lane: str
    address: str


@dataclass(frozen=True)
class ConnectionClosed:
    """A connection has ended, or could not be opened."""

    broker: int
    lane: str
    address: str
    reason: str
    """``idle`` (nobody needed it any more), ``client closed`` (its request was that client's), ``disconnect`` (of the
    pool), ``bootstrapped`` (the cluster is known), ``session ended`` (it would have had to log in again, and nothing
    was in progress on it), or ``failed``."""
    error: BaseException | None
    """What went wrong, where the reason is ``failed``."""


@dataclass(frozen=True)
class ClientAttached:
    """A client began to use the pool: on its first use, and again after the pool was connected anew."""

    kind: str
    """``consumer``, ``producer`` or ``admin``."""


@dataclass(frozen=True)
class ClientDetached:
    """A client was closed, or ended with the pool."""

    kind: str


@dataclass(frozen=True)
class MetadataRefreshed:
    """The pool has new metadata of the cluster."""

    brokers: int
    """How many brokers the cluster has."""
    topics: int
    """How many topics the pool tracks."""


@dataclass(frozen=True)
class Throttled:
    """A broker asks for a pause, because a quota was exceeded (KIP-219); the pool keeps it on that lane."""

    broker: int
    lane: str
    throttle_time_ms: int


PoolEvent = (
    ConnectionCreated
    | ConnectionReady
    | ConnectionClosed
    | ClientAttached
    | ClientDetached
    | MetadataRefreshed
    | Reauthenticated
    | Throttled
)
