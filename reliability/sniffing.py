"""Counts what clients send to brokers on this machine, as the network sees it: attempts to connect, and requests."""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
import time
from collections.abc import Collection
from types import TracebackType
from typing import NamedTuple

__all__ = ["Sniffer", "SnifferUnavailableError"]

_ETH_P_IP = 0x0800
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 26, 33, 35
_SYN, _FIN, _RST, _ACK = 0x02, 0x01, 0x04, 0x10
_BUFFER = 64 * 1024 * 1024
_SNAP = 262_144


class SnifferUnavailableError(Exception):
    """This process may not see the network's packets."""


class Seen(NamedTuple):
    """Something that a client did: at what time (of the monotonic clock), to which port."""

    at: float
    port: int
    api_key: int  # of a request; for connections, 0


class _Flow:
    """One connection, from the client's side."""

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence  # of its SYN: the same again is the same attempt, sent again
        self.next_request = (sequence + 1) % 2**32  # where the next request begins; -1 once a packet was missed
        self.established = False


class Sniffer:
    """Listens on the loopback interface for what goes to some ports of 127.0.0.1; a context manager.

    A broker that was killed sees nothing of the attempts that its machine refuses, and a proxy in front of it would
    have to accept them, which clients take for something else. The packets show both. Needs CAP_NET_RAW, as root has.

    ``attempts``, ``opened``, ``closed`` and ``requests`` grow on the sniffer's thread and may be read by any.
    """

    def __init__(self, ports: Collection[int]) -> None:
        self.attempts: list[Seen] = []
        self.opened: list[Seen] = []  # attempts that the broker's machine accepted
        self.closed: list[Seen] = []  # of those, the ones that ended
        self.requests: list[Seen] = []
        self.missed = 0  # packets that came faster than they were read
        self._flows: dict[tuple[int, int], _Flow] = {}  # by the client's port and the broker's; the thread's
        self._ports = frozenset(ports)
        self._stopped = threading.Event()
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        except PermissionError as error:
            raise SnifferUnavailableError(
                "counting attempts to connect needs to see packets (CAP_NET_RAW), and this user may not; be root"
            ) from error
        # The filter first, and only then the protocol by which packets come at all: else others' would be among them.
        program = _program(sorted(ports))
        kept = ctypes.create_string_buffer(b"".join(program))  # the kernel copies it from where it lies
        self._socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(program), ctypes.addressof(kept))
        )
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.bind(("lo", _ETH_P_IP))
        self._socket.settimeout(0.2)
        self._thread = threading.Thread(target=self._run, name="sniffer", daemon=True)

    def __enter__(self) -> Sniffer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        to_monotonic = time.monotonic() - time.time()
        while not self._stopped.is_set():
            try:
                packet, ancillary, _, _ = self._socket.recvmsg(_SNAP, 64)
            except TimeoutError:
                continue
            at = time.monotonic()
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                    seconds, nanoseconds = struct.unpack("qq", data)
                    at = seconds + nanoseconds / 1e9 + to_monotonic
            self._saw(at, packet)

    def _saw(self, at: float, packet: bytes) -> None:
        header = 4 * (packet[0] & 15)
        length = struct.unpack_from("!H", packet, 2)[0] or len(packet)
        source, port, sequence = struct.unpack_from("!HHI", packet, header)
        flags = packet[header + 13]
        if source in self._ports:  # from the broker: a reset, which the client does not answer
            ended = self._flows.pop((port, source), None)
            if ended is not None and ended.established:
                self.closed.append(Seen(at, source, 0))
            return
        payload = packet[header + 4 * (packet[header + 12] >> 4) : length]
        key = source, port
        flow = self._flows.get(key)
        if flags & _SYN:
            if flow is None or flow.sequence != sequence:
                self._flows[key] = _Flow(sequence)
                self.attempts.append(Seen(at, port, 0))
            return
        if flow is None:
            return  # opened before the sniffer came
        if not flow.established and flags & _ACK and not flags & _RST:
            flow.established = True
            self.opened.append(Seen(at, port, 0))
        if payload:
            self._read(at, port, flow, sequence, payload)
        if flags & (_FIN | _RST):
            if flow.established:
                self.closed.append(Seen(at, port, 0))
            del self._flows[key]

    def _read(self, at: float, port: int, flow: _Flow, sequence: int, payload: bytes) -> None:
        while flow.next_request >= 0:
            offset = (flow.next_request - sequence) % 2**32
            if offset >= 2**31:  # before this packet: some of a request's beginning was missed
                flow.next_request = -1
                self.missed += 1
            elif offset + 6 > len(payload):
                if offset < len(payload):
                    flow.next_request = -1  # cut within its first bytes, which no client here does
                    self.missed += 1
                return
            else:
                size, api_key = struct.unpack_from("!ih", payload, offset)
                self.requests.append(Seen(at, port, api_key))
                flow.next_request = (flow.next_request + 4 + size) % 2**32


def _program(ports: list[int]) -> list[bytes]:
    """A packet filter, in the kernel's terms: of TCP over IPv4, what goes to the ports, and resets from them."""
    load_byte, load_half, equal, any_bit, done = 0x30, 0x28, 0x15, 0x45, 0x06
    packet_type = 0xFFFFF000 + 4
    # Each step: what, which step is next if it is so, which if it is not, and its number. Without options, which IPv4
    # has not on the loopback interface, TCP begins at 20.
    count = len(ports)
    sources, flags = 5 + count, 6 + 2 * count
    drop, take = flags + 2, flags + 3
    steps = [
        (load_byte, 0, 0, packet_type),
        (equal, 2, drop, 0),
        (load_byte, 0, 0, 9),
        (equal, 4, drop, socket.IPPROTO_TCP),
        (load_half, 0, 0, 22),
        *((equal, take, 6 + number, port) for number, port in enumerate(ports)),
        (load_half, 0, 0, 20),
        *((equal, flags, sources + 2 + number, port) for number, port in enumerate(ports[:-1])),
        (equal, flags, drop, ports[-1]),
        (load_byte, 0, 0, 33),
        (any_bit, take, drop, _RST),
        (done, 0, 0, 0),
        (done, 0, 0, _SNAP),
    ]
    jumps = (equal, any_bit)
    return [
        struct.pack("HBBI", what, *((so - n - 1, other - n - 1) if what in jumps else (0, 0)), number)
        for n, (what, so, other, number) in enumerate(steps)
    ]
