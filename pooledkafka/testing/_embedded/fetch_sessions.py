"""Incremental fetch sessions (KIP-227): what each client follows, and what it has been told already."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kafka.errors import FetchSessionIdNotFoundError, InvalidFetchSessionEpochError

__all__ = ["FetchSession", "FetchSessions", "Followed"]

Key = tuple[str, int]
_SAFE_S = 120.0


@dataclass
class Followed:
    """One partition of a session: what was asked of it last, and what was said of it last."""

    asked: Any
    told: tuple[int, int, int] | None = None
    """High watermark, last stable offset and log start offset."""


@dataclass
class FetchSession:
    """The partitions that a client follows, in the order in which they get room in a response."""

    session_id: int
    opened_at: float
    used_at: float
    epoch: int = 1
    """The epoch that the next request must have."""
    partitions: OrderedDict[Key, Followed] = field(default_factory=OrderedDict)


class FetchSessions:
    """The sessions of one broker, as FetchSessionCache.

    Where there is no more room, one makes room that was not used for two minutes; or one that is that old and follows
    less than the new one will.

    Args:
        slots: how many there may be.
        now: a steady clock, in seconds.
    """

    def __init__(self, slots: int, now: Callable[[], float]) -> None:
        self._now = now
        self._slots = slots
        self._numbers = itertools.count(1)
        self._sessions: OrderedDict[int, FetchSession] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, size: int) -> FetchSession | None:
        """A new session of so many partitions; None where there is no room for one."""
        if len(self._sessions) >= self._slots:
            victim = self._victim(size)
            if victim is None:
                return None
            del self._sessions[victim.session_id]
        session = FetchSession(next(self._numbers), self._now(), self._now())
        self._sessions[session.session_id] = session
        return session

    def _victim(self, size: int) -> FetchSession | None:
        before = self._now() - _SAFE_S
        for session in self._sessions.values():
            if session.used_at < before:
                return session
            break  # all others were used later
        old = (session for session in self._sessions.values() if session.opened_at < before)
        smallest = min(old, key=lambda session: (len(session.partitions), session.session_id), default=None)
        return smallest if smallest is not None and len(smallest.partitions) < size else None

    def resume(self, session_id: int, epoch: int) -> FetchSession:
        """The session that a request continues, now one epoch further.

        Raises FetchSessionIdNotFoundError and InvalidFetchSessionEpochError.
        """
        session = self._sessions.get(session_id)
        if session is None:
            raise FetchSessionIdNotFoundError(f"there is no fetch session {session_id}")
        if session.epoch != epoch:
            raise InvalidFetchSessionEpochError(f"epoch {epoch} came where {session.epoch} was next")
        session.epoch = 1 if epoch == 2**31 - 1 else epoch + 1
        session.used_at = self._now()
        self._sessions.move_to_end(session_id)
        return session

    def close(self, session_id: int) -> None:
        """Forget a session, if it is there."""
        self._sessions.pop(session_id, None)

    def clear(self) -> None:
        """Forget all, as a broker that stops does."""
        self._sessions.clear()
