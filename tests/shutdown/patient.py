"""Ends with a record that nobody takes, and an hour to wait for that."""

from __future__ import annotations

import atexit
import sys

from pooledkafka import ConnectionPool, Producer
from tests.watchdog import report_on_signal

report_on_signal()
pool = ConnectionPool(bootstrap_servers=sys.argv[1], exit_timeout_ms=3_600_000)
Producer(connection_pool=pool, delivery_timeout_ms=7_200_000, request_timeout_ms=3_600_000).send("orders", b"unsent")
atexit.register(lambda: print("ready", flush=True))
