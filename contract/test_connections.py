"""Connections: answers in order, versions that are refused, and what ends a connection."""

from __future__ import annotations

import socket
import struct

import pytest
from kafka.errors import UnsupportedVersionError
from kafka.protocol.metadata import ApiVersionsRequest

from contract.lab import Lab
from contract.records import batch, values
from contract.requests import api_versions, fetch, metadata, of_partitions, produce
from contract.wire import Wire


def serves(wire: Wire) -> bool:
    return bool(wire.ask(api_versions(), 3).error_code == 0)


def test_pipelined_requests_are_answered_in_order(lab: Lab) -> None:
    topic = lab.topic()
    wire = lab.connect(lab.leader(topic))
    frames = []
    for index in range(40):
        frames.append(wire.encoded(api_versions(), index % 4))
        frames.append(wire.encoded(metadata(topic), 9))
        frames.append(wire.encoded(produce({(topic, 0): batch(b"%d" % index)}), 9))
        frames.append(wire.encoded(fetch({(topic, 0): index}), 11))
    wire.socket.sendall(b"".join(frame for _, frame in frames))
    answers = [wire.answer(number) for number, _ in frames]
    # Each request is served when the one before it is answered: so what was produced is there for the fetch behind it.
    assert [values(of_partitions(answer)[topic, 0]) for answer in answers[3::4]] == [[b"%d" % n] for n in range(40)]


def test_a_request_may_come_in_pieces(lab: Lab) -> None:
    wire = lab.connect(1)
    wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    number, frame = wire.encoded(api_versions(), 3)
    for index in range(len(frame)):
        wire.socket.sendall(frame[index : index + 1])
    assert wire.answer(number).error_code == 0


def test_an_unknown_version_of_api_versions_is_answered_in_version_0(lab: Lab) -> None:
    wire = lab.connect(1)
    # As of version 3 the header ends with tagged fields, here none; what follows in version 99 nobody knows.
    wire.socket.sendall(struct.pack(">ihhihb2s", 13, ApiVersionsRequest.API_KEY, 99, 7, -1, 0, b"??"))
    frame = wire.receive_frame()
    number, error_code, count = struct.unpack_from(">ihi", frame)
    assert (number, error_code) == (7, UnsupportedVersionError.errno)
    listed = [struct.unpack_from(">hhh", frame, 10 + 6 * index) for index in range(count)]
    assert len(frame) == 10 + 6 * count
    # KIP-511: all that it says is which versions of ApiVersions there are.
    assert [(key, lowest) for key, lowest, _ in listed] == [(ApiVersionsRequest.API_KEY, 0)]
    assert serves(wire)


@pytest.mark.parametrize("version", range(4))
def test_api_versions_lists_itself(lab: Lab, version: int) -> None:
    listed = {each.api_key: each for each in lab.connect(1).ask(api_versions(), version).api_keys}
    assert listed[ApiVersionsRequest.API_KEY].min_version == 0
    assert listed[ApiVersionsRequest.API_KEY].max_version >= 3


FRAMES = {
    "negative length": struct.pack(">i", -1),
    "too long": struct.pack(">i", 104_857_601),
    "empty": struct.pack(">i", 0),
    "no header": struct.pack(">ihh", 4, 18, 0),
    "unknown api": struct.pack(">ihhih", 10, 1_234, 0, 1, -1),
    "version that is no more": struct.pack(">ihhih", 10, 1, 2, 1, -1),
    "version of the future": struct.pack(">ihhihb", 11, 3, 99, 1, -1, 0),
    "no body": struct.pack(">ihhih", 10, 1, 11, 1, -1),
    "another protocol": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("what", FRAMES)
def test_what_is_no_request_ends_its_connection_alone(lab: Lab, what: str) -> None:
    wire, other = lab.connect(1), lab.connect(1)
    wire.socket.sendall(FRAMES[what])
    assert wire.has_ended()
    assert serves(other)
    assert serves(lab.connect(1))


def test_what_came_before_a_bad_request_is_answered(lab: Lab) -> None:
    wire = lab.connect(1)
    number, frame = wire.encoded(api_versions(), 3)
    wire.socket.sendall(frame + FRAMES["unknown api"])
    assert wire.answer(number).error_code == 0
    assert wire.has_ended()


def test_requests_before_a_half_close_are_answered(lab: Lab) -> None:
    """A connection is not read while a request is served; so its end is seen after all that was sent."""
    topic = lab.topic()
    wire = lab.parked_at(topic)
    parked = wire.send(fetch({(topic, 0): 0}, max_wait_ms=60_000), 11)
    behind = [wire.send(api_versions(), 3) for _ in range(3)]
    wire.socket.shutdown(socket.SHUT_WR)
    assert wire.is_silent()
    lab.write(topic, b"a")
    assert values(of_partitions(wire.answer(parked))[topic, 0]) == [b"a"]
    for number in behind:
        assert wire.answer(number).error_code == 0
    assert wire.has_ended()


def test_what_a_closed_connection_has_sent_takes_effect(lab: Lab) -> None:
    topic = lab.topic()
    wire = lab.parked_at(topic)
    wire.send(produce({(topic, 0): batch(b"a")}), 9)
    wire.close()
    reader = lab.parked_at(topic)
    answer = reader.ask(fetch({(topic, 0): 0}, max_wait_ms=60_000), 11)
    assert values(of_partitions(answer)[topic, 0]) == [b"a"]


def test_a_produce_without_acks_has_no_answer(lab: Lab) -> None:
    topic = lab.topic()
    wire = lab.parked_at(topic)
    wire.send(produce({(topic, 0): batch(b"a")}, acks=0), 9)
    assert serves(wire)  # the answer that comes is to this
    answer = lab.at_leader(topic).ask(fetch({(topic, 0): 0}, max_wait_ms=60_000), 11)
    assert values(of_partitions(answer)[topic, 0]) == [b"a"]


def test_a_produce_without_acks_that_fails_ends_the_connection(lab: Lab) -> None:
    wire = lab.connect(1)
    wire.send(produce({(lab.name("unknown"), 0): batch(b"a")}, acks=0), 9)
    assert wire.has_ended()
