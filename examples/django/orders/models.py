"""Orders, and what handlers make of their events."""

from __future__ import annotations

from django.db import models


class Order(models.Model):
    """What a customer wants."""

    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    item: models.CharField[str, str] = models.CharField(max_length=100)
    cancelled: models.BooleanField[bool, bool] = models.BooleanField(default=False)


class Invoice(models.Model):
    """One for each order, and none that is made twice."""

    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    order_id: models.BigIntegerField[int, int] = models.BigIntegerField()
    item: models.CharField[str, str] = models.CharField(max_length=100)


class Refund(models.Model):
    """By the order, so that an event that comes twice makes one."""

    order_id: models.BigIntegerField[int, int] = models.BigIntegerField(primary_key=True)
