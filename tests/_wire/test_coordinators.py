from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import CoordinatorNotAvailableError, KafkaConnectionError, NodeNotReadyError
from kafka.future import Future
from kafka.protocol.metadata import FindCoordinatorResponse

from pooledkafka._wire.coordinators import Coordinators


class Broker:
    """Stands for the manager, and for the event loop."""

    def __init__(self, version: int) -> None:
        self.broker_version_data = SimpleNamespace(api_version=lambda request: version)
        self.version = version
        self.node_id: int | None = 1
        self.sent: list[tuple[Any, Future]] = []
        self._soon: list[Any] = []
        self.later: list[tuple[float, Any]] = []
        self.ending = False

    def least_loaded_node(self) -> int | None:
        return self.node_id

    def ask_around(self, request: Any, node_id: int, timeout_ms: float) -> Future:
        assert node_id == self.node_id
        self.sent.append((request, Future()))
        return self.sent[-1][1]

    def call_soon(self, task: Any) -> None:
        self._soon.append(task)

    def call_later(self, delay_s: float, task: Any) -> None:
        self.later.append((delay_s, task))

    def run(self) -> None:
        """One round of the event loop."""
        soon, self._soon = self._soon, []
        for task in soon:
            task()

    def pause_is_over(self) -> None:
        ((delay_s, task),) = self.later
        assert 0.08 <= delay_s <= 0.12
        self.later.clear()
        task()

    def keys(self) -> list[list[str]]:
        return [request.coordinator_keys for request, _ in self.sent]

    def answer(self, *groups: str) -> None:
        """Answer the last request, about these groups."""
        entry = FindCoordinatorResponse.Coordinator
        found = [entry(key=group, node_id=7, host="h", port=9, error_code=0, error_message=None) for group in groups]
        self.sent[-1][1].success(FindCoordinatorResponse(version=self.version, coordinators=found))


def new(version: int = 4) -> tuple[Broker, Coordinators]:
    broker = Broker(version)
    made: Any = Coordinators(broker, broker)  # type: ignore[arg-type]
    return broker, made


def test_all_who_ask_in_one_round_are_told_by_one_request() -> None:
    broker, coordinators = new()
    futures = {group: coordinators.find(group, 1_000) for group in "abc"}
    assert coordinators.find("a", 1_000) is futures["a"], "asked by another member of the group"
    broker.run()
    assert broker.keys() == [["a", "b", "c"]]
    broker.answer("c", "a", "b")
    for group, future in futures.items():
        (found,) = future.value.coordinators
        assert found.key == group
    assert broker.sent[0][0].key == "a"


def test_a_group_is_asked_for_again_after_a_pause() -> None:
    broker, coordinators = new()
    coordinators.find("a", 1_000)
    broker.run()
    broker.answer("a")
    again = coordinators.find("a", 1_000)
    broker.run()
    assert broker.keys() == [["a"]]
    broker.pause_is_over()
    assert broker.keys() == [["a"], ["a"]]
    broker.answer("a")
    assert again.succeeded()
    broker.pause_is_over()
    assert not broker.later, "nobody wants to know any more"
    coordinators.find("a", 1_000)
    broker.run()
    assert broker.keys()[2:] == [["a"]], "at once"


def test_who_asks_for_the_first_time_waits_for_the_answer_that_is_on_its_way_and_for_no_pause() -> None:
    broker, coordinators = new()
    coordinators.find("a", 1_000)
    broker.run()
    for group in "bac":
        coordinators.find(group, 1_000)
    broker.run()
    assert broker.keys() == [["a"]]
    broker.answer("a")
    broker.run()
    assert broker.keys() == [["a"], ["b", "c"]], "but not for the first one again so soon"
    broker.answer("b", "c")
    broker.run()
    for group in "bd":
        coordinators.find(group, 1_000)
    broker.run()
    assert broker.keys()[2:] == [["d"]]
    broker.answer("d")
    broker.run()
    broker.pause_is_over()
    assert broker.keys()[3:] == [["a", "b"]]


def test_however_many_come_one_after_another_few_requests_are_sent() -> None:
    broker, coordinators = new()
    for _ in range(2):
        for group in range(200):
            coordinators.find(str(group), 1_000)
            broker.run()
        broker.answer(*map(str, range(200)))
        broker.run()
    assert list(map(len, broker.keys())) == [1, 199]
    broker.pause_is_over()
    assert list(map(len, broker.keys())) == [1, 199, 200]


def test_who_has_not_asked_for_long_is_new_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("pooledkafka._wire.coordinators.time.monotonic", lambda: now)
    broker, coordinators = new()
    coordinators.find("a", 1_000)
    broker.run()
    broker.answer("a")
    now += 1.1
    broker.pause_is_over()
    coordinators.find("b", 1_000)
    broker.run()
    broker.answer("b")
    coordinators.find("a", 1_000)
    broker.run()
    assert broker.keys() == [["a"], ["b"], ["a"]]


def test_a_request_that_is_not_answered_keeps_nobody_from_asking() -> None:
    broker, coordinators = new()
    stuck = coordinators.find("a", 1_000)
    broker.run()
    again = coordinators.find("b", 1_000)
    broker.pause_is_over()
    broker.answer("b")
    assert again.succeeded()
    assert not stuck.is_done
    broker.sent[0][1].failure(KafkaConnectionError())
    assert isinstance(stuck.exception, KafkaConnectionError)


def test_an_old_broker_is_asked_for_one_at_a_time() -> None:
    broker, coordinators = new(version=3)
    futures = [coordinators.find(group, 1_000) for group in "ab"]
    broker.run()
    assert broker.keys() == [["a"], ["b"]]
    responses = [FindCoordinatorResponse(version=3, error_code=0, node_id=n, host="h", port=9) for n in (1, 2)]
    for (_, sent), response in zip(broker.sent, responses, strict=True):
        sent.success(response)
    assert [future.value for future in futures] == responses


def test_a_group_that_the_answer_does_not_name_asks_again() -> None:
    broker, coordinators = new()
    named, unnamed = coordinators.find("a", 1_000), coordinators.find("b", 1_000)
    broker.run()
    broker.answer("a")
    assert named.succeeded()
    assert isinstance(unnamed.exception, CoordinatorNotAvailableError)


@pytest.mark.parametrize("why", ["no broker", "raises"])
def test_what_cannot_be_sent_fails(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broker, coordinators = new()

    def raises(*_: Any) -> Any:
        raise RuntimeError("Transport closed for writes")

    if why == "no broker":
        broker.node_id = None
    else:
        monkeypatch.setattr(broker, "ask_around", raises)
    future = coordinators.find("a", 1_000)
    broker.run()
    assert isinstance(future.exception, NodeNotReadyError if why == "no broker" else RuntimeError)
