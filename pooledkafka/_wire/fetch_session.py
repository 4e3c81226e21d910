"""The incremental fetch session (KIP-227) of a parked request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kafka.consumer.fetcher import FetchMetadata, FetchRequestData
from kafka.errors import FetchSessionIdNotFoundError, NoError
from kafka.protocol.consumer import FetchRequest
from kafka.structs import TopicPartition

from pooledkafka._fetch import Position, WireFetch

__all__ = ["FetchSession", "without_session"]

_FetchPartition = FetchRequest.FetchTopic.FetchPartition


class FetchSession:
    """Sends only what changed since the last request, and starts over where a broker has lost track.

    kafka-python's own compares all partitions anew for each request, which for thousands takes most of a second; the
    multiplexer knows what changed. On the I/O thread only.
    """

    def __init__(self) -> None:
        self._next = FetchMetadata.INITIAL

    def data_of(self, wire: WireFetch) -> FetchRequestData:
        """What to say of the partitions, and in which session."""
        if self._next.is_full:
            return FetchRequestData(_in_kafkas_terms(wire.partitions.items()), None, self._next)
        return FetchRequestData(_in_kafkas_terms(wire.changed.items()), wire.forgotten, self._next)

    def answered(self, response: Any) -> bool:
        """Go on to the next epoch after a good answer; False where the session has to begin anew."""
        if response.error_code == FetchSessionIdNotFoundError.errno:
            self._next = FetchMetadata.INITIAL
        elif response.error_code != NoError.errno:
            self.failed()
        elif response.session_id == FetchMetadata.INVALID_SESSION_ID:
            self._next = FetchMetadata.INITIAL  # the broker keeps none for us; the next request says all again
        elif self._next.is_full and response.session_id != FetchMetadata.THROTTLED_SESSION_ID:
            self._next = FetchMetadata.new_incremental(response.session_id)
        elif response.session_id != FetchMetadata.THROTTLED_SESSION_ID:
            self._next = self._next.next_incremental()
        return bool(response.error_code == NoError.errno)

    def failed(self) -> None:
        """Whether the broker has seen the last request is not known: the next one replaces the session."""
        self._next = self._next.next_close_existing()


def without_session(wire: WireFetch) -> FetchRequestData:
    """All partitions, outside any session."""
    return FetchRequestData(_in_kafkas_terms(wire.partitions.items()), None, FetchMetadata.LEGACY)


def _in_kafkas_terms(partitions: Iterable[tuple[TopicPartition, Position]]) -> dict[TopicPartition, Any]:
    return {
        partition: _FetchPartition(
            partition=partition.partition,
            current_leader_epoch=position.current_leader_epoch,
            fetch_offset=position.fetch_offset,
            last_fetched_epoch=position.last_fetched_epoch,
            partition_max_bytes=position.partition_max_bytes,
        )
        for partition, position in partitions
    }
