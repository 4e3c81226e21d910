"""The shop with a pool that is in use at import, so before a preloading server forks: not needed, but allowed.

Under uWSGI that takes ``py-call-uwsgi-fork-hooks = true``.
"""

from __future__ import annotations

from app import app, kafka, pool
from settings import PRODUCER, TOPIC

__all__ = ["app"]

kafka.producer(connection_pool=pool, **PRODUCER).partitions_for(TOPIC)
