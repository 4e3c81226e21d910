"""What integration/test_django.py runs; each test has a database and a topic of its own."""

from __future__ import annotations

import json
import os

SECRET_KEY = "of a test"
INSTALLED_APPS = ["pooledkafka.contrib.django", "integration.servers.django_project.ledger"]
DATABASES = {
    "default": json.loads(os.environ["TEST_DATABASE"])
    if "TEST_DATABASE" in os.environ
    else {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["DATABASE"],
        "OPTIONS": {"timeout": 20},
        "CONN_MAX_AGE": 600,
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
POOLEDKAFKA = {
    "default": {
        "bootstrap_servers": os.environ["BOOTSTRAP"],
        "consumer": {"auto_offset_reset": "earliest", "session_timeout_ms": 6_000},
    }
}
LOGGING_CONFIG = None
