"""Kafka in a Django project: pools and producers by alias, handlers, a transactional outbox, commands, test support.

``INSTALLED_APPS += ["pooledkafka.contrib.django"]``, and settings as for DATABASES::

    POOLEDKAFKA = {"default": {"bootstrap_servers": "localhost:9092", "producer": {"linger_ms": 5}}}

Nothing connects, and no thread starts, before a producer or a pool is first used, or ``kafka_consume`` runs.

Example:
    >>> from pooledkafka.contrib.django import producer
    >>> with transaction.atomic():
    ...     order.save()
    ...     producer.send_on_commit("orders", order.to_json(), key=order.key)
"""

from __future__ import annotations

from pooledkafka.contrib.django import outbox
from pooledkafka.contrib.django._handlers import kafka_handler
from pooledkafka.contrib.django._pools import Pools
from pooledkafka.contrib.django._producer import AliasProducer

__all__ = ["kafka_handler", "outbox", "pools", "producer"]

pools = Pools()
"""The connection pools of this process by alias: ``pools["default"]``."""

producer = AliasProducer(pools, "default")
"""The producer of the alias ``default``; ``producer["analytics"]`` is another one's."""
