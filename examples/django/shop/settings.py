"""Settings of the example: SQLite, and the Kafka cluster that $BOOTSTRAP names or one in this process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

BASE_DIR = Path(__file__).parent.parent

SECRET_KEY = "of an example"
DEBUG = os.environ.get("DEBUG", "1") == "1"
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "testserver"]
ROOT_URLCONF = "shop.urls"
INSTALLED_APPS = ["pooledkafka.contrib.django", "orders"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DATABASE", str(BASE_DIR / "db.sqlite3")),
        "OPTIONS": {"timeout": 20},
        "TEST": {"NAME": str(BASE_DIR / "test.sqlite3")},  # a file, since handlers run on threads of their own
    }
}

_CLIENTS: dict[str, Any] = {
    "producer": {"value_serializer": "orders.events.to_json"},
    "consumer": {"value_deserializer": "orders.events.from_json", "auto_offset_reset": "earliest"},
}
POOLEDKAFKA = {
    "default": {"bootstrap_servers": os.environ["BOOTSTRAP"], "client_id": "shop", **_CLIENTS}
    if os.environ.get("BOOTSTRAP")
    else {"BACKEND": "embedded", **_CLIENTS}
}
