"""When an idle poll looks, how long it waits, and what it must not miss; over a consumer that is staged."""

from __future__ import annotations

from typing import Any

import pytest
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

import pooledkafka._wire.idling as idling_module
from pooledkafka._fetch import Position
from tests._wire.staged_consumer import Clock, StagedConsumer

ORDERS = TopicPartition("orders", 0)
BILLS = TopicPartition("bills", 0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(idling_module, "time", clock)
    return clock


@pytest.fixture
def stage(clock: Clock) -> StagedConsumer:
    return StagedConsumer(clock)


# -- how long it waits -------------------------------------------------------------------------------------------------


def test_with_nothing_to_do_it_waits_as_long_as_the_poll_may(stage: StagedConsumer) -> None:
    assert stage.idling.wait(1_500) is True
    assert stage.event.waited == [1.5]


def test_it_looks_once_and_again_after_a_heartbeat_interval(stage: StagedConsumer) -> None:
    assert stage.idling.wait(600_000) is True
    assert stage.event.waited == [3.0]
    assert stage.looks == 1
    for _ in range(3):
        assert stage.idling.wait(1_000) is True
    assert stage.looks == 2, "what it saw holds until then"
    stage.assign(ORDERS)  # nobody stirs, as where a preferred replica expires
    assert stage.idling.wait(1_000) is False
    assert stage.looks == 3


def test_it_shows_that_it_is_alive_well_within_the_poll_interval(clock: Clock) -> None:
    stage = StagedConsumer(clock, group_id="g", max_poll_interval_ms=1_500)
    for beats in (1, 2):
        assert stage.idling.wait(600_000) is True
        assert stage.heartbeats == beats
    assert stage.event.waited == [0.5, 0.5]


def test_a_poll_without_time_does_not_wait(stage: StagedConsumer) -> None:
    for _ in range(3):
        assert stage.idling.wait(0) is True
    assert stage.event.waited == []
    assert stage.looks == 1
    assert stage.clock.slept == [0, 0, 0], "a loop of them must let the I/O thread run"


def test_where_there_is_something_to_do_it_says_so_at_once(stage: StagedConsumer) -> None:
    stage.assign(ORDERS)
    for looks in (1, 2):
        assert stage.idling.wait(600_000) is False
        assert stage.looks == looks, "each time anew: a pass may have done it without a stir"
    assert stage.event.waited == []


def test_a_stir_ends_the_wait_and_the_next_one_looks(stage: StagedConsumer) -> None:
    stage.event.on_wait = stage.idling.stir
    assert stage.idling.wait(600_000) is True
    assert stage.looks == 1
    stage.idling.wait(600_000)
    assert stage.looks == 2


def test_it_waits_no_longer_than_until_a_commit_is_due(clock: Clock) -> None:
    stage = StagedConsumer(clock, group_id="billing", enable_auto_commit=True)
    stage.coordinator.next_auto_commit_deadline = clock.now + 2.0
    assert stage.idling.wait(1_000) is True
    assert stage.idling.wait(600_000) is True
    assert stage.event.waited == [1.0, 1.0]
    assert stage.idling.wait(600_000) is False
    stage.coordinator.next_auto_commit_deadline = clock.now + 60.0
    assert stage.idling.wait(500) is True, "the pass has sent it"
    assert stage.looks == 1


@pytest.mark.parametrize("config", [{"group_id": "billing"}, {"enable_auto_commit": True}], ids=["by-hand", "no-group"])
def test_where_nothing_is_committed_by_itself_no_commit_is_ever_due(clock: Clock, config: dict[str, Any]) -> None:
    assert StagedConsumer(clock, **config).idling.wait(500) is True


def test_each_idle_poll_of_a_group_says_that_the_consumer_is_alive(clock: Clock) -> None:
    stage = StagedConsumer(clock, group_id="billing")
    for _ in range(3):
        began_at = clock.now
        stage.idling.wait(1_000)
        assert stage.coordinator.heartbeat.last_poll == began_at
    assert stage.looks == stage.heartbeats == 1, "the heartbeats are looked at when all else is"


def test_it_is_idle_from_a_look_that_found_nothing_until_something_stirs(stage: StagedConsumer) -> None:
    assert not stage.idling.idle
    stage.idling.wait(0)
    assert stage.idling.idle
    stage.idling.stir()
    assert not stage.idling.idle
    stage.assign(ORDERS)
    assert stage.idling.wait(1_000) is False
    assert not stage.idling.idle, "the stir was taken back, but there is something to do"


# -- dozing ------------------------------------------------------------------------------------------------------------


def dozing(clock: Clock, **config: Any) -> StagedConsumer:
    """Over a consumer that looked just now, and found nothing to do for three seconds."""
    stage = StagedConsumer(clock, group_id="billing", **config)
    stage.coordinator.next_auto_commit_deadline = clock.now + 2.0
    assert stage.idling.wait(0) is True
    return stage


def test_it_dozes_without_a_look_and_says_that_the_consumer_is_alive(clock: Clock) -> None:
    stage = dozing(clock)
    for _ in range(3):
        began_at = clock.now
        assert stage.idling.doze(clock.now + 0.5) is True
        assert stage.coordinator.heartbeat.last_poll == began_at
    assert stage.event.waited == [0.5, 0.5, 0.5]
    assert stage.looks == 1


def test_it_does_not_doze_before_it_has_looked(clock: Clock) -> None:
    stage = StagedConsumer(clock, group_id="billing")
    assert stage.idling.doze(clock.now + 0.5) is False


def test_it_does_not_doze_where_something_stirs(clock: Clock) -> None:
    stage = dozing(clock)
    stage.idling.stir()
    assert stage.idling.doze(clock.now + 0.5) is False
    assert stage.event.waited == []


def test_a_stir_wakes_it(clock: Clock) -> None:
    stage = dozing(clock)
    stage.event.on_wait = stage.idling.stir
    assert stage.idling.doze(clock.now + 0.5) is False


def test_a_wait_that_ends_too_early_is_not_all_of_it(clock: Clock) -> None:
    stage = dozing(clock)

    def before_its_time() -> None:
        clock.now -= 0.1

    stage.event.on_wait = before_its_time
    assert stage.idling.doze(clock.now + 0.5) is False


@pytest.mark.parametrize(("s", "dozes"), [(0.0, False), (1.9, True), (2.0, False), (2.9, False)])
def test_it_dozes_no_longer_than_until_a_commit_is_due(clock: Clock, s: float, dozes: bool) -> None:
    assert dozing(clock, enable_auto_commit=True).idling.doze(clock.now + s) is dozes


@pytest.mark.parametrize(("s", "dozes"), [(-1.0, False), (0.0, False), (2.9, True), (3.0, False), (60.0, False)])
def test_it_dozes_no_longer_than_until_the_next_look(clock: Clock, s: float, dozes: bool) -> None:
    stage = dozing(clock)
    assert stage.idling.doze(clock.now + s) is dozes
    assert stage.event.waited == ([s] if dozes else [])


# -- a busy consumer ---------------------------------------------------------------------------------------------------


def busy(clock: Clock, **config: Any) -> StagedConsumer:
    """Over a consumer that has records to take, and nothing else to do."""
    stage = StagedConsumer(clock, group_id="billing", **config)
    stage.coordinator.next_auto_commit_deadline = clock.now + 60.0
    stage.fetcher._completed_fetches.append("records")
    assert stage.idling.wait(1_000) is False
    assert stage.idling.is_settled()
    return stage


def lose_a_partition() -> None:
    raise KeyError


def test_what_it_saw_of_a_busy_consumer_holds_as_well(clock: Clock) -> None:
    stage = busy(clock)
    looks = stage.looks
    for _ in range(3):
        clock.now += 0.9
        assert stage.idling.has_records()
        assert stage.coordinator.heartbeat.last_poll == clock.now
    assert stage.looks == looks
    clock.now += 0.9
    assert not stage.idling.has_records(), "it looks again after a heartbeat interval"


def test_a_busy_consumer_looks_again_when_it_is_stirred(clock: Clock) -> None:
    stage = busy(clock)
    stage.idling.stir()
    assert not stage.idling.has_records()
    assert stage.idling.wait(1_000) is False
    assert not stage.idling.has_records(), "that was a look; whether it is settled is not known yet"
    assert stage.idling.is_settled()
    assert stage.idling.has_records()


def test_without_records_there_are_none_to_take(clock: Clock) -> None:
    stage = busy(clock)
    stage.fetcher._completed_fetches.clear()
    assert not stage.idling.has_records()
    stage.fetcher._next_partition_records = "more"
    assert stage.idling.has_records()


def test_a_commit_that_is_due_is_no_affair_of_a_busy_poll(clock: Clock) -> None:
    stage = busy(clock, enable_auto_commit=True)
    assert stage.idling.has_records()
    stage.coordinator.next_auto_commit_deadline = clock.now
    assert not stage.idling.has_records()
    assert not stage.idling.is_settled()


@pytest.mark.parametrize(
    "what",
    [
        lambda stage: stage.coordinator.completed_offset_commits.append("commit"),
        lambda stage: setattr(stage.coordinator, "coordinator_unknown", lambda: True),
        lambda stage: vars(stage.coordinator).update(need_rejoin=lambda: True),
        lambda stage: setattr(stage.fetcher, "_cached_list_offsets_exception", KafkaError()),
        lambda stage: setattr(stage.fetcher, "_cached_log_truncation", KafkaError()),
        lambda stage: setattr(stage.places, "unsettled", True),
        lambda stage: setattr(stage, "while_looking", lose_a_partition),
    ],
    ids=["a commit's callback", "no coordinator", "a rebalance", "no offsets", "truncated", "no position", "gone"],
)
def test_what_only_a_pass_does_is_left_to_one(clock: Clock, what: Any) -> None:
    stage = busy(clock)
    stage.subscription.partitions_auto_assigned = lambda: True
    what(stage)
    assert not stage.idling.is_settled()


# -- what must not be missed -------------------------------------------------------------------------------------------


def test_a_stir_between_clearing_and_looking_is_not_lost(stage: StagedConsumer) -> None:
    stage.check = stage.idling.stir
    assert stage.idling.wait(600_000) is True
    assert stage.event.waited == []
    stage.idling.wait(600_000)
    assert stage.looks == 2


def test_a_stir_between_looking_and_waiting_is_not_lost(stage: StagedConsumer) -> None:
    stage.while_looking = stage.idling.stir
    assert stage.idling.wait(600_000) is True
    assert stage.event.waited == []
    stage.idling.wait(600_000)
    assert stage.looks == 2


def test_a_change_whose_stir_is_taken_back_is_seen(stage: StagedConsumer) -> None:
    def another_thread() -> None:
        stage.fetcher._completed_fetches.append("records")
        stage.idling.stir()

    stage.idling.wait(0)
    stage.idling.stir()
    stage.event.on_clear = another_thread  # its stir is cleared with the one before
    assert stage.idling.wait(600_000) is False


def test_an_error_of_the_look_does_not_leave_it_quiet(stage: StagedConsumer) -> None:
    def fail() -> None:
        raise KafkaError("of the look")

    stage.idling.wait(0)
    stage.idling.stir()
    stage.while_looking = fail
    with pytest.raises(KafkaError, match="of the look"):
        stage.idling.wait(600_000)
    stage.while_looking = lambda: None
    stage.assign(ORDERS)
    assert stage.idling.wait(600_000) is False


def test_an_interrupt_does_not_leave_it_quiet(stage: StagedConsumer) -> None:
    def end() -> None:
        raise InterruptedError

    stage.idling.wait(0)
    stage.idling.stir()
    stage.check = end
    with pytest.raises(InterruptedError):
        stage.idling.wait(600_000)
    stage.check = lambda: None
    stage.assign(ORDERS)
    assert stage.idling.wait(600_000) is False


def test_a_poll_that_was_asked_to_end_does_not_look_first(stage: StagedConsumer) -> None:
    def end() -> None:
        raise InterruptedError

    stage.check = end
    with pytest.raises(InterruptedError):
        stage.idling.wait(600_000)
    assert stage.looks == 0


# -- what there is to fetch --------------------------------------------------------------------------------------------


def test_what_is_on_its_way_is_nothing_to_do(stage: StagedConsumer) -> None:
    stage.assign(ORDERS, offset=5)
    stage.fetching[1] = {ORDERS: Position(5)}
    stage.fetcher._nodes_with_pending_fetch_requests.add(1)
    assert stage.idling.wait(0) is True
    assert stage.releases == 0


@pytest.mark.parametrize("place", [None, (1, 4), (2, 5)], ids=["nowhere", "another-offset", "another-node"])
def test_what_is_fetched_elsewhere_is_to_be_fetched(stage: StagedConsumer, place: tuple[int, int] | None) -> None:
    stage.assign(ORDERS, offset=5)
    if place is not None:
        node, offset = place
        stage.fetching[node] = {ORDERS: Position(offset)}
    assert stage.idling.wait(0) is False
    assert stage.releases == 0, "nothing is in its way"


def test_a_fetch_to_the_same_node_makes_room(stage: StagedConsumer) -> None:
    stage.assign(ORDERS, BILLS)
    stage.fetching[1] = {ORDERS: Position(0)}
    stage.fetcher._nodes_with_pending_fetch_requests.add(1)
    assert stage.idling.wait(0) is False
    assert stage.releases == 1


def test_a_fetch_to_another_node_stays(stage: StagedConsumer) -> None:
    stage.assign(ORDERS)
    stage.assign(BILLS, node=2)
    stage.fetching[1] = {ORDERS: Position(0)}
    stage.fetcher._nodes_with_pending_fetch_requests.add(1)
    assert stage.idling.wait(0) is False
    assert stage.releases == 0


def test_a_fetch_of_what_is_not_assigned_any_more_is_ended(stage: StagedConsumer) -> None:
    stage.assign(ORDERS)
    stage.fetching[1] = {ORDERS: Position(0), BILLS: Position(0)}
    stage.fetcher._nodes_with_pending_fetch_requests.add(1)
    assert stage.idling.wait(0) is True, "its answer stirs"
    assert stage.releases == 1


def test_a_partition_without_a_leader_is_something_to_do(stage: StagedConsumer) -> None:
    stage.assign(ORDERS, node=None)
    assert stage.idling.wait(0) is False


def test_a_partition_that_goes_while_it_is_looked_at_is_looked_at_again(stage: StagedConsumer) -> None:
    def go() -> None:
        raise KeyError(ORDERS)

    stage.while_looking = go
    assert stage.idling.wait(600_000) is False
    assert stage.idling.fetch_records(timeout_ms=0) == ({}, False)


# -- in a pass ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("timeout_ms", "waited"), [(None, 0.1), (float("inf"), 0.1), (600_000, 0.1), (40, 0.04)])
@pytest.mark.parametrize("fetch_max_wait_ms", [0, 500, 60_000])
def test_a_pass_without_records_is_made_again_after_the_backoff(
    clock: Clock, timeout_ms: float | None, waited: float, fetch_max_wait_ms: int
) -> None:
    """What is to do may have to wait for a time, as a broker that cannot be reached; nobody tells when it is over."""
    stage = StagedConsumer(clock, fetch_max_wait_ms=fetch_max_wait_ms)
    stage.assign(ORDERS)
    assert stage.idling.fetch_records(timeout_ms=timeout_ms) == ({}, False)
    assert stage.event.waited == [waited]
    assert stage.sent == 1


def test_a_pass_waits_no_longer_than_until_it_has_to_say_that_the_consumer_is_alive(clock: Clock) -> None:
    stage = StagedConsumer(clock, retry_backoff_ms=8_000, max_poll_interval_ms=3_000, heartbeat_interval_ms=3_000)
    stage.assign(ORDERS)
    stage.idling.fetch_records(timeout_ms=600_000)
    assert stage.event.waited == [1.0]


def test_a_pass_without_time_does_not_wait(stage: StagedConsumer) -> None:
    stage.assign(ORDERS)
    assert stage.idling.fetch_records(timeout_ms=0) == ({}, False)
    assert stage.event.waited == []
    assert stage.sent == 1


def test_a_pass_fetches_nothing_that_is_on_its_way(stage: StagedConsumer) -> None:
    stage.assign(ORDERS)
    stage.fetching[1] = {ORDERS: Position(0), BILLS: Position(0)}
    stage.idling.fetch_records(timeout_ms=0)
    assert stage.sent == 0


def test_a_pass_with_records_does_not_wait_and_fetches_on(stage: StagedConsumer) -> None:
    stage.assign(ORDERS)
    stage.fetched.append(({ORDERS: ["record"]}, False))
    assert stage.idling.fetch_records(timeout_ms=600_000) == ({ORDERS: ["record"]}, False)
    assert stage.event.waited == []
    assert stage.sent == 1


def test_a_pass_with_more_in_the_buffer_fetches_nothing(stage: StagedConsumer) -> None:
    stage.assign(ORDERS)
    stage.fetcher._nodes_with_pending_fetch_requests.add(1)
    stage.fetched.append(({ORDERS: ["record"]}, True))
    assert stage.idling.fetch_records() == ({ORDERS: ["record"]}, False)
    assert (stage.sent, stage.releases) == (0, 0)


def test_a_pass_returns_records_that_come_while_it_waits(stage: StagedConsumer) -> None:
    stage.event.on_wait = lambda: stage.fetched.append(({ORDERS: ["record"]}, False))
    assert stage.idling.fetch_records(timeout_ms=600_000) == ({ORDERS: ["record"]}, False)


def test_a_pass_hands_on_how_many_records_and_whether_the_position_moves(stage: StagedConsumer) -> None:
    asked: list[tuple[Any, Any]] = []

    def fetched_records(max_records: Any, update_offsets: Any) -> tuple[dict[Any, Any], bool]:
        asked.append((max_records, update_offsets))
        return {}, False

    stage.fetcher.fetched_records = fetched_records
    stage.idling.fetch_records(7, update_offsets=False, timeout_ms=0)
    assert asked == [(7, False), (7, False)]


def test_a_pass_makes_room_for_what_it_fetches(stage: StagedConsumer) -> None:
    stage.assign(ORDERS, BILLS)
    stage.fetching[1] = {ORDERS: Position(0)}
    stage.fetcher._nodes_with_pending_fetch_requests.add(1)
    in_order: list[str] = []
    stage.idling._release = lambda: in_order.append("release")
    stage.fetcher.send_fetches = lambda: in_order.append("send")
    stage.idling.fetch_records(timeout_ms=0)
    assert in_order == ["release", "send"]


def test_a_stir_before_the_pass_waits_ends_its_wait_and_is_kept_for_the_next_look(stage: StagedConsumer) -> None:
    stage.idling.stir()
    assert stage.idling.fetch_records(timeout_ms=600_000) == ({}, False)
    assert stage.event.waited == []
    assert stage.event.is_set(), "what stirred was perhaps no fetch"
