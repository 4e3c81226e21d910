"""Faults as code: what happens to chosen requests in place of, before or after their being served."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from kafka.errors import BrokerResponseError

from .call import Call
from .spoiling import SPOILERS, put_errors, spoil_batches

__all__ = [
    "Action",
    "Corrupt",
    "Delay",
    "Drop",
    "Error",
    "Fault",
    "Half",
    "Hangup",
    "Hold",
    "Never",
    "Throttle",
    "checked_action",
    "encoded",
]


@dataclass(frozen=True)
class Delay:
    """Serve the request, but only after some time; ``answer``: serve it at once, and answer after that time."""

    seconds: float
    answer: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.seconds, (int, float)) or not 0 <= self.seconds < math.inf:
            raise ValueError(f"a delay of {self.seconds!r}; expected seconds from 0 on")


@dataclass(frozen=True)
class Hold:
    """Serve the request only when the fault is released or removed; ``answer``: serve it, but hold the answer."""

    answer: bool = False


@dataclass(frozen=True)
class Error:
    """Answer with an error and do nothing: a class of ``kafka.errors``, for everything that the request asks for.

    ``partitions``, pairs of a topic and a partition: serve the request, but say that it has failed for these.
    """

    error: type[BrokerResponseError]
    partitions: Collection[tuple[str, int]] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.error, type) and issubclass(self.error, BrokerResponseError)):
            raise ValueError(
                f"{self.error!r} is no error that a broker answers; expected a class of kafka.errors that extends "
                f"BrokerResponseError, such as NotLeaderForPartitionError"
            )


@dataclass(frozen=True)
class Drop:
    """Close the connection instead of serving the request; ``served``: serve it, and close instead of answering."""

    served: bool = False


@dataclass(frozen=True)
class Half:
    """Serve the request, write the first half of the answer, and close the connection."""


@dataclass(frozen=True)
class Never:
    """Never answer, and serve nothing behind it on that connection; ``served``: but let it have its effect."""

    served: bool = False


_CHECKSUM = "checksum"


@dataclass(frozen=True)
class Corrupt:
    """Serve the request, and spoil the answer.

    ``what`` is wrong with it:

    - ``"negative length"``, ``"huge length"``: the length in front of it;
    - ``"correlation id"``: it is that of no request;
    - ``"garbage"``, ``"flipped"``: its bytes after the correlation id are another protocol's, or each the inverse;
    - ``"short"``: half of these bytes are there, in a frame of the right length;
    - ``"checksum"``: that of each record batch, in a Fetch response.
    """

    what: str = "garbage"

    def __post_init__(self) -> None:
        if self.what != _CHECKSUM and self.what not in SPOILERS:
            raise ValueError(f"what is {self.what!r}; expected one of {', '.join([*SPOILERS, _CHECKSUM])}")


@dataclass(frozen=True)
class Throttle:
    """Serve the request, say in the answer that the client is throttled, and read nothing more for these seconds."""

    seconds: float

    def __post_init__(self) -> None:
        if not isinstance(self.seconds, (int, float)) or not 0 < self.seconds < math.inf:
            raise ValueError(f"throttled for {self.seconds!r}; expected seconds, more than 0")


Action = Corrupt | Delay | Hold | Error | Drop | Half | Never | Throttle | Callable[[Any], Any]
"""What a fault does. A function is called with the decoded request, on the cluster's thread; it must not block, and
returns one of the other actions, or None to let the request be served as if there were no fault."""


def checked_action(action: Any) -> None:
    """Raise ValueError for what is no action."""
    if isinstance(action, type):
        example = f"{action.__name__}()" if action in _ACTIONS else f"Error({action.__name__})"
        raise ValueError(f"action is the class {action.__name__}; expected an action, such as {example}")
    if action is not None and not callable(action) and not isinstance(action, _ACTIONS):
        raise ValueError(f"action is {action!r}; expected one of {', '.join(kind.__name__ for kind in _ACTIONS)}")


_ACTIONS = (Corrupt, Delay, Hold, Error, Drop, Half, Never, Throttle)
Respond = Callable[[Call], Awaitable[Any]]


class Hangup(Exception):
    """The connection is to be closed, after the bytes that are given, if any."""

    def __init__(self, last_bytes: bytes = b"") -> None:
        super().__init__()
        self.last_bytes = last_bytes


class Fault:
    """What `EmbeddedKafka.intercept` put in force, until ``remove`` or its ``times`` are up. A context manager.

    Its methods may be called from any thread.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        action: Action,
        api: str | None,
        node_id: int | None,
        client_id: str | None,
        times: int | None,
        removed: Callable[[Fault], None],
    ) -> None:
        self._loop = loop
        self._action = action
        self._api = api
        self._node_id = node_id
        self._client_id = client_id
        self._times = times  # the loop's
        self._removed = removed
        self._released = asyncio.Event()  # set on the loop
        self._changed = threading.Condition()
        self._requests: list[Any] = []  # guarded by _changed

    @property
    def requests(self) -> list[Any]:
        """The decoded requests that met it so far."""
        with self._changed:
            return list(self._requests)

    def wait_for(self, count: int = 1, timeout_s: float = 10.0) -> list[Any]:
        """Wait until it has met ``count`` requests, and return them. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) >= count, timeout_s):
                raise TimeoutError(
                    f"{self!r} has met {len(self._requests)} requests in {timeout_s:g} s; {count} were waited for"
                )
            return list(self._requests)

    def release(self) -> None:
        """Let go what it holds, now and in future."""
        with suppress(RuntimeError):  # the cluster is closed, and holds nothing
            self._loop.call_soon_threadsafe(self._released.set)

    def remove(self) -> None:
        """End it; what it holds is let go. Does nothing where it has ended."""
        self.release()
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._removed, self)

    def __enter__(self) -> Fault:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        which = [self._api or "all requests"]
        which += [f"to broker {self._node_id}"] if self._node_id is not None else []
        which += [f"of {self._client_id}"] if self._client_id is not None else []
        return f"<Fault {self._action!r} on {' '.join(which)}>"

    # -- on the loop ---------------------------------------------------------------------------------------------------

    def meets(self, call: Call) -> bool:
        """Whether a request is one of its; if so, it has met one more."""
        if (
            self._times == 0
            or self._api not in (None, call.api.name)
            or self._node_id not in (None, call.broker.node_id)
            or self._client_id not in (None, call.client_id)
        ):
            return False
        if self._times is not None:
            self._times -= 1
        return True

    async def answer(self, call: Call, serve: Respond) -> Any:
        """Serve a request that it has met; raises Hangup where its connection is to be closed."""
        with self._changed:
            self._requests.append(call.request)
            self._changed.notify_all()
        action: Any = self._action
        if callable(action):
            action = action(call.request)
            checked_action(action)
        if action is None:
            return await serve(call)
        if isinstance(action, (Delay, Hold)):
            response = await serve(call) if action.answer else None
            if isinstance(action, Delay):
                await asyncio.sleep(action.seconds)
            else:
                await self._released.wait()
            return response if action.answer else await serve(call)
        if isinstance(action, Error):
            return await _with_errors(action, call, serve)
        if isinstance(action, (Corrupt, Throttle)):
            return await _served_badly(action, call, serve)
        if isinstance(action, Half):
            raise Hangup(_first_half(await serve(call), call))
        assert isinstance(action, (Drop, Never)), action
        if action.served:
            await serve(call)
        if isinstance(action, Drop):
            raise Hangup
        await call.connection.ended.wait()
        raise Hangup


async def _with_errors(action: Error, call: Call, serve: Respond) -> Any:
    if not action.partitions:
        return call.api.refuse(call, action.error.errno)
    response = await serve(call)
    if response is not None:
        put_errors(response, action.error.errno, action.partitions)
    return response


async def _served_badly(action: Corrupt | Throttle, call: Call, serve: Respond) -> Any:
    response = await serve(call)
    if isinstance(action, Throttle):
        call.throttle_time_ms = max(call.throttle_time_ms, round(action.seconds * 1000))
    elif action.what == _CHECKSUM:
        spoil_batches(response)
    else:
        call.spoil = SPOILERS[action.what]
    return response


def _first_half(response: Any, call: Call) -> bytes:
    if response is None:
        return b""
    data = encoded(response, call.correlation_id)
    return data[: len(data) // 2]


def encoded(response: Any, correlation_id: int) -> bytes:
    """A response as it goes over the wire."""
    response.with_header(correlation_id)
    return bytes(response.encode(header=True, framed=True))
