"""What every connection carried, and when."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["CONNECTIONS", "ConnectionRecord", "Exchange", "most_outstanding"]

CONNECTIONS = 1_000
"""How many connections that have ended are remembered."""
_EXCHANGES = 1_000


@dataclass(slots=True)
class Exchange:
    """One request and its answer. Times are those of ``time.monotonic()``."""

    api: str
    version: int
    client_id: str | None
    correlation_id: int
    arrived_at: float
    """When its last byte was read, though an earlier request may still be served."""
    answered_at: float | None = None
    """When its answer was written, or it was done where it has none; None so far."""


class ConnectionRecord:
    """One connection to a broker, from its opening to its end; written by the cluster's thread, read by any.

    Attributes:
        number: counted from 1 over all brokers, in the order of opening.
        node_id, listener: where it goes.
        opened_at, closed_at: by ``time.monotonic()``; ``closed_at`` is None while it is open.
        principal: who has logged in last; None: nobody.
        expired: whether it was closed because a request came after its session's end.
    """

    def __init__(self, number: int, node_id: int, listener: str, exchanges: Iterable[Exchange] = ()) -> None:
        self.number = number
        self.node_id = node_id
        self.listener = listener
        self.opened_at = time.monotonic()
        self.closed_at: float | None = None
        self.principal: str | None = None
        self.expired = False
        self._exchanges = deque(exchanges, maxlen=_EXCHANGES)

    @property
    def exchanges(self) -> list[Exchange]:
        """Its requests with their answers, in their order; the last 1000."""
        return list(self._exchanges)

    def add(self, exchange: Exchange) -> None:
        """A request has arrived."""
        self._exchanges.append(exchange)

    @property
    def client_ids(self) -> set[str | None]:
        """Whose requests it carried."""
        return {exchange.client_id for exchange in self.exchanges}

    def outstanding_at(self, instant: float) -> list[Exchange]:
        """The requests that had arrived and were not answered at an instant of ``time.monotonic()``."""
        return [each for each in self.exchanges if each.arrived_at <= instant < self.ended(each)]

    @property
    def most_outstanding(self) -> int:
        """The most requests that waited for their answers at any one instant."""
        return most_outstanding([self])

    def ended(self, exchange: Exchange) -> float:
        """When a request was answered, or could be answered no more."""
        if exchange.answered_at is not None:
            return exchange.answered_at
        return float("inf") if self.closed_at is None else self.closed_at

    def __repr__(self) -> str:
        state = "open" if self.closed_at is None else "closed"
        return f"<ConnectionRecord {self.number} of broker {self.node_id} [{state}]: {len(self._exchanges)} exchanges>"


def most_outstanding(connections: Sequence[ConnectionRecord]) -> int:
    """The most requests that waited for their answers at any one instant, over several connections together."""
    changes = []
    for connection in connections:
        for exchange in connection.exchanges:
            changes.append((exchange.arrived_at, 1))
            changes.append((connection.ended(exchange), -1))
    most = now = 0
    for _, change in sorted(changes):  # at the same instant, an answer comes before an arrival
        now += change
        most = max(most, now)
    return most
