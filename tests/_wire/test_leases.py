from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pooledkafka._wire.lanes import Lane, LaneKey
from pooledkafka._wire.leases import Leases

IDLE_S = 5.0


class LeasesMachine(RuleBasedStateMachine):
    """Any order of borrowing, giving back and sweeping, over two brokers and a clock that only goes forward."""

    def __init__(self) -> None:
        super().__init__()
        self.leases = Leases()
        self.now = 100.0
        self.lent: list[LaneKey] = []
        self.free_since: dict[LaneKey, float] = {}

    @rule(node_id=st.sampled_from([1, 2]))
    def acquire(self, node_id: int) -> None:
        key = self.leases.acquire(node_id)
        assert key not in self.lent, "one connection was lent twice"
        assert (key.node_id, key.lane) == (node_id, Lane.LEASED)
        taken = {lent.number for lent in self.lent if lent.node_id == node_id}
        assert key.number == min(set(range(len(taken) + 1)) - taken), "the lowest free number is lent first"
        self.lent.append(key)
        self.free_since.pop(key, None)

    @precondition(lambda self: self.lent)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        key = self.lent.pop(data.draw(st.integers(0, len(self.lent) - 1)))
        self.leases.release(key, self.now)
        self.free_since[key] = self.now

    @rule(seconds=st.sampled_from([0.0, 1.0, IDLE_S, 60.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def sweep(self) -> None:
        expected = {key for key, since in self.free_since.items() if self.now - since >= IDLE_S}
        idle = self.leases.take_idle(self.now, IDLE_S)
        assert len(idle) == len(set(idle))
        assert set(idle) == expected, "each idle connection is given back once, and no other"
        for key in idle:
            del self.free_since[key]

    @invariant()
    def no_lent_connection_is_ever_closed(self) -> None:
        assert not set(self.lent) & set(self.free_since)


TestLeases = LeasesMachine.TestCase
TestLeases.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_when_to_look_again_is_when_the_one_that_is_free_longest_is_idle() -> None:
    leases = Leases()
    assert leases.idle_in(now=0.0, idle_s=5.0) is None
    first, second = leases.acquire(1), leases.acquire(1)
    assert leases.idle_in(now=0.0, idle_s=5.0) is None
    leases.release(second, now=1.0)
    leases.release(first, now=3.0)
    assert leases.idle_in(now=3.0, idle_s=5.0) == 3.0
    assert leases.idle_in(now=9.0, idle_s=5.0) == 0.0


def test_a_swept_number_can_be_lent_again() -> None:
    leases = Leases()
    key = leases.acquire(1)
    leases.release(key, now=0.0)
    assert leases.take_idle(now=IDLE_S, idle_s=IDLE_S) == [key]
    assert leases.take_idle(now=1e9, idle_s=IDLE_S) == [], "given back once"
    assert leases.acquire(1) == key
    assert leases.take_idle(now=1e9, idle_s=IDLE_S) == [], "in use"
