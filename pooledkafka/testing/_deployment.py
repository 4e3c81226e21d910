"""What a cluster in Docker consists of, from starting it to removing it."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from kafka.admin import KafkaAdminClient, UserScramCredentialUpsertion

from .._logging import get_logger
from . import _engine
from ._certificates import make_certificates
from ._container import CONFIG_DIRECTORY, BrokerContainer
from ._errors import BrokerStartError, ClusterError, PortTakenError
from ._image import ensure_image
from ._listeners import KEYSTORE_FILE, KINDS, SECRETS_DIRECTORY, TLS, USERNAME, Listener
from ._network import Networks
from ._ports import HOST, pick_free_ports
from ._properties import render, server_properties
from ._readiness import problem, wait_for
from ._reaper import Reaper

_PORT_ATTEMPTS = 5
_LOG_LINES = 30

_log = get_logger(__name__)


class Deployment:
    """A running cluster and everything that has to be removed with it. Unchanged from `start()` to `remove()`."""

    def __init__(self, undo: ExitStack) -> None:
        """Use `start()`. What is made here is undone by `undo`, last made first."""
        self._undo = undo
        self.owner = os.getpid()
        self.id = uuid.uuid4().hex[:12]
        self.password = secrets.token_urlsafe(16)
        self.ssl_cafile: str | None = None
        self.brokers: dict[int, BrokerContainer] = {}
        self.client = _engine.connect()
        undo.callback(self.client.close)
        self._directory = tempfile.mkdtemp(prefix="pooledkafka-")
        undo.callback(shutil.rmtree, self._directory, ignore_errors=True)
        # Before there is anything to remove in Docker. It takes over what _remove_from_docker() failed to do.
        undo.push(Reaper(f"{_engine.RUN_LABEL}={self.id}", self._directory))
        self.networks = Networks(self.client, self.id)
        undo.callback(self._remove_from_docker)

    @classmethod
    def start(
        cls,
        image: str | None,
        node_ids: tuple[int, ...],
        listeners: tuple[Listener, ...],
        config: Mapping[int, Mapping[str, str]],
        timeout_s: float,
    ) -> Deployment:
        """Start all and wait until it is ready. On any error, remove what was made and raise the error."""
        undo = ExitStack()
        try:
            deployment = cls(undo)
            deployment._start(image, node_ids, listeners, config, timeout_s)
        except BaseException:
            with suppress(ClusterError):  # the first error says more
                undo.close()
            raise
        return deployment

    def remove(self) -> None:
        """Remove everything."""
        self._undo.close()

    def problem(self) -> str | None:
        """What keeps the cluster from being healthy, in one phrase."""
        return problem({node: (HOST, broker.ports[Listener.PLAINTEXT]) for node, broker in self.brokers.items()})

    def last_words(self, of: Iterable[int] | None = None) -> str:
        """The ends of the logs of the brokers that do not run, or of those given."""
        deaths = {node_id: broker.death() for node_id, broker in self.brokers.items()}
        if of is None:
            of = [node_id for node_id, death in deaths.items() if death]
        return "".join(
            f"\n--- broker {node_id} {deaths[node_id] or 'is running'}; the end of its log:\n"
            f"{self.brokers[node_id].logs(_LOG_LINES)}"
            for node_id in of
        )

    def _start(
        self,
        image: str | None,
        node_ids: tuple[int, ...],
        listeners: tuple[Listener, ...],
        config: Mapping[int, Mapping[str, str]],
        timeout_s: float,
    ) -> None:
        image = ensure_image(self.client, image)
        self.networks.create()
        keystore = self._make_keystore(image) if TLS.intersection(listeners) else {}

        def start_broker(node_id: int) -> BrokerContainer:
            for attempt in range(1, _PORT_ATTEMPTS + 1):
                ports = dict(zip(listeners, pick_free_ports(len(listeners)), strict=True))
                properties = render(server_properties(node_id, node_ids, ports, config[node_id], self.password))
                files = {f"{CONFIG_DIRECTORY}/server.properties": properties, **keystore}
                broker = BrokerContainer.create(self.client, image, self.networks, node_id, ports, files)
                try:
                    broker.start()
                    return broker
                except PortTakenError as error:
                    # Taken between our look and Docker's. The ports were our choice, so choose others.
                    if attempt == _PORT_ATTEMPTS:
                        raise
                    _log.info("cluster.port_taken", broker=node_id, error=str(error))
                    broker.remove()
            raise AssertionError("unreachable")

        with ThreadPoolExecutor(len(node_ids)) as pool:
            self.brokers = dict(zip(node_ids, pool.map(start_broker, node_ids), strict=True))
        self._wait_until_ready(timeout_s)
        if Listener.SCRAM in listeners:
            self._add_scram_user()

    def _make_keystore(self, image: str) -> dict[str, bytes]:
        certificates = make_certificates(self.client, image, self.id, self.password)
        authority = Path(self._directory, "authority.pem")
        authority.write_bytes(certificates.authority)
        self.ssl_cafile = str(authority)
        return {f"{SECRETS_DIRECTORY}/{KEYSTORE_FILE}": certificates.keystore}

    def _wait_until_ready(self, timeout_s: float) -> None:
        def problem_of_the_living() -> str | None:
            for node_id, broker in self.brokers.items():
                if death := broker.death():
                    raise BrokerStartError(
                        f"broker {node_id} {death} while starting; its log says why{self.last_words([node_id])}"
                    )
            return self.problem()

        if found := wait_for(problem_of_the_living, timeout_s):
            raise BrokerStartError(
                f"the cluster is not ready after {timeout_s:g} s: {found}; raise timeout_s if this machine is slow"
                f"{self.last_words(self.brokers)}"
            )

    def _add_scram_user(self) -> None:
        servers = [f"{HOST}:{broker.ports[Listener.PLAINTEXT]}" for broker in self.brokers.values()]
        user = UserScramCredentialUpsertion(USERNAME, KINDS[Listener.SCRAM].mechanism, self.password)
        with KafkaAdminClient(bootstrap_servers=servers) as admin:
            refused = admin.alter_user_scram_credentials([user])
        if refused[USERNAME] is not None:
            raise ClusterError(f"Kafka refused to add the SCRAM user {USERNAME}: {refused[USERNAME]}")

    def _remove_from_docker(self) -> None:
        # By label, not from self.brokers, where a start that was interrupted has not put them yet.
        with _engine.translated_errors("remove the cluster's containers"):
            containers = self.client.containers.list(
                all=True, filters={"label": f"{_engine.RUN_LABEL}={self.id}"}, ignore_removed=True
            )
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda container: container.remove(force=True, v=True), containers))
        self.networks.remove()
