"""Whether a database has the app's tables, before a command relies on them."""

from __future__ import annotations

from django.core.management.base import CommandError
from django.db import DatabaseError, connections, models

__all__ = ["check_table"]


def check_table(database: str, model: type[models.Model], what: str) -> None:
    """Raise a CommandError where ``database`` is not in the settings, is away, or lacks ``what``: the model's table."""
    if database not in connections:
        raise CommandError(f"settings.DATABASES has no {database!r}; it has {', '.join(connections)}")
    connection = connections[database]
    try:
        tables = connection.introspection.table_names()
    except DatabaseError as error:
        raise CommandError(f"the database failed: {error}") from error
    if model._meta.db_table not in tables:
        option = "" if database == "default" else f" --database {database}"
        raise CommandError(f"database {database!r} has no {what}; run: manage.py migrate pooledkafka{option}")
