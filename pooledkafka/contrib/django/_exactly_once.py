"""A handler whose effects in the database happen exactly once for each record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F

__all__ = ["exactly_once"]


def exactly_once(
    handler: Callable[[Any], Any], *, alias: str, group_id: str, batches: bool, using: str
) -> Callable[[Any], None]:
    """``handler`` in a transaction of database ``using``, which also notes how far the group has come.

    Kafka delivers at least once: after a crash, or when a partition moves, a record comes again. The note is written in
    the transaction of the record's own effects, so both are there or neither; a record before it is skipped. The note
    is moved first, which locks it: where two members handle one record at a time, since one does not know yet that it
    has lost the partition, the second waits for the first, and then skips what that one has done.
    """

    def handle(given: Any) -> None:
        records: Sequence[Any] = given if batches else [given]
        with transaction.atomic(using=using):
            first = _advance(using, alias, group_id, records)
            if first is None:
                return
            fresh = [record for record in records if record.offset >= first]
            if fresh:
                handler(fresh if batches else fresh[0])

    return handle


def _advance(using: str, alias: str, group_id: str, records: Sequence[Any]) -> int | None:
    """Note that these are handled; returns the offset from which on they were not, None where all were."""
    from pooledkafka.contrib.django.models import HandledOffset

    topic, partition, after = records[0].topic, records[0].partition, records[-1].offset + 1
    place = {"alias": alias, "group_id": group_id, "topic": topic, "partition": partition}
    notes = HandledOffset._default_manager.using(using)
    # An update that changes nothing takes the lock, in every database; a plain read in SQLite would not, and could not
    # be followed by a write where another process has written in between.
    if not notes.filter(**place).update(next_offset=F("next_offset")):
        try:
            with transaction.atomic(using=using):
                notes.create(next_offset=0, **place)
        except IntegrityError:  # another member was faster
            notes.filter(**place).update(next_offset=F("next_offset"))
    first = notes.values_list("next_offset", flat=True).get(**place)
    if first >= after:
        return None
    notes.filter(**place).update(next_offset=after)
    return int(first)
