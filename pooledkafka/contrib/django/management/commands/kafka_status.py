"""``manage.py kafka_status``."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import CommandError, CommandParser
from kafka.errors import KafkaError

from pooledkafka.contrib.django import pools
from pooledkafka.contrib.django._handlers import discovered
from pooledkafka.contrib.django._settings import alias_settings, aliases
from pooledkafka.contrib.django._status import status_of
from pooledkafka.contrib.django.commands import KafkaCommand

__all__ = ["Command"]


class Command(KafkaCommand):
    """Connects, and says what it found."""

    help = (
        "Connect to the clusters of settings.POOLEDKAFKA and show their brokers, what the pool holds, and for each "
        "group of a handler how many records of each topic it has not committed. The exit code is 1 where a cluster "
        "cannot be reached."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Which aliases, and how to say it."""
        parser.add_argument("--alias", action="append", help="only this alias; repeatable. Default: all")
        parser.add_argument("--json", action="store_true", dest="as_json", help="for programs")
        parser.add_argument("--timeout", type=float, default=10.0, metavar="S", help="seconds to connect. Default: 10")

    def handle_kafka(self, *_: Any, **options: Any) -> None:
        """Look."""
        handlers = discovered()
        names = options["alias"] or aliases()
        if not names:
            alias_settings("default")  # says what is missing
        found: dict[str, Any] = {}
        failed = []
        for name in names:
            if alias_settings(name).backend == "memory":
                found[name] = {"backend": "memory"}
                continue
            own = [handler for handler in handlers if handler.alias == name]
            try:
                found[name] = status_of(pools, name, own, options["timeout"] * 1000)
            except KafkaError as error:
                found[name] = {"error": str(error) or repr(error)}
                failed.append(name)
        if options["as_json"]:
            self.stdout.write(json.dumps(found, indent=2, default=str))
        else:
            for name, status in found.items():
                self._show(name, status)
        if failed:
            raise CommandError(f"cannot reach the cluster of {', '.join(failed)}")

    def _show(self, alias: str, status: dict[str, Any]) -> None:
        if "error" in status:
            self.stdout.write(f"{alias}: {self.style.ERROR(status['error'])}")
            return
        if "brokers" not in status:
            self.stdout.write(f"{alias}: in memory, without brokers")
            return
        brokers = ", ".join(f"{broker['node_id']} at {broker['address']}" for broker in status["brokers"])
        self.stdout.write(f"{alias}: connected; brokers {brokers}")
        pool = status["pool"]
        self.stdout.write(
            f"  pool: {pool['connections_open']} connections, {pool['requests_in_flight']} requests in flight"
        )
        for group, topics in status["groups"].items():
            for topic, found in topics.items():
                self.stdout.write(f"  group {group}, topic {topic}: {_in_words(found)}")


def _in_words(found: dict[str, Any]) -> str:
    if not found["partitions"]:
        return "the topic does not exist"
    said = [] if found["lag"] is None else [f"lag {found['lag']}"]
    if found["uncommitted_partitions"]:
        said.append(f"nothing committed in {found['uncommitted_partitions']} of {found['partitions']} partitions")
    return ", ".join(said)
