"""One broker's container."""

from __future__ import annotations

import base64
import io
import re
import tarfile
from collections.abc import Mapping
from typing import Any

from . import _engine
from ._errors import PortTakenError
from ._listeners import KINDS, Listener
from ._network import Networks
from ._ports import HOST

CONFIG_DIRECTORY = "/mnt/shared/config"
_ENVIRONMENT = {
    "KAFKA_HEAP_OPTS": "-Xms128m -Xmx384m",
    "KAFKA_JVM_PERFORMANCE_OPTS": "-XX:+UseSerialGC",
    "KAFKA_OPTS": f"-Djava.security.properties={CONFIG_DIRECTORY}/java.security",
}
# A broker that is started again may have another address on the brokers' network, and Java would keep the old one for
# 30 s, and "unknown host" for 10.
_JAVA_SECURITY = b"networkaddress.cache.ttl=0\nnetworkaddress.cache.negative.ttl=0\n"
# What the daemon says when it cannot publish a port, in the versions since 20.10 and in Docker Desktop.
_PORT_TAKEN = re.compile("port is already allocated|address already in use|ports are not available", re.IGNORECASE)
_STOP_TIMEOUT_S = 30


class BrokerContainer:
    """A container that runs one broker. It holds no changing state: any thread may use it."""

    def __init__(self, container: Any, node_id: int, ports: Mapping[Listener, int]) -> None:
        """Use `create()`."""
        self.container = container
        self.node_id = node_id
        self.ports = ports

    @classmethod
    def create(
        cls,
        client: Any,
        image: str,
        networks: Networks,
        node_id: int,
        ports: Mapping[Listener, int],
        files: Mapping[str, bytes],
    ) -> BrokerContainer:
        """Create the container, not started, with `files` in it by their absolute path."""
        run_id = networks.run_id
        with _engine.translated_errors(f"create the container of broker {node_id}"):
            container = client.containers.create(
                image,
                name=f"pooledkafka-{run_id}-{node_id}",
                network=networks.clients,
                ports={f"{KINDS[listener].port}/tcp": (HOST, port) for listener, port in ports.items()},
                environment={"CLUSTER_ID": _cluster_id(run_id), **_ENVIRONMENT},
                labels={_engine.RUN_LABEL: run_id},
                cap_add=["NET_ADMIN"],  # for root in it to take its networks down; the broker does not run as root
            )
        broker = cls(container, node_id, ports)
        networks.join(container, node_id)
        broker._put_files({f"{CONFIG_DIRECTORY}/java.security": _JAVA_SECURITY, **files})
        return broker

    def start(self) -> None:
        """Start it, first or after `kill()`. Raises PortTakenError when another process listens on one of its ports."""
        with _engine.translated_errors(f"start broker {self.node_id}"):
            try:
                self.container.start()
            except _engine.errors().APIError as error:
                if not _PORT_TAKEN.search(_engine.explanation(error)):
                    raise
                ports = ", ".join(map(str, self.ports.values()))
                raise PortTakenError(
                    f"broker {self.node_id} cannot have its port on {HOST} ({ports}), because another process listens "
                    f"there; end that process and start the broker again. Docker says: {_engine.explanation(error)}"
                ) from error

    def restart(self) -> None:
        """Stop it as an operator would, by SIGTERM (SIGKILL after 30 s), and start it again."""
        with _engine.translated_errors(f"stop broker {self.node_id}"):
            self.container.stop(timeout=_STOP_TIMEOUT_S)
        self.start()

    def pause(self) -> None:
        """Freeze its processes: connections stay open, and nothing answers."""
        with _engine.translated_errors(f"pause broker {self.node_id}"):
            self.container.pause()

    def resume(self) -> None:
        """Let it run on after `pause()`; nothing where it is not paused."""
        with _engine.translated_errors(f"resume broker {self.node_id}"):
            self.container.reload()
            if self.container.attrs["State"]["Paused"]:
                self.container.unpause()

    def kill(self) -> None:
        """SIGKILL: its data stays, and `start()` brings it back."""
        with _engine.translated_errors(f"kill broker {self.node_id}"):
            self.container.kill()
            self.container.wait()

    def logs(self, tail: int) -> str:
        """The last `tail` lines of its log."""
        with _engine.translated_errors(f"read the log of broker {self.node_id}"):
            return str(self.container.logs(tail=tail).decode(errors="replace"))

    def death(self) -> str | None:
        """How it ended, in one phrase; None while it runs or is paused."""
        with _engine.translated_errors(f"look up broker {self.node_id}"):
            self.container.reload()
        state = self.container.attrs["State"]
        if state["Running"]:
            return None
        return f"exited with status {state['ExitCode']}" + (", out of memory" if state["OOMKilled"] else "")

    def remove(self) -> None:
        """Remove it with its anonymous volumes, running or not."""
        with _engine.translated_errors(f"remove broker {self.node_id}"):
            self.container.remove(force=True, v=True)

    def _put_files(self, files: Mapping[str, bytes]) -> None:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path, content in files.items():
                entry = tarfile.TarInfo(path.lstrip("/"))
                entry.size = len(content)
                entry.mode = 0o644  # readable by the broker, which does not run as root; a copy of it is writable
                tar.addfile(entry, io.BytesIO(content))
        with _engine.translated_errors(f"put files into the container of broker {self.node_id}"):
            self.container.put_archive("/", archive.getvalue())


def _cluster_id(run_id: str) -> str:
    """Kafka takes 16 bytes in URL-safe base 64, without padding."""
    return base64.urlsafe_b64encode(run_id.encode().ljust(16)[:16]).decode().rstrip("=")
