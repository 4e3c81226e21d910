"""Fixed ports for brokers on 127.0.0.1.

They must be fixed: a port that Docker picks changes with every restart, and a broker tells clients its port once.
"""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"

# Below the range from which Linux (32768-60999) and macOS (49152-65535) take the local ports of connections: in it, any
# client could hold a broker's port while that broker is down, and a client that keeps dialling a dead port of its own
# host would one day be connected to itself.
PORTS = range(20000, 32768)
_ATTEMPTS = 1000


def pick_free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1, all different, on which nothing listens now. Another process may still take one first."""
    picked: set[int] = set()
    for port in random.choices(PORTS, k=_ATTEMPTS):
        if len(picked) == count:
            return list(picked)
        if is_free(port):
            picked.add(port)
    raise OSError(f"no {count} free ports found between {PORTS.start} and {PORTS.stop - 1} on {HOST}")


def is_free(port: int) -> bool:
    """Whether a listener on 127.0.0.1 could have the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As listeners do, so that connections of an earlier one in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
