from __future__ import annotations

import os
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import transaction

from pooledkafka.contrib.django import outbox


class Command(BaseCommand):
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("values", nargs="+")
        parser.add_argument("--keys", type=int, default=1, help="how many they take turns with")

    def handle(self, *_: Any, **options: Any) -> None:
        with transaction.atomic():
            for number, value in enumerate(options["values"]):
                outbox.add(os.environ["TOPIC"], value.encode(), key=b"k%d" % (number % options["keys"]))
