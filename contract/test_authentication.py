"""The SASL/PLAIN listener, step by step."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from kafka.errors import IllegalSaslStateError, SaslAuthenticationFailedError, UnsupportedSaslMechanismError
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from contract.lab import Lab
from contract.requests import api_versions, metadata
from contract.wire import Wire


@pytest.fixture
def options(lab: Lab) -> dict[str, Any]:
    return lab.cluster.client_options("sasl_plain")


@pytest.fixture
def wire(lab: Lab, options: dict[str, Any]) -> Wire:
    """A connection to the listener that asks who it is."""
    servers = options["bootstrap_servers"]
    return lab.connect_to(servers[0] if isinstance(servers, list) else servers.split(",")[0])


def shake(wire: Wire, mechanism: str = "PLAIN") -> Any:
    return wire.ask(SaslHandshakeRequest(mechanism=mechanism), 1)


def authenticate(wire: Wire, username: str, password: str, version: int = 2) -> Any:
    data = b"\0%s\0%s" % (username.encode(), password.encode())
    return wire.ask(SaslAuthenticateRequest(auth_bytes=data), version)


def test_who_has_the_password_is_let_in(wire: Wire, options: dict[str, Any]) -> None:
    assert wire.ask(api_versions(), 3).error_code == 0  # which anybody may ask
    response = shake(wire)
    assert (response.error_code, list(response.mechanisms)) == (0, ["PLAIN"])
    response = authenticate(wire, options["sasl_plain_username"], options["sasl_plain_password"])
    assert (response.error_code, response.auth_bytes) == (0, b"")
    ports = {f"{each.host}:{each.port}" for each in wire.ask(metadata(), 9).brokers}
    assert ports == set(options["bootstrap_servers"].split(","))  # brokers name the listener that is asked


@pytest.mark.parametrize("user", ["right", "wrong"])
def test_who_has_not_is_told_so_and_cut_off(wire: Wire, options: dict[str, Any], user: str) -> None:
    shake(wire)
    response = authenticate(wire, options["sasl_plain_username"] if user == "right" else "nobody", "guessed")
    assert response.error_code == SaslAuthenticationFailedError.errno
    assert wire.has_ended()


def test_who_does_not_say_who_it_is_is_cut_off(wire: Wire) -> None:
    wire.send(metadata(), 9)
    assert wire.has_ended()


def test_who_goes_on_after_the_handshake_alone_is_cut_off(wire: Wire) -> None:
    shake(wire)
    (answer,) = wire.ask(metadata("any"), 9).topics
    assert answer.error_code == IllegalSaslStateError.errno
    assert wire.has_ended()


def test_even_versions_cannot_be_asked_after_the_handshake(wire: Wire) -> None:
    shake(wire)
    number = wire.send(api_versions(), 3)
    # kafka-python reads every error as one of version 0.
    assert wire.receive_frame() == struct.pack(">ihbib", number, IllegalSaslStateError.errno, 1, 0, 0)
    assert wire.has_ended()


def test_the_handshake_is_not_repeated(wire: Wire) -> None:
    shake(wire)
    assert shake(wire).error_code == IllegalSaslStateError.errno
    assert wire.has_ended()


def test_nobody_authenticates_without_a_handshake(wire: Wire) -> None:
    wire.send(SaslAuthenticateRequest(auth_bytes=b""), 2)
    assert wire.has_ended()


def test_nobody_authenticates_twice(wire: Wire, options: dict[str, Any]) -> None:
    shake(wire)
    authenticate(wire, options["sasl_plain_username"], options["sasl_plain_password"])
    again = authenticate(wire, options["sasl_plain_username"], options["sasl_plain_password"])
    assert again.error_code == IllegalSaslStateError.errno
    assert shake(wire).error_code == IllegalSaslStateError.errno
    assert wire.ask(api_versions(), 3).error_code == 0


def test_another_mechanism_is_refused(wire: Wire) -> None:
    response = shake(wire, "GSSAPI")
    assert (response.error_code, list(response.mechanisms)) == (UnsupportedSaslMechanismError.errno, ["PLAIN"])
    assert wire.has_ended()
