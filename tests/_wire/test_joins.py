from __future__ import annotations

from functools import partial

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pooledkafka._wire.joins import Joins

SIZES = {"one": 1, "two": 2, "three": 3}
CAPACITY = 4


class JoinsMachine(RuleBasedStateMachine):
    """Groups of several sizes whose members join in any order; a group's joins end when all its members are in."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: dict[str, int] = dict.fromkeys(SIZES, 0)
        self.outside: dict[str, int] = dict.fromkeys(SIZES, 0)

    @initialize(spare=st.sampled_from([0, 1]))
    def start(self, spare: int) -> None:
        self.joins = Joins(CAPACITY, spare)
        self.spare = spare
        self.joins.members.update(SIZES)

    @rule(group=st.sampled_from(sorted(SIZES)))
    def enter(self, group: str) -> None:
        if self.inside[group] + self.outside[group] == SIZES[group]:
            return  # every member is in this rebalance already
        self.outside[group] += 1

        def admitted() -> None:
            self.outside[group] -= 1
            self.inside[group] += 1

        self.joins.enter(group, admitted)

    @rule(group=st.sampled_from(sorted(SIZES)))
    def come_and_go(self, group: str) -> None:
        """One more consumer of the group, which is gone again before it joins."""
        self.joins.attach(group)
        self.places_are_counted()
        self.joins.detach(group)

    @invariant()
    def places_are_counted(self) -> None:
        if hasattr(self, "joins"):
            assert self.joins._taken == sum(max(1, self.joins.members[group]) for group in self.joins._active)

    @precondition(lambda self: any(self.complete()))
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        """The broker answers a group that is complete, all members at once."""
        group = data.draw(st.sampled_from(self.complete()))
        for _ in range(SIZES[group]):
            self.inside[group] -= 1
            self.joins.leave(group)

    def complete(self) -> list[str]:
        return [group for group in sorted(SIZES) if self.inside[group] == SIZES[group]]

    @invariant()
    def there_is_room_for_all_members_of_those_who_were_let_in(self) -> None:
        active = [group for group, count in self.inside.items() if count]
        if len(active) > 1:
            assert sum(SIZES[group] for group in active) <= CAPACITY - self.spare

    @invariant()
    def no_member_waits_while_another_of_its_group_is_in(self) -> None:
        assert not [group for group in SIZES if self.inside[group] and self.outside[group]]

    @invariant()
    def somebody_is_in_while_anybody_waits(self) -> None:
        assert any(self.inside.values()) or not any(self.outside.values())
        assert self.joins.waiting == sum(self.outside.values()) if hasattr(self, "joins") else True


TestJoins = JoinsMachine.TestCase
TestJoins.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_groups_wait_in_the_order_in_which_they_came() -> None:
    order: list[str] = []
    joins = Joins(3)
    joins.members.update({"first": 2, "big": 2, "small": 1})
    for group in ("first", "big", "small"):
        joins.enter(group, partial(order.append, group))
    assert order == ["first"], "the small one fits, but the big one came before it"
    assert joins.waiting == 2
    joins.leave("first")
    assert order == ["first", "big", "small"]
