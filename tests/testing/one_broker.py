"""A Kafka broker that can only create, describe and delete topics, on a loopback port."""

from __future__ import annotations

import socketserver
import struct
import threading
from typing import Any

from kafka.protocol.admin import (
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
)
from kafka.protocol.metadata import ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataResponse

# The requests it answers, each up to this version.
_VERSIONS = {ApiVersionsRequest: 2, MetadataRequest: 9, CreateTopicsRequest: 4, DeleteTopicsRequest: 4}
_REQUESTS = {request.API_KEY: request for request in _VERSIONS}
_PRODUCE = 0, 8  # its key and version: what kafka-python knows a broker of version 2.4 by


class OneBroker(socketserver.ThreadingTCPServer):
    """A context manager that serves. Topics become ready only in the metadata request after their creation's."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.lock = threading.Lock()
        self.topics: dict[str, int] = {}  # partitions by name; guarded by lock, as the next two
        self.without_leader: set[str] = set()
        self.deleted: list[str] = []

    def __enter__(self) -> OneBroker:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def answer(self, request: Any) -> Any:
        answers = {
            ApiVersionsRequest: self._versions,
            MetadataRequest: self._metadata,
            CreateTopicsRequest: self._create,
            DeleteTopicsRequest: self._delete,
        }
        with self.lock:
            return answers[type(request)](request)

    def _versions(self, request: Any) -> Any:
        entry = ApiVersionsResponse.ApiVersion
        versions = [(request.API_KEY, version) for request, version in _VERSIONS.items()]
        return ApiVersionsResponse(
            error_code=0,
            api_keys=[entry(api_key=key, min_version=0, max_version=top) for key, top in (*versions, _PRODUCE)],
        )

    def _metadata(self, request: Any) -> Any:
        host, port = self.address.split(":")
        topic_kind = MetadataResponse.MetadataResponseTopic
        topics = [
            topic_kind(
                error_code=0,
                name=name,
                partitions=[
                    topic_kind.MetadataResponsePartition(
                        error_code=0,
                        partition_index=index,
                        leader_id=-1 if name in self.without_leader else 1,
                        leader_epoch=0,
                        replica_nodes=[1],
                        isr_nodes=[1],
                        offline_replicas=[],
                    )
                    for index in range(partitions)
                ],
            )
            for name, partitions in self.topics.items()
        ]
        if topics:
            self.without_leader.clear()
        return MetadataResponse(
            brokers=[MetadataResponse.MetadataResponseBroker(node_id=1, host=host, port=int(port))],
            cluster_id="one-broker",
            controller_id=1,
            topics=topics,
        )

    def _create(self, request: Any) -> Any:
        for topic in request.topics:
            self.topics[topic.name] = topic.num_partitions
            self.without_leader.add(topic.name)
        result = CreateTopicsResponse.CreatableTopicResult
        return CreateTopicsResponse(topics=[result(name=topic.name, error_code=0) for topic in request.topics])

    def _delete(self, request: Any) -> Any:
        for name in request.topic_names:
            del self.topics[name]
            self.deleted.append(name)
        result = DeleteTopicsResponse.DeletableTopicResult
        return DeleteTopicsResponse(responses=[result(name=name, error_code=0) for name in request.topic_names])


class _Connection(socketserver.StreamRequestHandler):
    server: OneBroker

    def handle(self) -> None:
        while size := self.rfile.read(4):
            frame = self.rfile.read(*struct.unpack(">i", size))
            api_key, version, correlation_id = struct.unpack_from(">hhi", frame)
            kind = _REQUESTS[api_key]
            if version > _VERSIONS[kind]:
                self._refuse_version(correlation_id)
                continue
            response = self.server.answer(kind.decode(frame, version=version, header=True))
            self._write(response, version, correlation_id)

    def _write(self, response: Any, version: int, correlation_id: int) -> None:
        response.API_VERSION = version
        response.with_header(correlation_id=correlation_id)
        self.wfile.write(response.encode(header=True, framed=True))

    def _refuse_version(self, correlation_id: int) -> None:
        """As Kafka does for ApiVersions alone: version 0 of the answer, with the versions there are."""
        response = self.server.answer(ApiVersionsRequest(version=0))
        response.error_code = 35
        self._write(response, 0, correlation_id)
