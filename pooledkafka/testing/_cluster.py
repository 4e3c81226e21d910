"""Kafka clusters for tests: the interface, and the one that runs in Docker."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from ._container import BrokerContainer
from ._deployment import Deployment
from ._errors import ClusterError, UnhealthyClusterError
from ._listeners import Listener, client_options, parse_listener, parse_listeners
from ._network import checked_side
from ._ports import HOST
from ._properties import checked_configs
from ._readiness import wait_for


class Cluster(ABC):
    """What tests may ask of a Kafka cluster, wherever it runs. A context manager that opens and closes it.

    Faults raise FaultUnsupportedError where `supports_faults` is False.
    """

    @abstractmethod
    def open(self) -> None:
        """Make the cluster usable. Does nothing when it is open already."""

    @abstractmethod
    def close(self) -> None:
        """Give back all that `open()` took. Does nothing when it is closed already."""

    @property
    @abstractmethod
    def supports_faults(self) -> bool:
        """Whether brokers can be paused, killed, restarted and cut off."""

    @property
    @abstractmethod
    def node_ids(self) -> tuple[int, ...]:
        """The ids of the brokers, ascending."""

    @abstractmethod
    def address_of(self, node_id: int) -> str:
        """`host:port` of the broker's plaintext listener."""

    @abstractmethod
    def client_options(self, listener: Listener | str = Listener.PLAINTEXT) -> dict[str, Any]:
        """Keyword arguments for any kafka-python client: addresses, protocol, and credentials where needed.

        Raises ValueError for a listener that the cluster does not have.
        """

    @abstractmethod
    def wait_until_healthy(self, timeout_s: float = 60.0) -> None:
        """Wait until every broker answers and is registered and unfenced, every partition has a leader and its full
        ISR, and all brokers agree on that.

        Raises UnhealthyClusterError that says what was missing, after `timeout_s` seconds.
        """

    @abstractmethod
    def logs(self, node_id: int, tail: int = 50) -> str:
        """The last `tail` lines of the broker's log."""

    @abstractmethod
    def pause(self, node_id: int) -> None:
        """Freeze a broker: its connections stay open, new ones are accepted, and nothing answers."""

    @abstractmethod
    def resume(self, node_id: int) -> None:
        """Let a paused broker run on. Does nothing where it is not paused."""

    @abstractmethod
    def kill(self, node_id: int) -> None:
        """Kill a broker by SIGKILL. Its data stays."""

    @abstractmethod
    def start(self, node_id: int) -> None:
        """Start a killed broker, on the ports it had. Does nothing where it runs.

        Returns before it is ready: see `wait_until_healthy()`.
        Raises PortTakenError when another process has taken one of its ports meanwhile.
        """

    @abstractmethod
    def restart(self, node_id: int) -> None:
        """Shut a broker down in order and start it. Returns before it is ready: see `wait_until_healthy()`."""

    @abstractmethod
    def partition(self, node_id: int, from_: str = "everyone") -> None:
        """Cut a running broker off from "clients", from the other "brokers", or from "everyone".

        Connections go silent, as when a cable is pulled: nobody is told. Lasts until `heal()`, or until the broker is
        started again.
        """

    @abstractmethod
    def heal(self, node_id: int) -> None:
        """End every partition of a running broker, if there is any.

        Returns before it has caught up: see `wait_until_healthy()`.
        """

    def reset_faults(self) -> None:
        """Undo what was done to the brokers, as far as it can be; returns before they have caught up."""
        # Which faults are in force the brokers know, not we; it is no harm to undo one that is not.
        for node_id in self.node_ids:
            for undo in (self.resume, self.start, self.heal):
                with suppress(ClusterError):
                    undo(node_id)

    @property
    def bootstrap_servers(self) -> str:
        """`host:port` of every broker's plaintext listener, separated by commas."""
        return ",".join(map(self.address_of, self.node_ids))

    def __enter__(self) -> Cluster:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class KafkaCluster(Cluster):
    """A Kafka cluster in Docker containers, on fixed ports of 127.0.0.1.

    `open()` returns when Kafka answers, not when a port does: a few seconds for one broker, up to 30 for three. On an
    error it removes all that it made. When the process dies, even by SIGKILL, a child process removes all.

    Methods may be called from any thread; `open()` and `close()` exclude each other. A fork may use an open cluster,
    but closing it there does nothing.

    Args:
        brokers: 1 or 3. Topics have that many replicas by default, and min.insync.replicas is 1 or 2.
        image: an image with the interface of the official `apache/kafka`; None for `default_image()`.
        listeners: the ways for clients to connect. The plaintext one is always there.
        config: more of server.properties, the same for each broker.
        broker_config: more of one broker's, by its node id (1, or 1 to 3), over `config`: `{2: {"broker.rack": "b"}}`.
        timeout_s: for the brokers to become ready, in seconds; pulling or building the image is not counted.

    Raises (by `open()`):
        DockerUnavailableError, ImageNotFoundError, ImageBuildError, PortTakenError, BrokerStartError.

    Example:
        >>> with KafkaCluster(brokers=3) as cluster:  # doctest: +SKIP
        ...     producer = KafkaProducer(**cluster.client_options())
        ...     cluster.kill(2)
        ...     cluster.start(2)
        ...     cluster.wait_until_healthy()
    """

    def __init__(
        self,
        brokers: int = 1,
        *,
        image: str | None = None,
        listeners: Collection[Listener | str] = (Listener.PLAINTEXT,),
        config: Mapping[str, str] | None = None,
        broker_config: Mapping[int, Mapping[str, str]] | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        """Check the arguments. Nothing is started, and Docker is not asked."""
        if brokers not in (1, 3):
            raise ValueError(
                f"brokers is {brokers!r}; expected 1 or 3 (of two, none can fail without ending the quorum)"
            )
        if not timeout_s > 0:
            raise ValueError(f"timeout_s is {timeout_s!r}; expected a number of seconds above 0")
        self._node_ids = tuple(range(1, brokers + 1))
        self._image = image
        self._listeners = parse_listeners(listeners)
        self._config = checked_configs(config, broker_config, self._node_ids)
        self._timeout_s = timeout_s
        self._lock = threading.Lock()  # held by open() and close() from start to end, so that they exclude each other
        self._running: Deployment | None = None  # written under _lock; read without it, as one reference

    def open(self) -> None:
        """Start the brokers, and return when Kafka answers from all of them."""
        with self._lock:
            if self._running is None:
                self._running = Deployment.start(
                    self._image, self._node_ids, self._listeners, self._config, self._timeout_s
                )

    def close(self) -> None:
        """Remove containers, networks, volumes and files. In a fork of the process that opened it, do nothing."""
        with self._lock:
            if self._running is not None and self._running.owner == os.getpid():
                running, self._running = self._running, None
                running.remove()

    def __enter__(self) -> KafkaCluster:
        self.open()
        return self

    @property
    def supports_faults(self) -> bool:
        """True."""
        return True

    @property
    def node_ids(self) -> tuple[int, ...]:
        """(1,) or (1, 2, 3)."""
        return self._node_ids

    def address_of(self, node_id: int) -> str:
        """`127.0.0.1:port` of the broker's plaintext listener."""
        return f"{HOST}:{self._broker(node_id).ports[Listener.PLAINTEXT]}"

    def client_options(self, listener: Listener | str = Listener.PLAINTEXT) -> dict[str, Any]:
        """Keyword arguments for any kafka-python client, of the given listener."""
        listener = parse_listener(listener)
        if listener not in self._listeners:
            raise ValueError(
                f"the cluster has no {listener.value} listener; it has {', '.join(self._listeners)}: "
                f"add it to KafkaCluster(listeners=...)"
            )
        running = self._deployment()
        ports = [broker.ports for broker in running.brokers.values()]
        return client_options(listener, ports, HOST, running.password, running.ssl_cafile)

    def wait_until_healthy(self, timeout_s: float = 60.0) -> None:
        """See `Cluster`. The error carries the last log lines of the brokers that do not run."""
        running = self._deployment()
        if found := wait_for(running.problem, timeout_s):
            raise UnhealthyClusterError(
                f"the cluster is not healthy after {timeout_s:g} s: {found}; resume, start or heal what was made to "
                f"fail, or look at logs(node_id){running.last_words()}"
            )

    def logs(self, node_id: int, tail: int = 50) -> str:
        """The last `tail` lines of the broker's log."""
        return self._broker(node_id).logs(tail)

    def pause(self, node_id: int) -> None:
        """Freeze a broker: its connections stay open, new ones are accepted, and nothing answers."""
        self._broker(node_id).pause()

    def resume(self, node_id: int) -> None:
        """Let a paused broker run on. Does nothing where it is not paused."""
        self._broker(node_id).resume()

    def kill(self, node_id: int) -> None:
        """Kill a broker by SIGKILL. Its data stays."""
        self._broker(node_id).kill()

    def start(self, node_id: int) -> None:
        """Start a killed broker, on the ports it had."""
        self._broker(node_id).start()

    def restart(self, node_id: int) -> None:
        """Shut a broker down in order and start it."""
        self._broker(node_id).restart()

    def partition(self, node_id: int, from_: str = "everyone") -> None:
        """Cut a broker off from "clients", from the other "brokers", or from "everyone"."""
        side = checked_side(from_)
        self._deployment().networks.cut(self._broker(node_id).container, side)

    def heal(self, node_id: int) -> None:
        """End every partition of a broker."""
        self._deployment().networks.heal(self._broker(node_id).container)

    def __repr__(self) -> str:
        state = self.bootstrap_servers if self._running is not None else "closed"
        return f"<KafkaCluster of {len(self._node_ids)} [{', '.join(self._listeners)}]: {state}>"

    def _deployment(self) -> Deployment:
        if (running := self._running) is None:
            raise ClusterError("the cluster is not open; call open(), or use it in a with statement")
        return running

    def _broker(self, node_id: int) -> BrokerContainer:
        if node_id not in self._node_ids:
            raise ValueError(f"there is no broker {node_id!r}; the node ids are {', '.join(map(str, self._node_ids))}")
        return self._deployment().brokers[node_id]
