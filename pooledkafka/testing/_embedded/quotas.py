"""Client quotas: how many bytes a second a client may send and read (KIP-13, KIP-219)."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["NAMES", "Quotas"]

NAMES = ("producer_byte_rate", "consumer_byte_rate")
_WINDOW_S = 10.0  # the full ones of Kafka's quota.window.num, each of a second


class Quotas:
    """Byte rates by client id, or of all clients that have none of their own.

    A client may use ten seconds' worth at once, as Kafka measures rates over so long. One that was faster is answered
    at once and told how long it is held back: until then its connection is not read.

    Args:
        now: a steady clock, in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.limits: dict[tuple[str | None, str], float] = {}
        """Bytes a second by client id (None: the default) and name."""
        self._used: dict[tuple[str | None, str], tuple[float, float]] = {}  # bytes not paid for yet, and when that was

    def sent_ms(self, client_id: str | None, size: int) -> int:
        """Count bytes that a client has sent; returns for how long it is now held back, in ms."""
        return self._over_ms("producer_byte_rate", client_id, size, always=True)

    def read_ms(self, client_id: str | None, size: int) -> int:
        """Count bytes that a client is about to be sent; returns for how long it is now held back, in ms.

        Where it is, it must not be sent them, and they are not counted.
        """
        return self._over_ms("consumer_byte_rate", client_id, size, always=False)

    def most_to_read(self, client_id: str | None) -> int:
        """How many bytes a client may be sent in one answer: else it might never be sent any."""
        limit = self._limit("consumer_byte_rate", client_id)
        return 2**31 - 1 if limit is None else max(1, int(limit * _WINDOW_S))

    def set(self, name: str, bytes_a_second: float | None, client_id: str | None = None) -> None:
        """Limit a client, or with None as its id all that have no limit of their own; None ends the limit."""
        if bytes_a_second is None:
            self.limits.pop((client_id, name), None)
        else:
            self.limits[client_id, name] = bytes_a_second

    def _limit(self, name: str, client_id: str | None) -> float | None:
        return self.limits.get((client_id, name), self.limits.get((None, name)))

    def _over_ms(self, name: str, client_id: str | None, size: int, always: bool) -> int:
        limit = self._limit(name, client_id)
        if limit is None:
            return 0
        now = self._now()
        used, at = self._used.get((client_id, name), (0.0, now))
        owed = max(0.0, used - limit * (now - at))
        held_ms = max(0, math.ceil((owed + size - limit * _WINDOW_S) / limit * 1000))
        if held_ms and not always:
            if owed:
                return held_ms
            held_ms = 0  # one batch of more than ten seconds' worth: some time it must be sent
        self._used[client_id, name] = owed + size, now
        return min(held_ms, 2**31 - 1)
