"""Carries the fetches of all consumers of a pool: the multiplexers' requests and answers, in kafka-python's terms."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kafka.consumer.fetcher import FetchMetadata
from kafka.errors import NoError
from kafka.future import Future
from kafka.protocol.consumer import FetchRequest, FetchResponse
from kafka.structs import TopicPartition

from pooledkafka._fetch import Limits, Line, LogicalFetch, Multiplexer, Position, ReadAhead, WireFetch
from pooledkafka._wire.fetch_session import FetchSession, without_session
from pooledkafka._wire.futures import attempt
from pooledkafka._wire.lanes import Lane, LaneKey
from pooledkafka._wire.later import Later, call_later
from pooledkafka._wire.manager import SharedManager
from pooledkafka._wire.partition_records import SharedRecords
from pooledkafka._wire.tally import Tally

__all__ = ["PARKED_WAIT_MS", "ConsumerFetch", "SharedFetching"]

PARKED_WAIT_MS = Limits.parked_wait_ms
"""For how long a broker lets a fetch wait for records; longer where nothing comes."""

_FetchableTopic = FetchResponse.FetchableTopicResponse
_PartitionData = _FetchableTopic.PartitionData

_MAX_VERSION = 12  # kafka-python's consumer understands answers up to this one
_CATCH_UP_IDLE_S = 30.0
_ROUTE_IDLE_S = 5.0
"""How long the connection of a parked fetch is kept when the last consumer has gone; another may come soon."""


@dataclass(frozen=True)
class ConsumerFetch:
    """What one consumer asks of one broker, in place of a FetchRequest; names and meanings are that request's."""

    partitions: dict[TopicPartition, Position]
    isolation_level: int = 0
    rack_id: str = ""
    max_wait_ms: int = 500
    min_bytes: int = 1
    max_bytes: int = 52_428_800


class SharedFetching:
    """All fetching of a pool; on the I/O thread only, but for the ends, which any thread may read."""

    def __init__(self, net: Any, manager: SharedManager, buffer_bytes: int, tally: Tally, calm_wait_ms: int) -> None:
        self._net = net
        self._manager = manager
        self._routes: dict[tuple[int, int, str], Route] = {}
        self._idle_routes = Later(net, _ROUTE_IDLE_S, self._drop_idle)
        self.calm_wait_ms = calm_wait_ms
        self.read_ahead = ReadAhead(buffer_bytes)
        self.tally = tally
        self.ends: dict[TopicPartition, int] = {}  # where partitions end, as the last answer said

    def send(self, owner: int, request: ConsumerFetch, node_id: int, answered: Callable[[], None]) -> Future:
        """Answer one consumer's fetch from what is read for all; it is never forwarded as it is.

        Nothing to tell is no answer: the future waits on after ``max_wait_ms`` until ``release``, unless the broker
        cannot be reached. ``answered`` is called when all that waited for the future has heard of it.
        """
        self.tally.logical_fetches += 1
        key = (node_id, request.isolation_level, request.rack_id or "")
        route = self._routes.get(key)
        if route is None:
            # Consumers of another isolation level or rack cannot share a request, so they park on one of their own.
            taken = {other.number for (node, _, _), other in self._routes.items() if node == node_id}
            number = next(n for n in range(len(taken) + 1) if n not in taken)
            route = self._routes[key] = Route(self, self._net, self._manager, key, number)
        return route.submit(owner, request, answered)

    def release(self, owner: int) -> None:
        """Answer all fetches of a consumer now, without records."""
        for route in self._routes.values():
            route.release(owner)

    def forget(self, owner: int) -> None:
        """A consumer has gone."""
        for route in self._routes.values():
            route.forget(owner)
        self._idle_routes.ask()

    def _drop_idle(self) -> float | None:
        now = time.monotonic()
        for key, route in list(self._routes.items()):
            if route.idle and route.left_at + _ROUTE_IDLE_S <= now:
                route.close()
                del self._routes[key]
        idle = [route.left_at + _ROUTE_IDLE_S - now for route in self._routes.values() if route.idle]
        return min(idle, default=None)

    def room_again(self) -> None:
        """Let everybody read ahead who was kept from it, if there is room now; another broker's readers made it."""
        if self.read_ahead.has_room:
            for route in self._routes.values():
                route.resume()


class Route:
    """One multiplexer and the two connections that it has to its broker."""

    def __init__(
        self, fetching: SharedFetching, net: Any, manager: SharedManager, key: tuple[int, int, str], number: int
    ) -> None:
        node_id, self._isolation_level, self._rack = key
        self.number = number  # of its parked connection among those to the broker
        self._fetching = fetching
        self._net = net
        self._manager = manager
        self._keys = {
            Line.PARKED: LaneKey(node_id, Lane.FETCH, number),
            Line.CATCH_UP: LaneKey(node_id, Lane.CATCH_UP),
        }
        # Before Kafka 3.4 a follower answers a fetch that waits only when its time has come (KAFKA-14334).
        calm_wait_ms = PARKED_WAIT_MS if self._rack else fetching.calm_wait_ms
        self._multiplexer = Multiplexer(
            read_committed=self._isolation_level == 1,
            read_ahead=fetching.read_ahead,
            join=_join,
            limits=Limits(calm_wait_ms=calm_wait_ms),
        )
        self._session = FetchSession()
        self._version = _MAX_VERSION  # of the broker's last answer
        self._step_is_due = False
        self._wake_at = float("inf")  # when the earliest timer fires
        self._caught_up_at = 0.0  # when the last catch-up fetch was sent
        self._idle_catch_up = Later(net, _CATCH_UP_IDLE_S, self._close_idle_catch_up)
        self.left_at = 0.0  # when a consumer last went

    @property
    def idle(self) -> bool:
        return self._multiplexer.idle

    def submit(self, owner: int, request: ConsumerFetch, answered: Callable[[], None]) -> Future:
        now = time.monotonic()
        future = Future()
        deadline = now + request.max_wait_ms / 1000
        fetch = LogicalFetch(
            owner,
            request.partitions,
            deadline,
            request.min_bytes,
            request.max_bytes,
            patient=True,
            context=(future, answered),
        )
        self._multiplexer.submit(fetch, now)
        self._step_soon()
        return future

    def release(self, owner: int) -> None:
        fetch = self._multiplexer.release(owner)
        if fetch is not None:
            self._answer(fetch, {})
            self._step_soon()

    def _answer(self, fetch: LogicalFetch, answers: dict[TopicPartition, Any]) -> None:
        future, answered = fetch.context
        future.success(self._response(answers))
        answered()

    def forget(self, owner: int) -> None:
        self.left_at = time.monotonic()
        self._multiplexer.forget(owner)
        self._step_soon()

    def resume(self) -> None:
        if self._multiplexer.starved:
            self._step_soon()

    def close(self) -> None:
        """Close the connections, but not the one for catching up while another route uses it."""
        self._manager.close_connection(self._keys[Line.PARKED], "idle")
        self._close_catch_up()

    # -- driving the multiplexer ---------------------------------------------------------------------------------------

    def _step_soon(self) -> None:
        # Many consumers come back in one round of the event loop, all woken by one answer: they go into one step.
        if not self._step_is_due:
            self._step_is_due = True
            self._net.call_soon(self._step)

    def _step(self) -> None:
        self._step_is_due = False
        now = time.monotonic()
        requests, completions, wake_at = self._multiplexer.step(now)
        for wire in requests:
            self._send(wire, now)
        for fetch, answers in completions:
            self._answer(fetch, answers)
        self._fetching.room_again()
        if wake_at is not None and wake_at < self._wake_at:
            self._wake_at = wake_at
            call_later(self._net, wake_at - now, lambda: self._wake(wake_at))

    def _wake(self, at: float) -> None:
        if at == self._wake_at:  # else an earlier one has been set since, and came, and set what comes next
            self._wake_at = float("inf")
            self._step()

    def _send(self, wire: WireFetch, now: float) -> None:
        self._fetching.tally.wire_fetches += 1
        if wire.line is Line.PARKED:
            data = self._session.data_of(wire)
        else:
            data = without_session(wire)
            self._caught_up_at = now
        request = FetchRequest(
            max_wait_ms=wire.max_wait_ms,
            min_bytes=1,
            max_bytes=wire.max_bytes,
            isolation_level=self._isolation_level,
            session_id=data.id,
            session_epoch=data.epoch,
            topics=data.to_send,
            forgotten_topics_data=data.to_forget,
            rack_id=self._rack,
            min_version=FetchRequest.min_version_for_isolation_level(self._isolation_level),
            max_version=_MAX_VERSION,
        )
        future = attempt(lambda: self._manager.send_on(self._keys[wire.line], request))
        future.add_callback(lambda response: self._answered(wire, response))
        future.add_errback(lambda error: self._failed(wire, error))

    def _answered(self, wire: WireFetch, response: Any) -> None:
        good = response.error_code == NoError.errno
        if wire.line is Line.PARKED and response.API_VERSION >= 7:
            good = self._session.answered(response)  # commits the session, or starts over with a new one
        if not good:
            self._multiplexer.failed(wire, time.monotonic())
        else:
            self._version = response.API_VERSION
            answers = {
                TopicPartition(topic.topic, partition.partition_index): partition
                for topic in response.responses
                for partition in topic.partitions
            }
            self._fetching.ends.update(
                (partition, answer.high_watermark)
                for partition, answer in answers.items()
                if answer.high_watermark >= 0
            )
            self._multiplexer.answered(wire, answers, time.monotonic())
            # kafka-python goes back to the leader when it does not know the replica it was sent to, and asks for no
            # metadata: the two would send it to and fro until the metadata is too old.
            cluster = self._manager.cluster
            replicas = {answer.preferred_read_replica for answer in answers.values()} - {-1}
            if any(cluster.broker_metadata(node_id) is None for node_id in replicas):
                cluster.request_update()
        if wire.line is Line.CATCH_UP:
            self._idle_catch_up.ask()
        self._step_soon()

    def _failed(self, wire: WireFetch, error: BaseException) -> None:
        if wire.line is Line.PARKED:
            self._session.failed()
        self._multiplexer.failed(wire, time.monotonic())
        if not self._net._closed:
            self._step_soon()

    def _close_idle_catch_up(self) -> float | None:
        idle_in_s = self._caught_up_at + _CATCH_UP_IDLE_S - time.monotonic()
        if idle_in_s > 0:
            return idle_in_s
        return None if self._close_catch_up() else _CATCH_UP_IDLE_S

    def _close_catch_up(self) -> bool:
        key = self._keys[Line.CATCH_UP]
        connection = self._manager.connection(key)
        if connection is not None and connection.in_flight_requests:
            return False
        self._manager.close_connection(key, "idle")
        return True

    def _response(self, answers: dict[TopicPartition, Any]) -> Any:
        topics: dict[str, list[Any]] = {}
        for partition, answer in answers.items():
            topics.setdefault(partition.topic, []).append(answer)
        return FetchResponse(
            version=self._version,
            throttle_time_ms=0,
            error_code=NoError.errno,
            session_id=FetchMetadata.INVALID_SESSION_ID,
            responses=[_FetchableTopic(topic=topic, partitions=partitions) for topic, partitions in topics.items()],
        )


def _join(answers: Sequence[Any], readers: int) -> Any:
    """One partition's answers that follow each other, as one; so many consumers read there."""
    last = answers[-1]
    aborted = {(a.producer_id, a.first_offset): a for answer in answers for a in answer.aborted_transactions or ()}
    return _PartitionData(
        partition_index=last.partition_index,
        error_code=NoError.errno,
        high_watermark=last.high_watermark,
        last_stable_offset=last.last_stable_offset,
        log_start_offset=last.log_start_offset,
        aborted_transactions=list(aborted.values()),
        preferred_read_replica=-1,
        records=SharedRecords([answer.records for answer in answers], readers),
    )
