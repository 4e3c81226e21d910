"""One request while it is served, and the table entry of its API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kafka.errors import BrokerResponseError

if TYPE_CHECKING:
    from .broker import Broker
    from .connection import Connection
    from .settings import Settings
    from .state import State

__all__ = ["Api", "Call", "message_of"]


def message_of(error: BrokerResponseError) -> str | None:
    """What an answer says of an error besides its code."""
    return str(error.args[0]) if error.args else error.message


@dataclass
class Call:
    """A request, decoded, with where it came from."""

    api: Api
    version: int
    request: Any
    client_id: str | None
    correlation_id: int
    connection: Connection
    throttle_time_ms: int = field(default=0)
    """Set by a handler: how long the connection is not read after the answer, which says so too."""
    spoil: Callable[[bytes], bytes] | None = None
    """Set by a fault: what is written in place of the answer's bytes."""

    @property
    def broker(self) -> Broker:
        return self.connection.broker

    @property
    def state(self) -> State:
        return self.connection.broker.state

    @property
    def settings(self) -> Settings:
        return self.connection.broker.settings

    def answer(self, **fields: Any) -> Any:
        """A response of this request's kind and version. Fields that the version does not have are left out."""
        return self.api.response(version=self.version, **fields)


@dataclass(frozen=True)
class Api:
    """How one kind of request is served.

    Args:
        request, response: kafka-python's classes, which encode and decode both.
        versions: the lowest and highest that are served.
        handle: answers a call; None as the answer means that there is none, as for a Produce with ``acks=0``.
        refuse: the answer that says ``error code`` to all that the call asks for, made without any effect.
    """

    request: Any
    response: Any
    versions: tuple[int, int]
    handle: Callable[[Call], Awaitable[Any]]
    refuse: Callable[[Call, int], Any]

    @property
    def key(self) -> int:
        return int(self.request.API_KEY)

    @property
    def name(self) -> str:
        """As Kafka's documentation calls it: "Fetch", "JoinGroup"."""
        return str(self.request.name).removesuffix("Request")
