"""Committed offsets, and those of transactions."""

from __future__ import annotations

from pooledkafka.testing._embedded.group_offsets import Committed, GroupOffsets

A, B = ("orders", 0), ("orders", 1)
OTHER = ("refunds", 0)


def at(offset: int) -> Committed:
    return Committed(offset, -1, "")


def test_the_last_commit_of_a_partition_counts() -> None:
    offsets = GroupOffsets()
    offsets.commit({A: at(1), B: at(7)})
    offsets.commit({A: Committed(2, 5, "note")})
    assert offsets.committed(A) == Committed(2, 5, "note")
    assert offsets.all() == {A: Committed(2, 5, "note"), B: at(7)}
    assert offsets.committed(OTHER) is None


def test_staged_offsets_show_when_the_transaction_commits() -> None:
    offsets = GroupOffsets()
    offsets.commit({A: at(1)})
    offsets.stage(9, {A: at(2)})
    offsets.stage(9, {B: at(3)})
    assert offsets.all() == {A: at(1)}
    assert offsets.is_pending(A)
    assert offsets.is_pending(B)
    assert not offsets.is_pending(OTHER)
    offsets.resolve(8, commits=True)
    assert offsets.is_pending(A)
    offsets.resolve(9, commits=True)
    assert offsets.all() == {A: at(2), B: at(3)}
    assert not offsets.is_pending(A)


def test_staged_offsets_of_an_aborted_transaction_are_void() -> None:
    offsets = GroupOffsets()
    offsets.stage(9, {A: at(2)})
    offsets.resolve(9, commits=False)
    assert offsets.all() == {}
    assert not offsets.is_pending(A)


def test_a_commit_is_not_overwritten_by_an_earlier_one_whose_transaction_ends_later() -> None:
    offsets = GroupOffsets()
    offsets.stage(9, {A: at(2), B: at(2)})
    offsets.commit({A: at(5)})
    offsets.resolve(9, commits=True)
    assert offsets.all() == {A: at(5), B: at(2)}


def test_what_is_deleted_is_gone_even_if_its_transaction_commits() -> None:
    offsets = GroupOffsets()
    offsets.commit({A: at(1), OTHER: at(1)})
    offsets.stage(9, {A: at(2), B: at(2)})
    offsets.delete(A)
    assert offsets.all() == {OTHER: at(1)}
    offsets.delete_topic("orders")
    offsets.resolve(9, commits=True)
    assert offsets.all() == {OTHER: at(1)}
