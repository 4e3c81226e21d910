"""``manage.py kafka_relay_outbox``."""

from __future__ import annotations

import random
import time
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections

from pooledkafka.contrib.django import pools
from pooledkafka.contrib.django._hygiene import close_old_connections
from pooledkafka.contrib.django._relay import OutboxRelay, Round, Topic
from pooledkafka.contrib.django._tables import check_table
from pooledkafka.contrib.django.commands import KafkaCommand
from pooledkafka.contrib.django.models import OutboxRecord

__all__ = ["Command"]

_LONGEST_PAUSE_S = 30.0


class Command(KafkaCommand):
    """Sends the outbox, and goes on to do so."""

    help = (
        "Send what outbox.add() wrote, in order for each key, and delete it when the cluster has acknowledged it. Each "
        "record is sent at least once: a relay that is killed after the acknowledgement and before the deletion sends "
        "it again. Runs until SIGTERM or SIGINT; with --once until the outbox is empty, with exit code 1 where records "
        "could not be sent."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Which outbox, and how."""
        parser.add_argument("--once", action="store_true", help="end when the outbox is empty")
        parser.add_argument("--batch-size", type=int, default=200, metavar="N", help="records a round. Default: 200")
        parser.add_argument(
            "--interval", type=float, default=1.0, metavar="S", help="seconds between looks. Default: 1"
        )
        parser.add_argument("--alias", action="append", help="only records of this alias; repeatable. Default: all")
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, help="whose outbox. Default: default")

    def handle_kafka(self, *_: Any, **options: Any) -> None:
        """Relay."""
        database = options["database"]
        if options["batch_size"] < 1 or options["interval"] <= 0:
            raise CommandError("--batch-size must be 1 or more, and --interval above 0")
        check_table(database, OutboxRecord, "outbox")
        relay = OutboxRelay(pools, database, options["alias"], options["batch_size"])
        if not options["once"]:
            self._relay(relay, database, options["interval"], options["verbosity"])
            return
        try:
            self._relay_once(relay, options["verbosity"])
        except DatabaseError as error:
            raise CommandError(f"the database failed: {error}") from error

    def _relay_once(self, relay: OutboxRelay, verbosity: int) -> None:
        done = relay.drain(lambda: self.stopped)
        self._say(done, verbosity, always=True)
        if done.failed:
            pk, reason = next(iter(done.failed.items()))
            raise CommandError(
                f"{len(done.failed)} records could not be sent and stay in the outbox; record {pk}: {reason}"
            )

    def _relay(self, relay: OutboxRelay, database: str, interval: float, verbosity: int) -> None:
        failures = 0  # in a row
        parked: set[int] = set()  # what failed, until it is tried again; the others go on meanwhile
        absent: set[Topic] = set()  # likewise topics, with all of their records
        again_at = 0.0
        while not self.stopped:
            close_old_connections()
            if time.monotonic() >= again_at:
                parked.clear()
                absent.clear()
            try:
                done = relay.drain(lambda: self.stopped, parked, absent)
            except DatabaseError as error:
                self.stderr.write(self.style.ERROR(f"the database failed: {error}"))
                connections[database].close()
                failed = away = True
            else:
                self._say(done, verbosity)
                parked.update(done.failed)
                absent |= done.absent
                failed, away = bool(done.failed), done.unreachable
            pause = interval
            if failed:
                failures += 1
                # Jittered, so that relays do not come back all at once.
                pause = min(_LONGEST_PAUSE_S, interval * 2 ** min(failures, 10)) * random.uniform(0.5, 1)
                again_at = time.monotonic() + pause
            elif not parked:
                failures = 0
            self.pause(pause if away else interval)

    def _say(self, done: Round, verbosity: int, *, always: bool = False) -> None:
        if (done.sent and verbosity > (0 if always else 1)) or done.failed or (always and verbosity > 0):
            waiting = f", {len(done.waiting)} wait for others with their keys" if done.waiting else ""
            failed = f", {len(done.failed)} failed" if done.failed else ""
            self.stderr.write(f"{done.sent} sent{failed}{waiting}")
