"""One transactional id: who may use it, and where its transaction stands (KIP-98, TransactionCoordinator)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from enum import Enum
from typing import TYPE_CHECKING

from kafka.errors import (
    ConcurrentTransactionsError,
    InvalidProducerIdMappingError,
    InvalidTxnStateError,
    ProducerFencedError,
    TransactionAbortableError,
)

from .batches import control_batch
from .markers import Marker, all_through

if TYPE_CHECKING:
    from .state import State

__all__ = ["Phase", "Transaction"]

NO_EPOCH = -1
_LAST_EPOCH = 2**15 - 2  # of a producer id; one more is left to fence it with


class Phase(Enum):
    """The state of a transactional id, by the name that Kafka gives it."""

    EMPTY = "Empty"
    ONGOING = "Ongoing"
    PREPARE_COMMIT = "PrepareCommit"
    PREPARE_ABORT = "PrepareAbort"
    COMPLETE_COMMIT = "CompleteCommit"
    COMPLETE_ABORT = "CompleteAbort"


_ENDING = (Phase.PREPARE_COMMIT, Phase.PREPARE_ABORT)
_ENDED = {True: Phase.COMPLETE_COMMIT, False: Phase.COMPLETE_ABORT}


class Transaction:
    """A transactional id and its transactions, one after the other; by the first version of the protocol.

    An end is decided at once, and complete when all partitions have its marker on all replicas in sync: at once too,
    unless a leader, replicas or followers are missing. Until then ConcurrentTransactionsError is raised for all that
    is asked.

    Args:
        state: the cluster with the partitions and groups that transactions write to.
        transactional_id: whose transactions these are.
    """

    def __init__(self, state: State, transactional_id: str) -> None:
        self.transactional_id = transactional_id
        self.phase = Phase.EMPTY
        self.producer_id = state.new_producer_id()
        self.producer_epoch = NO_EPOCH
        self.timeout_ms = 0
        self.started_at_ms = -1
        self.partitions: set[tuple[str, int]] = set()
        """Those that it has written to, until its end is complete."""
        self._groups: set[str] = set()
        self._state = state
        self._previous_producer_id = -1
        self._previous_epoch = NO_EPOCH  # from which the producer itself was moved on; -1 where another has come
        self._timer: asyncio.TimerHandle | None = None
        self._completing: asyncio.Task[None] | None = None

    # -- producers -----------------------------------------------------------------------------------------------------

    def initialise(self, timeout_ms: int, expected: tuple[int, int] | None = None) -> tuple[int, int]:
        """Give the transactional id to a producer, and fence those that had it; returns its producer id and epoch.

        ``expected``: the id and epoch of a producer that had it, and means to go on with a new epoch (KIP-360).

        Raises ProducerFencedError where that one has been replaced, ConcurrentTransactionsError while a transaction
        ends. One that goes on is aborted first.
        """
        if expected and not self._may_go_on(*expected):
            raise ProducerFencedError(f"{expected} is not the producer of {self.transactional_id!r} any more")
        if self.phase in _ENDING:
            raise self._ending()
        if self.phase is Phase.ONGOING:
            self._fence()
            raise self._ending()
        expected_epoch = expected[1] if expected else None
        is_next = expected_epoch in (None, self.producer_epoch) or self.producer_epoch == NO_EPOCH
        if is_next:
            previous = self.producer_epoch if expected else NO_EPOCH
            self._previous_producer_id, self._previous_epoch = self.producer_id, previous
            if self.producer_epoch >= _LAST_EPOCH:
                self.producer_id, self.producer_epoch = self._state.new_producer_id(), 0
            else:
                self.producer_epoch += 1
        elif expected_epoch != self._previous_epoch:  # else it asks again, since no answer came
            raise ProducerFencedError(f"epoch {expected_epoch} of {self.transactional_id!r} has ended")
        self.phase, self.timeout_ms, self.started_at_ms = Phase.EMPTY, timeout_ms, -1
        return self.producer_id, self.producer_epoch

    def _may_go_on(self, producer_id: int, epoch: int) -> bool:
        return (
            self.producer_epoch == NO_EPOCH
            or producer_id == self.producer_id
            or (producer_id == self._previous_producer_id and epoch >= _LAST_EPOCH)
        )

    def _check_producer(self, producer_id: int, epoch: int) -> None:
        if producer_id != self.producer_id:
            raise InvalidProducerIdMappingError(f"{self.transactional_id!r} has producer id {self.producer_id}")
        if epoch != self.producer_epoch:
            raise ProducerFencedError(f"{self.transactional_id!r} has epoch {self.producer_epoch}, not {epoch}")

    # -- what belongs to a transaction ---------------------------------------------------------------------------------

    def add(
        self, producer_id: int, epoch: int, partitions: Collection[tuple[str, int]] = (), group_id: str | None = None
    ) -> None:
        """Let a transaction go on with more partitions, or with the offsets of a group; the first begin it."""
        self._check_producer(producer_id, epoch)
        if self.phase in _ENDING:
            raise self._ending()
        if self.phase is not Phase.ONGOING:
            self.phase, self.started_at_ms = Phase.ONGOING, round(time.time() * 1000)
            self._timer = self._state.later(self.timeout_ms / 1000, self._fence)
        self.partitions.update(partitions)
        if group_id is not None:
            self._groups.add(group_id)

    def check_writes(self, producer_id: int, epoch: int, partition: tuple[str, int]) -> None:
        """Raise where a producer may not write to a partition as part of a transaction now (KIP-890).

        TransactionAbortableError: the partition does not belong to it.
        """
        self._check_belongs(producer_id, epoch, partition in self.partitions)

    def check_commits(self, producer_id: int, epoch: int, group_id: str) -> None:
        """The same for the offsets of a group."""
        self._check_belongs(producer_id, epoch, group_id in self._groups)

    def _check_belongs(self, producer_id: int, epoch: int, belongs: bool) -> None:
        self._check_producer(producer_id, epoch)
        if self.phase in _ENDING:
            raise self._ending()
        if not belongs:
            raise TransactionAbortableError(f"it is no part of the transaction of {self.transactional_id!r}")

    # -- its end -------------------------------------------------------------------------------------------------------

    def end(self, producer_id: int, epoch: int, commits: bool) -> None:
        """Commit or abort; does nothing where the last transaction has ended so. Raises InvalidTxnStateError."""
        self._check_producer(producer_id, epoch)
        if self.phase is Phase.ONGOING:
            self._end(commits)
        elif self.phase is (Phase.PREPARE_COMMIT if commits else Phase.PREPARE_ABORT):
            raise self._ending()
        elif self.phase is not _ENDED[commits]:
            raise InvalidTxnStateError(f"{self.transactional_id!r} is in state {self.phase.value}")

    def _fence(self) -> None:
        """Abort in an epoch that no producer has: its time is over, or another producer has come."""
        # Its producer may still go on with a new epoch: so it is in clusters of Kafka 4.1 (KAFKA-19367).
        self._previous_epoch = self.producer_epoch
        self.producer_epoch += 1
        self._end(commits=False)

    def _end(self, commits: bool) -> None:
        self.phase = Phase.PREPARE_COMMIT if commits else Phase.PREPARE_ABORT
        if self._timer is not None:
            self._timer.cancel()
        for group_id in self._groups:
            group = self._state.groups.get(group_id)
            if group is not None:  # it may have been deleted, or nothing of it been committed
                group.offsets.resolve(self.producer_id, commits)
        self._groups.clear()
        marker = control_batch(self.producer_id, self.producer_epoch, commits, round(time.time() * 1000), 0)
        markers = [Marker(self._state.partition(*key), marker) for key in sorted(self.partitions) if self._exists(*key)]
        if missing := [each for each in markers if not each.is_through()]:
            self._completing = asyncio.get_running_loop().create_task(self._complete(missing))
        else:
            self._completed()

    def _exists(self, topic: str, index: int) -> bool:
        return topic in self._state.topics and index < len(self._state.topics[topic].partitions)

    async def _complete(self, missing: list[Marker]) -> None:
        await all_through(missing)
        self._completed()

    def _completed(self) -> None:
        self.partitions.clear()
        self.phase = Phase.COMPLETE_COMMIT if self.phase is Phase.PREPARE_COMMIT else Phase.COMPLETE_ABORT

    def _ending(self) -> ConcurrentTransactionsError:
        return ConcurrentTransactionsError(f"the last transaction of {self.transactional_id!r} is still ending")
