"""The routes to a broker, under a clock of the test: their timers and their connections."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kafka.future import Future
from kafka.protocol.consumer import FetchResponse
from kafka.structs import TopicPartition

import pooledkafka._wire.fetching as fetching_module
from pooledkafka._fetch import Position
from pooledkafka._wire.fetching import ConsumerFetch, SharedFetching
from pooledkafka._wire.lanes import Lane
from pooledkafka._wire.tally import Tally
from tests._wire.engines import new_engine
from tests.scripted_broker import VERSION

Data = FetchResponse.FetchableTopicResponse.PartitionData


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Net:
    """The loop's timers under a clock of the test."""

    _closed = False

    def __init__(self, clock: Clock) -> None:
        self.clock, self.n = clock, 0
        self.soon: list[Any] = []
        self.timers: list[Any] = []

    def call_soon(self, task: Any) -> None:
        self.soon.append(task)

    def call_at(self, when: float, task: Any) -> None:
        self.n += 1
        heapq.heappush(self.timers, (when, self.n, task))

    def call_later(self, delay: float, task: Any) -> None:
        self.call_at(self.clock.now + delay, task)

    def run(self, seconds: float = 0.0) -> None:
        end = self.clock.now + seconds
        while True:
            while self.soon:
                self.soon.pop(0)()
            if not self.timers or self.timers[0][0] > end:
                break
            when, _, task = heapq.heappop(self.timers)
            self.clock.now = max(self.clock.now, when)
            task()
        self.clock.now = end


class Manager:
    def __init__(self) -> None:
        self.sent: list[tuple[Any, Any, Future]] = []
        self.closed: list[Any] = []
        self.cluster = SimpleNamespace(broker_metadata=lambda node_id: None)

    def send_on(self, key: Any, request: Any) -> Future:
        self.sent.append((key, request, Future()))
        return self.sent[-1][2]

    def connection(self, key: Any) -> Any:
        """As much of a connection as is looked at."""
        return SimpleNamespace(in_flight_requests=[f for k, _, f in self.sent if k == key and not f.is_done])

    def close_connection(self, key: Any, reason: str) -> None:
        self.closed.append(key)
        for k, _, future in self.sent:
            if k == key and not future.is_done:
                future.failure(ConnectionError("closed"))


class World:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        monkeypatch.setattr(fetching_module, "time", self.clock)
        self.net, self.manager = Net(self.clock), Manager()
        self.fetching = SharedFetching(self.net, cast("Any", self.manager), 10**8, Tally(), calm_wait_ms=1_500)

    def fetch(
        self,
        owner: int,
        isolation: int = 0,
        rack: str = "",
        offset: int = 0,
        max_wait_ms: int = 500,
        answered: Callable[[], None] = lambda: None,
    ) -> Future:
        request = ConsumerFetch(
            {TopicPartition("t", 0): Position(offset, partition_max_bytes=1000)}, isolation, rack, max_wait_ms, 1, 10**6
        )
        future = self.fetching.send(owner, request, 1, answered)
        self.net.run()
        return future

    def open(self) -> list[tuple[Any, Any, Future]]:
        return [each for each in self.manager.sent if not each[2].is_done]

    def answer_all(self, due: Any = None) -> None:
        """Empty answers to all that is on its way, or to these."""
        for _, request, future in self.open() if due is None else due:
            topics = [
                FetchResponse.FetchableTopicResponse(
                    topic=t.topic,
                    partitions=[
                        Data(
                            partition_index=p.partition,
                            error_code=0,
                            high_watermark=p.fetch_offset,
                            last_stable_offset=p.fetch_offset,
                            log_start_offset=0,
                            aborted_transactions=[],
                            preferred_read_replica=-1,
                            records=b"",
                        )
                        for p in t.partitions
                    ],
                )
                for t in request.topics
            ]
            future.success(FetchResponse(version=11, throttle_time_ms=0, error_code=0, session_id=0, responses=topics))
        self.net.run()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_timers_do_not_pile_up(world: World) -> None:
    """A consumer that polls now and then: each time the next wake-up is earlier than the one that is set."""
    wakes = []
    for _ in range(200):
        world.fetch(1)
        for _ in range(3):
            world.net.run(0.2)
            world.answer_all()
        world.net.run(0.3)
        wakes.append(len(world.net.timers))
    assert wakes[-1] <= 8, f"timers that wake the route, by poll: {wakes[::20]}"


def test_two_routes_never_get_the_same_connection_to_park_on(world: World) -> None:
    world.fetch(1, isolation=0)
    world.fetch(2, isolation=1)
    world.fetching.forget(1)  # the last read_uncommitted consumer goes ...
    world.net.run(6)
    world.fetch(3, isolation=0)  # ... and a new one comes
    parked = [route._keys for route in world.fetching._routes.values()]
    keys = [k for keys in parked for line, k in keys.items() if k.lane is Lane.FETCH]
    assert len(keys) == len(set(keys)), keys


@pytest.mark.parametrize(("rack", "waits"), [("", {500, 1_500}), ("b", {500})])
def test_only_a_leader_is_let_wait_longer(world: World, rack: str, waits: set[int]) -> None:
    """Before Kafka 3.4 a follower answers a fetch that waits when its time has come, and no sooner (KAFKA-14334)."""
    nothing = FetchResponse(version=11, throttle_time_ms=0, error_code=0, session_id=7, responses=[])
    world.fetch(1, rack=rack)
    world.answer_all()  # it is at the end
    for _ in range(20):
        for _, _, future in world.open():
            future.success(nothing)
        world.net.run(0.5)
    assert {request.max_wait_ms for key, request, _ in world.manager.sent if key.lane is Lane.FETCH} == waits


@pytest.mark.parametrize(
    ("options", "waits_ms"),
    [
        ({}, 2_000),
        ({"request_timeout_ms": 3_001.5}, 1_500),
        ({"request_timeout_ms": 1_200}, 600),
        ({"request_timeout_ms": 501}, 500),
        ({"max_in_flight_requests": 64}, 500),
    ],
)
def test_a_fetch_waits_no_longer_than_time_and_permits_allow(options: dict[str, Any], waits_ms: int) -> None:
    engine = new_engine(bootstrap_servers="127.0.0.1:1", api_version=VERSION, **options)
    try:
        assert engine.fetching.calm_wait_ms == waits_ms
    finally:
        engine.net.close()


def test_dropping_a_route_leaves_the_other_routes_catch_up_alone(world: World) -> None:
    world.fetch(1, isolation=0)
    world.answer_all()
    world.fetching.forget(1)
    world.net.run(4.9)
    world.fetch(2, isolation=1)
    assert any(key.lane is Lane.CATCH_UP for key, _, _ in world.open())
    before = world.open()
    world.net.run(0.2)
    assert all(not future.is_done for key, _, future in before if key.lane is Lane.CATCH_UP), "closed under it"


def test_idle_timer_of_one_route_leaves_the_other_routes_catch_up_alone(world: World) -> None:
    world.fetch(1, isolation=0)
    world.answer_all()  # route 1 caught up at this moment, and never again
    world.net.run(29.95)
    world.fetch(2, isolation=1)
    before = [future for key, _, future in world.open() if key.lane is Lane.CATCH_UP]
    assert before
    world.net.run(0.2)
    assert all(not future.is_done for future in before), "closed under it"


def test_an_idle_consumer_costs_the_same_after_ten_minutes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One consumer at the end of a log that long-polls; the broker answers the parked fetch after its max_wait_ms."""
    steps = 0
    original = fetching_module.Route._step

    def counted(self: Any) -> None:
        nonlocal steps
        steps += 1
        original(self)

    monkeypatch.setattr(fetching_module.Route, "_step", counted)
    by_minute = []
    future = world.fetch(1)
    taken: dict[int, Any] = {}
    for tick in range(10 * 60 * 20):  # of 50 ms
        world.net.run(0.05)
        world.manager.sent = world.open()
        for each in world.open():
            since = taken.setdefault(id(each), (world.clock.now, each))[0]
            if world.clock.now - since >= each[1].max_wait_ms / 1000:
                taken.pop(id(each))
                world.answer_all([each])
        if future.is_done:
            future = world.fetch(1)
        if tick % 1200 == 1199:
            by_minute.append(steps)
            steps = 0
    assert by_minute[-1] <= 2 * by_minute[0], f"steps of the multiplexer by minute: {by_minute}"


def at_rest(world: World, owner: int) -> Future:
    """A fetch of a consumer that has been told all there is."""
    world.fetch(owner)
    for _ in range(3):
        world.net.run(0.3)
        world.answer_all()
    future = world.fetch(owner)
    for _ in range(10):
        world.net.run(0.5)
        world.answer_all()
    assert not future.is_done, "having nothing to tell is no answer"
    return future


def test_a_fetch_with_nothing_to_tell_waits_until_it_is_released(world: World) -> None:
    future = at_rest(world, 1)
    world.fetching.release(1)
    assert future.value.responses == []
    world.fetching.release(1)
    again = world.fetch(1)
    world.answer_all()
    assert not again.is_done


def test_a_release_is_of_all_fetches_of_one_consumer(world: World) -> None:
    mine = [world.fetch(1, isolation=isolation) for isolation in (0, 1)]
    anothers = world.fetch(2)
    world.fetching.release(1)
    assert [future.value.responses for future in mine] == [[], []]
    assert not anothers.is_done


@pytest.mark.parametrize("how", ["answered", "released"])
def test_who_sent_a_fetch_hears_of_its_answer_after_all_others(world: World, how: str) -> None:
    in_order: list[str] = []
    future = world.fetch(1, max_wait_ms=0, answered=lambda: in_order.append("answered"))
    future.add_callback(lambda _: in_order.append("told"))
    if how == "answered":
        world.answer_all()
    else:
        world.fetching.release(1)
    assert in_order == ["told", "answered"]


def test_the_loop_may_be_closed_in_the_middle_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    ended: list[None] = []

    def refuse(*_: Any) -> None:
        ended.append(None)
        raise RuntimeError("NetworkSelector closed!")

    monkeypatch.setattr(world.net, "call_later", refuse)
    world.fetch(1)  # would raise on the I/O thread, where kafka-python logs it
    assert ended
    assert world.manager.sent
