"""Records that a handler is called with, one by one: the position moves only over what it has been through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.consumer.subscription_state import SubscriptionState
from kafka.structs import TopicPartition

from pooledkafka._wire.wired_consumer import WiredConsumer

ORDERS = TopicPartition("orders", 0)


class Stage:
    """A consumer that has read records 5 to 9 of a partition without moving on."""

    def __init__(self) -> None:
        self.subscription = SubscriptionState("latest")
        self.subscription.assign_from_user([ORDERS])
        self.subscription.seek(ORDERS, 5)
        self.handled: list[int] = []
        self.gone: list[bool] = []  # what the handler is told at its ends
        self.over = False
        self._records = [SimpleNamespace(offset=offset, leader_epoch=3) for offset in range(5, 10)]
        self.read: Counter[str] = Counter()  # by topic
        kafka = SimpleNamespace(_subscription=self.subscription)
        self._wired: Any = SimpleNamespace(kafka=kafka, over=False, _read=self.read)

    def handle(self, at: int, action: Any, *, together: bool = False, dealt_with: bool = True) -> None:
        def handler(records: list[Any], gone: Callable[[], bool]) -> bool:
            for record in records:
                self.handled.append(record.offset)
                if record.offset == at:
                    action()
            self.gone.append(gone())
            return dealt_with or at not in self.handled

        WiredConsumer.handle(self._wired, ORDERS, self._records, handler, lambda: self.over, together=together)

    @property
    def position(self) -> int | None:
        position = self.subscription.assignment[ORDERS].position
        return None if position is None else int(position.offset)


def test_it_moves_over_every_record_that_was_handled() -> None:
    stage = Stage()
    positions: list[Any] = []
    stage.handle(7, lambda: positions.append(stage.position))
    assert stage.handled == [5, 6, 7, 8, 9]
    assert positions == [7], "the record in the handler's hands is not handled yet"
    assert stage.position == 10
    assert stage.read == {"orders": 5}
    assert stage.subscription.assignment[ORDERS].position.leader_epoch == 3


def test_the_record_at_fault_is_the_next() -> None:
    stage = Stage()
    with pytest.raises(ZeroDivisionError):
        stage.handle(7, lambda: 1 / 0)
    assert (stage.handled, stage.position) == ([5, 6, 7], 7)
    assert stage.read == {"orders": 2}


def test_when_it_is_over_the_record_in_hand_counts_and_the_rest_does_not() -> None:
    stage = Stage()
    stage.handle(7, lambda: setattr(stage, "over", True))
    assert (stage.handled, stage.position) == ([5, 6, 7], 8)


@pytest.mark.parametrize("offset", [2, 7, 9])
def test_a_handler_that_seeks_has_its_way_also_to_where_it_is(offset: int) -> None:
    stage = Stage()
    stage.handle(7, lambda: stage.subscription.seek(ORDERS, offset))
    assert (stage.handled, stage.position) == ([5, 6, 7], offset)


def test_a_handler_that_pauses_gets_the_rest_later() -> None:
    stage = Stage()
    stage.handle(7, lambda: stage.subscription.pause(ORDERS))
    assert (stage.handled, stage.position) == ([5, 6, 7], 8)


def test_a_partition_that_was_lost_and_came_back_is_where_its_group_says() -> None:
    stage = Stage()

    def lose() -> None:
        stage.subscription.assign_from_user([])
        stage.subscription.assign_from_user([ORDERS])
        stage.subscription.seek(ORDERS, 6)

    stage.handle(7, lose)
    assert (stage.handled, stage.position) == ([5, 6, 7], 6)


def test_records_of_a_partition_that_is_not_there_any_more_are_nobodys() -> None:
    stage = Stage()
    stage.subscription.assign_from_user([])
    stage.handle(7, lambda: None)
    assert stage.handled == []


def test_what_the_handler_has_not_dealt_with_is_the_next() -> None:
    stage = Stage()
    stage.handle(7, lambda: None, dealt_with=False)
    assert (stage.handled, stage.position) == ([5, 6, 7], 7)


def test_records_together_count_as_one() -> None:
    stage = Stage()
    stage.handle(9, lambda: None, together=True)
    assert (stage.handled, stage.position) == ([5, 6, 7, 8, 9], 10)
    stage = Stage()
    with pytest.raises(ZeroDivisionError):
        stage.handle(9, lambda: 1 / 0, together=True)
    assert stage.position == 5


@pytest.mark.parametrize(
    "what",
    [
        lambda stage: setattr(stage, "over", True),
        lambda stage: stage.subscription.seek(ORDERS, 6),
        lambda stage: stage.subscription.pause(ORDERS),
        lambda stage: stage.subscription.assign_from_user([]),
    ],
    ids=["over", "sought", "paused", "lost"],
)
def test_the_handler_is_told_that_its_record_is_not_the_next_any_more(what: Callable[[Stage], None]) -> None:
    stage = Stage()
    stage.handle(6, lambda: what(stage))
    assert stage.gone == [False, True]
