"""What the recorder says of what connections carried."""

from __future__ import annotations

from pooledkafka.testing import ConnectionRecord, Exchange
from pooledkafka.testing._embedded.recorder import most_outstanding


def record(*times: tuple[float, float | None], closed_at: float | None = None) -> ConnectionRecord:
    exchanges = [Exchange("Fetch", 11, "a", number, *pair) for number, pair in enumerate(times)]
    connection = ConnectionRecord(1, 1, "plaintext", exchanges)
    connection.closed_at = closed_at
    return connection


def test_a_request_is_outstanding_from_its_arrival_to_its_answer() -> None:
    connection = record((1.0, 3.0), (2.0, 4.0))
    counts = [len(connection.outstanding_at(instant)) for instant in (0.5, 1.0, 2.5, 3.0, 4.0)]
    assert counts == [0, 1, 2, 1, 0]
    assert connection.most_outstanding == 2


def test_one_that_follows_an_answer_is_not_beside_it() -> None:
    assert record((1.0, 2.0), (2.0, 3.0)).most_outstanding == 1


def test_what_was_not_answered_is_outstanding_until_the_connection_ends() -> None:
    assert [each.correlation_id for each in record((1.0, None)).outstanding_at(100.0)] == [0]
    assert record((1.0, None), closed_at=2.0).outstanding_at(3.0) == []


def test_connections_are_counted_together() -> None:
    assert most_outstanding([record((1.0, 3.0)), record((2.0, 4.0)), record((3.0, 5.0))]) == 2
    assert most_outstanding([]) == 0
    assert record().client_ids == set()
    assert record((1.0, None)).client_ids == {"a"}
