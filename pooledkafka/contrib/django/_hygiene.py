"""What Django does around each request for the database's connections, around each record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import close_old_connections, reset_queries

__all__ = ["with_fresh_connections"]


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
