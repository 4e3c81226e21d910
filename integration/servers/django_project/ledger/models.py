from __future__ import annotations

from django.db import models


class Entry(models.Model):
    """A record that a handler has had."""

    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    handler: models.CharField[str, str] = models.CharField(max_length=20)
    offset: models.BigIntegerField[int, int] = models.BigIntegerField()
    value: models.CharField[str, str] = models.CharField(max_length=100)
