"""Nothing happens before it is asked for."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import socket, sys, threading

def refuse(*_):
    raise AssertionError("a socket was opened")

socket.socket.connect = socket.create_connection = refuse
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["pooledkafka.contrib.django", "tests.contrib.django.shop"],
    POOLEDKAFKA={"default": {"bootstrap_servers": "127.0.0.1:1"}},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()
from django.core.management import call_command
from pooledkafka.contrib.django import outbox, pools, producer
call_command("check")
call_command("migrate", verbosity=0)
call_command("makemigrations", "--check", "--dry-run", "pooledkafka", verbosity=0)
pools["default"], producer["default"], repr(pools), repr(producer)
producer.flush()
assert threading.active_count() == 1, threading.enumerate()
assert "tests.contrib.django.shop.kafka" not in sys.modules
assert "pooledkafka.testing" not in sys.modules
"""


def test_nothing_connects_or_starts_a_thread_before_the_first_use() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
