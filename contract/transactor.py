"""A transactional producer that speaks the protocol itself."""

from __future__ import annotations

from typing import Any

from kafka.errors import (
    ConcurrentTransactionsError,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    NotCoordinatorError,
)
from kafka.protocol.producer import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    TxnOffsetCommitRequest,
)

from contract.lab import Lab, until
from contract.records import batch
from contract.requests import Key, of_partitions, produce

__all__ = ["Transactor"]

_RETRIABLE = {
    error.errno
    for error in (
        ConcurrentTransactionsError,
        CoordinatorLoadInProgressError,
        CoordinatorNotAvailableError,
        NotCoordinatorError,
    )
}


class Transactor:
    """A producer of one transactional id, of the protocol before KIP-890; each ask returns an error code."""

    def __init__(self, lab: Lab, transactional_id: str, timeout_ms: int = 60_000) -> None:
        """Take the transactional id over from whoever has it."""
        self._lab = lab
        self.transactional_id = transactional_id
        self._sequences: dict[Key, int] = {}
        request = InitProducerIdRequest(
            transactional_id=transactional_id, transaction_timeout_ms=timeout_ms, producer_id=-1, producer_epoch=-1
        )
        response = until(
            lambda: lab.broker(lab.coordinator_of(transactional_id, transactional=True)).ask(request, 4),
            lambda answer: answer.error_code not in _RETRIABLE,
        )
        assert response.error_code == 0, response
        self.node_id = lab.coordinator_of(transactional_id, transactional=True)
        self.id, self.epoch = int(response.producer_id), int(response.producer_epoch)

    def add(self, *keys: Key, version: int = 3) -> int:
        """Make partitions part of the transaction, of which all have the same answer."""
        (code,) = set(self.add_each(*keys, version=version).values())
        return code

    def add_each(self, *keys: Key, version: int = 3) -> dict[Key, int]:
        """Make partitions part of the transaction; returns the error code of each."""
        kind = AddPartitionsToTxnRequest.AddPartitionsToTxnTopic
        request = AddPartitionsToTxnRequest(
            v3_and_below_transactional_id=self.transactional_id,
            v3_and_below_producer_id=self.id,
            v3_and_below_producer_epoch=self.epoch,
            v3_and_below_topics=[kind(name=topic, partitions=[index]) for topic, index in keys],
        )
        wire = self._lab.broker(self.node_id)
        response = until(
            lambda: wire.ask(request, version),
            lambda answer: ConcurrentTransactionsError.errno not in self._codes_of(answer).values(),
        )
        return self._codes_of(response)

    @staticmethod
    def _codes_of(response: Any) -> dict[Key, int]:
        return {
            (topic.name, part.partition_index): int(part.partition_error_code)
            for topic in response.results_by_topic_v3_and_below
            for part in topic.results_by_partition
        }

    def write(self, key: Key, *contents: bytes, version: int = 9) -> int:
        """Produce a batch, as the next one of its partition."""
        sequence = self._sequences.get(key, 0)
        records = batch(*contents, producer=(self.id, self.epoch), sequence=sequence, transactional=True)
        response = self._lab.at_leader(*key).ask(
            produce({key: records}, transactional_id=self.transactional_id), version
        )
        code = int(of_partitions(response)[key].error_code)
        if code == 0:
            self._sequences[key] = sequence + len(contents)
        return code

    def end(self, commit: bool) -> int:
        """Commit or abort."""
        request = EndTxnRequest(
            transactional_id=self.transactional_id,
            producer_id=self.id,
            producer_epoch=self.epoch,
            committed=commit,
        )
        wire = self._lab.broker(self.node_id)
        response = until(
            lambda: wire.ask(request, 3), lambda answer: answer.error_code != ConcurrentTransactionsError.errno
        )
        return int(response.error_code)

    def add_offsets(self, group: str) -> int:
        """Make a group's offsets part of the transaction."""
        request = AddOffsetsToTxnRequest(
            transactional_id=self.transactional_id, producer_id=self.id, producer_epoch=self.epoch, group_id=group
        )
        wire = self._lab.broker(self.node_id)
        response = until(
            lambda: wire.ask(request, 3), lambda answer: answer.error_code != ConcurrentTransactionsError.errno
        )
        return int(response.error_code)

    def commit_offset(self, group: str, key: Key, offset: int, generation: int = -1, member_id: str = "") -> int:
        """Commit an offset of a group with the transaction."""
        kind = TxnOffsetCommitRequest.TxnOffsetCommitRequestTopic
        asked = kind.TxnOffsetCommitRequestPartition(
            partition_index=key[1], committed_offset=offset, committed_leader_epoch=-1, committed_metadata="m"
        )
        request = TxnOffsetCommitRequest(
            transactional_id=self.transactional_id,
            group_id=group,
            producer_id=self.id,
            producer_epoch=self.epoch,
            generation_id=generation,
            member_id=member_id,
            group_instance_id=None,
            topics=[kind(name=key[0], partitions=[asked])],
        )
        response = self._lab.broker(self._lab.coordinator_of(group)).ask(request, 3)
        return int(response.topics[0].partitions[0].error_code)
