"""A broker of a few lines, on a loopback port: it answers what a test tells it to.

Built from kafka-python's protocol classes, which encode and decode both directions. As a real broker does, it serves
one request per connection at a time: an answer that blocks holds up everything behind it on that connection.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import unittest.mock
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from kafka.net.inet import KafkaNetSocket
from kafka.protocol.broker_version_data import BrokerVersionData
from kafka.protocol.consumer import (
    FetchRequest,
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    ListOffsetsRequest,
    OffsetCommitRequest,
    OffsetFetchRequest,
    SyncGroupRequest,
)
from kafka.protocol.metadata import (
    ApiVersionsRequest,
    ApiVersionsResponse,
    FindCoordinatorRequest,
    MetadataRequest,
    MetadataResponse,
)
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

__all__ = ["VERSION", "Farewell", "Hangup", "ScriptedBroker", "closed_port", "metadata_answer"]

VERSION = (2, 6)
"""The Kafka release whose request versions the broker speaks."""

_LONGEST_FRAME = 104_857_600
"""More than that a real broker does not read either: socket.request.max.bytes."""

_REQUESTS: dict[int, Any] = {
    request.API_KEY: request
    for request in (
        ApiVersionsRequest,
        FetchRequest,
        FindCoordinatorRequest,
        HeartbeatRequest,
        InitProducerIdRequest,
        JoinGroupRequest,
        LeaveGroupRequest,
        ListOffsetsRequest,
        MetadataRequest,
        OffsetCommitRequest,
        OffsetFetchRequest,
        ProduceRequest,
        SaslAuthenticateRequest,
        SaslHandshakeRequest,
        SyncGroupRequest,
    )
}

_Broker = MetadataResponse.MetadataResponseBroker
_Topic = MetadataResponse.MetadataResponseTopic
_Partition = _Topic.MetadataResponsePartition


def metadata_answer(
    topics: Mapping[str, int] | None = None,
    *,
    brokers: Mapping[int, tuple[str, int]] | None = None,
    errors: Mapping[str, int] | None = None,
    version: int = 9,
) -> Any:
    """A Metadata response: ``topics`` with their number of partitions, ``errors`` with the error code of a topic."""
    brokers = {1: ("127.0.0.1", 9092)} if brokers is None else brokers
    leader = min(brokers, default=-1)
    shown = []
    for name, partitions in (topics or {}).items():
        of_topic = [
            _Partition(
                version=version,
                error_code=0,
                partition_index=index,
                leader_id=leader,
                leader_epoch=0,
                replica_nodes=[leader],
                isr_nodes=[leader],
                offline_replicas=[],
            )
            for index in range(partitions)
        ]
        shown.append(_Topic(version=version, error_code=0, name=name, is_internal=False, partitions=of_topic))
    for name, code in (errors or {}).items():
        shown.append(_Topic(version=version, error_code=code, name=name, is_internal=False, partitions=[]))
    return MetadataResponse(
        version=version,
        throttle_time_ms=0,
        brokers=[_Broker(node_id, host, port, None, version=version) for node_id, (host, port) in brokers.items()],
        cluster_id="scripted",
        controller_id=leader,
        topics=shown,
    )


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port of 127.0.0.1 that refuses connections, and that nobody else gets meanwhile.

    kafka-python leaves the socket of a refused connection to the garbage collector, which would warn of it in some
    later test. So they are closed here, at the end; what uses the port must have ended before.
    """
    made: list[socket.socket] = []

    def keep(self: Any, *args: Any) -> socket.socket:
        made.append(socket.socket(*args))
        return made[-1]

    with socket.socket() as taken, unittest.mock.patch.object(KafkaNetSocket, "socket", keep):
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
        for each in made:
            each.close()


class Hangup(Exception):
    """Raised by an answer: close the connection instead of answering."""


@dataclass(frozen=True)
class Farewell:
    """An answer after which the connection is closed; ``hung_up`` of the broker is set then."""

    response: Any


class ScriptedBroker:
    """Node 1 of a cluster of one; answers ApiVersions and Metadata by itself, the rest as told with ``on``.

    ``connections`` and ``seen`` (the connection's number, from 1, and the request) are for a test to look at.
    """

    def __init__(self, topics: Mapping[str, int] | None = None) -> None:
        self.topics = dict(topics or {})
        self._answers: dict[int, Callable[[Any], Any]] = {}
        self.on(ApiVersionsRequest, self._api_versions)
        self.on(MetadataRequest, self._metadata)
        self._changed = threading.Condition()
        self.seen: list[tuple[int, Any]] = []  # guarded by _changed, as are the fields below
        self.connections = 0
        self.hung_up = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"

    def on(self, request: Any, answer: Callable[[Any], Any]) -> None:
        """Answer ``request`` with what ``answer(request)`` returns: a response, raw bytes, or None for silence."""
        self._answers[request.API_KEY] = answer

    def requests(self, kind: Any) -> list[tuple[int, Any]]:
        """What was asked of this kind so far."""
        with self._changed:
            return [(number, request) for number, request in self.seen if isinstance(request, kind)]

    def wait_for(self, kind: Any, count: int = 1, timeout_s: float = 5.0) -> list[tuple[int, Any]]:
        """Wait until ``count`` requests of this kind have come."""

        def there() -> bool:
            return sum(isinstance(request, kind) for _, request in self.seen) >= count

        with self._changed:
            assert self._changed.wait_for(there, timeout_s), f"{count} {kind.__name__} expected, seen: {self.seen}"
        return self.requests(kind)

    # -- its own answers -----------------------------------------------------------------------------------------------

    def _api_versions(self, request: Any) -> Any:
        supported = BrokerVersionData(VERSION).api_versions
        keys = [
            ApiVersionsResponse.ApiVersion(
                version=request.API_VERSION, api_key=int(key), min_version=lowest, max_version=highest
            )
            for key, (lowest, highest) in supported.items()
        ]
        return ApiVersionsResponse(version=request.API_VERSION, error_code=0, api_keys=keys, throttle_time_ms=0)

    def _metadata(self, request: Any) -> Any:
        asked = self.topics if request.topics is None else {topic.name for topic in request.topics}
        return metadata_answer(
            {name: count for name, count in self.topics.items() if name in asked},
            brokers={1: ("127.0.0.1", self.port)},
            errors={name: 3 for name in asked if name not in self.topics},
            version=request.API_VERSION,
        )

    # -- sockets -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> ScriptedBroker:
        self._spawn(self._accept)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the port and all connections; idempotent. Answers that block must have been let go before."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive(), "an answer still blocks"

    def hang_up(self) -> None:
        """Close all connections; the port stays open."""
        with self._changed:
            for connection in self._sockets:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _spawn(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, name="scripted-broker", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # stopped
                return
            with self._changed:
                self.connections += 1
                number = self.connections
                self._sockets.add(connection)
            self._spawn(self._serve, connection, number)

    def _serve(self, connection: socket.socket, number: int) -> None:
        last = False
        with connection, connection.makefile("rb") as frames, contextlib.suppress(Hangup, OSError):
            while len(size := frames.read(4)) == 4:
                length = struct.unpack(">i", size)[0]
                if length > _LONGEST_FRAME:  # TLS, say
                    break
                frame = frames.read(length)
                if len(frame) < length:
                    break
                key, version, correlation_id = struct.unpack_from(">hhi", frame)
                request = _REQUESTS[key].decode(frame, version=version, header=True)
                request.API_VERSION = version
                with self._changed:
                    self.seen.append((number, request))
                    self._changed.notify_all()
                if key not in self._answers:  # of whom, since the port may have been another broker's before
                    raise AssertionError(f"{type(request).__name__} on port {self.port}: {frame!r}")
                response = self._answers[key](request)
                if response is None:
                    continue
                last = isinstance(response, Farewell)
                if last:
                    response = response.response
                if not isinstance(response, bytes):
                    response.with_header(correlation_id)
                    response = response.encode(header=True, framed=True)
                connection.sendall(response)
                if last:
                    break
        if last:
            self.hung_up.set()
        with self._changed:
            self._sockets.discard(connection)
