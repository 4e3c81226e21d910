"""A project with nothing in it but the app."""

from __future__ import annotations

import json
import os
from typing import Any

os.environ.setdefault("POOLEDKAFKA_DEBUG", "1")  # as conftest.py does, which pytest-django is earlier than

SECRET_KEY = "of a test"
INSTALLED_APPS = ["pooledkafka.contrib.django", "tests.contrib.django.shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
if "TEST_DATABASE" in os.environ:
    DATABASES = {"default": json.loads(os.environ["TEST_DATABASE"])}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
POOLEDKAFKA: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "memory"},
    "analytics": {"BACKEND": "memory", "producer": {"value_serializer": "tests.contrib.django.shop.as_json"}},
    "embedded": {"BACKEND": "embedded"},
}
