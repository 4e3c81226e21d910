from __future__ import annotations

from functools import partial

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pooledkafka._wire.lanes import Lane, LaneKey
from pooledkafka._wire.leases import AT_ONCE, Leases

IDLE_S = 5.0
PER_SECOND = 2.0


class LeasesMachine(RuleBasedStateMachine):
    """Any order of borrowing, giving back and sweeping, over two brokers and a clock that only goes forward."""

    def __init__(self) -> None:
        super().__init__()
        self.open: set[LaneKey] = set()
        self.leases = Leases(PER_SECOND, self.open.__contains__)
        self.start = self.now = 100.0
        self.lent: dict[LaneKey, str] = {}
        self.free_since: dict[LaneKey, float] = {}
        self.asked: dict[int, list[tuple[int, str]]] = {1: [], 2: []}  # who waits, by broker, in order
        self.opened: dict[int, int] = {1: 0, 2: 0}
        self.in_debt: dict[int, int] = {1: 0, 2: 0}  # opened for groups that had one already
        self.number = 0

    @rule(node_id=st.sampled_from([1, 2]), group=st.sampled_from("abcdefghijklmnopqrstuvwxyz"))
    def acquire(self, node_id: int, group: str) -> None:
        self.number += 1
        who = self.number, group
        self.asked[node_id].append(who)
        self.leases.acquire(node_id, partial(self._granted, node_id, who), self.now, group=group)

    def _granted(self, node_id: int, who: tuple[int, str], key: LaneKey | None) -> None:
        assert key is not None
        assert key not in self.lent, "one connection was lent twice"
        assert (key.node_id, key.lane) == (node_id, Lane.LEASED)
        groups = {group for lent, group in self.lent.items() if lent.node_id == node_id}
        free = [each for each in self.free_since if each.node_id == node_id and each in self.open]
        if free:
            assert key == min(free), "what is open and free is lent before anything is opened, the lowest first"
        else:
            self.opened[node_id] += 1
            self.in_debt[node_id] += who[1] in groups
        turn = next((each for each in self.asked[node_id] if each[1] in groups), self.asked[node_id][0])
        assert who == turn, "in the order in which they came, but for those whose group has one"
        self.asked[node_id].remove(who)
        self.lent[key] = who[1]
        self.open.add(key)
        self.free_since.pop(key, None)

    @precondition(lambda self: self.lent)
    @rule(data=st.data(), lost=st.booleans())
    def release(self, data: st.DataObject, lost: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.lent)))
        del self.lent[key]
        if lost:
            self.open.discard(key)
        self.free_since[key] = self.now
        self.leases.release(key, self.now)

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, IDLE_S]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.leases.open_more(self.now)

    @rule()
    def come_when_told(self) -> None:
        """However long the queue, it is soon somebody's turn."""
        waiting = self.leases.waiting
        again_s = self.leases.open_more(self.now)
        assert (again_s is None) == (not waiting)
        if again_s is not None:
            self.now += again_s
            self.leases.open_more(self.now)
            assert self.leases.waiting < waiting

    @rule()
    def sweep(self) -> None:
        expected = {key for key, since in self.free_since.items() if self.now - since >= IDLE_S}
        idle = self.leases.take_idle(self.now, IDLE_S)
        assert len(idle) == len(set(idle))
        assert set(idle) == expected, "each idle connection is given back once, and no other"
        for key in idle:
            del self.free_since[key]
            self.open.discard(key)

    @invariant()
    def no_lent_connection_is_ever_closed(self) -> None:
        assert not set(self.lent) & set(self.free_since)

    @invariant()
    def no_more_are_opened_than_so_many_a_second(self) -> None:
        for node_id, opened in self.opened.items():
            most = AT_ONCE + PER_SECOND * (self.now - self.start) + self.in_debt[node_id]
            assert opened <= most + 1e-3

    @invariant()
    def nobody_waits_whose_group_has_one(self) -> None:
        for node_id, asked in self.asked.items():
            groups = {group for key, group in self.lent.items() if key.node_id == node_id}
            assert not [who for who in asked if who[1] in groups]


TestLeases = LeasesMachine.TestCase
TestLeases.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


def new_leases() -> tuple[Leases, list[LaneKey | None]]:
    """Leases of which all that were lent are open, and where those go that were lent."""
    lent: list[LaneKey | None] = []
    return Leases(PER_SECOND, lent.__contains__), lent


def test_when_to_look_again_is_when_the_one_that_is_free_longest_is_idle() -> None:
    leases, lent = new_leases()
    assert leases.idle_in(now=0.0, idle_s=5.0) is None
    for _ in range(2):
        leases.acquire(1, lent.append, 0.0)
    assert leases.idle_in(now=0.0, idle_s=5.0) is None
    first, second = lent
    assert first is not None
    assert second is not None
    leases.release(second, now=1.0)
    leases.release(first, now=3.0)
    assert leases.idle_in(now=3.0, idle_s=5.0) == 3.0
    assert leases.idle_in(now=9.0, idle_s=5.0) == 0.0


def test_a_swept_number_can_be_lent_again() -> None:
    leases, lent = new_leases()
    leases.acquire(1, lent.append, 0.0)
    (key,) = lent
    assert key is not None
    leases.release(key, now=0.0)
    assert leases.take_idle(now=IDLE_S, idle_s=IDLE_S) == [key]
    assert leases.take_idle(now=1e9, idle_s=IDLE_S) == [], "given back once"
    leases.acquire(1, lent.append, 1e9)
    assert lent == [key, key]
    assert leases.take_idle(now=1e9, idle_s=IDLE_S) == [], "in use"


def test_who_comes_first_by_right_goes_before_those_who_wait() -> None:
    leases, lent = new_leases()
    order: list[str] = []
    for number in range(AT_ONCE):
        leases.acquire(1, lent.append, 0.0, group=f"in-{number}")
    leases.acquire(1, lambda _: order.append("join"), 0.0, group="joins")
    leases.acquire(1, lambda _: order.append("sync"), 0.0, group="syncs", first=True)
    assert leases.waiting == 2
    for key in lent[:2]:
        assert key is not None
        leases.release(key, 0.0)
    assert order == ["sync", "join"]


def test_those_who_wait_for_a_broker_that_is_down_are_told() -> None:
    leases, lent = new_leases()
    for number in range(AT_ONCE + 3):
        leases.acquire(1, lent.append, 0.0, group=str(number))
    leases.refuse(2)
    assert leases.waiting == 3
    leases.refuse(1)
    assert lent[AT_ONCE:] == [None] * 3
    assert leases.open_more(0.0) is None
