"""What a look finds is what kafka-python's fetcher would ask for, whatever has happened since the look before."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings
from kafka import KafkaConsumer
from kafka.consumer.fetcher import Fetcher
from kafka.structs import OffsetAndMetadata, TopicPartition

from pooledkafka._fetch import Position
from pooledkafka._wire.places import Places
from tests._wire.test_contract import Stage
from tests.scripted_broker import metadata_answer

PARTITIONS = [TopicPartition(topic, index) for topic in ("orders", "bills") for index in range(3)]
BROKERS = {1: ("127.0.0.1", 1), 2: ("127.0.0.1", 2)}


class Consumer:
    """kafka-python's, of all partitions, with what may happen to it."""

    def __init__(self, *, assigned: list[TopicPartition] = PARTITIONS) -> None:
        stage = Stage()
        self.cluster = stage.cluster
        self.delays: dict[int, float] = {}
        stage.manager.__dict__["connection_delay"] = lambda node_id: self.delays.get(node_id, 0.0)
        stage.client.__dict__["throttle_delay"] = lambda _: 0.0
        self.kafka = KafkaConsumer(
            kafka_client=lambda **_: stage.client, group_id=None, enable_incremental_fetch_sessions=False
        )
        self.fetcher = self.kafka._fetcher
        self.subscription = self.kafka._subscription
        self.refresh({})
        self.subscription.assign_from_user(assigned)
        self.places = Places(self.kafka, self.cluster)

    def refresh(self, leaders: dict[TopicPartition, tuple[int, int]]) -> None:
        """New metadata, with these leaders and epochs; broker 1 and epoch 0 where nothing is said."""
        answer = metadata_answer({"orders": 3, "bills": 3}, brokers=BROKERS)
        for topic in answer.topics:
            for each in topic.partitions:
                place = leaders.get(TopicPartition(topic.name, each.partition_index), (1, 0))
                each.leader_id, each.leader_epoch = place
                each.replica_nodes = each.isr_nodes = [1, 2]
        self.cluster.update_metadata(answer)

    def state(self, partition: TopicPartition) -> Any:
        return self.subscription.assignment[partition]

    def as_fetcher_finds_it(self) -> dict[int, dict[TopicPartition, Position]]:
        return {
            node_id: {
                TopicPartition(topic.topic, each.partition): Position(
                    each.fetch_offset, each.current_leader_epoch, each.last_fetched_epoch, each.partition_max_bytes
                )
                for topic in request.topics
                for each in topic.partitions
            }
            for node_id, (request, _) in Fetcher._create_fetch_requests(self.fetcher).items()
        }


def happenings() -> st.SearchStrategy[tuple[str, Any, Any]]:
    partition = st.sampled_from(PARTITIONS)
    place = st.tuples(st.sampled_from([1, 2, -1]), st.integers(0, 2))
    return st.one_of(
        st.tuples(st.just("seek"), partition, st.tuples(st.integers(0, 3), st.integers(-1, 2))),
        st.tuples(st.just("read"), partition, st.tuples(st.integers(0, 3), st.integers(-1, 2))),
        st.tuples(st.just("pause"), partition, st.booleans()),
        st.tuples(st.just("reset"), partition, st.none()),
        st.tuples(st.just("validated"), partition, st.none()),
        st.tuples(st.just("revoke"), partition, st.booleans()),
        st.tuples(st.just("buffer"), partition, st.sampled_from(["", "completed", "paused", "parsed", "reading"])),
        st.tuples(st.just("prefer"), partition, st.sampled_from([-1, 1, 2, 3])),
        st.tuples(st.just("refresh"), st.none(), st.dictionaries(partition, place, max_size=4)),
        st.tuples(st.just("lead"), partition, place),
        st.tuples(st.just("pending"), st.none(), st.sets(st.sampled_from([1, 2]))),
        st.tuples(st.just("delay"), st.sampled_from([1, 2]), st.sampled_from([0.0, 1.0])),
        st.tuples(st.just("assign"), st.none(), st.sets(partition, min_size=1)),
    )


def let_happen(consumer: Consumer, what: str, where: Any, how: Any) -> None:
    fetcher, subscription = consumer.fetcher, consumer.subscription
    if isinstance(where, TopicPartition) and where not in subscription.assignment:
        return
    if what == "seek":
        subscription.seek(where, OffsetAndMetadata(how[0], "", how[1]))
    elif what == "read" and consumer.state(where)._position is not None:
        consumer.state(where).position = OffsetAndMetadata(how[0], "", how[1])
    elif what == "pause":
        (subscription.pause if how else subscription.resume)(where)
    elif what == "reset":
        subscription.request_offset_reset(where)
    elif what == "validated" and consumer.state(where)._awaiting_validation:
        subscription.complete_validation(where)
    elif what == "revoke":
        consumer.state(where).mark_pending_revocation(how)
    elif what == "buffer":
        fetcher._completed_fetches.clear()
        fetcher._paused_completed_fetches.clear()
        fetcher._paused_partition_records.clear()
        fetcher._next_partition_records = None
        held = SimpleNamespace(topic_partition=where)
        if how == "completed":
            fetcher._completed_fetches.append(held)
        elif how == "paused":
            fetcher._paused_completed_fetches[where] = held
        elif how == "parsed":
            fetcher._paused_partition_records[where] = held
        elif how == "reading":
            fetcher._next_partition_records = held
    elif what == "prefer":
        consumer.state(where).update_preferred_read_replica(how, time.monotonic() + 60)
    elif what == "refresh":
        consumer.refresh(how)
    elif what == "lead":
        consumer.cluster.update_partition_leader(where, *how)
    elif what == "pending":
        fetcher._nodes_with_pending_fetch_requests = how
    elif what == "delay":
        consumer.delays[where] = how
    elif what == "assign":
        subscription.assign_from_user(sorted(how))


@settings(max_examples=300, deadline=None)
@example([("revoke", PARTITIONS[-1], True), ("seek", PARTITIONS[-1], (0, 0)), ("lead", PARTITIONS[-1], (1, 1))])
@given(st.lists(happenings(), max_size=40))
def test_it_asks_for_what_the_fetcher_would(happened: list[tuple[str, Any, Any]]) -> None:
    consumer = Consumer()
    for partition in PARTITIONS:
        consumer.subscription.seek(partition, 0)
    for each in happened:
        let_happen(consumer, *each)
        requests = consumer.places.requests()
        awaiting = consumer.subscription.partitions_needing_validation()
        Fetcher.maybe_validate_positions(consumer.fetcher)
        assert consumer.subscription.partitions_needing_validation() == awaiting, "a look marks them all"
        found = consumer.as_fetcher_finds_it()
        assert {node_id: fetch.partitions for node_id, (fetch, _) in requests.items()} == found
        states = consumer.subscription.assignment.values()
        assert consumer.places.unsettled == any(
            not state.has_valid_position or state.awaiting_validation or state._pending_revocation for state in states
        )


def test_it_asks_as_the_consumer_is_configured() -> None:
    consumer = Consumer(assigned=PARTITIONS[:1])
    consumer.subscription.seek(PARTITIONS[0], 7)
    fetcher = consumer.fetcher
    fetcher.config.update(
        client_rack="b", fetch_max_wait_ms=1, fetch_min_bytes=2, fetch_max_bytes=3, max_partition_fetch_bytes=4
    )
    fetch, offsets = consumer.places.requests()[1]
    (request, as_found) = Fetcher._create_fetch_requests(fetcher)[1]
    for name in ("rack_id", "max_wait_ms", "min_bytes", "max_bytes", "isolation_level"):
        assert getattr(fetch, name) == getattr(request, name), name
    assert fetch.partitions[PARTITIONS[0]].partition_max_bytes == 4
    assert {partition: offsets[partition] for partition in as_found} == as_found


def test_what_has_not_changed_is_the_same_object_and_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = Consumer()
    for partition in PARTITIONS:
        consumer.subscription.seek(partition, 0)
    before = consumer.places.look()[1]
    looked: list[TopicPartition] = []
    find = consumer.places._find

    def noted(partition: TopicPartition, position: Any) -> Any:
        looked.append(partition)
        return find(partition, position)

    monkeypatch.setattr(consumer.places, "_find", noted)
    consumer.subscription.seek(PARTITIONS[2], 5)
    after = consumer.places.look()[1]
    assert looked == [PARTITIONS[2]]
    assert [tp for tp in PARTITIONS if after[tp] is not before[tp]] == [PARTITIONS[2]]
    consumer.refresh({})
    again = consumer.places.look()[1]
    assert all(again[tp] is after[tp] for tp in PARTITIONS), "the metadata said the same"


def test_without_a_leader_it_asks_for_metadata() -> None:
    consumer = Consumer(assigned=PARTITIONS[:1])
    consumer.subscription.seek(PARTITIONS[0], 0)
    consumer.refresh({PARTITIONS[0]: (-1, 1)})
    asked: list[bool] = []
    consumer.cluster.request_update = lambda: asked.append(True)
    assert consumer.places.requests() == {}
    assert asked == [True]


def test_a_partition_that_goes_while_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = Consumer(assigned=PARTITIONS[:1])
    consumer.subscription.seek(PARTITIONS[0], 0)

    gone = dict(consumer.subscription.assignment)

    def go(*_: Any) -> None:
        consumer.subscription.assignment.clear()

    monkeypatch.setattr(consumer.subscription, "maybe_validate_position_for_current_leader", go)
    with pytest.raises(KeyError):
        consumer.places.look()
    consumer.subscription.assignment.update(gone)
    consumer.places.validate()


def test_places_of_partitions_that_are_gone_are_forgotten() -> None:
    consumer = Consumer()
    partitions = [TopicPartition("orders", index) for index in range(3)]
    consumer.places._known = {TopicPartition("gone", index): None for index in range(200)}  # type: ignore[misc]
    consumer.subscription.assign_from_user(partitions)
    for partition in partitions:
        consumer.subscription.seek(partition, 0)
    consumer.places.look()
    assert set(consumer.places._known) == set(partitions)
