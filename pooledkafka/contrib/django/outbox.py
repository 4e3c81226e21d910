"""A transactional outbox: events that are written with the data they tell of, and sent when that is committed.

``add`` writes a row in the current transaction, so there is an event exactly where there is the change. The command
``kafka_relay_outbox`` sends the rows and deletes them when the cluster has acknowledged them. A relay that is killed
between the two sends again: every event reaches Kafka at least once, and those with one key in their order.

The table comes with ``manage.py migrate pooledkafka``; a project that never calls ``add`` need not have it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pooledkafka.contrib.django._capture import capture_of
from pooledkafka.contrib.django._message import encoded
from pooledkafka.contrib.django._on_commit import at_commit
from pooledkafka.contrib.django._settings import alias_settings

if TYPE_CHECKING:
    from pooledkafka.contrib.django.models import OutboxRecord

__all__ = ["add"]


def add(
    topic: str,
    value: Any = None,
    *,
    key: Any = None,
    headers: list[tuple[str, bytes]] | None = None,
    partition: int | None = None,
    alias: str = "default",
    using: str | None = None,
) -> OutboxRecord:
    """Write a record to be sent, in the current transaction of the database.

    Order is that of the rows' ids: of transactions that write one key at the same time, the one that began to write
    first comes first, so let them lock the object that the key stands for, as they mostly do anyway.

    Args:
        topic: where it goes.
        value: what it says; serialized now, as the alias's producer would.
        key: likewise. Records of one key keep their order.
        headers: names and bytes.
        partition: where the key shall not choose.
        alias: of ``settings.POOLEDKAFKA``.
        using: the alias of the database. Default: as the routers say, or Django's default database.

    Raises:
        TypeError: the key, value or a header is not bytes, and no serializer makes it so.
        ValueError: there is neither key nor value.
        ConfigurationError: there is no such alias, or its settings cannot work.

    Example:
        >>> with transaction.atomic():
        ...     order.save()
        ...     outbox.add("orders", order.to_json(), key=order.key)
    """
    from pooledkafka.contrib.django.models import OutboxRecord

    settings = alias_settings(alias)
    message = encoded(
        alias,
        settings.producer,
        topic,
        value=value,
        key=key,
        headers=headers,
        partition=partition,
        source="outbox",
    )
    record = OutboxRecord.of(message)
    record.save(using=using, force_insert=True)
    captured = capture_of(settings.backend)
    if captured is not None:
        at_commit(lambda: captured.add(message), f"outbox.add({topic!r})", record._state.db, robust=True)
    return record
