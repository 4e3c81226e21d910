"""Opens one connection a step at a time, to find out how far it comes and why no further."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from kafka.cluster import collect_hosts
from kafka.errors import (
    BrokerResponseError,
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    UnsupportedSaslMechanismError,
    for_code,
)
from kafka.net.connection import KafkaConnection
from kafka.net.inet import KafkaNetSocket
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
from kafka.protocol.metadata import FindCoordinatorRequest, MetadataRequest
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest
from kafka.protocol.sasl import SaslHandshakeRequest

from pooledkafka._wire.discretion import be_discreet
from pooledkafka._wire.last_words import hear_last_words
from pooledkafka._wire.loop import Loop
from pooledkafka._wire.receiving import receive_in_bulk
from pooledkafka._wire.refusals import Refusal, refusal_of
from pooledkafka._wire.tls import check_tls, connected_socket, is_secure, transport_over

__all__ = ["Probe", "Prober", "bootstrap_addresses"]

_T = TypeVar("_T")

_NEEDED: tuple[tuple[Any, int], ...] = (
    (MetadataRequest, 0),
    (ProduceRequest, 3),  # record batches with headers
    (InitProducerIdRequest, 0),
    (FetchRequest, 4),
    (ListOffsetsRequest, 1),
    (FindCoordinatorRequest, 0),
    (JoinGroupRequest, 0),
    (SyncGroupRequest, 0),
    (HeartbeatRequest, 0),
    (LeaveGroupRequest, 0),
    (OffsetFetchRequest, 1),
    (OffsetCommitRequest, 2),
)
"""What consumers and producers with the default options need, and from which version on."""

_OTHERWISE_MS = 2_000.0
"""How long to try something else where a listener may not know what to make of it."""

_FETCH_BYTES = 1_048_576
_MAX_FETCH_VERSION = 12  # later ones name topics by their ids
_NO_MECHANISM = "NONE"  # that there is none of this name is what makes a broker list those there are


class _Node(NamedTuple):
    host: str
    port: int


def bootstrap_addresses(servers: Any) -> list[tuple[str, int]]:
    """Hosts and ports in ``bootstrap_servers``, in their order; raises ValueError for what is none."""
    return [(host, port) for host, port, _ in collect_hosts(servers, randomize=False)]


class Prober:
    """Makes probes with the same options. A context manager, which ends the thread that it starts.

    Raises:
        ConfigurationError: a file with a key or certificate cannot be used.
    """

    def __init__(self, options: Mapping[str, Any], timeout_ms: float) -> None:
        self.options = dict(options)
        self.timeout_ms = timeout_ms
        check_tls(self.options)
        self.net = Loop(**self.options)

    def __enter__(self) -> Prober:
        self.net.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.net.ending = True
        self.net.close()

    def probe(self, host: str, port: int) -> Probe:
        """A probe of that address; nothing is connected yet."""
        return Probe(self, host, port, self.options)

    def plain_probe(self, host: str, port: int) -> Probe:
        """One that speaks plain text and does not log in, whatever the options say."""
        return Probe(self, host, port, {**self.options, "security_protocol": "PLAINTEXT"}, _OTHERWISE_MS)

    def trusting_probe(self, host: str, port: int) -> Probe:
        """One that speaks TLS and believes every certificate: to find out what is there, and to send no secret to."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        options = {**self.options, "security_protocol": "SSL", "ssl_context": context}
        return Probe(self, host, port, options, _OTHERWISE_MS)


class Probe:
    """One connection to one address; a context manager, which closes it.

    The methods are steps, in this order; each raises what the pool would meet there, for ``refusal_of`` to explain.
    For one thread.
    """

    def __init__(
        self, prober: Prober, host: str, port: int, options: Mapping[str, Any], timeout_ms: float = float("inf")
    ) -> None:
        self._net = prober.net
        self._options = options
        self._timeout_ms = min(prober.timeout_ms, timeout_ms)  # of each step
        self._node = _Node(host, port)
        self._socket: Any = (
            None  # until the connection has it; these two are the I/O thread's while a step is under way
        )
        self._connection: Any = None

    @property
    def is_secure(self) -> bool:
        """Whether it speaks TLS."""
        return is_secure(self._options)

    def __enter__(self) -> Probe:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._net.run(self._close)

    def explain(self, error: BaseException) -> Refusal:
        """What ``error`` means, that a step has raised."""
        return refusal_of(f"{self._node.host}:{self._node.port}", error, self._options)

    def resolve(self) -> list[str]:
        """The addresses that the name stands for. The operating system's resolver decides how long that takes."""
        factory = KafkaNetSocket(self._options["proxy_url"])
        found = factory.dns_lookup(self._node.host, self._node.port, raise_error=True)
        return list(dict.fromkeys(str(address[4][0]) for address in found))

    def connect(self) -> None:
        """TCP."""

        async def step(until: float) -> None:
            self._socket = await connected_socket(self._net, self._node, self._options, until)

        self._run(step)

    def shake_hands(self) -> str:
        """TLS, where it is spoken; its version and cipher."""

        async def step(until: float) -> str:
            sock, self._socket = self._socket, None
            transport = await transport_over(sock, self._net, self._node, self._options, until)
            receive_in_bulk(transport)
            hear_last_words(transport)
            self._connection = KafkaConnection(self._net, node_id="probe", **self._options)
            be_discreet(self._connection)
            self._connection.connection_made(transport)
            if not self.is_secure:
                return ""
            return f"{transport._sock.version()}, {transport._sock.cipher()[0]}"

        return self._run(step)

    def ask_versions(self) -> str:
        """Which requests the broker knows; its version, as far as that tells it.

        Raises IncompatibleBrokerVersion where one of those that clients need is missing.
        """

        async def step(until: float) -> str:
            await self._connection._get_api_versions(until)
            known = self._connection.broker_version_data
            for request, oldest in _NEEDED:
                known.api_version(request, min_version=oldest)
            return str(known.broker_version_str)

        return self._run(step)

    def answers_without_versions(self) -> bool:
        """Whether what answers is a broker from before ApiVersions, Kafka 0.10; in place of the steps after TLS."""

        async def step(until: float) -> bool:
            request = MetadataRequest(topics=[], version=0)
            return (await self._connection._send_request(request, timeout_at=until)).brokers is not None

        return self._run(step)

    @property
    def broker_version(self) -> str:
        """As far as ``ask_versions`` has heard; may be empty."""
        known = self._connection.broker_version_data if self._connection is not None else None
        return "" if known is None else str(known.broker_version_str)

    @property
    def logs_in(self) -> bool:
        """Whether the options have a login."""
        return str(self._options["security_protocol"]).startswith("SASL_")

    def log_in(self) -> None:
        """SASL, where the options have it; to be called in any case, before what follows."""

        async def step(until: float) -> None:
            if self.logs_in:
                try:
                    await self._connection._sasl_authenticate(until)
                except Exception as error:
                    # In kafka-python's frames are the password and the token.
                    raise error.with_traceback(None)  # noqa: B904 - it is the same error
            self._connection._init_complete()

        self._run(step)

    def offered_mechanisms(self) -> list[str]:
        """The SASL mechanisms that the broker would take; none where it wants no login. The connection is of no use
        after that.
        """

        async def step(until: float) -> list[str]:
            request = SaslHandshakeRequest(mechanism=_NO_MECHANISM, max_version=1)
            answer = await self._connection._send_request(request, timeout_at=until)
            if answer.error_code == IllegalSaslStateError.errno:
                return []
            if answer.error_code not in (0, UnsupportedSaslMechanismError.errno):
                raise for_code(answer.error_code)()
            return list(answer.mechanisms)

        return self._run(step)

    def ask_metadata(self, topics: list[str] | None = None) -> dict[str, Any]:
        """Brokers, and these topics; as a dictionary."""
        wanted = [MetadataRequest.MetadataRequestTopic(name=name) for name in topics or ()]
        request = MetadataRequest(topics=wanted, allow_auto_topic_creation=False)
        found: dict[str, Any] = self._ask(request).to_dict()
        return found

    def ask_end(self, topic: str, partition: int) -> int:
        """The offset at which the next record of the partition will be."""
        kind = ListOffsetsRequest.ListOffsetsTopic
        of_partition = kind.ListOffsetsPartition(partition_index=partition, current_leader_epoch=-1, timestamp=-1)
        request = ListOffsetsRequest(
            replica_id=-1,
            isolation_level=0,
            topics=[kind(name=topic, partitions=[of_partition])],
            min_version=1,
            max_version=9,
        )
        (answer,) = self._ask(request).topics[0].partitions
        _raise(answer.error_code, topic)
        return int(answer.offset)

    def fetch(self, topic: str, partition: int, offset: int) -> int:
        """How many bytes of records the leader sends from there on, without waiting for more."""
        kind = FetchRequest.FetchTopic
        of_partition = kind.FetchPartition(
            partition=partition, fetch_offset=offset, partition_max_bytes=_FETCH_BYTES, current_leader_epoch=-1
        )
        request = FetchRequest(
            max_wait_ms=0,
            min_bytes=0,
            max_bytes=_FETCH_BYTES,
            isolation_level=0,
            topics=[kind(topic=topic, partitions=[of_partition])],
            forgotten_topics_data=[],
            max_version=_MAX_FETCH_VERSION,
        )
        answer = self._ask(request)
        _raise(getattr(answer, "error_code", 0), topic)
        (of_topic,) = answer.responses
        _raise(of_topic.partitions[0].error_code, topic)
        return len(of_topic.partitions[0].records or b"")

    def _ask(self, request: Any) -> Any:
        async def step(until: float) -> Any:
            return await self._connection.send_request(request, request_timeout_ms=(until - time.monotonic()) * 1000)

        return self._run(step)

    def _run(self, step: Callable[[float], Coroutine[Any, Any, _T]]) -> _T:
        try:
            outcome: _T = self._net.run(step, time.monotonic() + self._timeout_ms / 1000)
            return outcome
        except KafkaError:
            raise
        except OSError as error:
            raise KafkaConnectionError(str(error)) from error

    def _close(self) -> None:  # on the I/O thread
        if self._socket is not None:
            self._socket.close()
        connection = self._connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort(KafkaConnectionError("the probe is done"))


def _raise(error_code: int, what: str) -> None:
    if error_code:
        kind: type[BrokerResponseError] = for_code(error_code)
        raise kind(what)
