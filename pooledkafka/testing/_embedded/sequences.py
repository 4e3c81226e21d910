"""What a partition knows of idempotent producers: who wrote last, and which batches (KIP-98, ProducerStateManager)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from kafka.errors import InvalidProducerEpochError, OutOfOrderSequenceNumberError

from .batches import Batch

__all__ = ["Sequences"]

_REMEMBERED = 5  # batches of a producer: as many as it may have in flight


@dataclass
class _Producer:
    epoch: int
    written: deque[Batch] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))


class Sequences:
    """The idempotent producers of one partition."""

    def __init__(self) -> None:
        self._producers: dict[int, _Producer] = {}

    def epoch_of(self, producer_id: int) -> int:
        """The latest epoch of a producer; -1 where it is unknown."""
        return self._producers[producer_id].epoch if producer_id in self._producers else -1

    def duplicate_of(self, batch: Batch) -> Batch | None:
        """The batch in the log that this one repeats, if it is one of its producer's last."""
        producer = self._producers.get(batch.producer_id)
        if producer is None or producer.epoch != batch.producer_epoch:
            return None
        repeated = (batch.base_sequence, batch.last_sequence)
        return next((each for each in producer.written if (each.base_sequence, each.last_sequence) == repeated), None)

    def check(self, batch: Batch) -> None:
        """Raise for a batch that is not its producer's next one; as ProducerAppendInfo.

        InvalidProducerEpochError: another producer has taken this one's place. OutOfOrderSequenceNumberError: others
        were to come before it. A producer of which the log knows nothing may begin anywhere: it may be forgotten.
        """
        producer = self._producers.get(batch.producer_id)
        if producer is None:
            return
        if batch.producer_epoch < producer.epoch:
            raise InvalidProducerEpochError(f"epoch {batch.producer_epoch} has ended; it is {producer.epoch} now")
        same_epoch = batch.producer_epoch == producer.epoch
        expected = (producer.written[-1].last_sequence + 1) % 2**31 if same_epoch and producer.written else 0
        if batch.base_sequence != expected:
            raise OutOfOrderSequenceNumberError(f"sequence {batch.base_sequence} came where {expected} was next")

    def note(self, batch: Batch) -> None:
        """A batch was appended; markers of transactions too."""
        if batch.producer_id < 0:
            return
        producer = self._producers.get(batch.producer_id)
        if producer is None or batch.producer_epoch > producer.epoch:
            producer = self._producers[batch.producer_id] = _Producer(batch.producer_epoch)
        if not batch.is_control:
            producer.written.append(batch)
