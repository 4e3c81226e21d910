"""Accepts connections on one port."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

__all__ = ["ListeningPort"]

_BACKLOG = 1_024


class ListeningPort:
    """A port that makes a protocol for each connection, until ``close``. Raises OSError where it is taken.

    asyncio's own server loses connections that it has accepted and not yet begun when it is closed: their clients would
    wait for ever.

    Args:
        host, port: where; port 0: any that is free.
        context: for TLS, or None.
        connect: makes the protocol.
    """

    def __init__(
        self, host: str, port: int, context: ssl.SSLContext | None, connect: Callable[[], asyncio.Protocol]
    ) -> None:
        self._context = context
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._opening: dict[asyncio.Task[None], socket.socket] = {}
        self._socket = socket.create_server((host, port), backlog=_BACKLOG)
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self._loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Refuse connections from now on, and end those that have not begun."""
        self._loop.remove_reader(self._socket)
        self._socket.shutdown(socket.SHUT_RDWR)  # a process that was forked meanwhile has it open too
        self._socket.close()
        for accepted in self._opening.values():
            try:
                accepted.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client has gone already

    def _accept(self) -> None:
        try:
            accepted, _ = self._socket.accept()
        except OSError:
            return  # the client has gone already
        accepted.setblocking(False)
        task = self._loop.create_task(self._open(accepted))
        self._opening[task] = accepted
        task.add_done_callback(self._opened)

    async def _open(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._connect, accepted, ssl=self._context)
        except OSError:  # ssl.SSLError among them: a client that does not speak TLS, or does not trust us
            accepted.close()

    def _opened(self, task: asyncio.Task[None]) -> None:
        accepted = self._opening.pop(task)
        if task.cancelled():
            accepted.close()
