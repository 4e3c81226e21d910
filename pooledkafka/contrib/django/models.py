"""The tables: events that are to be sent, and how far exact handlers have come. For projects that use either."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db import models
from django.utils import timezone

from pooledkafka.contrib.django._message import Message

__all__ = ["HandledOffset", "OutboxRecord"]


class OutboxRecord(models.Model):
    """A record that was written in a transaction of the database and is to be sent; see ``outbox``."""

    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    alias: models.CharField[str, str] = models.CharField(max_length=100, default="default")
    topic: models.CharField[str, str] = models.CharField(max_length=249)
    key: models.BinaryField[bytes | None, bytes | None] = models.BinaryField(null=True)
    value: models.BinaryField[bytes | None, bytes | None] = models.BinaryField(null=True)
    headers = models.JSONField(default=list)
    """``[[name, value in base64 or null], ...]``."""
    partition: models.IntegerField[int | None, int | None] = models.IntegerField(null=True)
    created_at: models.DateTimeField[datetime, datetime] = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes = [models.Index(fields=["alias", "id"], name="pooledkafka_outbox_order")]
        verbose_name = "outbox record"

    def __str__(self) -> str:
        return f"record {self.pk} for {self.topic!r}"

    @classmethod
    def of(cls, message: Message) -> OutboxRecord:
        """The row of ``message``, not saved."""
        return cls(
            alias=message.alias,
            topic=message.topic,
            key=message.key_bytes,
            value=message.value_bytes,
            headers=_as_json(message.headers),
            partition=message.partition,
        )

    def as_sent(self) -> dict[str, Any]:
        """The arguments of ``Producer.send``: what was written, with the time at which it was."""
        return {
            "value": None if self.value is None else bytes(self.value),
            "key": None if self.key is None else bytes(self.key),
            "headers": [(name, None if text is None else base64.b64decode(text)) for name, text in self.headers]
            or None,
            "partition": self.partition,
            "timestamp_ms": int(self.created_at.timestamp() * 1000),
        }


class HandledOffset(models.Model):
    """How far a group has handled a partition, written in the transactions of its handler; see ``kafka_handler``."""

    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    alias: models.CharField[str, str] = models.CharField(max_length=100)
    group_id: models.CharField[str, str] = models.CharField(max_length=255)
    topic: models.CharField[str, str] = models.CharField(max_length=249)
    partition: models.IntegerField[int, int] = models.IntegerField()
    next_offset: models.BigIntegerField[int, int] = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["alias", "group_id", "topic", "partition"], name="pooledkafka_handled_partition"
            )
        ]
        verbose_name = "handled offset"

    def __str__(self) -> str:
        return f"{self.group_id!r} at {self.topic}[{self.partition}]@{self.next_offset}"


def _as_json(headers: Iterable[tuple[str, bytes | None]]) -> list[list[str | None]]:
    return [[name, None if value is None else base64.b64encode(value).decode("ascii")] for name, value in headers]
