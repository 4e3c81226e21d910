"""The state machine of a transactional id."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from kafka.errors import (
    BrokerResponseError,
    ConcurrentTransactionsError,
    InvalidProducerIdMappingError,
    InvalidTxnStateError,
    ProducerFencedError,
    TransactionAbortableError,
)

from pooledkafka.testing._embedded.group import group_of
from pooledkafka.testing._embedded.group_offsets import Committed
from pooledkafka.testing._embedded.partition import Partition
from pooledkafka.testing._embedded.settings import Settings
from pooledkafka.testing._embedded.state import State
from pooledkafka.testing._embedded.transaction import Phase, Transaction
from tests.testing._embedded.records import of_producer

MINUTE_MS = 60_000
KEYS = (("a", 0), ("a", 1))
KEY = KEYS[0]


class Stage:
    """Three brokers, a topic of two partitions, and a transactional id that has a producer."""

    def __init__(self) -> None:
        settings = Settings(default_replication_factor=3, min_insync_replicas=2)
        self.state = State(dict.fromkeys((1, 2, 3), settings))
        self.state.create_topic("a", assignment=[[1, 2, 3], [2, 3, 1]])
        self.transaction = Transaction(self.state, "id")
        self.producer = self.transaction.initialise(MINUTE_MS)

    def partition(self, key: tuple[str, int] = KEY) -> Partition:
        return self.state.partition(*key)

    def write(self, key: tuple[str, int], sequence: int) -> None:
        self.transaction.check_writes(*self.producer, key)
        self.partition(key).append(of_producer(self.producer, sequence, transactional=True))

    def markers(self, key: tuple[str, int] = KEY) -> list[tuple[int, bool]]:
        """Epoch of each marker, and whether it commits."""
        log = self.partition(key).log
        return [(batch.producer_epoch, batch.commits) for batch in log.batches(0, log.end_offset) if batch.is_control]

    async def until(self, *phases: Phase) -> None:
        while self.transaction.phase not in phases:
            await asyncio.sleep(0.001)


def staged(test: Callable[[Stage], Awaitable[None]]) -> Callable[[], None]:
    """Run a test on a loop, with a stage of its own."""

    async def run() -> None:
        await test(Stage())

    def test_on_a_loop() -> None:
        asyncio.run(run())

    test_on_a_loop.__name__ = test.__name__
    return test_on_a_loop


def error_of(function: Callable[..., object], *arguments: object) -> type[BaseException]:
    with pytest.raises(BrokerResponseError) as raised:
        function(*arguments)
    return raised.type


# -- producers ---------------------------------------------------------------------------------------------------------


@staged
async def test_each_producer_fences_the_one_before(stage: Stage) -> None:
    producer_id, epoch = stage.producer
    assert epoch == 0
    assert stage.transaction.initialise(MINUTE_MS) == (producer_id, 1)
    assert stage.transaction.initialise(MINUTE_MS) == (producer_id, 2)
    assert error_of(stage.transaction.add, producer_id, 1, KEYS) is ProducerFencedError
    assert error_of(stage.transaction.end, producer_id, 1, True) is ProducerFencedError
    assert error_of(stage.transaction.add, producer_id + 1, 2, KEYS) is InvalidProducerIdMappingError
    assert stage.transaction.phase is Phase.EMPTY
    stage.transaction.add(producer_id, 2, KEYS)


@staged
async def test_a_new_producer_aborts_what_goes_on_in_an_epoch_of_its_own(stage: Stage) -> None:
    stage.transaction.add(*stage.producer, KEYS)
    stage.write(KEY, 0)
    assert error_of(stage.transaction.initialise, MINUTE_MS) is ConcurrentTransactionsError
    assert error_of(stage.transaction.end, *stage.producer, True) is ProducerFencedError
    await stage.until(Phase.COMPLETE_ABORT)
    assert stage.markers() == [(1, False)]
    assert stage.transaction.initialise(MINUTE_MS) == (stage.producer[0], 2)


@staged
async def test_a_producer_may_go_on_with_a_new_epoch_and_ask_twice(stage: Stage) -> None:
    producer_id, _ = stage.producer
    for _ in range(2):
        assert stage.transaction.initialise(MINUTE_MS, (producer_id, 0)) == (producer_id, 1)
    assert stage.transaction.initialise(MINUTE_MS, (producer_id, 1)) == (producer_id, 2)
    assert error_of(stage.transaction.initialise, MINUTE_MS, (producer_id, 0)) is ProducerFencedError
    assert error_of(stage.transaction.initialise, MINUTE_MS, (producer_id + 1, 2)) is ProducerFencedError


@staged
async def test_a_producer_cannot_go_on_when_another_has_come(stage: Stage) -> None:
    stage.transaction.initialise(MINUTE_MS)
    assert error_of(stage.transaction.initialise, MINUTE_MS, stage.producer) is ProducerFencedError


@staged
async def test_a_producer_that_goes_on_amid_a_transaction_has_it_aborted(stage: Stage) -> None:
    producer_id, _ = stage.producer
    stage.transaction.add(*stage.producer, KEYS)
    assert error_of(stage.transaction.initialise, MINUTE_MS, stage.producer) is ConcurrentTransactionsError
    await stage.until(Phase.COMPLETE_ABORT)
    assert stage.transaction.initialise(MINUTE_MS, stage.producer) == (producer_id, 1)
    stage.transaction.add(producer_id, 1, KEYS)
    assert error_of(stage.transaction.initialise, MINUTE_MS) is ConcurrentTransactionsError
    stage.transaction.initialise(MINUTE_MS)
    assert error_of(stage.transaction.initialise, MINUTE_MS, (producer_id, 1)) is ProducerFencedError


@staged
async def test_an_unknown_transactional_id_takes_any_producer(stage: Stage) -> None:
    transaction = Transaction(stage.state, "new")
    assert transaction.initialise(MINUTE_MS, (12_345, 7)) == (transaction.producer_id, 0)


@staged
async def test_a_producer_id_whose_epochs_are_used_up_is_replaced(stage: Stage) -> None:
    producer_id, _ = stage.producer
    last = (producer_id, 2**15 - 2)
    while stage.transaction.producer_epoch < last[1]:
        stage.transaction.initialise(MINUTE_MS)
    replaced = stage.transaction.initialise(MINUTE_MS, last)
    assert replaced == (stage.transaction.producer_id, 0) != (producer_id, 0)
    assert stage.transaction.initialise(MINUTE_MS, last) == replaced  # the answer may have been lost
    assert error_of(stage.transaction.initialise, MINUTE_MS, (producer_id, 3)) is ProducerFencedError


# -- commit and abort --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("commits", [True, False])
def test_an_end_writes_a_marker_to_every_partition(commits: bool) -> None:
    ended = Phase.COMPLETE_COMMIT if commits else Phase.COMPLETE_ABORT

    @staged
    async def ends(stage: Stage) -> None:
        stage.transaction.add(*stage.producer, [KEYS[0]])
        stage.transaction.add(*stage.producer, [KEYS[1]])
        stage.write(KEYS[0], 0)
        stage.write(KEYS[1], 0)
        stage.write(KEYS[0], 1)
        assert [stage.partition(key).last_stable_offset for key in KEYS] == [0, 0]
        stage.transaction.end(*stage.producer, commits)
        await stage.until(ended)
        for key, count in zip(KEYS, (2, 1), strict=True):
            assert stage.markers(key) == [(0, commits)]
            assert stage.partition(key).last_stable_offset == count + 1
            assert len(stage.partition(key).log.aborted(0, count + 1)) == (not commits)
        assert stage.transaction.partitions == set()

    ends()


@staged
async def test_an_end_may_be_repeated_but_not_changed(stage: Stage) -> None:
    assert error_of(stage.transaction.end, *stage.producer, True) is InvalidTxnStateError
    stage.transaction.add(*stage.producer, KEYS)
    stage.transaction.end(*stage.producer, True)
    await stage.until(Phase.COMPLETE_COMMIT)
    stage.transaction.end(*stage.producer, True)
    assert error_of(stage.transaction.end, *stage.producer, False) is InvalidTxnStateError
    stage.transaction.add(*stage.producer, KEYS)
    stage.transaction.end(*stage.producer, False)
    await stage.until(Phase.COMPLETE_ABORT)
    stage.transaction.end(*stage.producer, False)
    assert error_of(stage.transaction.end, *stage.producer, True) is InvalidTxnStateError
    assert stage.markers() == [(0, True), (0, False)]


@staged
async def test_offsets_count_when_the_transaction_commits(stage: Stage) -> None:
    offsets = group_of(stage.state, "group").offsets
    for number, commits in enumerate((False, True)):
        stage.transaction.add(*stage.producer, group_id="group")
        stage.transaction.check_commits(*stage.producer, "group")
        assert error_of(stage.transaction.check_commits, *stage.producer, "other") is TransactionAbortableError
        offsets.stage(stage.producer[0], {KEY: Committed(number, -1, "")})
        stage.transaction.end(*stage.producer, commits)
        await stage.until(Phase.COMPLETE_COMMIT if commits else Phase.COMPLETE_ABORT)
        assert error_of(stage.transaction.check_commits, *stage.producer, "group") is TransactionAbortableError
        assert offsets.committed(KEY) == (Committed(1, -1, "") if commits else None)


@staged
async def test_only_what_belongs_to_a_transaction_may_be_written_to(stage: Stage) -> None:
    check, producer_id = stage.transaction.check_writes, stage.producer[0]
    assert error_of(check, producer_id, 0, KEY) is TransactionAbortableError
    stage.transaction.add(*stage.producer, [KEY])
    check(producer_id, 0, KEY)
    assert error_of(check, producer_id, 0, KEYS[1]) is TransactionAbortableError
    assert error_of(check, producer_id, 1, KEY) is ProducerFencedError
    assert error_of(check, producer_id + 1, 0, KEY) is InvalidProducerIdMappingError
    stage.transaction.end(producer_id, 0, True)
    assert error_of(check, producer_id, 0, KEY) is TransactionAbortableError


@staged
async def test_a_transaction_that_takes_too_long_is_aborted_and_its_producer_fenced(stage: Stage) -> None:
    producer = stage.transaction.initialise(20)
    stage.transaction.add(*producer, KEYS)
    await stage.until(Phase.COMPLETE_ABORT)
    assert stage.markers() == [(2, False)]
    assert error_of(stage.transaction.add, *producer, KEYS) is ProducerFencedError
    assert error_of(stage.transaction.end, *producer, True) is ProducerFencedError
    assert stage.transaction.initialise(MINUTE_MS) == (producer[0], 3)


@staged
async def test_the_time_of_a_transaction_ends_with_it(stage: Stage) -> None:
    producer = stage.transaction.initialise(30)
    stage.transaction.add(*producer, KEYS)
    stage.transaction.end(*producer, True)
    ended = asyncio.Event()
    stage.state.later(0.06, ended.set)
    await ended.wait()
    assert stage.transaction.phase is Phase.COMPLETE_COMMIT
    assert stage.transaction.producer_epoch == producer[1]


# -- ends that take their time -----------------------------------------------------------------------------------------


async def ending(stage: Stage) -> None:
    """Commit, and see that nothing else can be done with the transactional id meanwhile."""
    stage.transaction.add(*stage.producer, KEYS)
    stage.transaction.end(*stage.producer, True)
    assert stage.transaction.phase is Phase.PREPARE_COMMIT
    for function, arguments in (
        (stage.transaction.initialise, (MINUTE_MS,)),
        (stage.transaction.add, (*stage.producer, KEYS)),
        (stage.transaction.check_writes, (*stage.producer, KEY)),
        (stage.transaction.check_commits, (*stage.producer, "group")),
        (stage.transaction.end, (*stage.producer, True)),
    ):
        assert error_of(function, *arguments) is ConcurrentTransactionsError
    assert error_of(stage.transaction.end, *stage.producer, False) is InvalidTxnStateError


@staged
async def test_an_end_waits_for_the_followers(stage: Stage) -> None:
    stage.state.follower_delays_s[3] = None
    stage.partition().append(of_producer((-1, -1), -1))
    await ending(stage)
    assert stage.markers() == [(0, True)]
    stage.state.follower_delays_s[3] = 0
    for key in KEYS:
        stage.partition(key).catch_up()
    await stage.until(Phase.COMPLETE_COMMIT)
    assert stage.markers() == [(0, True)]


@staged
async def test_an_end_waits_for_a_leader_but_not_for_others(stage: Stage) -> None:
    stage.partition().lead(-1)
    await ending(stage)
    assert (stage.markers(), stage.markers(KEYS[1])) == ([], [(0, True)])
    stage.partition().lead(2)
    await stage.until(Phase.COMPLETE_COMMIT)
    assert stage.markers() == [(0, True)]


@staged
async def test_an_end_waits_for_enough_replicas(stage: Stage) -> None:
    for node_id in (1, 2):
        stage.state.set_available(node_id, False)
    await ending(stage)
    assert stage.markers() == []
    stage.state.set_available(2, True)
    await stage.until(Phase.COMPLETE_COMMIT)
    assert stage.markers() == [(0, True)]


@staged
async def test_a_marker_that_a_new_leader_does_not_have_is_written_again(stage: Stage) -> None:
    stage.state.follower_delays_s.update({2: None, 3: None})
    await ending(stage)
    stage.state.follower_delays_s.clear()
    stage.partition().lead(2)
    stage.partition(KEYS[1]).catch_up()
    await stage.until(Phase.COMPLETE_COMMIT)
    assert stage.markers() == [(0, True)]
    assert [batch.leader_epoch for batch in stage.partition().log.batches(0, 1)] == [1]


@staged
async def test_an_end_does_not_wait_for_a_topic_that_is_deleted(stage: Stage) -> None:
    stage.partition().lead(-1)
    await ending(stage)
    stage.state.delete_topic("a")
    await stage.until(Phase.COMPLETE_COMMIT)
