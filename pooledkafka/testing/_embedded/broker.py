"""One broker of the embedded cluster: its ports, its connections, whether it runs."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from ..._logging import get_logger
from .._errors import PortTakenError
from .apis import AUTHENTICATION
from .fetch_sessions import FetchSessions
from .listening import ListeningPort
from .recorder import CONNECTIONS, ConnectionRecord

if TYPE_CHECKING:
    from .call import Api, Call
    from .connection import Connection
    from .faults import Fault
    from .settings import Settings
    from .state import State

__all__ = ["HOST", "Broker"]

HOST = "127.0.0.1"
_log = get_logger(__name__)


class Broker:
    """Listens on a port of 127.0.0.1 for each listener; keeps its ports when it is stopped and started.

    Args:
        node_id, settings, state: who it is, and of which cluster.
        listeners: the TLS context of each listener by its name, or None.
        connect: makes the protocol of a connection.
        faults: the faults in force, of the whole cluster.
        records: where the connections' records are kept, of the whole cluster.
        numbers: numbers them.
    """

    def __init__(
        self,
        node_id: int,
        settings: Settings,
        state: State,
        listeners: Mapping[str, ssl.SSLContext | None],
        connect: Callable[[Broker, str], Connection],
        faults: list[Fault],
        records: list[ConnectionRecord],
        numbers: Iterator[int],
    ) -> None:
        self.node_id = node_id
        self.settings = settings
        self.state = state
        self.ports: dict[str, int] = {}
        self.running = asyncio.Event()  # cleared while it is paused or cut off: nothing is served
        self.fetch_sessions = FetchSessions(settings.max_incremental_fetch_session_cache_slots, state.now)
        self._listeners = dict(listeners)
        self._connect = connect
        self._faults = faults
        self._records = records
        self._numbers = numbers
        self._ports: list[ListeningPort] = []
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()  # that serve connections
        self._reapers: dict[Connection, asyncio.TimerHandle] = {}

    @property
    def is_up(self) -> bool:
        """Whether it listens; a paused broker does."""
        return bool(self._ports)

    def start(self) -> None:
        """Listen, on the ports it had. Raises PortTakenError."""
        for name, context in self._listeners.items():
            port = self.ports.get(name, 0)
            try:
                listening = ListeningPort(HOST, port, context, functools.partial(self._connect, self, name))
            except OSError as error:
                self.stop()
                raise PortTakenError(f"broker {self.node_id} cannot listen on {HOST}:{port}: {error}") from error
            self.ports[name] = listening.port
            self._ports.append(listening)
        self.running.set()

    def stop(self) -> None:
        """Close the ports and all connections; what clients asked for stays unanswered."""
        for listening in self._ports:
            listening.close()
        self._ports = []
        for connection in list(self._connections):
            connection.abort()
        for task in self._tasks:  # of connections too that have ended since
            task.cancel()
        self.fetch_sessions.clear()

    def admit(self, connection: Connection) -> bool:
        """A client has connected; False: it is one too many, as ``max.connections.per.ip`` says."""
        if not self._ports or len(self._connections) >= self.settings.max_connections_per_ip:
            _log.warning("embedded.too_many_connections", broker=self.node_id)
            return False
        self._connections.add(connection)
        connection.record.number = next(self._numbers)
        self._records.append(connection.record)
        self._reap_later(connection)
        return True

    def serves(self, task: asyncio.Task[None]) -> None:
        """A connection has its task."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def left(self, connection: Connection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)
        if (timer := self._reapers.pop(connection, None)) is not None:
            timer.cancel()
        ended = [record for record in self._records if record.closed_at is not None]
        for record in ended[:-CONNECTIONS]:
            self._records.remove(record)

    def fault_for(self, call: Call) -> Fault | None:
        """The first fault in force that a request meets."""
        return next((fault for fault in self._faults if fault.meets(call)), None)

    def needs_authentication(self, connection: Connection, api: Api) -> bool:
        """Whether a connection must authenticate before it may ask this."""
        return connection.listener.startswith("sasl") and connection.principal is None and api not in AUTHENTICATION

    def _reap_later(self, connection: Connection) -> None:
        """Close the connection when it has been idle for ``connections.max.idle.ms``; a paused broker closes none."""
        now, since = self.state.now(), connection.idle_since
        if since is None or not self.running.is_set():
            since = now
        left_s = since + self.settings.connections_max_idle_ms / 1000 - now
        if left_s <= 0:
            connection.abort()
        else:
            self._reapers[connection] = self.state.later(left_s, self._reap_later, connection)
