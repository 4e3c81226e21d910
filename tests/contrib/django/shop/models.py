from __future__ import annotations

from django.db import models


class Seen(models.Model):
    """A value that a handler has had."""

    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    value: models.BinaryField[bytes, bytes] = models.BinaryField()
