"""What Django does around each request for the database's connections, around each record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import connections, reset_queries

__all__ = ["close_old_connections", "with_fresh_connections"]


def close_old_connections() -> None:
    """Close what is broken or too old, of this thread, but for a connection within a transaction.

    Django's function of that name closes those too: by their autocommit, which is off there, it takes them for ones
    that an application has forgotten to restore.
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


def with_fresh_connections(handler: Callable[[Any], Any]) -> Callable[[Any], None]:
    """``handler``, with connections to the database that work, as in a request.

    Those of this thread that are broken, or older than ``CONN_MAX_AGE``, are closed before and after each call, and
    opened anew when they are used. One within a transaction, as in a ``TestCase``, is left alone. With ``DEBUG``, the
    list of queries is emptied, which would grow for ever.
    """

    def handle(what: Any) -> None:
        if settings.DEBUG:
            reset_queries()
        close_old_connections()
        try:
            handler(what)
        finally:
            close_old_connections()

    return handle
