"""Which brokers get replicas."""

from __future__ import annotations

import pytest
from kafka.errors import InvalidReplicationAssignmentError, InvalidReplicationFactorError

from pooledkafka.testing._embedded.placement import check_assignment, check_factor, placed

NO_RACKS = {1: "", 2: "", 3: ""}


def test_each_broker_leads_its_share() -> None:
    assert [placed(2, first, NO_RACKS, [1, 2, 3]) for first in range(4)] == [[1, 2], [2, 3], [3, 1], [1, 2]]


def test_racks_take_turns() -> None:
    racks = {1: "a", 2: "a", 3: "b", 4: "b"}
    for first in range(4):
        replicas = placed(4, first, racks, [1, 2, 3, 4])
        assert sorted(replicas) == [1, 2, 3, 4]
        assert racks[replicas[0]] != racks[replicas[1]]
        assert racks[replicas[2]] != racks[replicas[3]]


def test_brokers_that_are_down_come_last() -> None:
    for first in range(3):
        assert placed(3, first, NO_RACKS, [1, 3])[-1] == 2
        assert placed(2, first, NO_RACKS, [1, 3]) in ([1, 3], [3, 1])


def test_as_many_replicas_as_brokers_are_registered() -> None:
    check_factor(3, [1, 2, 3], [2])
    with pytest.raises(InvalidReplicationFactorError, match=r"4 cannot be reached because only 3 broker\(s\) are"):
        check_factor(4, [1, 2, 3], [1, 2, 3])
    with pytest.raises(InvalidReplicationFactorError, match="All brokers are currently fenced"):
        check_factor(1, [1, 2, 3], [])


@pytest.mark.parametrize(
    ("assignment", "factor", "said"),
    [
        ([], None, "names no partition"),
        ([[1], []], None, "empty replica list"),
        ([[4]], None, "includes broker 4, but no such broker"),
        ([[2, 2]], None, "the broker 2 more than once"),
        ([[1], [1, 2]], None, r"2 replica\(s\), but this is not consistent with previous partitions, which have 1"),
        ([[1]], 2, r"1 replica\(s\), but this is not consistent with previous partitions, which have 2"),
        ([[1], [3]], None, "partition 6 are fenced"),
    ],
)
def test_an_assignment_that_cannot_be(assignment: list[list[int]], factor: int | None, said: str) -> None:
    with pytest.raises(InvalidReplicationAssignmentError, match=said):
        check_assignment(assignment, [1, 2, 3], [1, 2], factor, first_index=5)


def test_an_assignment_may_name_brokers_that_are_down_among_others() -> None:
    check_assignment([[3, 1], [2, 1]], [1, 2, 3], [1, 2])
