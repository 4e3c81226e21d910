"""SaslHandshake and SaslAuthenticate, with the mechanism PLAIN; as Kafka's SaslServerAuthenticator."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from kafka.errors import (
    BrokerResponseError,
    IllegalSaslStateError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)
from kafka.protocol.sasl import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
    SaslHandshakeRequest,
    SaslHandshakeResponse,
)

from ..authentication import Credentials
from ..call import Api, Call, message_of
from ..faults import Hangup, encoded

if TYPE_CHECKING:
    from ..connection import Connection

__all__ = ["SASL_AUTHENTICATE", "SASL_HANDSHAKE"]

_MECHANISMS = ["PLAIN"]


class _Awaiting:
    """A connection has chosen its mechanism; a token comes next.

    Args:
        raw: it comes as a frame without a header, as after version 0 of the handshake.
    """

    def __init__(self, raw: bool) -> None:
        self._raw = raw

    def raw_answer(self, connection: Connection, frame: bytes) -> bytes | None:
        """The answer to a token without a header; None where the frame is a request. Raises Hangup for a wrong one."""
        if not self._raw:
            return None
        try:
            connection.principal = _principal(frame, connection.credentials)
        except SaslAuthenticationFailedError:
            raise Hangup from None  # there is no way to say more
        connection.authentication = None
        return struct.pack(">i", 0)


def _principal(token: bytes, credentials: Credentials) -> str:
    """The user that a token of PLAIN (RFC 4616) names. Raises SaslAuthenticationFailedError."""
    parts = token.decode(errors="replace").split("\0")
    if len(parts) != 3 or not parts[1] or not parts[2]:
        raise SaslAuthenticationFailedError(
            "Authentication failed during authentication due to invalid credentials with SASL mechanism PLAIN"
        )
    authorization_id, username, password = parts
    if not credentials.are_right(username, password):
        raise SaslAuthenticationFailedError("Authentication failed: Invalid username or password")
    if authorization_id not in ("", username):
        raise SaslAuthenticationFailedError(
            "Authentication failed: Client requested an authorization id that is different from username"
        )
    return username


def _may_authenticate(call: Call) -> bool:
    return call.connection.listener.startswith("sasl") and call.connection.principal is None


def _last(call: Call, response: Any) -> Hangup:
    """Answers, and closes the connection."""
    return Hangup(encoded(response, call.correlation_id))


# -- SaslHandshake -----------------------------------------------------------------------------------------------------


async def _handle_handshake(call: Call) -> Any:
    if not _may_authenticate(call):
        return _refuse_handshake(call, IllegalSaslStateError.errno)
    if call.connection.authentication is not None:
        raise _last(call, _refuse_handshake(call, IllegalSaslStateError.errno))
    if call.request.mechanism not in _MECHANISMS:
        raise _last(call, call.answer(error_code=UnsupportedSaslMechanismError.errno, mechanisms=_MECHANISMS))
    call.connection.authentication = _Awaiting(raw=call.version == 0)
    return call.answer(error_code=0, mechanisms=_MECHANISMS)


def _refuse_handshake(call: Call, error_code: int) -> Any:
    return call.answer(error_code=error_code, mechanisms=[])


SASL_HANDSHAKE = Api(SaslHandshakeRequest, SaslHandshakeResponse, (0, 1), _handle_handshake, _refuse_handshake)


# -- SaslAuthenticate --------------------------------------------------------------------------------------------------


async def _handle_authenticate(call: Call) -> Any:
    connection = call.connection
    if not _may_authenticate(call):
        return _refused(
            call, IllegalSaslStateError("SaslAuthenticate request received after successful authentication")
        )
    if connection.authentication is None:
        raise Hangup  # no handshake came before
    try:
        connection.principal = _principal(bytes(call.request.auth_bytes), connection.credentials)
    except SaslAuthenticationFailedError as error:
        raise _last(call, _refused(call, error)) from None
    connection.authentication = None
    return call.answer(error_code=0, error_message=None, auth_bytes=b"", session_lifetime_ms=0)


def _refused(call: Call, error: BrokerResponseError) -> Any:
    return call.answer(error_code=error.errno, error_message=message_of(error), auth_bytes=b"", session_lifetime_ms=0)


def _refuse_authenticate(call: Call, error_code: int) -> Any:
    return call.answer(error_code=error_code, error_message=None, auth_bytes=b"", session_lifetime_ms=0)


SASL_AUTHENTICATE = Api(
    SaslAuthenticateRequest, SaslAuthenticateResponse, (0, 2), _handle_authenticate, _refuse_authenticate
)
