"""The event loop of a pool, for the process that made it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from kafka.net.selector import NetworkSelector

from pooledkafka._forking import belongs_to_parent
from pooledkafka._locks import check_free

__all__ = ["Loop"]


class Loop(NetworkSelector):  # type: ignore[misc]
    """kafka-python's event loop; in a forked process, where no thread runs it, it refuses work instead of waiting."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self._made_by = os.getpid()

    def run(self, coro: Any, *args: Any) -> Any:
        self.check_process()
        check_free("waiting for the I/O thread")
        return super().run(coro, *args)

    def call_soon_threadsafe(self, callback: Any) -> Any:
        self.check_process()
        return super().call_soon_threadsafe(callback)

    def check_process(self) -> None:
        """Raise ForkedClientError in any other process than the one that made this."""
        if os.getpid() != self._made_by:
            raise belongs_to_parent(
                "this life of the connection pool", self._made_by, "take what you need from the pool here, anew"
            )

    def in_child(self, others: Iterable[Any]) -> None:
        """Close a forked process's copies of the sockets, these and ``others``; nobody notices anything of it.

        Without the selector, which is the parent's too: taking a socket out of it would take it out there.
        """
        self._closed = True
        registered = self._selector.get_map() or {}  # None once it is closed
        inherited = {key.fileobj for key in registered.values()}
        for each in {*inherited, *others, self._wakeup_r, self._wakeup_w}:
            each.close()
        self._selector.close()
