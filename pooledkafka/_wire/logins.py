"""How a connection logs in, and does so again before its session ends (KIP-368)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from kafka.errors import KafkaError
from kafka.future import Future
from kafka.net.connection import SaslReauthenticator

from pooledkafka._logging import get_logger
from pooledkafka._wire.discretion import be_discreet
from pooledkafka._wire.lanes import Lane, LaneKey
from pooledkafka._wire.tokens import Tokens

__all__ = ["Login", "prepare_login", "session_is_over"]

_log = get_logger("pooledkafka.connections")

_AGAIN_AT = (0.7, 0.85)
"""After which part of a session to log in again, spread at random; kafka-python's 0.85 to 0.95 leaves a busy process,
and a token provider that takes its time, too little of a short one."""

_USABLE = 0.98
"""Which part of a session may be used: what is sent at its very end arrives after it."""

_RETRY_S = 1.0
"""How long after a failure a new token is asked for, while the session lasts."""


class Login(SaslReauthenticator):  # type: ignore[misc]
    """Logs one lane in again in time.

    kafka-python does so on the connection itself, when nothing is in flight on it any more; requests that come
    meanwhile wait. Three things are different in a pool:

    - A token is asked for before that, so that nobody waits for the token provider.
    - What is sent to log in is a request like others, and needs a permit. It is taken before requests are held back:
      those hold permits of their own, for which this would wait for ever.
    - A leased connection is closed instead, when its request is done, and opened anew when it is needed. A join may be
      in progress for longer than the session; the broker looks at the session only when it reads a request.
    """

    def __init__(
        self,
        connection: Any,
        key: LaneKey,
        tokens: Tokens | None,
        permitted: Callable[[Callable[[], Future]], Future],
        close: Callable[[LaneKey], None],
        done: Callable[[LaneKey], None],
    ) -> None:
        super().__init__(connection)
        self._key = key
        self._tokens = tokens
        self._permitted = permitted
        self._close = close
        self._done = done

    @property
    def session_ends_at(self) -> float:
        """When to use it no more, by ``time.monotonic``; infinity where sessions do not end."""
        if not self.session_lifetime_ms or self.authenticated_at is None:
            return float("inf")
        return float(self.authenticated_at + self.session_lifetime_ms / 1000 * _USABLE)

    def schedule(self) -> None:
        """Log in again in time; nothing to do where sessions do not end."""
        if self.session_lifetime_ms:
            # Brokers do not take a second login within a second.
            delay_s = max(1.05, self.session_lifetime_ms / 1000 * random.uniform(*_AGAIN_AT))
            self._task = self._conn.net.call_later(delay_s, self._run)

    def on_response_processed(self) -> None:
        """Wake whoever waits for the last answer."""
        waiting = self._drain_future
        if waiting is not None and not self._conn.in_flight_requests and not waiting.is_done:
            waiting.success(None)

    async def get_token(self, timeout_s: float) -> None:
        """Have a fresh token at hand, where one is needed."""
        if self._tokens is not None:
            self._conn.config["sasl_oauth_token_provider"] = await self._tokens.get(timeout_s)

    async def _do_reauth(self) -> None:
        if self._key.lane is Lane.LEASED:
            await self._close_when_free()
            return
        net, relog = self._conn.net, super()._do_reauth
        began = False

        def begin() -> Future:
            nonlocal began
            began = True
            return net.call_soon_with_future(relog)

        try:
            await self._get_token_in_time()
            if not self._conn.closed:
                await self._permitted(begin)
        except KafkaError as error:
            if began:  # nothing is in flight: kafka-python closes the connection
                raise
            # What is in flight is still answered; after that, whoever needs the connection opens another.
            _log.warning(
                "login.not_renewed",
                pool=self._conn.config["client_id"],
                broker=self._key.node_id,
                lane=self._key.lane.value,
                error=repr(error),
            )
            return
        if not self._conn.closed:
            self._done(self._key)

    async def _get_token_in_time(self) -> None:
        while True:
            remaining_s = self.session_ends_at - time.monotonic()
            try:
                await self.get_token(max(_RETRY_S, remaining_s))
                return
            except KafkaError as error:
                pause_s = min(_RETRY_S, (self.session_ends_at - time.monotonic()) / 2)
                if pause_s < 0.01 or self._conn.closed:
                    raise
                _log.warning(
                    "login.no_token",
                    pool=self._conn.config["client_id"],
                    broker=self._key.node_id,
                    lane=self._key.lane.value,
                    error=repr(error),
                    retry_s=round(pause_s, 2),
                )
            pause = Future()
            net = self._conn.net
            net.call_later(pause_s, lambda pause=pause: pause.success(None))
            await pause

    async def _close_when_free(self) -> None:
        while self._conn.in_flight_requests and not self._conn.closed:
            self._drain_future = Future()
            await self._drain_future
        self._drain_future = None
        if not self._conn.closed:
            self._close(self._key)


def prepare_login(connection: Any, login: Login) -> None:
    """Let ``connection``, which is new, log in as ``login`` does."""
    be_discreet(connection)
    connection._reauth = login
    authenticate = connection._sasl_authenticate

    async def sasl_authenticate(timeout_at: float | None = None) -> None:
        if not login.is_reauthenticating:
            timeout_s = connection.config["request_timeout_ms"] / 1000
            await login.get_token(timeout_s if timeout_at is None else timeout_at - time.monotonic())
        # The session has begun on the broker when its answer arrives here, but not before this.
        began_at = time.monotonic()
        try:
            await authenticate(timeout_at)
        except Exception as error:
            # In kafka-python's frames are the password and the token, which error reporters would send off.
            raise error.with_traceback(None)  # noqa: B904 - it is the same error
        login.authenticated_at = began_at

    connection._sasl_authenticate = sasl_authenticate


def session_is_over(connection: Any) -> bool:
    """Whether the broker would close ``connection`` at its next request, and nothing is in flight that it would hit."""
    login = connection._reauth
    return (
        isinstance(login, Login)
        and not login.is_reauthenticating
        and not connection.in_flight_requests
        and not connection.transport._write_buffer
        and login.session_ends_at <= time.monotonic()
    )
