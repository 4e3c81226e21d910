"""Those of the example, or, with ``SHOP_PRODUCER``, of the same views over stock kafka-python."""

from __future__ import annotations

import os

from shop.settings import *  # noqa: F403
from shop.settings import DATABASES, MIDDLEWARE

DEBUG = False
DATABASES["default"]["OPTIONS"] = {  # as fast as SQLite can be, so that what is looked at is not its lock
    "timeout": 30,
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF",
}
MIDDLEWARE = ["integration.servers.django_shop.answering.tells_its_process", *MIDDLEWARE]
if os.environ.get("SHOP_PRODUCER"):
    ROOT_URLCONF = "integration.servers.django_shop.stock"
