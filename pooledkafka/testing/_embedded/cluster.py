"""The embedded cluster as its users see it."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import ssl
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from .._cluster import Cluster
from .._errors import ClusterError
from .._listeners import TLS, Listener, client_options, parse_listener, parse_listeners
from .._network import checked_side
from .apis import checked_name
from .authentication import Credentials, tls_context
from .broker import HOST, Broker
from .connection import Connection
from .controller import Controller
from .faults import Action, Fault, checked_action
from .health import wait_until_healthy
from .loop_thread import LoopThread
from .quotas import NAMES
from .recorder import ConnectionRecord, most_outstanding
from .settings import Settings
from .state import State

__all__ = ["EmbeddedKafka"]

_T = TypeVar("_T")


class EmbeddedKafka(Cluster):
    """A Kafka cluster inside this process, on free ports of 127.0.0.1: for tests, demonstrations and staged faults.

    It speaks Kafka's protocol over real TCP, so any client can use it, and behaves as brokers do where it matters to
    clients that share connections: one request per connection at a time, answers in order, parked fetches and joins,
    sessions, epochs, transactions. Records are kept in memory, and gone when it is closed. What it does not serve it
    does not offer: ApiVersions does not list it, and an unknown property or topic configuration is refused.

    All its brokers run on one thread, `pooledkafka-embedded`. Its methods may be called from any other thread; `open()`
    and `close()` exclude each other. In a fork it does not exist.

    Args:
        brokers: how many, from 1 on; their node ids are 1 and up. Topics have ``min(3, brokers)`` replicas by default,
            and ``min.insync.replicas`` is one less, but 1 at the least.
        listeners: the ways for clients to connect, among "plaintext" (always there), "tls", "sasl_plain" and
            "sasl_tls". TLS needs the embedded extra (`pip install 'pooledkafka[embedded]'`), or a context.
        config: properties of the brokers, as in server.properties; `Settings` lists those there are.
        broker_config: more of one broker's, by its node id, over ``config``: `{2: {"broker.rack": "b"}}`.
        credentials: users of the SASL listeners and their passwords, besides the one of `client_options()`.
        ssl_context: the brokers' side of TLS, in place of one with a certificate of the cluster's own making; then
            `client_options()` names no authority.

    Raises:
        ValueError: an argument that cannot be.
        PortTakenError: by `start()`, when another process has taken a broker's port meanwhile.

    Example:
        >>> from kafka import KafkaProducer
        >>> with EmbeddedKafka(brokers=3) as cluster:
        ...     cluster.create_topic("orders", partitions=6)
        ...     producer = KafkaProducer(**cluster.client_options())
        ...     offset = producer.send("orders", b"one").get(timeout=10).offset
        ...     producer.close()
        >>> offset
        0
    """

    def __init__(
        self,
        brokers: int = 3,
        *,
        listeners: Collection[Listener | str] = (Listener.PLAINTEXT,),
        config: Mapping[str, str] | None = None,
        broker_config: Mapping[int, Mapping[str, str]] | None = None,
        credentials: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Check the arguments. Nothing is started."""
        if not isinstance(brokers, int) or brokers < 1:
            raise ValueError(f"brokers is {brokers!r}; expected a whole number from 1 on")
        self._node_ids = tuple(range(1, brokers + 1))
        self._listeners = parse_listeners(listeners)
        if Listener.SCRAM in self._listeners:
            raise ValueError(
                "the embedded cluster has no SCRAM; use 'sasl_plain', or KafkaCluster(listeners=['scram'])"
            )
        replicas = min(3, brokers)
        defaults = Settings(default_replication_factor=replicas, min_insync_replicas=max(1, replicas - 1))
        common = defaults.with_properties(config or {})
        of_brokers = dict(broker_config or {})
        if unknown := sorted(set(of_brokers).difference(self._node_ids), key=str):
            raise ValueError(f"broker_config has {unknown[0]!r}, but the node ids are 1 to {brokers}")
        self._settings = {
            node_id: common.with_properties(of_brokers.get(node_id, {}), of_one_broker=True)
            for node_id in self._node_ids
        }
        self._credentials = Credentials(credentials or {})
        self._lock = threading.Lock()  # held by open() and close() from start to end, so that they exclude each other
        self._thread: LoopThread | None = None  # written under _lock; read without it, as one reference
        self._pid = 0  # of the process in which it is open; written under _lock
        # The loop's, all of them, while it is open.
        self._state: State = State(self._settings)
        self._faults: list[Fault] = []
        self._records: list[ConnectionRecord] = []
        self._controller = Controller(self._state)
        self._ssl_context = ssl_context
        self._tls_cafile: str | None = None

    # -- life ----------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start the brokers, empty, and return when they listen."""
        with self._lock:
            if self._thread is None or self._pid != os.getpid():
                thread = LoopThread("pooledkafka-embedded")
                try:
                    thread.call(self._start)
                except BaseException:
                    thread.stop(self._stop)
                    raise
                self._thread, self._pid = thread, os.getpid()

    def close(self) -> None:
        """Close all connections and ports, end the thread, forget all records; within 2 s, whatever clients do.

        Not from a fault's function. Raises ClusterError where such a function blocks the cluster's thread.
        """
        if self._thread is not None and self._thread.is_current:
            raise RuntimeError("the embedded cluster cannot be closed by a function that one of its faults calls")
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None and self._pid == os.getpid():
                thread.stop(self._stop)

    stop = close

    def __enter__(self) -> EmbeddedKafka:
        self.open()
        return self

    def _start(self) -> None:
        self._state = State(self._settings)
        self._controller = Controller(self._state)
        self._faults, self._records = [], []
        numbers = itertools.count(1)
        contexts: dict[str, ssl.SSLContext | None] = {listener.value: None for listener in self._listeners}
        if secure := TLS.intersection(self._listeners):
            context = self._ssl_context
            if context is None:
                context, self._tls_cafile = tls_context()
            contexts.update({listener.value: context for listener in secure})
        for node_id in self._node_ids:
            broker = Broker(
                node_id,
                self._settings[node_id],
                self._state,
                contexts,
                self._connection,
                self._faults,
                self._records,
                numbers,
            )
            self._state.brokers[node_id] = broker
            broker.start()

    def _connection(self, broker: Broker, listener: str) -> Connection:
        return Connection(broker, listener, self._credentials)

    def _stop(self) -> None:
        for broker in self._state.brokers.values():
            broker.stop()
        if self._tls_cafile is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._tls_cafile)
            self._tls_cafile = None

    # -- where it is ---------------------------------------------------------------------------------------------------

    @property
    def supports_faults(self) -> bool:
        """True."""
        return True

    @property
    def node_ids(self) -> tuple[int, ...]:
        """1 and up."""
        return self._node_ids

    def address_of(self, node_id: int) -> str:
        """`127.0.0.1:port` of the broker's plaintext listener."""
        return f"{HOST}:{self._broker(node_id).ports[Listener.PLAINTEXT.value]}"

    def client_options(self, listener: Listener | str = Listener.PLAINTEXT) -> dict[str, Any]:
        """Keyword arguments for any kafka-python client, of the given listener."""
        listener = parse_listener(listener)
        if listener not in self._listeners:
            raise ValueError(
                f"the cluster has no {listener.value} listener; it has {', '.join(self._listeners)}: "
                f"add it to EmbeddedKafka(listeners=...)"
            )
        self._running()
        ports = [
            {Listener(name): port for name, port in broker.ports.items()} for broker in self._state.brokers.values()
        ]
        return client_options(listener, ports, HOST, self._credentials.password, self._tls_cafile)

    def set_password(self, username: str, password: str) -> None:
        """Change a user's password, or make a user. Connections that have logged in stay."""
        self._call(self._credentials.change, username, password)

    def __repr__(self) -> str:
        here = self._thread is not None and self._pid == os.getpid()
        state = self.bootstrap_servers if here else "closed"
        return f"<EmbeddedKafka of {len(self._node_ids)} [{', '.join(self._listeners)}]: {state}>"

    # -- topics --------------------------------------------------------------------------------------------------------

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        replication_factor: int = -1,
        *,
        config: Mapping[str, str] | None = None,
        assignment: Sequence[Sequence[int]] | None = None,
    ) -> str:
        """Make a topic, known to all brokers at once; returns its name.

        ``assignment`` names the replicas of each partition, the leader first, in place of the two numbers. Raises the
        error of kafka.errors that a broker would answer, and ValueError for what no request could say.
        """
        for what, number in (("partitions", partitions), ("replication_factor", replication_factor)):
            if not isinstance(number, int):
                raise ValueError(f"{what} is {number!r}; expected a whole number")
        if assignment is not None and partitions not in (1, len(assignment)):
            raise ValueError(f"partitions is {partitions}, but assignment names replicas of {len(assignment)}")
        self._call(self._state.create_topic, name, partitions, replication_factor, config, assignment)
        return name

    def leader_of(self, topic: str, partition: int = 0) -> int:
        """The node id of the partition's leader; -1: it has none."""
        return self._call(lambda: self._state.partition(topic, partition).leader)

    def high_watermark_of(self, topic: str, partition: int = 0) -> int:
        """The offset up to which the partition's records are replicated."""
        return self._call(lambda: self._state.partition(topic, partition).high_watermark)

    # -- faults --------------------------------------------------------------------------------------------------------

    def intercept(
        self,
        api: Any = None,
        action: Action | None = None,
        *,
        node_id: int | None = None,
        client_id: str | None = None,
        times: int | None = None,
    ) -> Fault:
        """Do something else with chosen requests, from now until the returned fault is removed.

        A request meets the first fault in force that fits it, and no other.

        Args:
            api: which requests: a name such as "Fetch", or a request class of kafka-python; None: all.
            action: `Corrupt`, `Delay`, `Hold`, `Error`, `Drop`, `Half`, `Never`, `Throttle`, or a function that is
                called with the decoded request, on the cluster's thread, and returns one of these or None; None: only
                count them.
            node_id: only those to this broker.
            client_id: only those of this client.
            times: how many of them; None: all.

        Example:
            >>> import kafka.errors
            >>> from pooledkafka.testing import Error, Hold
            >>> with EmbeddedKafka() as cluster:
            ...     cluster.intercept("Produce", Error(kafka.errors.NotLeaderForPartitionError), times=1)
            ...     hold = cluster.intercept("JoinGroup", Hold(), client_id="slow")
            ...     hold.release()
            <Fault Error(error=<class 'kafka.errors.NotLeaderForPartitionError'>) on Produce>
        """
        name = checked_name(api)
        if node_id is not None:
            self._broker(node_id)
        if times is not None and (not isinstance(times, int) or times < 1):
            raise ValueError(f"times is {times!r}; expected a whole number from 1 on, or None for all")
        checked_action(action)

        def add() -> Fault:
            fault = Fault(
                asyncio.get_running_loop(), action or (lambda _: None), name, node_id, client_id, times, removed
            )
            self._faults.append(fault)
            return fault

        def removed(fault: Fault) -> None:
            if fault in self._faults:
                self._faults.remove(fault)

        return self._call(add)

    @property
    def connections(self) -> list[ConnectionRecord]:
        """What the connections since `open()` carried, of those that have ended the last 1000; in the order of opening.

        The records change while their connections are used.
        """
        return self._call(lambda: list(self._records))

    def most_outstanding(self, node_id: int | None = None, client_id: str | None = None) -> int:
        """The most requests that waited for answers at one instant, over all connections, or those that are named."""

        def counted() -> int:
            return most_outstanding(
                [
                    record
                    for record in self._records
                    if node_id in (None, record.node_id) and (client_id is None or client_id in record.client_ids)
                ]
            )

        return self._call(counted)

    def kill(self, node_id: int) -> None:
        """Close a broker's ports and connections; others lead its partitions after ``broker.session.timeout.ms``."""
        self._control("kill", node_id)

    def start(self, node_id: int) -> None:
        """Start a killed broker, on the ports it had, with the records it had. Does nothing where it runs."""
        self._control("start", node_id)

    def restart(self, node_id: int) -> None:
        """Shut a broker down in order, so that others lead its partitions at once, and start it."""
        self._control("restart", node_id)

    def pause(self, node_id: int) -> None:
        """Freeze a broker: its connections stay open, new ones are accepted, and nothing answers."""
        self._control("pause", node_id)

    def resume(self, node_id: int) -> None:
        """Let a paused broker run on. Does nothing where it is not paused."""
        self._control("resume", node_id)

    def partition(self, node_id: int, from_: str = "everyone") -> None:
        """Cut a broker off from "clients", from the other "brokers", or from "everyone"; lasts until `heal()`."""
        self._control("cut", node_id, checked_side(from_))

    def heal(self, node_id: int) -> None:
        """End every partition of a broker, if there is any."""
        self._control("heal", node_id)

    def move_leader(self, topic: str, partition: int, node_id: int, *, unclean: bool = False) -> None:
        """Let another replica lead, in a new leader epoch, with what it has copied.

        One that is not in sync would lose records that were acknowledged: only where ``unclean`` says so.
        """
        self._broker(node_id)
        self._call(lambda: self._controller.move_leader(topic, partition, node_id, unclean))

    def truncate(self, topic: str, partition: int, offset: int) -> None:
        """Lose the records from ``offset`` on, in a new leader epoch: as after an unclean election.

        What lies before stays; a batch that reaches beyond ``offset`` is lost whole.
        """
        self._call(lambda: self._controller.truncate(topic, partition, offset))

    def slow_follower(self, node_id: int, delay_s: float | None) -> None:
        """Let a broker copy what others lead only after a delay in seconds; None: never; 0: at once again."""
        if delay_s is not None and not 0 <= delay_s < math.inf:
            raise ValueError(f"delay_s is {delay_s!r}; expected seconds from 0 on, or None for never")
        self._control("slow_follower", node_id, delay_s)

    def move_coordinator(self, key: str, node_id: int) -> None:
        """Let another broker coordinate a group or transactional id.

        Its state goes along; what is parked there is answered with NOT_COORDINATOR.
        """
        self._broker(node_id)
        self._call(self._state.move_coordinator, key, node_id)

    def coordinator_of(self, key: str) -> int:
        """The node id of the broker that coordinates a group or transactional id; -1: none is up."""
        return self._call(self._state.coordinator_of, key)

    def set_quota(self, name: str, bytes_a_second: float | None, client_id: str | None = None) -> None:
        """Limit what one client, or each that has no limit of its own, sends ("producer_byte_rate") or reads
        ("consumer_byte_rate"); None ends the limit.

        A client that was faster is told a throttle time, and its connection is not read meanwhile (KIP-219).
        """
        if name not in NAMES:
            raise ValueError(f"there is no quota {name!r}; expected one of {', '.join(NAMES)}")
        if bytes_a_second is not None and not 0 < bytes_a_second < math.inf:
            raise ValueError(f"bytes_a_second is {bytes_a_second!r}; expected a number above 0, or None for no limit")
        self._call(self._state.quotas.set, name, bytes_a_second, client_id)

    def reset_faults(self) -> None:
        """Remove every fault: those of `intercept`, brokers that are down, paused, cut off or slow, and quotas.

        Leaders, coordinators and logs stay as they are.
        """
        for fault in self._call(lambda: list(self._faults)):
            fault.remove()
        self._call(self._controller.reset)

    def wait_until_healthy(self, timeout_s: float = 60.0) -> None:
        """See `Cluster`. Nothing here takes time but followers that were slowed and brokers that are down."""
        wait_until_healthy(self._running(), self._state, timeout_s)

    def logs(self, node_id: int, tail: int = 50) -> str:
        """The last requests that the broker was asked, a line each; it writes no log."""
        self._broker(node_id)

        def lines() -> list[str]:
            exchanges = [
                (each.arrived_at, record.number, each)
                for record in self._records
                if record.node_id == node_id
                for each in record.exchanges[-tail:]
            ]
            return [
                f"connection {number}: {each.api} v{each.version} of {each.client_id}"
                + ("" if each.answered_at else ", not answered")
                for _, number, each in sorted(exchanges, key=lambda line: line[0])[-tail:]
            ]

        return "\n".join(self._call(lines))

    # -- from other threads --------------------------------------------------------------------------------------------

    def _running(self) -> LoopThread:
        if (thread := self._thread) is None:
            raise ClusterError("the cluster is not open; call open(), or use it in a with statement")
        if self._pid != os.getpid():
            raise ClusterError("the cluster runs in the process that this one was forked from; make one here")
        return thread

    def _broker(self, node_id: int) -> Broker:
        if node_id not in self._node_ids:
            raise ValueError(f"there is no broker {node_id!r}; the node ids are {', '.join(map(str, self._node_ids))}")
        self._running()
        return self._state.brokers[node_id]

    def _control(self, what: str, node_id: int, *arguments: Any) -> None:
        self._broker(node_id)
        self._call(lambda: getattr(self._controller, what)(node_id, *arguments))

    def _call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        return self._running().call(function, *arguments)
