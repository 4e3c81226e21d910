"""What this process has used: time, memory, connections, and bytes that came over them."""

from __future__ import annotations

import os
import resource
import socket
import struct
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Moment", "cpu_percent", "moment", "peak_rss", "received_bytes", "sockets"]

_BYTES_RECEIVED = 128  # where Linux has tcpi_bytes_received in struct tcp_info


@dataclass(frozen=True)
class Moment:
    """A point in time, and the processor time of all threads of the process until then; both in seconds."""

    wall: float
    cpu: float


def moment() -> Moment:
    return Moment(time.monotonic(), time.process_time())


def peak_rss() -> int:
    """The most memory, in bytes, that was resident at any time."""
    with suppress(FileNotFoundError):  # ru_maxrss would count what the parent had when it forked
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cpu_percent(seconds: float) -> float:
    """Of one core, while nothing happens."""
    start = moment()
    time.sleep(seconds)
    now = moment()
    return 100 * (now.cpu - start.cpu) / (now.wall - start.wall)


def to_brokers() -> list[tuple[int, tuple[str, int]]]:
    """The descriptors of connections to brokers, and to which."""
    found = psutil.Process().net_connections(kind="tcp")
    open_now = [c for c in found if c.status == psutil.CONN_ESTABLISHED]
    # A library's event loop may wake itself by a pair of connected sockets; those are no connections to a broker.
    own = {c.laddr for c in open_now}
    return [(c.fd, c.raddr) for c in open_now if c.raddr not in own]


def sockets() -> tuple[int, int]:
    """Connections to all brokers, and to the one with the most; this process has no others."""
    by_broker = Counter(address for _, address in to_brokers())
    return by_broker.total(), max(by_broker.values(), default=0)


def received_bytes() -> int | None:
    """What came over the connections that are open now, of whichever library; None where the system does not tell."""
    try:
        return sum(_received(descriptor) for descriptor, _ in to_brokers())
    except (AttributeError, OSError, struct.error):
        return None


def _received(descriptor: int) -> int:
    try:
        connection = socket.socket(fileno=os.dup(descriptor))
    except OSError:  # closed meanwhile
        return 0
    with connection:
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return int(struct.unpack_from("Q", told, _BYTES_RECEIVED)[0])
