"""Asks the user's token provider, off the I/O thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from kafka.errors import SaslAuthenticationFailedError
from kafka.future import Future
from kafka.net.sasl.oauth import AbstractTokenProvider

__all__ = ["Token", "Tokens"]


class Token(AbstractTokenProvider):  # type: ignore[misc]
    """A token at hand, in place of the provider that it comes from."""

    def __init__(self, token: str, extensions: Mapping[str, str]) -> None:
        self._token = token
        self._extensions = extensions

    def token(self) -> str:
        return self._token

    def extensions(self) -> Mapping[str, str]:
        return self._extensions


class Tokens:
    """Calls the token provider for connections that log in.

    kafka-python calls it on the I/O thread, where a provider that asks a server would stall everybody meanwhile. Here a
    thread does that, one at a time: connections that log in at the same time share the answer, and a provider that
    hangs holds up one thread, whoever waits.

    Used on the I/O thread.
    """

    def __init__(self, net: Any, provider: AbstractTokenProvider) -> None:
        self._net = net
        self._provider = provider
        self._asked: Future | None = None  # while the provider is being asked

    async def get(self, timeout_s: float) -> Token:
        """A token; SaslAuthenticationFailedError, with its cause, where the provider fails or takes too long."""
        if self._asked is None:
            self._asked = Future()
            threading.Thread(target=self._ask, args=(self._asked,), name="pooledkafka-token", daemon=True).start()
        asked, answer = self._asked, Future()

        def settle(_: Any = None) -> None:
            if not answer.is_done:
                answer.success(None)

        asked.add_both(settle)
        timer = self._net.call_later(max(0.0, timeout_s), settle)
        await answer
        self._net.cancel(timer)
        if not asked.is_done:
            raise SaslAuthenticationFailedError(
                f"{self._name} has not returned a token within {timeout_s:.1f} s, and is still at it"
            )
        if asked.exception is not None:
            cause = asked.exception
            raise SaslAuthenticationFailedError(f"{self._name} raised {cause!r}") from cause
        token: Token = asked.value
        return token

    @property
    def _name(self) -> str:
        return f"sasl_oauth_token_provider ({type(self._provider).__qualname__})"

    def _ask(self, asked: Future) -> None:  # on a thread of its own
        try:
            token = self._provider.token()
            extensions = dict(self._provider.extensions())
            if not isinstance(token, str) or not token:
                raise TypeError(f"token() returned {'an empty string' if token == '' else type(token).__qualname__}")
            done: Callable[[], None] = lambda: self._done(asked, Token(token, extensions), None)  # noqa: E731
        except BaseException as error:  # whatever it is, those who wait hear of it
            problem = error
            done = lambda: self._done(asked, None, problem)  # noqa: E731
        try:
            self._net.call_soon_threadsafe(done)
        except RuntimeError:
            pass  # the event loop has ended; nobody waits any more

    def _done(self, asked: Future, token: Token | None, error: BaseException | None) -> None:  # on the I/O thread
        self._asked = None
        if error is None:
            asked.success(token)
        else:
            asked.failure(error)
