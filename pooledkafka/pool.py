"""The pool: one set of connections that any number of clients share."""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from enum import Enum
from types import TracebackType
from typing import Any, Protocol

from pooledkafka._connection import Connection, counted, exiting
from pooledkafka._feed import Feed, Listener
from pooledkafka._forking import abandon, inherit, notice_fork
from pooledkafka._locks import LockName, new_lock, new_rlock
from pooledkafka._logging import get_logger
from pooledkafka._snapshot import snapshot
from pooledkafka._unclosed import Place, made_here, warn_unclosed
from pooledkafka._uwsgi import uwsgi_concerns
from pooledkafka._wire import PARKED_WAIT_MS, Engine, Tally
from pooledkafka.config import check_sizes, pool_options
from pooledkafka.errors import ConfigurationError, PoolClosedError, PoolError, PoolTimeoutError
from pooledkafka.events import ClientAttached, ClientDetached, PoolEvent
from pooledkafka.stats import ConsumerProgress, PoolStats

__all__ = ["ConnectionPool"]

_log = get_logger("pooledkafka.pool")

_LOOK_S = 0.05
"""How often a wait for another thread's connect() or disconnect() looks whether that one waits for this one."""

_LISTENERS_S = 1.0
"""How long ``disconnect`` waits for listeners to hear of it."""
_TURN_MS = 50.0
"""How long a client that is in use is waited for before the next has its turn."""


def _weakly(feed: Feed) -> Callable[[PoolEvent], None]:
    """Tells a feed while its pool is there: the event loop keeps no listener, which may refer to the pool, alive."""
    there = weakref.ref(feed)

    def tell(event: PoolEvent) -> None:
        known = there()
        if known is not None:
            known.tell(event)

    return tell


class State(Enum):
    """Where a pool is in its life."""

    NEW = "new"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"


class AttachedClient(Protocol):
    """A consumer or admin client as its pool sees it."""

    kind: str

    def _tell_to_end(self) -> None:
        """Let the call that a thread may be in return soon."""

    def _detach(self, timeout_ms: float, wait_ms: float) -> bool:
        """End the client's work within ``timeout_ms``; False where a thread was in a call of it for ``wait_ms``."""

    def _waits_for_me(self) -> bool:
        """Whether ``_detach`` waits for this thread, which is in a call of the client."""


class _Ending:
    """What a disconnect() waits for."""

    def __init__(self, clients: Collection[AttachedClient], connection: Connection) -> None:
        self._clients = clients
        self._connection = connection

    def waits_for_me(self) -> bool:
        """Whether this thread is in a call, a handler or a callback that is waited for."""
        return self._connection.waits_for_this_thread or any(client._waits_for_me() for client in self._clients)


class ConnectionPool:
    """Connections to one Kafka cluster, shared by any number of consumers and producers.

    Args:
        metadata_max_age_ms: milliseconds after which the cluster's metadata is refreshed even if nothing seems to have
            changed. Default: 300000.
        allow_auto_create_topics: let the brokers create a topic that a client asks for and that does not exist, where
            they are configured to. Default: True.
        max_in_flight_requests: the largest number of requests in progress at any time, kept strictly, first come first
            served. It must be at least the number of consumers of any one group in the pool, since all of them wait in
            a join together. None or 0: no limit. Default: None.
        max_leased_connections: the most connections lent at any time to consumers that join their groups; each is used
            by one at a time and closed after five idle seconds. All consumers of one group join together, so it must be
            at least their number. Default: 1000.
        leased_connections_per_second: how fast such connections are opened to one broker, after ten at once. When many
            groups join together, most wait a moment for one that is given back, and few are opened; one group is not
            kept waiting for its own. Set it below what the cluster allows. Default: 20.
        request_timeout_ms: milliseconds after which the pool gives up what it asks for all, metadata and fetches, and
            what ``pool.client`` is asked, and connects anew. More than 500, for which a fetch waits for records (up to
            2,000 while nothing comes, but at most half of this). Everything else its clients ask has their own
            ``request_timeout_ms``. Default: 30000.
        fetch_buffer_bytes: how many bytes may be read ahead for all consumers together; one answer for each broker may
            come on top, and half as much decoded where several groups read the same. Default: 67108864 (64 MiB).
        exit_timeout_ms: how many milliseconds the end of the interpreter may take to send what is buffered and to leave
            groups, where the pool was not disconnected; what is not delivered by then is logged. Default: 5000.
        options: kafka-python's connection and security options (``bootstrap_servers``, ``security_protocol``, ...),
            with its names, meaning and, but for ``reconnect_backoff_max_ms``, defaults.

    Nothing connects and no thread starts until ``connect()`` or the first use of a client. All methods may be called
    from any thread. ``with`` connects, and disconnects at the end. In a forked process a pool that was connected begins
    anew: it connects at its first use, and leaves the parent's connections and records alone.

    Raises:
        ConfigurationError: an option is unknown, or has a value that cannot work.

    Example:
        >>> with ConnectionPool(bootstrap_servers="localhost:9092") as pool:
        ...     consumer = Consumer("orders", group_id="billing", connection_pool=pool)
        ...     producer = Producer(connection_pool=pool)
    """

    def __init__(
        self,
        *,
        metadata_max_age_ms: int = 300_000,
        allow_auto_create_topics: bool = True,
        max_in_flight_requests: int | None = None,
        max_leased_connections: int = 1_000,
        leased_connections_per_second: float = 20,
        fetch_buffer_bytes: int = 67_108_864,
        request_timeout_ms: float = 30_000,
        exit_timeout_ms: float = 5_000,
        **options: Any,
    ) -> None:
        self._limits: dict[str, Any] = {
            "max_in_flight_requests": max_in_flight_requests,
            "max_leased_connections": max_leased_connections,
            "leased_connections_per_second": leased_connections_per_second,
            "fetch_buffer_bytes": fetch_buffer_bytes,
        }
        check_sizes({**self._limits, "request_timeout_ms": request_timeout_ms})
        if request_timeout_ms <= PARKED_WAIT_MS:
            raise ConfigurationError(
                f"request_timeout_ms={request_timeout_ms} of the pool cannot work: a fetch waits "
                f"{PARKED_WAIT_MS} ms for records before it is answered. Give it more than that."
            )
        self.options = pool_options(
            {
                **options,
                "metadata_max_age_ms": metadata_max_age_ms,
                "allow_auto_create_topics": allow_auto_create_topics,
                "exit_timeout_ms": exit_timeout_ms,
            }
        )
        self.options["request_timeout_ms"] = request_timeout_ms
        self._made_at: Place | None = made_here()  # None: its client speaks for it
        # _life is held while connecting and disconnecting, which wait for brokers, and for clients to end: their locks
        # come after it. _lock guards the fields below it and is never held while anything is waited for.
        self._life = new_rlock(LockName.LIFE)
        self._lock = new_lock(LockName.POOL)
        self._state = State.NEW
        self._connection: Connection | None = None
        # Nothing in the pool keeps a client alive: one that is dropped is collected, and releases what it holds.
        self._clients: weakref.WeakSet[Any] = weakref.WeakSet()  # consumers and admin clients
        self._producers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._ending: _Ending | None = None  # set while disconnect() waits for clients; read by any thread
        self._tally = Tally()  # of all its engines; replaced in a forked process
        self._feed = Feed(self.options["client_id"])
        inherit(self)

    # -- life cycle ----------------------------------------------------------------------------------------------------

    def connect(self, timeout_ms: float | None = None) -> None:
        """Find the cluster and get ready; returns at once if connected.

        After ``disconnect()``, this connects anew, and the pool's clients work again.

        Args:
            timeout_ms: milliseconds to wait. Default: ``bootstrap_timeout_ms`` (30000).

        Raises:
            ConnectFailedError: no broker can be reached, and waiting does not help: DNS, a refused port, TLS, a broker
                that hangs up. What may mend itself is tried for a second. To wait for a cluster that is starting, call
                it again.
            SaslAuthenticationFailedError, UnsupportedSaslMechanismError: the login was refused.
            PoolTimeoutError: no broker answered in time; the message names the last cause for each address. Or
                another thread was connecting or disconnecting the pool all that time.
            PoolClosedError: called by what the pool's ``disconnect()`` waits for, such as a handler or a callback.
            ConfigurationError: a file with a key or certificate cannot be used.
        """
        notice_fork()
        if timeout_ms is None:
            timeout_ms = self.options["bootstrap_timeout_ms"]
        began = time.monotonic()
        deadline = began + timeout_ms / 1000
        with self._living(deadline, f"connected within {timeout_ms:.0f} ms", "connect()") as may:
            not_held_up = time.monotonic() < began + _LOOK_S
            if self._connection is not None:
                return
            if not may:
                raise PoolClosedError(
                    "the connection pool is being disconnected, which waits for the call that wants to connect it to "
                    "return; call connect() after that"
                )
            try:
                engine = Engine(self.options, **self._limits, tell=_weakly(self._feed), tally=self._tally)
            except (ValueError, TypeError, AssertionError) as error:
                raise ConfigurationError(
                    f"the pool cannot be set up with these options: {error}. Check bootstrap_servers (host:port, "
                    "several separated by commas) and the values of the other connection options."
                ) from error
            try:
                engine.start(timeout_ms if not_held_up else max(0.0, deadline - time.monotonic()) * 1000)
            except BaseException:
                engine.stop()
                self._tally.settle()
                raise
            with self._lock:
                self._connection = Connection(engine, self.options["exit_timeout_ms"])
                self._state = State.CONNECTED
            for concern in uwsgi_concerns():
                _log.warning("pool.uwsgi_not_set_up", pool=self.options["client_id"], concern=concern)
            _log.info(
                "pool.connected",
                pool=self.options["client_id"],
                bootstrap_servers=self.options["bootstrap_servers"],
            )

    def disconnect(self, timeout_ms: float = 30_000) -> None:
        """End all clients' work and close every connection; returns at once if not connected.

        Consumers commit and leave their groups, then producers send what is buffered, then the connections close.
        Clients stay usable for a later ``connect()``. Called by a handler or callback for which another thread's
        ``disconnect()`` waits, it returns at once: that one ends what it has begun.

        Args:
            timeout_ms: milliseconds for all of that.

        Raises:
            PoolTimeoutError: records were left undelivered; the message says how many. The pool is disconnected. Or
                another thread was connecting or disconnecting it all that time.
            PoolError: called where it would wait for this very thread: in a callback of a record, or on the pool's I/O
                thread. Nothing was done.
        """
        self._check_may_wait("disconnect the pool")
        deadline = time.monotonic() + timeout_ms / 1000
        with self._living(deadline, f"disconnected within {timeout_ms:.0f} ms", "disconnect()") as may:
            if not may:
                return
            with self._lock:
                connection, self._connection = self._connection, None
                if connection is None:
                    return
                self._state = State.DISCONNECTED
                clients = list(self._clients)
                self._clients.clear()
                producers = len(self._producers)
                self._producers.clear()
                self._ending = _Ending(clients, connection)
            try:
                try:
                    self._detach_all(clients, deadline)
                except BaseException:  # a second signal, say: no more waiting than it takes to leave groups
                    connection.end(time.monotonic())
                    raise
                undelivered = connection.end(deadline)
            finally:
                self._ending = None
                self._tally.settle()
            for client in clients:
                self._feed.tell(ClientDetached(client.kind))
            for _ in range(producers):
                self._feed.tell(ClientDetached("producer"))
            _log.info("pool.disconnected", pool=self.options["client_id"], undelivered=undelivered.total())
        self._feed.drain(_LISTENERS_S)
        if undelivered:
            raise PoolTimeoutError(
                f"the pool is disconnected, but {counted(undelivered)} could not be delivered within {timeout_ms:.0f} "
                "ms; their futures have failed. Call flush() before disconnect(), or give it a longer timeout_ms."
            )

    @contextmanager
    def _living(self, deadline: float, what: str, call: str) -> Iterator[bool]:
        """Hold _life; yields False, without it, in a call whose end is waited for by the thread that has it.

        A handler that disconnects its pool while another thread does, say, would wait for that thread, and that one for
        the handler.
        """
        life = self._life  # a process that is forked meanwhile has another
        while not life.acquire(timeout=max(0.0, min(_LOOK_S, deadline - time.monotonic()))):
            ending = self._ending
            if ending is not None and ending.waits_for_me():
                yield False
                return
            if time.monotonic() >= deadline:
                raise PoolTimeoutError(
                    f"the pool could not be {what}: another thread is connecting or disconnecting it; call {call} "
                    "again, or give it a longer timeout_ms."
                )
        try:
            # Held already where a callback of a client that this thread is ending calls this.
            yield self._ending is None
        finally:
            life.release()

    def _detach_all(self, clients: list[AttachedClient], deadline: float) -> None:
        # Consumers first: what their handlers were about to send is still sent. All are told before any is waited for,
        # and none for long while there are others: one whose handler does not return would take all of their time.
        waiting = sorted(clients, key=lambda client: client.kind, reverse=True)
        for client in waiting:
            client._tell_to_end()
        while waiting:
            busy = []
            for client in waiting:
                left_ms = max(0.0, deadline - time.monotonic()) * 1000
                try:
                    ended = client._detach(left_ms, _TURN_MS)
                except Exception as error:  # the others, and the records of the producers, must not suffer for it
                    _log.warning(
                        "client.not_ended", pool=self.options["client_id"], client=client.kind, error=repr(error)
                    )
                    continue
                if not ended and left_ms:
                    busy.append(client)
                elif not ended:
                    _log.warning(
                        "client.not_ended",
                        pool=self.options["client_id"],
                        client=client.kind,
                        error="a thread is in a call of it, which has not returned",
                    )
            waiting = busy

    def __del__(self) -> None:
        # On any thread, in the middle of anything: takes no lock and waits for nothing.
        connection = self.__dict__.get("_connection")
        if connection is None or exiting():
            return
        connection.drop()
        if self._made_at is not None:
            warn_unclosed("a connected pool", self._made_at, "it is disconnected now, in the background")

    def _in_child(self) -> None:
        # A pool that was connected, or was connecting, connects anew at its first use here.
        self._life, self._lock = new_rlock(LockName.LIFE), new_lock(LockName.POOL)
        self._ending = None
        connection, self._connection = self._connection, None
        abandon((connection, self._clients, self._producers))
        if self._state is State.CONNECTED:
            self._state = State.NEW
        self._clients = weakref.WeakSet()
        self._producers = weakref.WeakSet()
        timed, self._tally = self._tally.timed, Tally()
        self._tally.timed = timed
        self._feed.in_child()

    def __enter__(self) -> ConnectionPool:
        self.connect()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.disconnect()

    # -- for clients ---------------------------------------------------------------------------------------------------

    def _connect_if_new(self) -> None:
        """For clients, before they take a lock of theirs; one that was disconnected stays so until ``connect()``."""
        if self._state is State.NEW:
            self.connect()

    def _attach(self, client: AttachedClient) -> Engine:
        """Count ``client`` among those that ``disconnect()`` ends, and return what it works with."""
        with self._lock:
            connection = self._connected()
            self._clients.add(client)
            self._feed.tell(ClientAttached(client.kind))
        return connection.engine

    def _forget(self, client: AttachedClient) -> None:
        with self._lock:
            known = client in self._clients
            self._clients.discard(client)
        if known:
            self._feed.tell(ClientDetached(client.kind))

    def _attach_producer(self, producer: Any) -> Connection:
        """Count ``producer``, and return what it works with."""
        with self._lock:
            connection = self._connected()
            self._producers.add(producer)
            self._feed.tell(ClientAttached("producer"))  # under the lock, since disconnect() tells that it is detached
        return connection

    def _forget_producer(self, producer: Any) -> None:
        with self._lock:
            known = producer in self._producers
            self._producers.discard(producer)
        if known:
            self._feed.tell(ClientDetached("producer"))

    def _told_of_dropped(self, kind: str) -> Callable[[], None]:
        """Tells listeners of a client that was dropped, after this pool may have been dropped as well."""
        feed = self._feed
        return lambda: feed.tell(ClientDetached(kind))

    def _tell_of_dropped(self, kind: str) -> None:
        """The same in the background, where anybody listens; takes no lock."""
        connection = self._connection
        if connection is not None and self._feed.has_listeners:
            connection.engine.soon(self._told_of_dropped(kind))

    def _check_may_wait(self, what: str) -> None:
        """Raise PoolError on a thread that would wait for itself."""
        notice_fork()
        connection = self._connection
        if connection is not None and connection.waits_for_this_thread:
            raise PoolError(
                f"cannot {what} on thread {threading.current_thread().name!r}: it would wait for what this very thread "
                "is to do when the callback has returned. Do it on a thread of your own that the callback wakes."
            )

    def _connected(self) -> Connection:
        if self._connection is None:
            raise PoolClosedError("the connection pool was disconnected; call connect() to use its clients again")
        return self._connection

    # -- looking at it -------------------------------------------------------------------------------------------------

    def add_listener(self, listener: Listener) -> None:
        """Call ``listener`` with each event of this pool from now on; see ``pooledkafka.events``.

        It is called on a thread of its own, with one event after the other in the order in which they happened. It may
        use the pool. What it raises is logged. ``disconnect()`` waits a second at most for it to hear the last ones.

        Example:
            >>> def listener(event):
            ...     match event:
            ...         case ConnectionClosed(reason="failed"):
            ...             print(f"lost {event.address}: {event.error}")
            >>> pool.add_listener(listener)
        """
        notice_fork()
        self._feed.add(listener)

    def remove_listener(self, listener: Listener) -> None:
        """Undo ``add_listener``; does nothing for one that is not there."""
        notice_fork()
        self._feed.remove(listener)

    @property
    def client(self) -> Any:
        """The kafka-python client that everything in this pool shares.

        It is for requests that none of the pool's clients makes, and may be used from any thread:
        ``pool.client.send_and_receive(node_id, request)``. It cannot be closed.

        Raises:
            PoolClosedError: the pool is not connected.
        """
        notice_fork()
        connection = self._connection
        if connection is None:
            raise PoolClosedError(f"the connection pool is {self._state.value}; call connect() first")
        return connection.engine.client

    def stats(self) -> PoolStats:
        """What the pool holds now, and has counted; cheap enough to call each second with hundreds of clients."""
        notice_fork()
        with self._lock:
            engine = self._connection.engine if self._connection is not None else None
            clients = list(self._clients)
            producers = len(self._producers)
        return snapshot(engine, self._tally, Counter(client.kind for client in clients), producers)

    def measure_durations(self) -> None:
        """Measure from now on how long requests take: ``stats().durations`` and ``request_errors``.

        Nothing is measured before. It costs a microsecond or two for each request; the Prometheus collector turns it
        on. It stays on when the pool is connected anew, and in forked processes.
        """
        notice_fork()
        self._tally.timed = True

    def progress(self) -> list[ConsumerProgress]:
        """How far each consumer is that is attached now, without asking any broker; from any thread.

        It looks at each partition of each consumer, so it is no part of ``stats()``.

        Example:
            >>> for consumer in pool.progress():
            ...     print(consumer.group, consumer.lag)
        """
        notice_fork()
        with self._lock:
            clients = list(self._clients)
        found = (client._progress() for client in clients if client.kind == "consumer")
        return [progress for progress in found if progress is not None]

    def __repr__(self) -> str:
        stats = self.stats()
        return (
            f"<ConnectionPool {self.options['bootstrap_servers']!r} [{self._state.value} | "
            f"clients: {stats.consumers} consumers, {stats.producers} producers | "
            f"connections: {stats.connections_open} to {len(stats.connections)} brokers | "
            f"in flight: {stats.requests_in_flight}]>"
        )
