"""What becomes of the requests on a connection that ends because of one of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from kafka.errors import InvalidReceiveError, KafkaConnectionError, KafkaError, RequestTimedOutError
from kafka.future import Future
from kafka.protocol import admin
from kafka.protocol.consumer import (
    HeartbeatRequest,
    LeaveGroupRequest,
    ListOffsetsRequest,
    OffsetCommitRequest,
    OffsetFetchRequest,
    OffsetForLeaderEpochRequest,
)
from kafka.protocol.metadata import ApiVersionsRequest, FindCoordinatorRequest, MetadataRequest

from pooledkafka._wire.later import call_later
from pooledkafka._wire.tally import Tally

__all__ = ["Resending"]

# What may be asked twice. A Produce may not: kafka-python sends it again, if its producer allows, with the sequence
# numbers by which the broker knows it. Nor may what belongs to a transaction, where a copy that the broker comes to
# later could meet the next one; kafka-python asks for its coordinator first. Nor what changes the cluster.
_REPEATABLE: tuple[Any, ...] = (
    ApiVersionsRequest,
    FindCoordinatorRequest,
    HeartbeatRequest,
    LeaveGroupRequest,
    ListOffsetsRequest,
    MetadataRequest,
    OffsetCommitRequest,
    OffsetFetchRequest,
    OffsetForLeaderEpochRequest,
    *(
        request
        for name, request in vars(admin).items()
        if name.startswith(("Describe", "List")) and name.endswith("Request")
    ),
)

_CONNECTED_WITHIN_S = 2.0
"""How long a request that is sent again waits for the new connection. Where a broker is gone, its owner must hear so
and look for another, rather than wait for the whole of ``socket_connection_setup_timeout_ms``."""
_AT_ONCE_S = 0.01
"""Requests that were sent together run out of time together, but for this, and in no particular order."""
_MOST = 5
"""How often one request is sent again: once for each that was in front of it and was not answered, within reason."""


@dataclass(eq=False)
class _Sent:
    """A request that is on its way and may be repeated."""

    request: Any
    timeout_ms: float
    again: int = 0  # how often it has been sent again
    suspected: bool = False  # another ran out of time behind it

    @property
    def may_be_only_slow(self) -> bool:
        """Whether it gets another chance, behind the others; a commit may not be overtaken by a later one."""
        return not self.suspected and not isinstance(self.request, OffsetCommitRequest)


class _Try(NamedTuple):
    """As kafka-python keeps what waits for a connection."""

    request: Any
    future: Future
    timeout_at: float


class Resending:
    """Sends again what was innocently on a connection that ended, on a new one; for the I/O thread.

    A broker answers the requests of a connection one after the other, and kafka-python ends a connection when one of
    them is not answered in time, or with something that is no answer. For one client's own connection that is right.
    On a shared one only the request at fault, the *culprit*, fails:

    - Where a request ran out of time at the head of the line, it is that request.
    - Where one ran out of time behind others, the head of the line has kept it waiting. Perhaps that is only slow, and
      has time left: it is sent again behind the others, once. The next time it is the culprit.
    - Where what came could not be understood, it is the request that this answers; where the broker closed the
      connection, the head of the line, as far as anybody can tell. Either may be an accident: the first time nobody is.

    The others are sent again in their order, each with its whole time, if they may be repeated; else they fail as on
    any connection that is lost, and kafka-python deals with that. Their order matters to commits: one that was
    overtaken by a later one would take it back. So what is sent again is in line before any owner hears of a failure
    and can send something new, and a commit is never put behind the others.

    Args:
        net: the event loop.
        connect: the connection under a key, opened if need be.
        on_purpose: whether the connection under a key is being closed on purpose; then everything on it fails.
        tally: counts what is sent again.
    """

    def __init__(
        self, net: Any, connect: Callable[[Any], Any], on_purpose: Callable[[Any], bool], tally: Tally
    ) -> None:
        self._net = net
        self._connect = connect
        self._on_purpose = on_purpose
        self._sent: dict[Future, _Sent] = {}
        self._tally = tally

    def sent(self, future: Future, request: Any, timeout_ms: float) -> None:
        """A request has been sent, or waits for its connection to come up."""
        if isinstance(request, _REPEATABLE) and not future.is_done:
            self._sent[future] = _Sent(request, timeout_ms)
            future.add_both(lambda _: self._sent.pop(future, None))

    def watch(self, key: Any, connection: Any) -> None:
        """Look after a new connection."""
        connection_lost, request_timed_out = connection.connection_lost, connection._request_timed_out
        data_received = connection.data_received
        late: list[Future] = []
        misunderstood: list[Future] = []

        def timed_out(future: Future, sent_at: float, timeout_at: float) -> None:
            if not future.is_done:
                late.append(future)
            request_timed_out(future, sent_at, timeout_at)

        def received(data: bytes) -> None:
            # kafka-python ends the connection for some of what its decoders raise. With the rest it ends the task that
            # reads: nothing would be read any more, and all would wait until they have run out of time.
            try:
                data_received(data)
            except Exception as error:
                line = connection.in_flight_requests
                # The answers in front of the bad one are lost with it; the requests are as innocent as those behind.
                parsed = len(line) - len(connection.parser.in_flight_requests)
                at = parsed if isinstance(error, InvalidReceiveError) else parsed - 1
                if 0 <= at < len(line):
                    misunderstood.append(line[at][1])
                connection.close(KafkaConnectionError(f"the broker's answer cannot be understood: {error!r}"))

        def lost(error: BaseException | None) -> None:
            if error is None or not connection.connected or self._net._closed or self._on_purpose(key):
                connection_lost(error)
            elif misunderstood:
                self._share(key, connection, connection_lost, error, misunderstood[0])
            else:
                self._share(key, connection, connection_lost, error, None, late[0] if late else None)

        connection.connection_lost = lost
        connection._request_timed_out = timed_out
        connection.data_received = received

    def _share(
        self,
        key: Any,
        connection: Any,
        connection_lost: Callable[[Any], None],
        error: BaseException,
        culprit: Future | None,
        late: Future | None = None,
    ) -> None:
        """End a connection, and find for each request on it what becomes of it."""
        line = [(future, timeout_at) for _, future, _, timeout_at, _ in connection.in_flight_requests]
        for *_, timer in connection.in_flight_requests:
            self._net.cancel(timer)
        connection.in_flight_requests.clear()
        unsent = [_Try(*entry) for entry in connection._request_buffer]  # while it authenticated again
        connection._request_buffer.clear()
        connection_lost(error)

        now = time.monotonic()
        head, heads_time = line[0] if line else (None, 0.0)
        heads_time_is_up = heads_time <= now + _AT_ONCE_S
        suspect: list[_Try] = []
        if culprit is None and head is not None:
            sent = self._sent.get(head)
            may_go_on = late is not None and not heads_time_is_up
            if may_go_on and late is not head and sent is not None and sent.may_be_only_slow:
                sent.suspected = True
                suspect = [_Try(sent.request, head, heads_time)]
            else:
                culprit = head
        tries = []
        for future, _ in line:
            sent = self._sent.get(future)
            if sent is None or (suspect and future is head):
                continue
            if sent.again < _MOST if future is not culprit else late is None and not sent.again:
                sent.again += 1
                tries.append(_Try(sent.request, future, now + sent.timeout_ms / 1000))
        sent_again = self._send_again(key, [*tries, *unsent, *suspect])
        for future in [*(future for future, _ in line), *(each.future for each in unsent)]:
            if future not in sent_again and not future.is_done:
                guilty = future is late or (future is culprit and (late is None or heads_time_is_up))
                future.failure(error if guilty else _of_bystander(error))

    def _send_again(self, key: Any, tries: list[_Try]) -> set[Future]:
        """Send all on a new connection; returns what is on its way."""
        if not tries:
            return set()
        try:
            connection = self._connect(key)
        except KafkaError:
            return set()
        futures = {each.future for each in tries}
        self._tally.resent += len(tries)
        if connection.initializing:
            connection._request_buffer.extend(tries)
            call_later(self._net, _CONNECTED_WITHIN_S, lambda: self._give_up(connection, futures))
        else:
            for each in tries:
                connection._send_request(each.request, future=each.future, timeout_at=each.timeout_at)
        return futures

    def _give_up(self, connection: Any, futures: set[Future]) -> None:
        if not connection.initializing:
            return
        buffered = list(connection._request_buffer)
        connection._request_buffer.clear()
        connection._request_buffer.extend(entry for entry in buffered if entry[1] not in futures)
        for _, future, _ in buffered:
            if future in futures:
                future.failure(KafkaConnectionError("the connection was lost, and the broker takes no new one now"))


def _of_bystander(error: BaseException) -> Any:
    """What the owner of a request hears that has run into no timeout itself, and cannot be sent again."""
    if not isinstance(error, RequestTimedOutError):
        return error
    return KafkaConnectionError("the connection was ended because another request on it was not answered in time")
