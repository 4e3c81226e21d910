"""What pooledkafka._wire relies on in kafka-python and no documentation promises: one test for each thing.

When a new release of kafka-python fails one of these, its message says where the change matters.
"""

from __future__ import annotations

import inspect
import io
import math
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import kafka
import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.cluster import ClusterMetadata
from kafka.consumer import fetcher as fetcher_module
from kafka.consumer.fetcher import Fetcher
from kafka.consumer.subscription_state import OffsetResetStrategy, SubscriptionState, TopicPartitionState
from kafka.coordinator.base import BaseCoordinator
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.coordinator.heartbeat import Heartbeat
from kafka.errors import (
    InvalidReceiveError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    RetriableError,
)
from kafka.future import Future
from kafka.net.compat import KafkaNetClient
from kafka.net.connection import KafkaConnection, SaslReauthenticator
from kafka.net.inet import KafkaNetSocket, create_connection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector, Task
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.producer import producer_batch
from kafka.producer.future import FutureProduceResult, FutureRecordMetadata
from kafka.producer.producer_batch import ProducerBatch
from kafka.producer.record_accumulator import RecordAccumulator
from kafka.producer.sender import Sender
from kafka.producer.transaction_manager import TransactionManager, TransactionState, TxnRequestHandler
from kafka.protocol.consumer import HeartbeatRequest
from kafka.protocol.frame import KafkaBytes
from kafka.protocol.metadata import MetadataResponse
from kafka.protocol.parser import KafkaProtocol
from kafka.record import MemoryRecords
from kafka.structs import OffsetAndMetadata, TopicPartition
from kafka.util import Timer

from pooledkafka._wire.compat import check_kafka_python
from pooledkafka._wire.futures import fail_in_child
from pooledkafka.errors import PoolClosedError
from tests.scripted_broker import VERSION, ScriptedBroker, metadata_answer


def source(thing: Any) -> str:
    """The code of ``thing`` without its layout, so that only what it does is compared."""
    return " ".join(inspect.getsource(thing).split())


def says(thing: Any, *needed: str, where: str) -> None:
    for text in needed:
        assert text in source(thing), (
            f"{thing.__qualname__} of kafka-python {kafka.__version__} has no `{text}` any more. Used by {where}."
        )


def accepts(call: Callable[..., Any], *names: str, where: str) -> None:
    missing = set(names) - set(inspect.signature(call).parameters)
    assert not missing, f"{call.__qualname__} of kafka-python {kafka.__version__} lacks {missing}. Used by {where}."


def has(thing: Any, *names: str, where: str) -> None:
    missing = [name for name in names if not hasattr(thing, name)]
    assert not missing, f"{thing!r} of kafka-python {kafka.__version__} lacks {missing}. Used by {where}."


# -- the version -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["3.0.12", "3.0.13", "3.0.99"])
def test_releases_that_these_tests_cover_are_accepted(version: str) -> None:
    check_kafka_python(version)


@pytest.mark.parametrize("version", ["2.3.1", "3.0.11", "3.0", "3.1.0", "3.1.0.dev", "4.0.0"])
def test_other_releases_are_refused_with_what_to_do(version: str) -> None:
    with pytest.raises(ImportError, match=rf"{version} is installed.*pip install 'kafka-python>=3\.0\.12,<3\.1'"):
        check_kafka_python(version)


def test_the_installed_release_is_one_of_them() -> None:
    check_kafka_python()


# -- the clients take a client of ours ---------------------------------------------------------------------------------


class Refused(Exception):
    """Ends a client's construction where it asks for its client."""


@pytest.mark.parametrize("client", [KafkaConsumer, KafkaProducer])
def test_a_client_calls_kafka_client_with_its_whole_configuration(client: Any) -> None:
    asked: list[dict[str, Any]] = []

    def facade(**config: Any) -> Any:
        asked.append(config)
        raise Refused

    with pytest.raises(Refused):
        client(kafka_client=facade, request_timeout_ms=41_000, max_in_flight_requests_per_connection=3, client_id="me")
    (config,) = asked
    for name, value in (("request_timeout_ms", 41_000), ("max_in_flight_requests_per_connection", 3)):
        assert config[name] == value, (
            f"{client.__name__} no longer passes {name} on; see wired_consumer.py and wired_producer.py"
        )
    assert config["receive_message_max_bytes"] > 0, "wired_consumer.py raises the pool's limit to this"


class Recorder:
    """Stands in for what a client gets, and keeps the names of what the client takes from it."""

    def __init__(self, **known: Any) -> None:
        self.__dict__.update(known)
        self.taken: set[str] = set()

    def __getattribute__(self, name: str) -> Any:
        if name not in ("taken", "__dict__", "__class__"):
            self.taken.add(name)
        return super().__getattribute__(name)


class Stage:
    """Just enough of a client, manager and event loop to construct kafka-python's clients on."""

    def __init__(self) -> None:
        self.net = Recorder(start=lambda: None, call_soon_threadsafe=lambda *_: None)
        self.cluster = ClusterMetadata(bootstrap_servers="127.0.0.1:9092")
        version = type("Data", (), {"broker_version": VERSION, "api_version": lambda *_, **__: 0})()
        self.manager = Recorder(
            _net=self.net,
            cluster=self.cluster,
            config=dict(KafkaConnectionManager.DEFAULT_CONFIG),
            broker_version_data=version,
            broker_version=VERSION,
        )
        self.client = Recorder(_manager=self.manager, cluster=self.cluster, close=lambda *_, **__: None)


def test_a_consumer_takes_nothing_from_its_client_that_the_facade_lacks() -> None:
    stage = Stage()
    consumer = KafkaConsumer(kafka_client=lambda **_: stage.client, group_id="g")
    assert stage.client.taken <= {"_manager", "cluster", "_lock", "close"}, "see consumer_facade.ConsumerFacade"
    assert stage.manager.taken <= {"_net", "cluster", "config", "broker_version_data", "broker_version"}, (
        "see views.ManagerView"
    )
    assert stage.net.taken == {"start"}, "see views.NetView"
    has(consumer, "_coordinator", "_fetcher", "_poll_once", where="wired_consumer.WiredConsumer")
    assert isinstance(consumer._coordinator, ConsumerCoordinator)


def test_a_producer_takes_nothing_from_its_client_that_the_facade_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sender, "start", lambda self: None)
    stage = Stage()
    producer = KafkaProducer(kafka_client=lambda **_: stage.client, metrics_enabled=False)
    producer._closed = True
    assert stage.client.taken <= {"_manager", "cluster"}, "see producer_facade.ProducerFacade"
    assert stage.manager.taken <= {"cluster", "broker_version_data", "broker_version"}, "see views.ManagerView"
    has(producer, "_sender", "_accumulator", where="wired_producer.WiredProducer")


def test_whatever_ends_a_producer_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sender, "start", lambda self: None)
    closed: list[str] = []

    class Watched(KafkaProducer):  # type: ignore[misc]
        def close(self, *_: Any, **__: Any) -> None:
            closed.append("closed")

    producer = Watched(kafka_client=lambda **_: Stage().client, metrics_enabled=False)
    producer._cleanup()
    assert closed == ["closed"], "at the end of a process; clients._MakersProducer"
    producer._unregister_cleanup()
    KafkaProducer.__del__(producer)
    assert closed == ["closed", "closed"], "and when it is collected"


def test_a_forked_process_can_fail_the_future_of_a_record() -> None:
    batch = FutureProduceResult(TopicPartition("orders", 0))
    future = FutureRecordMetadata(batch, 0, None, None, 1, 1, 0)
    has(future, "_lock", "_callbacks", "_errbacks", where="futures.fail_in_child")
    has(batch, "_latch", where="futures.fail_in_child")
    called: list[Any] = []
    future.add_both(called.append)
    with future._lock:
        fail_in_child(future, KafkaError("of the parent"))
    with pytest.raises(KafkaError, match="of the parent"):
        future.get()
    assert called == [], "its callbacks are the parent's"


def test_a_poll_is_made_of_passes() -> None:
    says(
        KafkaConsumer.poll,
        "self._poll_once(timer, max_records, update_offsets=update_offsets)",
        where="wired_consumer.WiredConsumer, which looks for an interrupt before each pass",
    )
    says(KafkaConsumer.__next__, "except StopIteration: self._iterator = None", where="consumer.Consumer.__next__")


def test_a_pass_that_has_records_returns_them_without_another_wait() -> None:
    says(
        Fetcher.fetch_records,
        "if records: return records, False",
        "self._net.run(self._manager.wait_for, wakeup, timeout_ms) except Errors.KafkaTimeoutError: pass",
        where="consumer_facade: an interrupt must not lose records",
    )


# -- what an idle poll looks at ----------------------------------------------------------------------------------------


def consumer_in_group() -> Any:
    stage = Stage()
    return KafkaConsumer(kafka_client=lambda **_: stage.client, group_id="g")


def test_a_pass_is_given_its_timer_first_and_does_what_an_idle_poll_looks_for() -> None:
    assert list(inspect.signature(KafkaConsumer._poll_once).parameters)[:2] == ["self", "timer"], (
        "wired_consumer.WiredConsumer._checked_pass"
    )
    says(
        KafkaConsumer._poll_once,
        "self._coordinator.poll(timeout_ms=timer.timeout_ms)",
        "self._refresh_committed_offsets(timeout_ms=timer.timeout_ms)",
        "self._fetcher.reset_offsets_if_needed()",
        "self._fetcher.maybe_validate_positions()",
        "self._fetcher.validate_offsets_if_needed()",
        "records, idle = self._fetcher.fetch_records( max_records, update_offsets=update_offsets, "
        "timeout_ms=poll_timeout_ms)",
        where="idling.Idling: whatever a pass does beyond these, an idle poll has to look for",
    )
    assert source(KafkaConsumer._poll_once).count("self._fetcher.") == 4, "idling.Idling: a pass does more than that"
    assert source(KafkaConsumer._poll_once).count("self._coordinator.") == 2, (
        "idling.Idling: a pass does more than that"
    )


def test_a_timer_says_how_much_is_left_and_whether_that_is_nothing() -> None:
    assert Timer(0).expired is True, "wired_consumer.WiredConsumer._checked_pass"
    assert Timer(0).timeout_ms == 0
    assert Timer(600_000).expired is False
    left = Timer(600_000).timeout_ms
    assert isinstance(left, int), "it is rounded down: see _checked_pass, which adds one"
    assert 0 < left < 600_000
    assert Timer(float("inf")).timeout_ms == float("inf"), "the iterator's"


def test_fetching_records_is_made_of_the_steps_that_take_its_place() -> None:
    where = "idling.Idling.fetch_records, which takes the place of this"
    assert list(inspect.signature(Fetcher.fetch_records).parameters) == [
        "self", "max_records", "update_offsets", "timeout_ms",
    ], where  # fmt: skip
    assert list(inspect.signature(Fetcher.fetched_records).parameters) == ["self", "max_records", "update_offsets"]
    assert list(inspect.signature(Fetcher.send_fetches).parameters) == ["self"]
    says(
        Fetcher.fetch_records,
        "records, partial = self.fetched_records( max_records, update_offsets=update_offsets)",
        "if not partial:",
        "self.send_fetches()",
        "return records, True",
        where=where,
    )


def test_a_fetcher_at_rest_holds_nothing() -> None:
    fetcher = consumer_in_group()._fetcher
    where = "idling.Idling._fetcher_is_quiet"
    has(
        fetcher, "_completed_fetches", "_next_partition_records", "_next_in_line_exception_metadata",
        "_cached_list_offsets_exception", "_cached_log_truncation", "_paused_completed_fetches",
        "_paused_partition_records", "_nodes_with_pending_fetch_requests",
        where=where,
    )  # fmt: skip
    assert len(fetcher._completed_fetches) == 0, where
    for name in ("_next_partition_records", "_next_in_line_exception_metadata", "_cached_list_offsets_exception"):
        assert getattr(fetcher, name) is None, f"{where}: {name}"
    assert fetcher._cached_log_truncation is None, where
    assert fetcher._paused_completed_fetches == fetcher._paused_partition_records == {}, f"{where}: by partition"
    assert fetcher._nodes_with_pending_fetch_requests == set(), "idling.Idling._make_room"


def test_what_a_fetcher_has_at_hand_is_where_an_idle_poll_looks_for_it() -> None:
    where = "idling.Idling._fetcher_is_quiet"
    says(
        Fetcher.fetched_records,
        "if self._next_in_line_exception_metadata is not None:",
        "for tp in list(self._paused_completed_fetches): if not self._subscriptions.is_paused(tp):",
        "if self._next_partition_records is None: for tp in list(self._paused_partition_records):",
        "completion = self._completed_fetches.popleft()",
        where=where,
    )
    says(Fetcher._handle_fetch_response, "self._completed_fetches.append(completed_fetch)", where=where)
    says(
        Fetcher.reset_offsets_if_needed,
        "exc, self._cached_list_offsets_exception = self._cached_list_offsets_exception, None",
        where=where,
    )
    says(
        Fetcher.validate_offsets_if_needed,
        "exc, self._cached_log_truncation = self._cached_log_truncation, None",
        where=where,
    )
    has(Fetcher.PartitionRecords, "__bool__", where=where + " and clients: records read to their end count as none")


def test_a_node_is_sent_one_fetch_at_a_time() -> None:
    where = "idling.Idling._make_room, which ends the one that is in the way"
    says(Fetcher._create_fetch_requests, "elif node_id in self._nodes_with_pending_fetch_requests:", where=where)
    says(
        Fetcher._send_fetches_async,
        "self._nodes_with_pending_fetch_requests.add(node_id)",
        "future.add_callback(self._handle_fetch_response, ",
        "future.add_both(self._clear_pending_fetch_request, node_id)",
        where="idling.Idling and consumer_facade._fetch: when a fetch is answered, its records are there at once",
    )
    says(Fetcher._clear_pending_fetch_request, "self._nodes_with_pending_fetch_requests.remove(node_id)", where=where)


def test_what_takes_the_place_of_the_fetchers_own_walk_is_what_it_calls() -> None:
    where = "places.Places, which tests/_wire/test_places.py holds to the fetcher's own"
    says(Fetcher._send_fetches_async, "in self._create_fetch_requests().items():", where=where)
    says(Fetcher._handle_fetch_response, "fetch_offset = fetch_offsets[tp]", where=where + ": Offsets")
    assert source(Fetcher).count("maybe_validate_positions(") == 1, where + ": only a pass calls it"
    state = TopicPartitionState()
    has(
        state,
        "paused",
        "_position",
        "_awaiting_validation",
        "_pending_revocation",
        "_preferred_read_replica",
        where=where,
    )


def test_an_idle_poll_can_have_positions_marked_for_validation() -> None:
    assert list(inspect.signature(Fetcher.maybe_validate_positions).parameters) == ["self"], "places.Places.validate"
    assert "_manager.run(" not in source(Fetcher.maybe_validate_positions), "an idle poll makes no round trip"
    assert "_net.run(" not in source(Fetcher.maybe_validate_positions), "an idle poll makes no round trip"


def test_a_partitions_state_says_why_it_cannot_be_fetched() -> None:
    where = "idling.Idling._fetcher_is_quiet"
    state = SubscriptionState("latest")
    partition = TopicPartition("orders", 0)
    state.assign_from_user([partition])
    one = state.assignment[partition]
    assert one.has_valid_position is False, where
    state.seek(partition, OffsetAndMetadata(5, "", 3))
    assert (one.has_valid_position, one.awaiting_validation, one._pending_revocation, one.paused) == (
        True, False, False, False,
    ), where  # fmt: skip
    state.pause(partition)
    assert one.paused is True, where
    state.resume(partition)
    state.mark_pending_revocation([partition])
    assert one._pending_revocation is True, where
    state.assign_from_user([])
    state.assign_from_user([partition])
    one = state.assignment[partition]
    state.seek(partition, OffsetAndMetadata(5, "", 3))
    state.maybe_validate_position_for_current_leader(partition, 4)
    assert one.awaiting_validation is True, where
    says(
        type(one).is_fetchable,
        "not self.paused and not self._pending_revocation and self.has_valid_position "
        "and not self._awaiting_validation",
        where=where + ": what else keeps it from being fetched has to be looked at too",
    )


def test_a_coordinator_is_asked_for_positions_that_are_lacking_alone() -> None:
    where = "wired_consumer._ask_only_what_is_unknown"
    says(
        KafkaConsumer._refresh_committed_offsets,
        "if not self._coordinator.refresh_committed_offsets_if_needed(timeout_ms=timeout_ms): return False",
        where=where,
    )
    says(
        ConsumerCoordinator.refresh_committed_offsets_if_needed_async,
        "missing_fetch_positions = set(self._subscription.missing_fetch_positions())",
        where=where,
    )
    says(ConsumerCoordinator.fetch_committed_offsets_async, "if not partitions: return {}", where=where)
    says(
        BaseCoordinator.join_group_async,
        "while self.need_rejoin(): if not await self.ensure_coordinator_ready_async(timeout_ms=timer.timeout_ms):",
        where=where,
    )
    says(BaseCoordinator.ensure_active_group_async, "await self.join_group_async(", where=where)


def test_a_coordinator_says_what_a_pass_would_do() -> None:
    where = "idling.Idling._group_is_quiet"
    coordinator = consumer_in_group()._coordinator
    assert len(coordinator.completed_offset_commits) == 0, where
    assert isinstance(coordinator.next_auto_commit_deadline, float), "idling.Idling.wait: on the monotonic clock"
    assert abs(coordinator.next_auto_commit_deadline - time.monotonic()) < 60, "idling.Idling.wait"
    assert coordinator.coordinator_unknown() is True, where
    coordinator._subscription.subscribe(topics=["orders"])
    assert coordinator.need_rejoin() is True, where
    says(
        ConsumerCoordinator.poll,
        "self._invoke_completed_offset_commit_callbacks()",
        "if not self.ensure_coordinator_ready(timeout_ms=timer.timeout_ms):",
        "if self._use_group_apis and self._subscription.partitions_auto_assigned(): if self.need_rejoin():",
        "self.poll_heartbeat() self._maybe_auto_commit_offsets_async() return True",
        where=where + ": whatever it does beyond these, an idle poll has to look for",
    )
    says(
        ConsumerCoordinator._invoke_completed_offset_commit_callbacks,
        "while self.completed_offset_commits:",
        where=where,
    )
    says(
        ConsumerCoordinator._maybe_auto_commit_offsets_async,
        "time.monotonic() > self.next_auto_commit_deadline: "
        "self.next_auto_commit_deadline = time.monotonic() + self.auto_commit_interval",
        where="idling.Idling.wait: a commit that was due is not due any more after the pass",
    )


def test_only_a_pass_asks_the_coordinator_when_a_heartbeat_is_due() -> None:
    where = "wired_consumer._wait_past_heartbeats"
    says(KafkaConsumer._poll_once, "self._coordinator.time_to_next_poll() * 1000)", where=where)
    says(BaseCoordinator._heartbeat_loop, "next_hb = self.heartbeat.time_to_next_heartbeat()", where=where)
    coordinator = consumer_in_group()._coordinator
    coordinator.time_to_next_heartbeat = lambda: math.inf
    assert 0 < coordinator.time_to_next_poll() <= coordinator.auto_commit_interval, where


def test_a_heartbeat_may_be_sent_earlier() -> None:
    where = "heartbeats.BeatInTurn"
    has(Heartbeat(), "heartbeat_failed", "config", where=where)
    says(Heartbeat.should_heartbeat, "return self.time_to_next_heartbeat() == 0", where=where)
    says(BaseCoordinator._heartbeat_loop, "next_hb = self.heartbeat.time_to_next_heartbeat()", where=where)
    says(BaseCoordinator.__init__, "self.heartbeat = Heartbeat(**self.config)", where="wired_consumer._spread")
    assert isinstance(consumer_in_group()._coordinator.heartbeat, Heartbeat), where


def test_an_idle_poll_can_say_that_its_consumer_is_alive() -> None:
    coordinator = consumer_in_group()._coordinator
    coordinator.heartbeat.last_poll = 0.0
    coordinator.poll_heartbeat()
    assert coordinator.heartbeat.last_poll > 0, "idling.Idling.wait: max_poll_interval_ms runs from here"
    coordinator._heartbeat_loop_future = Future().failure(KafkaTimeoutError())
    with pytest.raises(KafkaTimeoutError):  # idling.Idling.wait passes it on
        coordinator.poll_heartbeat()
    says(BaseCoordinator.poll_heartbeat, "self.heartbeat.poll()", where="idling.Idling.wait does that by itself")
    says(Heartbeat.poll, "self.last_poll = time.monotonic()", where="idling.Idling.wait")
    says(
        BaseCoordinator._maybe_start_heartbeat_loop,
        "self._heartbeat_loop_future = self._manager.call_soon(self._heartbeat_loop)",
        where="consumer_facade.call_soon: a loop that ends stirs the poll, which raises its error",
    )


def test_what_runs_by_itself_is_started_where_its_end_is_heard_of() -> None:
    where = "consumer_facade.ConsumerManager.call_soon, whose end stirs an idle poll"
    says(Fetcher.reset_offsets_if_needed, "self._reset_task = self._manager.call_soon(", where=where)
    says(Fetcher.validate_offsets_if_needed, "self._validation_task = self._manager.call_soon(", where=where)
    says(
        ConsumerCoordinator._do_commit_offsets_async,
        "future = self._manager.call_soon(self._send_offset_commit_request, offsets) "
        "future.add_both(lambda res: self.completed_offset_commits.appendleft(",
        where=where,
    )


def test_an_idle_poll_finds_its_configuration() -> None:
    config = consumer_in_group().config
    for name in ("enable_auto_commit", "group_id", "heartbeat_interval_ms", "max_poll_interval_ms", "retry_backoff_ms"):
        assert name in config, f"idling.Idling reads {name}"


# -- what the clients do with the manager ------------------------------------------------------------------------------

SENDS = [
    (Fetcher._send_fetches_async, "self._manager.send(request, node_id=node_id)"),
    (Fetcher._send_list_offsets_request, "await self._manager.send(request, node_id=node_id)"),
    (Fetcher.send_fetches, "self._manager.run(self._send_fetches_async)"),
    (BaseCoordinator._do_join_and_sync_async, "await self._manager.send( join_request, node_id=self.coordinator_id, "),
    (BaseCoordinator._do_join_and_sync_async, "await self._manager.send( sync_request, node_id=self.coordinator_id)"),
    (BaseCoordinator._send_group_coordinator_request, "self._manager.send(request, node_id=node_id)"),
    (ConsumerCoordinator._send_offset_commit_request, "await self._manager.send(request, node_id=node_id)"),
    (ConsumerCoordinator._send_offset_fetch_request, "await self._manager.send(request, node_id=node_id)"),
]


@pytest.mark.parametrize(("thing", "call"), SENDS, ids=[f"{thing.__name__}-{n}" for n, (thing, _) in enumerate(SENDS)])
def test_a_consumers_requests_go_through_its_manager(thing: Any, call: str) -> None:
    says(thing, call, where="consumer_facade.ConsumerManager.send, which chooses the lane")


def test_a_join_that_runs_out_of_time_stays_in_flight() -> None:
    says(
        BaseCoordinator.join_group_async,
        "await self._manager.wait_for( self._join_task, timer.timeout_ms)",
        "except Errors.KafkaTimeoutError:",
        "Errors.RebalanceInProgressError, ",
        "self._join_task = None continue",
        where="consumer_facade: an interrupt ends the wait only, and a stale SyncGroup answer means join again",
    )


def test_a_coordinator_has_a_generation_and_can_be_told_to_rejoin() -> None:
    stage = Stage()
    coordinator = KafkaConsumer(kafka_client=lambda **_: stage.client, group_id="g")._coordinator
    assert coordinator._generation.generation_id == -1, "consumer_facade: a new member is told by this"
    assert coordinator.group_id == "g"
    coordinator._subscription.subscribe(topics=["orders"])
    coordinator.rejoin_needed = False
    assert coordinator.stable() is False
    coordinator.request_rejoin()
    assert coordinator.rejoin_needed is True, "consumer_facade._join_again_unless and _tell_siblings"


def test_a_join_answer_has_the_members_subscriptions() -> None:
    says(
        BaseCoordinator._do_join_and_sync_async,
        "if join_response.leader == join_response.member_id",
        where="consumer_facade._join, which waits for the topics of all members where this one assigns",
    )


def test_a_consumers_metrics_can_be_made_later() -> None:
    stage = Stage()
    consumer = KafkaConsumer(kafka_client=lambda **_: stage.client, group_id="g", metrics_enabled=False)
    assert consumer._metrics is consumer._fetcher._sensors is None
    assert consumer._coordinator._sensors is consumer._coordinator._consumer_sensors is None
    where = "late_metrics.py"
    says(KafkaConsumer.metrics, "if not self._metrics:", "self._metrics.metrics.copy()", where=where)
    says(KafkaConsumer.close, "if self._metrics: self._metrics.close()", where=where)
    for made, line in [
        (Fetcher, "FetchManagerMetrics(self.config['metrics'], self.config['metric_group_prefix'])"),
        (BaseCoordinator, "GroupCoordinatorMetrics(self.heartbeat, self.config['metrics'], "),
        (ConsumerCoordinator, "self.config['metrics'], self.config['metric_group_prefix'], self._subscription)"),
    ]:
        says(made.__init__, line, where=where)
    # Who records names the sensor each time, and nobody looks at one in another way.
    recording = (fetcher_module, *map(inspect.getmodule, (BaseCoordinator, ConsumerCoordinator)))
    uses = re.findall(r"sensors\.(\w+)\b(?!\s*=)", " ".join(map(source, recording)))
    assert set(uses) == {
        "bytes_fetched", "commit_latency", "fetch_latency", "heartbeat_latency", "join_latency",
        "record_topic_fetch_metrics", "records_fetch_lag", "records_fetched", "sync_latency",
    }, where  # fmt: skip


# -- the event loop ----------------------------------------------------------------------------------------------------


@pytest.fixture
def net() -> Iterator[NetworkSelector]:
    net = NetworkSelector(client_id="contract")
    yield net
    net.close()


def test_the_loop_runs_on_a_thread_of_its_own(net: NetworkSelector) -> None:
    net.start()
    net.start()
    thread: Any = net.run(threading.current_thread)
    assert thread is net._io_thread, "engine.Engine.start"
    assert (thread.name, thread.daemon) == ("kafka-io-contract", True)


def test_run_returns_what_a_function_coroutine_or_future_comes_to(net: NetworkSelector) -> None:
    net.start()

    async def coroutine(value: str) -> str:
        return value

    async def failing() -> None:
        raise KafkaTimeoutError

    assert net.run(coroutine, "value") == "value"
    assert net.run(lambda: Future().success("value")) == "value", "a future that a step returns is awaited"
    with pytest.raises(KafkaTimeoutError):
        net.run(failing)


def test_run_on_the_io_thread_is_an_error_and_no_deadlock(net: NetworkSelector) -> None:
    net.start()
    with pytest.raises(RuntimeError, match="Cannot block on"):
        net.run(lambda: net.run(lambda: None))


def test_what_is_posted_runs_in_order(net: NetworkSelector) -> None:
    net.start()
    ran: list[int] = []
    for number in range(5):
        net.call_soon_threadsafe(lambda number=number: ran.append(number))
    net.run(lambda: None)
    assert ran == [0, 1, 2, 3, 4], "the order of a producer's batches rests on this"


def test_a_timer_can_be_cancelled_before_and_after(net: NetworkSelector) -> None:
    net.start()
    fired = threading.Event()
    never: list[str] = []

    def schedule() -> None:
        net.cancel(net.call_later(0.0, lambda: never.append("fired")))
        net.call_later(0.001, fired.set)

    net.run(schedule)
    assert fired.wait(5)
    assert never == []
    timer = net.run(lambda: [net.call_later(0.0, lambda: None)])[0]
    net.run(lambda: None)
    net.run(lambda: net.cancel(timer))


def test_a_closed_loop_says_so(net: NetworkSelector) -> None:
    net.start()
    assert (net._closed, net._stop) == (False, False)
    net.close()
    assert (net._closed, net._stop) == (True, True), "engine.Engine.call and stop look at these"
    for use in (net.call_soon_threadsafe, net.run):
        with pytest.raises(RuntimeError, match="closed"):
            use(lambda: None)
    net.close()


def test_stopping_the_loop_fails_those_who_wait_for_it(net: NetworkSelector) -> None:
    net.start()
    outcome: list[BaseException] = []
    waiting = threading.Event()

    class Never(Future):  # type: ignore[misc]
        def add_both(self, f: Any, *args: Any, **kwargs: Any) -> Any:
            waiting.set()
            return super().add_both(f, *args, **kwargs)

    def never() -> Future:
        return Never()

    def wait() -> None:
        try:
            net.run(never)
        except KafkaError as error:
            outcome.append(error)

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    assert waiting.wait(5)
    net.close()
    waiter.join(5)
    assert isinstance(outcome[0], KafkaConnectionError), "Engine.call ignores this once the pool has stopped"


def test_a_futures_callbacks_run_on_the_thread_that_completes_it() -> None:
    future, seen = Future(), []
    future.add_both(lambda value: seen.append((value, threading.get_ident())))
    completer = threading.Thread(target=lambda: future.success("value"), daemon=True)
    completer.start()
    completer.join(5)
    assert seen == [("value", completer.ident)], "mailbox.py exists to move them"
    chained = Future()
    Future().failure(KafkaTimeoutError()).chain(chained)
    assert chained.failed()


# -- connections and their manager -------------------------------------------------------------------------------------


class Lane:
    """A manager with one broker, driven by the test's thread."""

    def __init__(self, net: NetworkSelector, broker: ScriptedBroker) -> None:
        self.net = net
        self.manager = KafkaConnectionManager(net, bootstrap_servers=broker.address)
        self.manager.cluster.update_metadata(metadata_answer(brokers={1: ("127.0.0.1", broker.port)}))

    def connect(self) -> Any:
        connection = self.manager.get_connection(1)
        self.net.poll(timeout_ms=5_000, future=connection.init_future)
        assert connection.connected
        return connection


@pytest.fixture
def lane(net: NetworkSelector) -> Iterator[Lane]:
    with ScriptedBroker() as broker:
        broker.on(HeartbeatRequest, lambda request: None)
        lane = Lane(net, broker)
        yield lane
        net.poll(timeout_ms=0)
        lane.manager.close()
        net.drain()


def test_a_connection_has_what_the_lanes_look_at(lane: Lane) -> None:
    connection = lane.connect()
    has(connection, "init_future", "close_future", "in_flight_requests", "paused", "_reauth", where="manager.py")
    assert connection.init_future.succeeded()
    assert not connection.close_future.is_done
    assert not connection.paused
    assert connection._reauth.is_reauthenticating is False
    assert connection._throttle_time == 0, "producer_facade.connection_delay"
    assert lane.manager._conns == {1: connection}, "manager.connection: by the node's id"


def test_a_connection_asks_for_versions_first_and_once() -> None:
    where = "introductions.py"
    says(KafkaConnection.initialize, "await self._get_api_versions(timeout_at)", where=where)
    says(KafkaConnection._get_api_versions, "self.broker_version_data = bvd", where=where)
    says(KafkaConnection._send_request, "self.broker_version_data.api_version(request)", where=where)
    says(KafkaConnection.closed.fget, "return not self.connected and not self.initializing", where=where)
    assert "api_versions" not in source(SaslReauthenticator), where


def test_a_paused_connection_fails_sends_but_keeps_what_is_handed_to_it(lane: Lane) -> None:
    connection = lane.connect()
    connection.pause("throttle")
    request = HeartbeatRequest(group_id="g", generation_id=1, member_id="m")
    assert isinstance(connection.send_request(request).exception, NodeNotReadyError), "the reason for _send_now"
    future = Future()
    timeout_at = connection._timeout_at(timeout_ms=4_000)
    assert connection._send_request(request, future=future, timeout_at=timeout_at) is future
    assert not future.is_done
    assert [entry[1] for entry in connection.in_flight_requests] == [future]
    assert connection.parser.bytes_to_send, "kept, until it is unpaused"
    connection.unpause("throttle")
    assert not connection.parser.bytes_to_send


def test_closing_a_connection_fails_what_is_in_flight_and_forgets_it(lane: Lane) -> None:
    connection = lane.connect()
    future = connection.send_request(HeartbeatRequest(group_id="g", generation_id=1, member_id="m"))
    lane.net.poll(timeout_ms=0)
    connection.close()
    lane.net.poll(timeout_ms=0)
    assert future.failed()
    assert connection.close_future.is_done, "engine._ready counts by it"
    assert lane.manager._conns == {}, "a closed lane is opened anew at the next send"


def test_what_is_on_a_connection_can_be_taken_from_it_and_put_on_another(lane: Lane) -> None:
    connection = lane.manager.get_connection(1, refresh_metadata_on_err=False)
    lane.net.poll(timeout_ms=5_000, future=connection.init_future)
    request = HeartbeatRequest(group_id="g", generation_id=1, member_id="m")
    future = connection.send_request(request)
    where = "resending.py"
    ((correlation_id, sent, _, timeout_at, timer),) = connection.in_flight_requests
    assert sent is future, where
    assert timeout_at > time.monotonic(), where
    assert [header.correlation_id for header in connection.parser.in_flight_requests] == [correlation_id], where
    lane.net.cancel(timer)
    connection.in_flight_requests.clear()
    connection.close(KafkaConnectionError("lost"))
    assert not future.is_done, where
    other = lane.manager.get_connection(1)
    assert other is not connection
    assert other.initializing, where
    other._request_buffer.append((request, future, timeout_at))
    lane.net.poll(timeout_ms=5_000, future=other.init_future)
    assert [entry[1] for entry in other.in_flight_requests] == [future], where
    while other.transport._write_buffer:  # else closing the lane would wait for it
        lane.net.poll(timeout_ms=0)


def test_the_end_of_a_connection_and_of_a_requests_time_go_through_methods_that_are_looked_up() -> None:
    where = "resending.Resending.watch, which puts others in their place"
    says(KafkaConnection._send_request, "lambda: self._request_timed_out(future, sent_time, timeout_at)", where=where)
    says(KafkaConnection.close, "self.connection_lost(error)", where=where)
    says(KafkaTCPTransport._close, "proto.connection_lost(error)", where=where)
    says(KafkaTCPTransport._read_from_sock, "self._protocol.data_received(recvd_data)", where=where)
    says(KafkaTCPTransport._write_to_sock, "self._sock_send()", where="last_words.hear_last_words")
    says(KafkaConnection.data_received, "responses = self.parser.receive_bytes(data)", where=where)


def test_a_decoder_may_raise_what_ends_the_task_that_reads() -> None:
    says(KafkaTCPTransport._read_from_sock, "except Errors.KafkaProtocolError as e:", where="resending: received()")
    with pytest.raises(IndexError):
        MetadataResponse[12].decode(io.BytesIO(bytes(5)))
    with pytest.raises(InvalidReceiveError):
        KafkaProtocol(client_id="c").receive_bytes(b"\xff\xff\xff\xff")


def test_a_transactional_request_is_asked_again_after_one_kind_of_error_only() -> None:
    says(
        TxnRequestHandler.on_complete,
        "if isinstance(response_or_exc, Errors.KafkaConnectionError):",
        "self.fatal_error(Errors.KafkaError(",
        where="producer_facade._complete, which makes that error of all that mean no answer",
    )


def test_a_transactional_request_is_kept_where_its_coordinator_is_not_ready() -> None:
    says(
        Sender._maybe_send_pending_request,
        "elif not self._client.await_ready(target_node, timeout_ms=self.config['request_timeout_ms']): "
        "self._transaction_manager.lookup_coordinator_for_request(next_request_handler) target_node = None break",
        "if target_node is None: self._transaction_manager.retry(next_request_handler)",
        where="producer_facade.await_ready, which returns False",
    )


def test_a_reauthenticating_connection_says_so() -> None:
    reauth = SaslReauthenticator(None)
    reauth._reauthenticating = True
    assert reauth.is_reauthenticating is True, "manager._send_now leaves such a connection its own buffer"


def test_a_connection_logs_in_by_methods_that_can_be_replaced() -> None:
    says(KafkaConnection.initialize, "self._sasl_authenticate(timeout_at)", where="logins.prepare_login")
    says(KafkaConnection._sasl_authenticate, "self._send_request(", where="discretion.be_discreet")
    says(KafkaConnection._sasl_authenticate, "self._reauth.session_updated(", where="logins.Login")
    says(KafkaConnection._sasl_authenticate, "**self.config)", where="logins.Login.get_token")
    says(KafkaConnection._init_complete, "self._reauth.schedule()", where="logins.Login.schedule")
    says(KafkaConnection.data_received, "self._reauth.on_response_processed()", where="logins.Login")
    says(SaslReauthenticator._do_reauth, "self._conn._sasl_authenticate()", where="logins.Login._do_reauth")
    says(SaslReauthenticator._do_reauth, "self._drain_future = Future()", where="logins.Login.on_response_processed")
    says(SaslReauthenticator._run, "self._do_reauth()", where="logins.Login._do_reauth")


def test_what_is_sent_is_logged_by_these_two_alone() -> None:
    says(KafkaProtocol.send_bytes, "log.debug('%s Send: %r'", where="discretion.be_discreet")
    says(KafkaProtocol.receive_bytes, "log.debug('%s Recv: %r'", where="discretion.be_discreet")
    for module in ("kafka.net.connection", "kafka.protocol.parser"):
        assert sys.modules[module].log.name == module, "discretion.be_discreet"


def test_transports_are_made_of_these() -> None:
    says(
        create_connection,
        "KafkaNetSocket(proxy_url)", "socket_factory.dns_lookup(host, port)",
        "await socket_factory.connect(net, res, socket_options, timeout_at=timeout_at)",
        where="tls.build_transport",
    )  # fmt: skip
    says(KafkaNetSocket.connect, "self.socket(family, sock_type, proto)", where="tls.build_transport")
    assert set(KafkaSSLTransport.DEFAULT_CONFIG) <= set(KafkaConnectionManager.DEFAULT_CONFIG), "tls.build_transport"
    says(KafkaConnectionManager._connect, "self._build_transport(node, timeout_at=timeout_at)", where="manager")


def test_get_connection_takes_what_bootstrapping_gives_it() -> None:
    accepts(
        KafkaConnectionManager.get_connection,
        "node_id", "timeout_ms", "pop_on_close", "refresh_metadata_on_err", "reset_backoff_on_connect",
        where="manager.get_connection, which passes them on",
    )  # fmt: skip
    says(
        KafkaConnectionManager.get_connection, "self.cluster.broker_metadata(node_id)", where="cluster.broker_metadata"
    )
    says(KafkaConnectionManager._connect, "self.reset_backoff(node.node_id)", where="engine._failed")


def test_the_backoff_is_a_count_a_moment_and_a_timeout(lane: Lane) -> None:
    lane.manager.update_backoff(1)
    failures, until, setup_ms = lane.manager._backoff[1]
    assert failures == 1, "manager.update_backoff reads all three"
    assert lane.manager.connection_delay(1) > 0
    assert until > 0
    assert lane.manager.socket_connection_setup_timeout_ms(1) == setup_ms
    lane.manager.reset_backoff(1)
    assert 1 not in lane.manager._backoff


def test_bootstrapping_names_its_nodes_and_can_be_waited_for() -> None:
    nodes = ClusterMetadata(bootstrap_servers="a:1,b:2").bootstrap_brokers()
    assert {node.node_id for node in nodes} == {"bootstrap-0", "bootstrap-1"}, "manager.as_lane_key"
    accepts(KafkaConnectionManager.bootstrap_async, "timeout_ms", where="engine._bootstrap")
    says(
        KafkaConnectionManager._do_bootstrap,
        "self._conns.pop(bootstrap_broker.node_id, conn).close()",
        where="engine: a bootstrap connection does not stay",
    )


def test_the_shared_client_takes_a_loop_and_a_manager(lane: Lane) -> None:
    client = KafkaNetClient(net=lane.net, manager=lane.manager)
    assert client._net is lane.net
    assert client._manager is lane.manager
    assert client.cluster is lane.manager.cluster


def test_which_errors_trying_again_may_mend() -> None:
    assert issubclass(NodeNotReadyError, RetriableError), "manager.send_on answers with it during the backoff"
    assert issubclass(KafkaConnectionError, RetriableError), "producer_facade.send answers with it when closed"


def test_a_connection_is_told_its_limits() -> None:
    assert "max_in_flight_requests_per_connection" in KafkaConnection.DEFAULT_CONFIG, "manager._UNLIMITED"
    says(KafkaConnection._send_request, "if not self.paused: self.transport.write(", where="manager._send_now")


# -- metadata ----------------------------------------------------------------------------------------------------------


def test_the_metadata_has_the_state_that_shared_cluster_guards() -> None:
    cluster = ClusterMetadata(bootstrap_servers="127.0.0.1:9092")
    has(
        cluster, "_topics", "_need_update", "_future", "_lock", "_manager", "_wakeup", "_last_successful_refresh_ms",
        "need_all_topic_metadata", "unauthorized_topics",
        where="cluster.SharedCluster",
    )  # fmt: skip
    assert cluster._future is None
    assert cluster._need_update is True
    with cluster._lock:
        assert not cluster._lock.acquire(blocking=False), "cluster.py holds it for moments only: it is no RLock"


def test_a_refresh_builds_its_request_and_applies_the_answer_through_the_cluster() -> None:
    where = "cluster.SharedCluster, which sees a refresh begin and end by these"
    says(ClusterMetadata._do_refresh_metadata, "request = self.metadata_request()", where=where)
    says(ClusterMetadata._do_refresh_metadata, "self.failed_update(exc)", "self.update_metadata(response)", where=where)
    says(ClusterMetadata._refresh_loop, "ttl_ms = self.ttl()", "await self._wakeup(ttl_ms / 1000)", where=where)


def test_the_refresh_loop_is_started_once() -> None:
    class Manager:
        _net = type("Net", (), {"call_soon_threadsafe": lambda *_: None})()
        started = 0

        def call_soon(self, coro: Any) -> Future:
            self.started += 1
            return Future()

    manager, cluster = Manager(), ClusterMetadata(bootstrap_servers="127.0.0.1:9092")
    cluster.attach(manager)
    cluster.start_refresh_loop()
    cluster.start_refresh_loop()
    assert manager.started == 1, "cluster.request_update starts it at each call"
    cluster._wakeup.notify()


def test_an_answer_resolves_those_who_wait_and_clears_the_flag() -> None:
    cluster = ClusterMetadata(bootstrap_servers="127.0.0.1:9092")
    future = cluster.request_update()
    assert cluster._future is future
    cluster.update_metadata(metadata_answer({"orders": 1}))
    assert future.succeeded()
    assert cluster._future is None
    assert cluster._need_update is False
    assert cluster._last_successful_refresh_ms > 0
    failed = cluster.request_update()
    cluster.failed_update(KafkaTimeoutError())
    assert failed.failed()
    assert cluster._future is None


def test_a_coordinator_may_keep_its_brokers_own_id() -> None:
    accepts(ClusterMetadata.add_coordinator, "synthesize_node_id", where="cluster.ClusterView.add_coordinator")
    says(ClusterMetadata.broker_metadata, "self._coordinator_brokers.get(broker_id)", where="the same")


def test_a_coordinator_is_looked_for_by_a_request_for_one_group_and_known_by_an_answer_for_it() -> None:
    where = "coordinators.Coordinators"
    says(BaseCoordinator._send_group_coordinator_request, "key=self.group_id, key_type=0,", where=where)
    says(
        BaseCoordinator._handle_find_coordinator_response,
        "result = response.coordinators[0] if response.coordinators else response",
        where=where,
    )
    # Without this, those who share a connection would hold on to a coordinator of whose loss they did not hear.
    says(
        BaseCoordinator.coordinator,
        "self._client.is_disconnected(self.coordinator_id) and self._client.connection_delay(self.coordinator_id) > 0",
        where="reachability.Reachability.when_reachable",
    )


def test_a_member_that_is_fenced_is_told_by_its_commits_alone() -> None:
    where = "consumer_facade.ConsumerManager._note_fencing, which tells it at once"
    says(ConsumerCoordinator._invoke_completed_offset_commit_callbacks, "if self._async_commit_fenced:", where=where)


def test_a_join_that_is_done_is_made_again_unless_its_end_was_waited_for() -> None:
    says(
        BaseCoordinator.join_group_async,
        "if self._join_task is None or self._join_task.is_done:",
        "self._join_task = self._manager.call_soon(self._do_join_and_sync_async)",
        "self._join_task, timer.timeout_ms)",
        where="consumer_facade.ConsumerManager.call_soon and wait_for",
    )


# -- the producer ------------------------------------------------------------------------------------------------------


def test_the_sender_drives_its_client_as_the_facade_expects() -> None:
    where = "producer_facade.ProducerFacade"
    says(Sender.run_once, "self._client.poll(timeout_ms=poll_timeout_ms)", where=where)
    says(
        Sender._send_producer_data,
        "self._client.is_ready(node)",
        "self._client.connection_delay(node)",
        "self._client.maybe_connect(node, wakeup=False)",
        "self._client.send(node_id, request, wakeup=False)",
        where=where,
    )
    says(Sender.run, "self._client.in_flight_request_count() > 0", "self._client.close()", where=where)
    says(
        Sender._maybe_send_pending_request,
        "self._client.await_ready(target_node, timeout_ms=self.config['request_timeout_ms'])",
        "self._client.least_loaded_node()",
        "self._client.send(target_node, next_request_handler.request)",
        where=where,
    )
    says(Sender.wakeup, "self._client.wakeup()", where=where)


def test_the_sender_is_a_thread_that_can_be_told_to_give_up() -> None:
    assert issubclass(Sender, threading.Thread), "wired_producer.WiredProducer.close joins it"
    has(Sender, "force_close", "wakeup", where="wired_producer.WiredProducer")
    says(Sender.run, "self._accumulator.abort_incomplete_batches()", where="wired_producer.WiredProducer.close")
    says(
        RecordAccumulator.abort_incomplete_batches,
        "if not self._appends_in_progress.get():",
        where="wired_producer.WiredProducer.close, for what comes as the Sender ends",
    )
    says(Sender.initiate_close, "self._accumulator.close()", where="wired_producer.WiredProducer.closing")
    accumulator = RecordAccumulator(batch_size=1_000, compression_attrs=0, linger_ms=0)
    accumulator.close()
    assert accumulator._closed, "wired_producer.WiredProducer.closing"
    for refuses in (RecordAccumulator.append, KafkaProducer.send):
        says(refuses, "raise Errors.IllegalStateError(", where="Producer.send")


def test_transactional_calls_wait_for_results_that_we_can_end() -> None:
    where = "wired_producer.WiredProducer._enqueue_watched"
    manager = TransactionManager(transactional_id="t")
    queued: list[Any] = []
    manager._enqueue_request = queued.append
    result = manager.initialize_transactions()
    assert [handler.result for handler in queued] == [result], where
    with manager._lock:
        queued[0].fail(ValueError("ended"))
    with pytest.raises(ValueError, match="ended"):
        result.wait(timeout_ms=5_000)
    for call in (KafkaProducer.commit_transaction, KafkaProducer.send_offsets_to_transaction):
        says(call, "result.wait()", where=where)
    says(TxnRequestHandler.reenqueue, "self.transaction_manager._enqueue_request(self)", where=where)


def test_what_fails_a_batch_is_classified_by_the_transaction_manager_only_then() -> None:
    where = "wired_producer.WiredProducer._classify_failure"
    before, failing = source(Sender._dispatch_error).split("# FAIL: dispatch transaction state transition")
    assert "classify_batch_error" not in before, where
    assert "self._transaction_manager.classify_batch_error(" in failing, where
    says(
        Sender._dispatch_error,
        "elif classification == TransactionManager.ERROR_CLASS_ABORTABLE:",
        "self._transaction_manager.transition_to_abortable_error(exception)",
        where=where,
    )
    has(TransactionManager, "ERROR_CLASS_RETRIABLE", "is_transactional", where=where)
    state = TransactionManager(transactional_id="t")._current_state
    assert not state.is_transition_valid(state, TransactionState.ABORTABLE_ERROR), where


def test_a_producer_asks_for_a_topic_only_where_it_is_not_known() -> None:
    says(
        KafkaProducer.send,
        "if self._metadata.partitions_for_topic(topic) is None:",
        where="wired_producer.WiredProducer.want, which asks for it always",
    )


def test_the_metadata_can_be_given_a_lock_of_ours() -> None:
    cluster = ClusterMetadata()
    has(cluster, "_lock", where="cluster.SharedCluster")
    says(ClusterMetadata.failed_update, "with self._lock:", where="cluster.SharedCluster")
    says(KafkaConnectionManager.close, "self.cluster.close()", where="cluster.SharedCluster.close")
    says(
        KafkaProducer._wait_on_metadata,
        "elif future.failed() and not future.retriable():",
        where="cluster.SharedCluster.close",
    )


def test_the_accumulator_knows_what_is_not_acknowledged() -> None:
    accumulator = RecordAccumulator(batch_size=1_000, compression_attrs=0, linger_ms=0)
    assert list(accumulator._incomplete.all()) == [], "wired_producer.WiredProducer.flush walks these"
    assert not accumulator.flush_in_progress()
    accumulator.begin_flush()
    assert accumulator.flush_in_progress()
    accumulator._flushes_in_progress.decrement()
    assert not accumulator.flush_in_progress(), "wired_producer.WiredProducer.flush ends its flush by this"


def test_a_batch_says_how_many_records_it_has_and_when_it_is_done() -> None:
    accepts(ProducerBatch, "tp", "records", where="this test")
    has(ProducerBatch, "record_count", where="wired_producer.WiredProducer.undelivered")
    says(
        ProducerBatch.__init__, "self.produce_future = FutureProduceResult(", where="wired_producer.WiredProducer.flush"
    )
    says(KafkaProducer.close, "self._sender.join(timeout)", where="wired_producer.WiredProducer.close")


def test_a_batch_tells_what_became_of_it_by_one_result_when_nothing_is_added_any_more() -> None:
    where = "runs._Batch and runs._RecordFuture"
    args = "(batch_index, timestamp_ms, checksum, serialized_key_size, serialized_value_size, serialized_header_size)"
    says(
        FutureRecordMetadata.__init__,
        f"self.args = {args}",
        "produce_future._add_cb_eb(self._produce_success, self.failure)",
        where=where,
    )
    says(FutureRecordMetadata._produce_success, "if record_exceptions_fn is not None:", where=where)
    says(
        FutureRecordMetadata.rebind,
        "self._produce_future = new_produce_future",
        "old_produce_future._latch.set()",
        where=where,
    )
    for told in (ProducerBatch.abort, ProducerBatch.done):
        says(told, "self._complete_future(", where=where)
    says(
        ProducerBatch._complete_future,
        "self.produce_future.success((base_offset, timestamp_ms, record_exceptions_fn))",
        where=where,
    )
    assert "produce_future.failure" not in inspect.getsource(producer_batch), where
    for given_up in (RecordAccumulator.abort_batches, RecordAccumulator.abort_undrained_batches):
        text = source(given_up)
        assert text.index("batch.records.close()") < text.index("batch.abort(error)"), where
    says(RecordAccumulator.split_and_reenqueue, "original_future.rebind(current_batch.produce_future,", where=where)
    assert "batch.complete" not in source(RecordAccumulator.split_and_reenqueue), f"{where}: it is never done itself"


# -- ending without a close --------------------------------------------------------------------------------------------


def test_a_consumer_can_leave_its_group_on_the_io_thread() -> None:
    where = "ConsumerManager.leave"
    accepts(BaseCoordinator.maybe_leave_group_async, "timeout_ms", where=where)
    assert inspect.iscoroutinefunction(BaseCoordinator.maybe_leave_group_async), where
    says(BaseCoordinator.maybe_leave_group_async, "self._manager.wait_for(future, timeout_ms)", where=where)
    says(
        BaseCoordinator.close,
        "if self._use_group_apis: self._close_heartbeat() self.maybe_leave_group(timeout_ms=timeout_ms)",
        where=where,
    )


def test_a_producer_closes_itself_when_it_is_collected_and_when_the_interpreter_ends() -> None:
    where = "wired_producer.WiredProducer, which undoes both"
    says(KafkaProducer.__del__, "self.close(timeout=1, null_logger=True)", where=where)
    says(KafkaProducer.__init__, "atexit.register(self._cleanup)", where=where)
    says(KafkaProducer._unregister_cleanup, "atexit.unregister(self._cleanup)", where=where)


def test_whoever_waits_for_the_event_loop_is_told_when_it_ends() -> None:
    where = "Loop.run"
    says(NetworkSelector.stop, "self._fail_pending_waiters(", where=where)
    says(NetworkSelector.run_forever, "self._fail_pending_waiters(exc)", where=where)
    told: list[str] = []

    class Waiter:
        def set(self) -> None:
            told.append("told")

    net = NetworkSelector()
    outcome: dict[str, Any] = {"exception": None}
    with net._pending_waiters_lock:
        net._pending_waiters[Waiter()] = outcome
    net._fail_pending_waiters(KafkaError("ended"))
    assert (told, str(outcome["exception"])) == (["told"], "KafkaError: ended"), where
    net.close()


def test_a_send_that_waits_for_metadata_ends_with_the_refresh_that_failed() -> None:
    says(
        KafkaProducer._wait_on_metadata,
        "elif future.failed() and not future.retriable(): raise future.exception",
        where="SharedCluster.end",
    )
    assert not issubclass(PoolClosedError, RetriableError), "SharedCluster.end"


# -- handing records over one by one -----------------------------------------------------------------------------------


def test_a_poll_can_leave_the_position_where_it_is_and_reads_again_from_where_it_is_put() -> None:
    accepts(KafkaConsumer.poll, "timeout_ms", "max_records", "update_offsets", where="WiredConsumer.poll_unhandled")
    says(
        Fetcher._append,
        "if part.next_fetch_offset == position.offset:",
        where="WiredConsumer.handle: what was read ahead of the position is dropped and read again",
    )
    state = SubscriptionState("latest")
    partition = TopicPartition("orders", 0)
    state.assign_from_user([partition])
    state.seek(partition, 5)
    position = state.assignment[partition].position
    assert state.assignment[partition].position is position, "WiredConsumer.handle takes another object for a seek"
    state.assignment[partition].position = OffsetAndMetadata(6, "", 3)
    assert state.position(partition).offset == 6


def test_where_to_start_is_a_strategy_of_the_subscription() -> None:
    for name, strategy in (("earliest", OffsetResetStrategy.EARLIEST), ("latest", OffsetResetStrategy.LATEST)):
        assert SubscriptionState(name)._default_offset_reset_strategy == strategy, "see WiredConsumer.subscribe"


def test_a_transport_receives_through_one_method() -> None:
    says(
        KafkaTCPTransport._read_from_sock,
        "recvd_data, err = self._sock_recv() if err: return self.abort(error=err)",
        where="receiving.receive_in_bulk, which puts another _sock_recv in its place",
    )
    says(KafkaTCPTransport.abort, "if not self._closed:", where="receiving: a transport that was closed meanwhile")


def test_a_transport_writes_and_reads_through_methods_that_are_looked_up() -> None:
    where = "transmitting.transmit_directly, which puts others in their place"
    says(KafkaConnection._send_request, "self.transport.write(self.parser.send_bytes())", where=where)
    says(KafkaTCPTransport.resume_reading, "self._read_task = self._net.call_soon(self._read_from_sock)", where=where)
    says(
        KafkaTCPTransport._read_from_sock,
        "while self._read and not self._closed: await self._net.wait_read(self._sock)",
        "self.last_read = time.monotonic()",
        "self._protocol.data_received(recvd_data) except Errors.KafkaProtocolError as e: return self.abort(error=e)",
        where=where,
    )
    says(
        KafkaTCPTransport.write,
        "if not self._write or self._closed: raise",
        "if not data: raise",
        "self._write_buffer.append(data) if not self._writing: self._writing = True",
        where=where,
    )
    says(KafkaTCPTransport._write_to_sock, "finally: self._writing = False", where=where)
    says(
        KafkaTCPTransport._close,
        "for task in (self._read_task, self._write_task): if task is not None: self._net.cancel(task)",
        where=where,
    )
    has(KafkaSSLTransport, "write", "_read_from_sock", where=where)
    for method in ("write", "_read_from_sock", "resume_reading", "_write_to_sock", "_close"):
        assert method not in vars(KafkaSSLTransport), where


def test_tasks_are_run_by_what_steps_knows_of_them() -> None:
    where = "steps.Steps"
    assert set(vars(Task(lambda: None))) == {"_stack", "_res", "_exc", "scheduled_at", "state"}, where
    says(Task.__call__, "if self.is_done: raise", "coro = coro() self._stack = (coro, self._stack[1])", where=where)
    says(Task.is_done.fget, "return self._stack is None", where=where)
    says(NetworkSelector.run_forever, "while not self._stop: self._poll_once() self.drain()", where=where)
    says(NetworkSelector.call_at, "heapq.heappush(self._scheduled, (when, task))", where=where)
    says(
        NetworkSelector._poll_once,
        "ready_events = self._selector.select(timeout)",
        "self._process_events(ready_events) self._schedule_tasks()",
        "event = self._current() except StopIteration: self._task_done(self._current)",
        "if self._current.state is TaskState.CANCELLED:",
        "getattr(self, event.method)(*event.args)",
        where=where,
    )
    says(NetworkSelector._process_events, "self._add_ready_task(writer)", "self._add_ready_task(reader)", where=where)
    says(NetworkSelector.cancel, "if task.state in (TaskState.DONE, TaskState.CANCELLED): return", where=where)


def test_an_answer_is_received_into_a_frame_that_may_be_filled_from_outside() -> None:
    where = "receiving.receive_in_bulk"
    says(
        KafkaProtocol.receive_bytes,
        "self._rbuffer = KafkaBytes(nbytes) self._receiving = True",
        "staged_bytes = self._rbuffer.tell() bytes_to_read = min(total_bytes - staged_bytes, n - i)",
        where=where,
    )
    says(KafkaConnection.__init__, "self.parser = None", where=where)
    says(KafkaConnection.connection_made, "self.parser = KafkaProtocol(", where=where)
    frame = KafkaBytes(5)
    frame.write(b"ab")
    with memoryview(frame) as whole:
        whole[2:] = b"cde"
    frame.seek(1)
    assert (frame.tell(), frame.read(2), frame.tell(), frame.read(), frame.tell()) == (1, b"bc", 3, b"de", 5), where


def test_a_fetcher_hands_the_records_of_an_answer_over_and_may_find_them_empty() -> None:
    where = "partition_records.SharedRecords"
    says(Fetcher._parse_fetched_data, "records = MemoryRecords(completed_fetch.partition_data.records)", where=where)
    says(Fetcher._parse_fetched_data, "if not records.has_next() and records.size_in_bytes() > 0:", where=where)
    assert inspect.getsource(fetcher_module).count("partition_data.records") == 1, where
    empty = MemoryRecords(b"")
    assert not empty.has_next(), where
    assert empty._buffer == b"", where


def test_a_coordinator_keeps_the_futures_of_offset_fetches_by_their_partitions() -> None:
    says(
        ConsumerCoordinator.fetch_committed_offsets_async,
        "if future_key in self._offset_fetch_futures: future = self._offset_fetch_futures[future_key]",
        "self._offset_fetch_futures[future_key] = future",
        "if future_key in self._offset_fetch_futures: del self._offset_fetch_futures[future_key]",
        where="OffsetFetches, which takes their place",
    )


def test_a_connection_keeps_when_it_sent_each_request_in_flight() -> None:
    says(
        KafkaConnection._send_request,
        "self.in_flight_requests.append( (correlation_id, future, sent_time, timeout_at, timeout_task))",
        where="SharedManager.least_loaded_node",
    )


def test_a_refresh_sends_the_request_that_it_has_built_to_one_broker() -> None:
    says(
        ClusterMetadata._do_refresh_metadata,
        "request = self.metadata_request()",
        "response = await self._manager.send(request, node_id)",
        where="manager.SharedManager.ask_around",
    )


def test_a_producer_that_has_given_up_its_id_asks_for_one_only_where_it_begins() -> None:
    manager = TransactionManager()
    manager._transition_to(TransactionState.INITIALIZING)
    manager._transition_to(TransactionState.READY)
    manager.reset_producer_id()
    assert manager._current_state == TransactionState.READY, "see WiredProducer._begin_with_another_id"
    manager.init_producer_id()
    assert manager.next_request_handler(False) is None, "WiredProducer._begin_with_another_id is not needed any more"
    says(Sender, "self._transaction_manager.reset_producer_id()", where="WiredProducer._begin_with_another_id")
