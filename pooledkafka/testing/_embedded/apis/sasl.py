"""SaslHandshake and SaslAuthenticate, with PLAIN and OAUTHBEARER; as Kafka's SaslServerAuthenticator."""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
import time
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

_REAUTHENTICATION_PAUSE_S = 1.0


class _Awaiting:
    """A connection has chosen its mechanism; a token comes next.

    Args:
        raw: it comes as a frame without a header, as after version 0 of the handshake.
    """

    def __init__(self, mechanism: str, raw: bool) -> None:
        self.mechanism = mechanism
        self.failure: SaslAuthenticationFailedError | None = None  # OAUTHBEARER: told when the client has asked for it
        self._raw = raw

    def raw_answer(self, connection: Connection, frame: bytes) -> bytes | None:
        """The answer to a token without a header; None where the frame is a request. Raises Hangup for a wrong one."""
        if not self._raw:
            return None
        try:
            principal, _ = _login(self.mechanism, frame, connection.credentials)
        except SaslAuthenticationFailedError:
            raise Hangup from None  # there is no way to say more
        _let_in(connection, principal, None)
        return struct.pack(">i", 0)


def _let_in(connection: Connection, principal: str, lifetime_s: float | None) -> None:
    now = connection.broker.state.now()
    connection.principal = connection.record.principal = principal
    connection.authentication = None
    connection.logged_in_at = now
    connection.session_ends_at = None if lifetime_s is None else now + lifetime_s


def _login(mechanism: str, token: bytes, credentials: Credentials) -> tuple[str, float | None]:
    """The user that a token names, and in how many seconds it expires. Raises SaslAuthenticationFailedError."""
    return _bearer(token) if mechanism == "OAUTHBEARER" else (_principal(token, credentials), None)


def _bearer(token: bytes) -> tuple[str, float]:
    """As Kafka's OAuthBearerUnsecuredValidatorCallbackHandler: a JSON Web Token (RFC 7519) without a signature."""
    found = re.fullmatch(rb"n,[^,]*,\x01auth=Bearer ([^\x01]*)(\x01[^\x01]+)*\x01\x01", token)
    try:
        claims = json.loads(base64.urlsafe_b64decode(found[1].split(b".")[1] + b"==")) if found else {}
        subject, lifetime_s = str(claims["sub"]), float(claims["exp"]) - time.time()
    except (LookupError, ValueError, TypeError, binascii.Error):
        raise SaslAuthenticationFailedError('{"status":"invalid_token"}') from None
    if lifetime_s <= 0:
        raise SaslAuthenticationFailedError('{"status":"invalid_token"}')
    return subject, lifetime_s


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


def _may_begin(call: Call) -> bool:
    connection = call.connection
    if connection.session_ends_at is None or connection.authentication is not None:
        return _may_authenticate(call)
    assert connection.logged_in_at is not None
    return call.state.now() - connection.logged_in_at >= _REAUTHENTICATION_PAUSE_S


def _last(call: Call, response: Any) -> Hangup:
    """Answers, and closes the connection."""
    return Hangup(encoded(response, call.correlation_id))


# -- SaslHandshake -----------------------------------------------------------------------------------------------------


async def _handle_handshake(call: Call) -> Any:
    if not _may_begin(call):
        return _refuse_handshake(call, IllegalSaslStateError.errno)
    if call.connection.authentication is not None:
        raise _last(call, _refuse_handshake(call, IllegalSaslStateError.errno))
    mechanisms = call.settings.sasl_enabled_mechanisms.split(",")
    if call.request.mechanism not in mechanisms:
        raise _last(call, call.answer(error_code=UnsupportedSaslMechanismError.errno, mechanisms=mechanisms))
    call.connection.authentication = _Awaiting(call.request.mechanism, raw=call.version == 0)
    return call.answer(error_code=0, mechanisms=mechanisms)


def _refuse_handshake(call: Call, error_code: int) -> Any:
    return call.answer(error_code=error_code, mechanisms=[])


SASL_HANDSHAKE = Api(SaslHandshakeRequest, SaslHandshakeResponse, (0, 1), _handle_handshake, _refuse_handshake)


# -- SaslAuthenticate --------------------------------------------------------------------------------------------------


async def _handle_authenticate(call: Call) -> Any:
    connection, awaiting = call.connection, call.connection.authentication
    if awaiting is None:
        if _may_authenticate(call):
            raise Hangup  # no handshake came before
        return _refused(
            call, IllegalSaslStateError("SaslAuthenticate request received after successful authentication")
        )
    if awaiting.failure is not None:
        raise _last(call, _refused(call, awaiting.failure))
    try:
        principal, lifetime_s = _login(awaiting.mechanism, bytes(call.request.auth_bytes), connection.credentials)
        if connection.principal not in (None, principal):
            raise SaslAuthenticationFailedError(
                f"Cannot change principals during re-authentication from {connection.principal} to {principal}"
            )
    except SaslAuthenticationFailedError as error:
        if awaiting.mechanism != "OAUTHBEARER":
            raise _last(call, _refused(call, error)) from None
        awaiting.failure = error  # RFC 7628: the client hears of it in two steps
        return call.answer(error_code=0, error_message=None, auth_bytes=error.args[0].encode(), session_lifetime_ms=0)
    longest_ms = call.settings.connections_max_reauth_ms
    if longest_ms:
        lifetime_s = min(longest_ms / 1000, lifetime_s or longest_ms / 1000)
    else:
        lifetime_s = None  # Kafka asks for no second login unless it is told to
    _let_in(connection, principal, lifetime_s)
    return call.answer(
        error_code=0, error_message=None, auth_bytes=b"", session_lifetime_ms=int((lifetime_s or 0) * 1000)
    )


def _refused(call: Call, error: BrokerResponseError) -> Any:
    return call.answer(error_code=error.errno, error_message=message_of(error), auth_bytes=b"", session_lifetime_ms=0)


def _refuse_authenticate(call: Call, error_code: int) -> Any:
    return call.answer(error_code=error_code, error_message=None, auth_bytes=b"", session_lifetime_ms=0)


SASL_AUTHENTICATE = Api(
    SaslAuthenticateRequest, SaslAuthenticateResponse, (0, 2), _handle_authenticate, _refuse_authenticate
)
