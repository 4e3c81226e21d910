"""Transactions: what committed readers see, markers in the log, who may write."""

from __future__ import annotations

import pytest
from kafka.errors import (
    IllegalGenerationError,
    InvalidProducerEpochError,
    InvalidProducerIdMappingError,
    InvalidTransactionTimeoutError,
    InvalidTxnStateError,
    NotCoordinatorError,
    NotEnoughReplicasError,
    OperationNotAttemptedError,
    ProducerFencedError,
    TransactionAbortableError,
    UnknownTopicOrPartitionError,
    UnstableOffsetCommitError,
)
from kafka.protocol.producer import EndTxnRequest, InitProducerIdRequest

from contract.lab import Lab, until
from contract.membership import Member
from contract.records import batches, offsets, values
from contract.requests import Key, committed, fetch, list_offsets, of_partitions
from contract.transactor import Transactor


@pytest.fixture
def producer(lab: Lab) -> Transactor:
    return Transactor(lab, lab.name("txn-"))


@pytest.fixture
def key(lab: Lab) -> Key:
    return lab.topic(), 0


def ended(lab: Lab, key: Key, high_watermark: int) -> None:
    """Wait until the marker of a transaction is in the log, which the coordinator writes after it has answered."""
    until(lambda: lab.read(key[0], partition=key[1]).last_stable_offset, lambda offset: offset == high_watermark)


# -- reading -----------------------------------------------------------------------------------------------------------


def test_committed_readers_do_not_pass_an_open_transaction(lab: Lab, producer: Transactor, key: Key) -> None:
    topic = key[0]
    lab.write(topic, b"before")
    assert (producer.add(key), producer.write(key, b"a", b"b")) == (0, 0)
    lab.write(topic, b"after")
    part = lab.read(topic, read_committed=True)
    assert (values(part), part.last_stable_offset, part.high_watermark) == ([b"before"], 1, 4)
    assert part.aborted_transactions == []
    dirty = lab.read(topic)
    assert (values(dirty), dirty.last_stable_offset) == ([b"before", b"a", b"b", b"after"], 1)
    assert dirty.aborted_transactions is None
    assert (producer.end(commit=True)) == 0
    ended(lab, key, 5)
    part = lab.read(topic, read_committed=True)
    assert values(part) == [b"before", b"a", b"b", b"after"]
    assert offsets(part) == [0, 1, 2, 3, 4]
    assert [each.is_control_batch for each in batches(part)] == [False, False, False, True]
    assert part.aborted_transactions == []


@pytest.mark.parametrize("commit", [True, False])
def test_a_parked_committed_reader_wakes_when_a_transaction_ends(
    lab: Lab, producer: Transactor, key: Key, commit: bool
) -> None:
    wire = lab.parked_at(*key)
    parked = wire.send(fetch({key: 0}, read_committed=True, max_wait_ms=60_000), 11)
    assert (producer.add(key), producer.write(key, b"a")) == (0, 0)
    assert wire.is_silent()
    assert producer.end(commit) == 0
    part = of_partitions(wire.answer(parked))[key]
    assert values(part) == [b"a"]
    assert len(part.aborted_transactions) == (0 if commit else 1)


def test_the_aborted_are_named(lab: Lab, producer: Transactor, key: Key) -> None:
    topic = key[0]
    for content, commit, end in [(b"a", False, 2), (b"b", True, 4), (b"c", False, 6)]:
        assert (producer.add(key), producer.write(key, content)) == (0, 0)
        assert producer.end(commit) == 0
        ended(lab, key, end)
    part = lab.read(topic, read_committed=True)
    assert values(part) == [b"a", b"b", b"c"]  # it is for the client to leave out what was aborted
    named = [(each.producer_id, each.first_offset) for each in part.aborted_transactions]
    assert named == [(producer.id, 0), (producer.id, 4)]
    assert [each.producer_id for each in batches(part)] == [producer.id] * 6
    later = lab.read(topic, 2, read_committed=True)
    assert [each.first_offset for each in later.aborted_transactions] == [4]
    assert lab.read(topic).aborted_transactions is None


def test_the_first_open_transaction_holds_the_others_back(lab: Lab, key: Key) -> None:
    one, two = Transactor(lab, lab.name("txn-")), Transactor(lab, lab.name("txn-"))
    assert (one.add(key), one.write(key, b"one")) == (0, 0)
    assert (two.add(key), two.write(key, b"two")) == (0, 0)
    assert two.end(commit=True) == 0
    until(lambda: lab.read(key[0]).high_watermark, lambda offset: offset == 3)
    part = lab.read(key[0], read_committed=True)
    assert (values(part), part.last_stable_offset) == ([], 0)
    assert one.end(commit=False) == 0
    ended(lab, key, 4)
    part = lab.read(key[0], read_committed=True)
    assert [(each.producer_id, each.first_offset) for each in part.aborted_transactions] == [(one.id, 0)]


def test_the_latest_offset_is_the_last_stable_one_for_committed_readers(
    lab: Lab, producer: Transactor, key: Key
) -> None:
    lab.write(key[0], b"before")
    assert (producer.add(key), producer.write(key, b"a")) == (0, 0)

    def latest(read_committed: bool) -> int:
        request = list_offsets({key: -1}, read_committed=read_committed)
        return int(of_partitions(lab.at_leader(*key).ask(request, 5))[key].offset)

    assert (latest(True), latest(False)) == (1, 2)
    assert producer.end(commit=True) == 0
    until(lambda: latest(True), lambda offset: offset == 3)


def test_a_transaction_spans_partitions_and_others_are_not_touched(lab: Lab, producer: Transactor) -> None:
    topic = lab.topic(partitions=3)
    keys = [(topic, index) for index in range(3)]
    assert producer.add(*keys) == 0
    assert producer.write(keys[0], b"a") == producer.write(keys[1], b"b") == 0
    assert producer.end(commit=True) == 0
    for key, end in zip(keys, (2, 2, 1), strict=True):
        ended(lab, key, end)
    # A partition that was added and not written to has got its marker all the same.
    assert [each.is_control_batch for each in batches(lab.read(topic, partition=2))] == [True]


# -- who may write -----------------------------------------------------------------------------------------------------


def test_the_next_owner_aborts_and_fences_the_last(lab: Lab, producer: Transactor, key: Key) -> None:
    assert (producer.add(key), producer.write(key, b"old")) == (0, 0)
    heir = Transactor(lab, producer.transactional_id)
    assert heir.id == producer.id
    assert heir.epoch > producer.epoch
    ended(lab, key, 2)
    part = lab.read(key[0], read_committed=True)
    assert [(each.producer_id, each.first_offset) for each in part.aborted_transactions] == [(producer.id, 0)]
    assert producer.write(key, b"more") == InvalidProducerEpochError.errno
    assert producer.add(key) == ProducerFencedError.errno
    assert producer.add(key, version=1) == InvalidProducerEpochError.errno
    assert producer.end(commit=True) == ProducerFencedError.errno
    assert producer.add_offsets("any") == ProducerFencedError.errno
    assert (heir.add(key), heir.write(key, b"new"), heir.end(commit=True)) == (0, 0, 0)
    ended(lab, key, 4)


@pytest.mark.parametrize(("version", "error"), [(9, InvalidTxnStateError), (11, TransactionAbortableError)])
def test_what_was_not_added_cannot_be_written(
    lab: Lab, producer: Transactor, key: Key, version: int, error: type
) -> None:
    assert producer.write(key, b"a", version=version) == error.errno  # type: ignore[attr-defined]
    assert producer.add((lab.topic(), 0)) == 0
    assert producer.write(key, b"a", version=version) == error.errno  # type: ignore[attr-defined]
    assert producer.end(commit=False) == 0


def test_what_was_added_for_the_last_transaction_cannot_be_written_in_the_next(
    lab: Lab, producer: Transactor, key: Key
) -> None:
    assert (producer.add(key), producer.write(key, b"a"), producer.end(commit=True)) == (0, 0, 0)
    ended(lab, key, 2)
    # While the coordinator still ends the last one, an old client is told something that it tries again.
    assert until(lambda: producer.write(key, b"b"), lambda code: code != NotEnoughReplicasError.errno) == (
        InvalidTxnStateError.errno
    )


def test_many_transactions_one_after_the_other(lab: Lab, producer: Transactor, key: Key) -> None:
    """The next one must wait for the markers of the last: CONCURRENT_TRANSACTIONS, which the client tries again."""
    for index in range(5):
        assert (producer.add(key), producer.write(key, b"%d" % index), producer.end(commit=True)) == (0, 0, 0)
    ended(lab, key, 10)
    assert values(lab.read(key[0], read_committed=True)) == [b"0", b"1", b"2", b"3", b"4"]


def test_ending_twice_is_no_error_but_both_ways_is(producer: Transactor, key: Key) -> None:
    assert producer.end(commit=True) == InvalidTxnStateError.errno
    assert producer.end(commit=False) == InvalidTxnStateError.errno
    assert (producer.add(key), producer.write(key, b"a")) == (0, 0)
    assert producer.end(commit=True) == 0
    assert producer.end(commit=True) == 0
    assert producer.end(commit=False) == InvalidTxnStateError.errno


def test_an_id_that_is_not_its_own_is_refused(producer: Transactor, key: Key) -> None:
    producer.id += 1_000_000
    assert producer.add(key) == InvalidProducerIdMappingError.errno
    assert producer.end(commit=True) == InvalidProducerIdMappingError.errno


def test_an_unknown_partition_spoils_the_others(lab: Lab, producer: Transactor, key: Key) -> None:
    unknown = (lab.name("unknown"), 0)
    assert producer.add_each(key, unknown) == {
        key: OperationNotAttemptedError.errno,
        unknown: UnknownTopicOrPartitionError.errno,
    }
    assert producer.add(unknown) == UnknownTopicOrPartitionError.errno
    assert producer.write(key, b"a") == InvalidTxnStateError.errno


def test_other_brokers_are_not_the_coordinator(lab: Lab, producer: Transactor, key: Key) -> None:
    coordinator = producer.node_id
    producer.node_id = lab.other_than(coordinator)
    assert producer.add(key) == NotCoordinatorError.errno
    assert producer.end(commit=True) == NotCoordinatorError.errno
    assert producer.add_offsets("any") == NotCoordinatorError.errno


@pytest.mark.parametrize("timeout_ms", [900_001, 0, -1])
def test_a_timeout_out_of_bounds_is_refused(lab: Lab, producer: Transactor, timeout_ms: int) -> None:
    request = InitProducerIdRequest(
        transactional_id=producer.transactional_id,
        transaction_timeout_ms=timeout_ms,
        producer_id=-1,
        producer_epoch=-1,
    )
    response = lab.broker(producer.node_id).ask(request, 4)
    assert response.error_code == InvalidTransactionTimeoutError.errno


def test_a_producer_may_raise_its_own_epoch(lab: Lab, producer: Transactor) -> None:
    """KIP-360: after an error that it cannot know the outcome of."""

    def init(epoch: int) -> tuple[int, int]:
        request = InitProducerIdRequest(
            transactional_id=producer.transactional_id,
            transaction_timeout_ms=60_000,
            producer_id=producer.id,
            producer_epoch=epoch,
        )
        response = lab.broker(producer.node_id).ask(request, 4)
        return response.error_code, response.producer_epoch

    assert init(producer.epoch) == (0, producer.epoch + 1)
    assert init(producer.epoch) == (0, producer.epoch + 1)  # the answer was lost
    assert init(producer.epoch + 1) == (0, producer.epoch + 2)
    assert init(producer.epoch)[0] == ProducerFencedError.errno


# -- offsets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("commit", [True, False])
def test_offsets_are_committed_with_the_transaction(lab: Lab, producer: Transactor, key: Key, commit: bool) -> None:
    group, node_id = lab.group()

    def found(stable: bool) -> tuple[int, int]:
        (topic,) = lab.broker(node_id).ask(committed(group, [key], stable=stable), 7).topics
        return topic.partitions[0].error_code, topic.partitions[0].committed_offset

    assert producer.add_offsets(group) == 0
    assert producer.commit_offset(group, key, 5) == 0
    assert found(stable=False) == (0, -1)
    assert found(stable=True) == (UnstableOffsetCommitError.errno, -1)
    assert producer.end(commit) == 0
    until(lambda: found(stable=True), lambda answer: answer == (0, 5 if commit else -1))


def test_offsets_of_a_group_with_members_are_for_its_members(lab: Lab, producer: Transactor, key: Key) -> None:
    group, node_id = lab.group()
    member = Member(lab, group, node_id)
    member.join()
    member.lead()
    assert producer.add_offsets(group) == 0
    assert producer.commit_offset(group, key, 5, member.generation + 1, member.id) == IllegalGenerationError.errno
    assert producer.commit_offset(group, key, 5, member.generation, member.id) == 0
    assert producer.end(commit=True) == 0


# -- time --------------------------------------------------------------------------------------------------------------


def test_a_transaction_that_takes_too_long_is_aborted(lab: Lab, key: Key) -> None:
    producer = Transactor(lab, lab.name("txn-"), timeout_ms=500)
    assert (producer.add(key), producer.write(key, b"a")) == (0, 0)
    ended(lab, key, 2)  # which a broker looks for every 10 s
    assert len(lab.read(key[0], read_committed=True).aborted_transactions) == 1
    assert producer.write(key, b"b") == InvalidProducerEpochError.errno
    assert producer.add(key) == ProducerFencedError.errno


# -- as of KIP-890 -----------------------------------------------------------------------------------------------------


def test_ending_a_transaction_raises_the_epoch_as_of_version_5(lab: Lab, producer: Transactor, key: Key) -> None:
    assert producer.add(key) == 0
    assert producer.write(key, b"a") == 0
    if not lab.offers(EndTxnRequest, 5):
        pytest.skip("this cluster does not offer EndTxn 5")
    request = EndTxnRequest(
        transactional_id=producer.transactional_id,
        producer_id=producer.id,
        producer_epoch=producer.epoch,
        committed=True,
    )
    response = lab.broker(producer.node_id).ask(request, 5)
    assert (response.error_code, response.producer_id) == (0, producer.id)
    assert response.producer_epoch == producer.epoch + 1
    ended(lab, key, 2)
    assert producer.write(key, b"b") == InvalidProducerEpochError.errno
