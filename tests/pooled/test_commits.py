"""A commit waits for replicas, and nobody waits for another's commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kafka.errors import UnknownMemberIdError
from kafka.structs import OffsetAndMetadata, TopicPartition

from pooledkafka import ConnectionPool, Consumer
from pooledkafka._wire import commits
from pooledkafka._wire.consumer_facade import ConsumerManager
from pooledkafka.errors import PoolClosedError
from pooledkafka.testing import Delay, EmbeddedKafka, Fault, Hold
from tests.pooled.reading import Reader
from tests.pooled.waiting import until
from tests.pooled.watching import POOL
from tests.pooled.writing import Writer

LIVELY: dict[str, Any] = {"session_timeout_ms": 30_000, "heartbeat_interval_ms": 50, "enable_auto_commit": False}
ORDERS = TopicPartition("orders", 0)


@pytest.fixture(autouse=True)
def _topic(cluster: EmbeddedKafka) -> None:
    cluster.create_topic("orders", assignment=[[2]])
    for group in ("slow", "quick"):
        cluster.move_coordinator(group, 1)


def of_group(cluster: EmbeddedKafka, api: str, group: str, action: Any) -> Fault:
    """Do something with one group's requests; those of others are only seen."""
    return cluster.intercept(api, lambda request: action if request.group_id == group else Delay(0.0), client_id=POOL)


def offsets(commits: Fault, group: str) -> list[int]:
    """What a group has committed, in the order in which the broker heard of it."""
    mine = [request for request in commits.requests if request.group_id == group]
    return [request.topics[0].partitions[0].committed_offset for request in mine]


def assigned(consumer: Callable[..., Consumer], group: str) -> Consumer:
    made = consumer("orders", group_id=group, **LIVELY)
    until(lambda: made.poll(timeout_ms=50) or made.assignment())
    return made


def at(offset: int) -> dict[TopicPartition, OffsetAndMetadata]:
    return {ORDERS: OffsetAndMetadata(offset, "", -1)}


def test_others_commit_beside_one_that_waits_for_replicas(
    cluster: EmbeddedKafka, consumer: Callable[..., Consumer], writer: Writer
) -> None:
    writer.write("orders", 10)
    slow, quick = assigned(consumer, "slow"), assigned(consumer, "quick")
    with of_group(cluster, "OffsetCommit", "slow", Hold()) as hold:
        waiting = slow.commit_async(at(5))
        hold.wait_for(1)
        quick.commit(at(7), timeout_ms=10_000)
        quick.commit(at(8), timeout_ms=10_000)
        assert not waiting.is_done
        hold.release()
    until(lambda: waiting.is_done)
    assert waiting.succeeded()
    assert (slow.committed(ORDERS), quick.committed(ORDERS)) == (5, 8)


def every_commit_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the moment in which it is sent, so that no heartbeat comes before it counts as slow."""
    monkeypatch.setattr(commits.Commits, "are_slow", lambda self, node_id: self._lines[node_id].under_way is not None)


def test_heartbeats_go_on_beside_a_commit_that_waits(
    cluster: EmbeddedKafka,
    consumer: Callable[..., Consumer],
    reader: Callable[..., Reader],
    writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = writer.write("orders", 10)
    slow = assigned(consumer, "slow")
    quick = reader("orders", group_id="quick", **LIVELY)
    quick.gets(written)
    every_commit_is_slow(monkeypatch)
    with of_group(cluster, "OffsetCommit", "slow", Hold()) as hold:
        waiting = slow.commit_async(at(5))
        hold.wait_for(1)
        beats = cluster.intercept(
            "Heartbeat", lambda request: Delay(0.0) if request.group_id == "quick" else None, client_id=POOL
        )
        beats.wait_for(3)
        hold.release()
    until(lambda: waiting.is_done)


def test_heartbeats_share_one_connection_beside_a_slow_commit(
    cluster: EmbeddedKafka,
    consumer: Callable[..., Consumer],
    reader: Callable[..., Reader],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups = [f"quick-{number}" for number in range(8)]
    for group in groups:
        cluster.move_coordinator(group, 1)
    slow = assigned(consumer, "slow")
    for group in groups:
        reader("orders", group_id=group, **LIVELY).is_assigned(1)
    every_commit_is_slow(monkeypatch)
    with of_group(cluster, "OffsetCommit", "slow", Hold()) as hold:
        waiting = slow.commit_async(at(0))
        hold.wait_for(1)
        with cluster.intercept("Heartbeat", Delay(0.03), client_id=POOL) as beats:
            until(lambda: {request.group_id for request in beats.requests} >= set(groups))
        hold.release()
    until(lambda: waiting.is_done)
    carried = [each for each in cluster.connections if any(sent.api == "Heartbeat" for sent in each.exchanges)]
    assert len(carried) == 2, "the control lane, and one beside it"


@pytest.mark.parametrize("how", ["close", "unsubscribe"])
def test_a_heartbeat_that_its_members_leaving_overtakes_is_no_news(
    cluster: EmbeddedKafka,
    consumer: Callable[..., Consumer],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    slow, quick = assigned(consumer, "slow"), assigned(consumer, "quick")
    every_commit_is_slow(monkeypatch)
    with of_group(cluster, "OffsetCommit", "slow", Hold()) as hold:
        waiting = slow.commit_async(at(5))
        hold.wait_for(1)
        beats = of_group(cluster, "Heartbeat", "quick", Hold())
        # On another connection, since the commit holds up the control lane.
        until(lambda: any(request.group_id == "quick" for request in beats.requests))
        hold.release()
    until(lambda: waiting.is_done)
    with of_group(cluster, "LeaveGroup", "quick", Delay(0.0)) as leaving:
        getattr(quick, how)()
    assert len(leaving.requests) == 1
    slow.close()  # one heartbeat of its own may be waiting behind the one that is held
    answers: list[tuple[str, int]] = []
    note = ConsumerManager._note_heartbeat

    def noting(self: Any, request: Any, response: Any) -> None:
        answers.append((request.group_id, response.error_code))
        note(self, request, response)

    monkeypatch.setattr(ConsumerManager, "_note_heartbeat", noting)
    caplog.set_level("DEBUG", "kafka.coordinator.heartbeat")
    beats.remove()
    until(lambda: "Heartbeat " in caplog.text.partition("heartbeat response for group quick")[2])
    assert [code for group, code in answers if group == "quick"] == [UnknownMemberIdError.errno]
    assert "Heartbeat success" in caplog.text.partition("heartbeat response for group quick")[2]
    assert "not recognized" not in caplog.text


def test_the_commits_of_one_consumer_stay_in_order(
    cluster: EmbeddedKafka, consumer: Callable[..., Consumer], writer: Writer, pool: ConnectionPool
) -> None:
    writer.write("orders", 10)
    slow, quick = assigned(consumer, "slow"), assigned(consumer, "quick")
    with of_group(cluster, "OffsetCommit", "slow", Hold()) as hold:
        held = slow.commit_async(at(1))
        hold.wait_for(1)
        quickly = [quick.commit_async(at(offset)) for offset in range(1, 9)]
        until(lambda: all(each.is_done for each in quickly))
        assert offsets(hold, "quick") == list(range(1, 9))
        later = [slow.commit_async(at(offset)) for offset in (2, 3)]
        assert offsets(hold, "slow") == [1], "the next one waits for the answer to this one"
        hold.release()
    until(lambda: all(each.is_done for each in (held, *later)))
    assert (slow.committed(ORDERS), quick.committed(ORDERS)) == (3, 8)


def test_what_waits_fails_when_the_pool_is_disconnected(
    cluster: EmbeddedKafka, consumer: Callable[..., Consumer], pool: ConnectionPool, writer: Writer
) -> None:
    writer.write("orders", 10)
    slow = assigned(consumer, "slow")
    with of_group(cluster, "OffsetCommit", "slow", Hold()) as hold:
        waiting = [slow.commit_async(at(offset)) for offset in range(1, 5)]
        hold.wait_for(1)
        pool.disconnect(timeout_ms=1_000)
    assert all(each.is_done and each.exception is not None for each in waiting)


def test_what_a_closed_consumer_had_not_sent_yet_is_not_sent_after_its_successors(
    cluster: EmbeddedKafka, consumer: Callable[..., Consumer]
) -> None:
    one, other = (consumer(group_id="slow", enable_auto_commit=False) for _ in range(2))
    for each in (one, other):
        each.assign([ORDERS])
        each.committed(ORDERS)  # the coordinator is known from now on
    with of_group(cluster, "OffsetCommit", "slow", Hold()) as hold:
        first = one.commit_async(at(2))
        second = one.commit_async(at(3))
        hold.wait_for(1)
        one.close(timeout_ms=300)
        until(lambda: second.is_done)
        assert isinstance(second.exception, PoolClosedError)
        hold.release()
        until(lambda: first.is_done)
    other.commit(at(50), timeout_ms=10_000)
    assert other.committed(ORDERS) == 50
    assert offsets(hold, "slow") == [2]


def test_closing_waits_for_what_was_committed(cluster: EmbeddedKafka, consumer: Callable[..., Consumer]) -> None:
    closing = consumer(group_id="slow", enable_auto_commit=False)
    closing.assign([ORDERS])
    closing.committed(ORDERS)
    with of_group(cluster, "OffsetCommit", "slow", Delay(0.2)):
        futures = [closing.commit_async(at(offset)) for offset in (2, 3, 4)]
        closing.close()
    until(lambda: all(future.is_done for future in futures))
    assert [future.succeeded() for future in futures] == [True] * 3


def test_a_new_member_learns_where_its_group_is_beside_a_commit_that_waits(
    cluster: EmbeddedKafka, consumer: Callable[..., Consumer], writer: Writer
) -> None:
    writer.write("orders", 10)
    quick = assigned(consumer, "quick")
    quick.commit(at(7))
    slow = assigned(consumer, "slow")
    with of_group(cluster, "OffsetCommit", "slow", Hold()) as hold:
        waiting = slow.commit_async(at(5))
        hold.wait_for(1)
        until(lambda: quick._opened()._engine.commits.are_slow(1))
        assert quick.committed(ORDERS) == 7
        assert not waiting.is_done
        hold.release()


def polled(consumer: Consumer) -> bool:
    consumer.poll(timeout_ms=20)
    return True


def test_what_is_committed_is_not_committed_again_and_again(
    cluster: EmbeddedKafka, consumer: Callable[..., Consumer], writer: Writer
) -> None:
    writer.write("orders", 3)
    seen = cluster.intercept("OffsetCommit", client_id=POOL)
    member = consumer("orders", group_id="quick", auto_commit_interval_ms=20)
    until(lambda: polled(member) and 3 in offsets(seen, "quick"))
    commits_before = len(seen.requests)
    for _ in range(50):
        member.poll(timeout_ms=20)
    assert len(seen.requests) <= commits_before + 1, "one may have been on its way"
    writer.write("orders", 1)
    until(lambda: polled(member) and 4 in offsets(seen, "quick"))


def test_a_group_without_members_commits_again_lest_its_offsets_expire(
    cluster: EmbeddedKafka, consumer: Callable[..., Consumer], writer: Writer
) -> None:
    writer.write("orders", 3)
    seen = cluster.intercept("OffsetCommit", client_id=POOL)
    alone = consumer(group_id="quick", auto_commit_interval_ms=20)
    alone.assign([ORDERS])
    until(lambda: polled(alone) and offsets(seen, "quick").count(3) > 3)
