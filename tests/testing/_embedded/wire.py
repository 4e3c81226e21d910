"""A client that speaks the wire protocol itself: it may send several requests before it reads an answer."""

from __future__ import annotations

import itertools
import socket
import ssl
import struct
from types import TracebackType
from typing import Any

from kafka.protocol.api_header import ResponseClassRegistry
from kafka.protocol.consumer import FetchRequest
from kafka.protocol.producer import ProduceRequest
from kafka.record import MemoryRecordsBuilder
from kafka.record.memory_records import MemoryRecords

__all__ = ["Wire", "fetch", "fetched", "produce"]


class Wire:
    """One connection to a broker. A context manager that closes it."""

    def __init__(self, address: str, client_id: str = "wire", timeout_s: float = 10.0) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout_s)
        self._client_id = client_id
        self._numbers = itertools.count(1)
        self._sent: dict[int, Any] = {}
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        self.socket.close()

    def secure(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on."""
        self._file.close()
        self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self._file = self.socket.makefile("rb")

    def send(self, request: Any, version: int) -> int:
        """Write a request; returns its correlation id."""
        number = next(self._numbers)
        request.API_VERSION = version
        request.with_header(correlation_id=number, client_id=self._client_id)
        self._sent[number] = request
        self.socket.sendall(request.encode(header=True, framed=True))
        return number

    def receive(self) -> tuple[int, Any]:
        """Read an answer: the correlation id and the response. Raises EOFError where the connection has ended."""
        frame = self.receive_raw()
        (number,) = struct.unpack_from(">i", frame)
        request = self._sent.pop(number)
        response = ResponseClassRegistry.get_response_class(request.header)
        return number, response.decode(frame, version=request.API_VERSION, header=True)

    def receive_raw(self) -> bytes:
        """Read one frame. Raises EOFError where the connection has ended."""
        size = self._file.read(4)
        if len(size) < 4:
            raise EOFError("the broker has closed the connection")
        return self._file.read(int(struct.unpack(">i", size)[0]))

    def ask(self, request: Any, version: int) -> Any:
        """Send a request and read its answer."""
        number = self.send(request, version)
        answered, response = self.receive()
        assert answered == number
        return response

    def has_ended(self) -> bool:
        """Wait for the broker to close the connection; False where it sends something first, or is silent."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False


def batch(*values: bytes, timestamp: int = 1_000) -> bytes:
    """A record batch, as a producer builds it."""
    builder = MemoryRecordsBuilder(magic=2, compression_type=0, batch_size=1 << 20)
    for value in values:
        builder.append(timestamp=timestamp, key=None, value=value)
    builder.close()
    return bytes(builder.buffer())


def produce(topic: str, *values: bytes, partition: int = 0, acks: int = -1, timeout_ms: int = 5_000) -> Any:
    """A Produce request of one batch."""
    topics = ProduceRequest.TopicProduceData
    records = topics.PartitionProduceData(index=partition, records=batch(*values))
    return ProduceRequest(
        transactional_id=None,
        acks=acks,
        timeout_ms=timeout_ms,
        topic_data=[topics(name=topic, partition_data=[records])],
    )


def fetch(
    topic: str, offset: int = 0, *, partition: int = 0, max_wait_ms: int = 0, min_bytes: int = 1, **options: Any
) -> Any:
    """A Fetch request of one partition, outside a session."""
    topics = FetchRequest.FetchTopic
    of_partition = {"current_leader_epoch": -1, "last_fetched_epoch": -1, "log_start_offset": -1}
    of_partition.update({name: options.pop(name) for name in list(options) if name in of_partition})
    asked = topics.FetchPartition(
        partition=partition,
        fetch_offset=offset,
        partition_max_bytes=options.pop("partition_max_bytes", 1 << 20),
        **of_partition,
    )
    fields = {"isolation_level": 0, "session_id": 0, "session_epoch": -1, "max_bytes": 1 << 24, "rack_id": ""}
    return FetchRequest(
        replica_id=-1,
        max_wait_ms=max_wait_ms,
        min_bytes=min_bytes,
        topics=[topics(topic=topic, partitions=[asked])],
        forgotten_topics_data=[],
        **{**fields, **options},
    )


def fetched(response: Any) -> list[bytes]:
    """The values of all records in a Fetch response."""
    values: list[bytes] = []
    for topic in response.responses:
        for partition in topic.partitions:
            records = MemoryRecords(bytes(partition.records or b""))
            while (found := records.next_batch()) is not None:
                values.extend(record.value for record in found)
    return values
