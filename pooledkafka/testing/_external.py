"""A cluster that runs already, behind the same interface."""

from __future__ import annotations

import os
from typing import Any, NoReturn

from ._cluster import Cluster
from ._errors import ClusterError, FaultUnsupportedError, UnhealthyClusterError
from ._listeners import Listener, parse_listener
from ._readiness import Address, NoAnswerError, problem, view_of, wait_for

_ENVIRONMENT_VARIABLE = "POOLEDKAFKA_BOOTSTRAP"
_DEFAULT_PORT = 9092


class ExternalCluster(Cluster):
    """A running cluster with a plaintext listener, without faults.

    `open()` only asks it who its brokers are. Methods may be called from any thread.

    Args:
        bootstrap_servers: `host:port` of one or more brokers, separated by commas.

    Example:
        >>> with ExternalCluster("127.0.0.1:9092") as cluster:  # doctest: +SKIP
        ...     producer = KafkaProducer(**cluster.client_options())
    """

    def __init__(self, bootstrap_servers: str) -> None:
        """Check the addresses; nothing is connected."""
        self._bootstrap = [_address(server) for server in bootstrap_servers.split(",")]
        self._given = bootstrap_servers
        self._brokers: dict[int, Address] | None = None  # replaced as a whole by open() and close()

    @classmethod
    def from_environment(cls) -> ExternalCluster | None:
        """The cluster that `$POOLEDKAFKA_BOOTSTRAP` names; None when it is unset or empty."""
        servers = os.environ.get(_ENVIRONMENT_VARIABLE)
        return cls(servers) if servers else None

    def open(self) -> None:
        """Ask the cluster for its brokers. Raises ClusterError when none of the addresses answers."""
        if self._brokers is not None:
            return
        failures = []
        for address in self._bootstrap:
            try:
                self._brokers = dict(sorted(view_of(address).brokers.items()))
                return
            except NoAnswerError as error:
                failures.append(str(error))
        raise ClusterError(
            f"no Kafka broker answers at {self._given} ({'; '.join(failures)}); start the cluster, or correct the "
            f"address ({_ENVIRONMENT_VARIABLE} where it came from the environment)"
        )

    def close(self) -> None:
        """Forget the brokers; the cluster itself goes on."""
        self._brokers = None

    def __enter__(self) -> ExternalCluster:
        self.open()
        return self

    @property
    def supports_faults(self) -> bool:
        """False."""
        return False

    @property
    def node_ids(self) -> tuple[int, ...]:
        """The ids of the brokers that were there on `open()`."""
        return tuple(self._known())

    def address_of(self, node_id: int) -> str:
        """`host:port` under which the broker announces itself."""
        brokers = self._known()
        if node_id not in brokers:
            raise ValueError(f"there is no broker {node_id!r}; the node ids are {', '.join(map(str, brokers))}")
        host, port = brokers[node_id]
        return f"{host}:{port}"

    def client_options(self, listener: Listener | str = Listener.PLAINTEXT) -> dict[str, Any]:
        """Keyword arguments for any kafka-python client. Of the listeners only the plaintext one is known."""
        if parse_listener(listener) is not Listener.PLAINTEXT:
            raise ValueError(f"of an external cluster only the plaintext listener is known, not {listener!r}")
        return {"bootstrap_servers": self.bootstrap_servers, "security_protocol": "PLAINTEXT"}

    def wait_until_healthy(self, timeout_s: float = 60.0) -> None:
        """See `Cluster`."""
        brokers = self._known()
        if found := wait_for(lambda: problem(brokers), timeout_s):
            raise UnhealthyClusterError(f"the cluster at {self._given} is not healthy after {timeout_s:g} s: {found}")

    def logs(self, node_id: int, tail: int = 50) -> str:
        """Not to be had: raises FaultUnsupportedError."""
        self._refuse("read the log of")

    def pause(self, node_id: int) -> None:
        """Raises FaultUnsupportedError."""
        self._refuse("pause")

    def resume(self, node_id: int) -> None:
        """Raises FaultUnsupportedError."""
        self._refuse("resume")

    def kill(self, node_id: int) -> None:
        """Raises FaultUnsupportedError."""
        self._refuse("kill")

    def start(self, node_id: int) -> None:
        """Raises FaultUnsupportedError."""
        self._refuse("start")

    def restart(self, node_id: int) -> None:
        """Raises FaultUnsupportedError."""
        self._refuse("restart")

    def partition(self, node_id: int, from_: str = "everyone") -> None:
        """Raises FaultUnsupportedError."""
        self._refuse("cut off")

    def heal(self, node_id: int) -> None:
        """Raises FaultUnsupportedError."""
        self._refuse("heal")

    def __repr__(self) -> str:
        return f"<ExternalCluster {self._given}>"

    def _known(self) -> dict[int, Address]:
        if self._brokers is None:
            raise ClusterError("the cluster is not open; call open(), or use it in a with statement")
        return self._brokers

    def _refuse(self, action: str) -> NoReturn:
        raise FaultUnsupportedError(
            f"cannot {action} a broker of {self._given}: the cluster was not started here; unset "
            f"{_ENVIRONMENT_VARIABLE} to have tests start a KafkaCluster in Docker"
        )


def _address(server: str) -> Address:
    host, colon, port = server.strip().rpartition(":")
    if not colon:
        host, port = port, str(_DEFAULT_PORT)
    if not host or not port.isdigit():
        raise ValueError(f"bootstrap_servers has {server!r}; expected host:port, several separated by commas")
    return host.strip("[]"), int(port)
