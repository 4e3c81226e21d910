"""``manage.py kafka_consume``."""

from __future__ import annotations

import atexit
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import connections
from django.utils import autoreload

from pooledkafka.contrib.django import pools
from pooledkafka.contrib.django._handlers import Handler, discovered, selected
from pooledkafka.contrib.django._supervisor import HandlerFailed, Supervisor
from pooledkafka.contrib.django._tables import check_table
from pooledkafka.contrib.django.commands import KafkaCommand
from pooledkafka.contrib.django.models import HandledOffset
from pooledkafka.errors import PoolError

__all__ = ["Command"]

_RELOAD_S = 5.0
"""How long handlers may take to finish their records when the code has changed."""


class Command(KafkaCommand):
    """Runs handlers until a signal, the end of what there is, or the first that fails."""

    help = (
        "Call the functions that @kafka_handler marks with the records of their topics, each on a thread of its own. "
        "The first SIGTERM or SIGINT lets them finish the records they have, commits and leaves the groups; the second "
        "ends the process at once. When a handler fails for good the others are stopped, and the exit code is 1."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Which handlers, and how long."""
        parser.add_argument("handlers", nargs="*", metavar="HANDLER", help="names of handlers. Default: all")
        parser.add_argument("--group", action="append", default=[], help="only handlers of this group; repeatable")
        parser.add_argument("--alias", action="append", default=[], help="only handlers of this alias; repeatable")
        parser.add_argument("--list", action="store_true", dest="list_only", help="show the handlers and end")
        parser.add_argument("--once", action="store_true", help="end when all is handled that was there at the start")
        parser.add_argument("--max-records", type=int, metavar="N", help="end each handler after N records")
        parser.add_argument("--autoreload", action="store_true", help="start anew when code changes; for development")

    def handle(self, *args: Any, **options: Any) -> str | None:
        """Run, beside the reloader where it is asked for; signals are the reloader's then."""
        if options["max_records"] is not None and options["max_records"] < 1:
            raise CommandError("--max-records must be 1 or more")
        if options["autoreload"]:
            autoreload.run_with_reloader(self._reloaded, options)
            return None
        return super().handle(*args, **options)

    def handle_kafka(self, *_: Any, **options: Any) -> None:
        """Run."""
        self._run(options)

    def _reloaded(self, options: dict[str, Any]) -> None:
        # On a thread beside the reloader's, where an exception would end neither.
        autoreload.raise_last_exception()
        try:
            self._run(options)
        except (CommandError, PoolError) as error:
            self.stderr.write(self.style.ERROR(f"{error}\nWaiting for the code to change."))

    def _run(self, options: dict[str, Any]) -> None:
        handlers = selected(discovered(), options["handlers"], options["group"], options["alias"])
        if options["list_only"]:
            self._list(handlers)
            return
        if not handlers:
            raise CommandError(
                "there are no handlers to run; mark functions in a module 'kafka' or 'consumers' of an installed app "
                "with @kafka_handler"
            )
        _check_exact(handlers)
        run_options: dict[str, Any] = {}
        if options["once"]:
            run_options["until_end"] = True
        if options["max_records"] is not None:
            run_options["stop_after"] = options["max_records"]
        supervisor = Supervisor(handlers, pools, run_options)
        for alias in sorted({handler.alias for handler in handlers}):
            pools[alias].connect()  # one clear error, in place of one of each handler
        if options["autoreload"]:
            atexit.register(supervisor.stop_within, _RELOAD_S)  # the reloader and Ctrl-C end the main thread alone
        self.on_stop(supervisor.stop)
        if options["verbosity"] > 0:
            for handler in handlers:
                self.stderr.write(f"{handler.name}: {', '.join(handler.topics)} as group {handler.group_id}")
        try:
            supervisor.run()
        except HandlerFailed as error:
            raise CommandError(str(error)) from error

    def _list(self, handlers: list[Handler]) -> None:
        for handler in handlers:
            self.stdout.write(
                f"{handler.name}\ttopics={','.join(handler.topics)}\tgroup={handler.group_id}\t"
                f"alias={handler.alias}\t{handler.path}"
            )


def _check_exact(handlers: list[Handler]) -> None:
    # Without the table every record would fail, and go to the dead letters.
    for handler in handlers:
        database = handler.exactly_once_in
        if database is None:
            continue
        try:
            check_table(database, HandledOffset, "table for exactly_once_in")
        except CommandError as error:
            raise CommandError(f"handler {handler.name!r}: {error}") from error
        if not connections[database].in_atomic_block:
            connections[database].close()  # this thread needs it no more; handlers have their own
