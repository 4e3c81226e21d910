"""The embedded cluster as a whole: its life, its brokers' failures, its replicas."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import (
    InvalidReplicationAssignmentError,
    NotEnoughReplicasError,
    NotLeaderForPartitionError,
    RequestTimedOutError,
    TopicAlreadyExistsError,
)
from kafka.protocol.metadata import ApiVersionsRequest
from kafka.structs import TopicPartition

from pooledkafka.testing import ClusterError, EmbeddedKafka, Hold, Never, UnhealthyClusterError
from tests.testing._embedded.wire import Wire, fetch, fetched, produce


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=3) as cluster:
        yield cluster


def answer_of(cluster: EmbeddedKafka, node_id: int, request: Any, version: int) -> Any:
    with Wire(cluster.address_of(node_id)) as wire:
        return wire.ask(request, version)


def error_of(response: Any) -> int:
    topic = response.responses[0]
    return int((getattr(topic, "partitions", None) or topic.partition_responses)[0].error_code)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pooledkafka-embedded")]


# -- life --------------------------------------------------------------------------------------------------------------


def test_it_needs_one_thread_and_leaves_nothing() -> None:
    before = len(os.listdir("/proc/self/fd"))
    cluster = EmbeddedKafka(brokers=3)
    assert threads() == []
    with cluster:
        assert threads() == ["pooledkafka-embedded"]
        ports = [int(cluster.address_of(node_id).rpartition(":")[2]) for node_id in cluster.node_ids]
    assert threads() == []
    assert len(os.listdir("/proc/self/fd")) == before
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_closing_ends_parked_and_held_requests_and_connections(cluster: EmbeddedKafka) -> None:
    topic = cluster.create_topic("t", assignment=[[1]])
    with (
        Wire(cluster.address_of(1)) as parked,
        Wire(cluster.address_of(2)) as held,
        Wire(cluster.address_of(3)) as idle,
    ):
        parked.send(fetch(topic, max_wait_ms=600_000), 11)
        hold = cluster.intercept("ApiVersions", Hold())
        held.send(ApiVersionsRequest(), 0)
        hold.wait_for(1)
        started = time.monotonic()
        cluster.stop()
        assert time.monotonic() - started < 2
        assert parked.has_ended()
        assert held.has_ended()
        assert idle.has_ended()
    assert threads() == []


def test_it_can_be_opened_again_and_is_empty_then() -> None:
    cluster = EmbeddedKafka(brokers=1)
    for _ in range(2):
        with cluster:
            cluster.create_topic("t")
            with pytest.raises(TopicAlreadyExistsError, match="topic 't' already exists"):
                cluster.create_topic("t")


def test_a_closed_cluster_says_so() -> None:
    cluster = EmbeddedKafka()
    assert repr(cluster) == "<EmbeddedKafka of 3 [plaintext]: closed>"
    for call in (lambda: cluster.address_of(1), lambda: cluster.connections, lambda: cluster.kill(1)):
        with pytest.raises(ClusterError, match="the cluster is not open; call open"):
            call()
    cluster.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"brokers": 0}, "brokers is 0; expected a whole number from 1 on"),
        ({"listeners": ["scram"]}, "no SCRAM"),
        ({"listeners": ["smoke"]}, "unknown listener 'smoke'"),
        ({"config": {"log.retention.ms": "1"}}, "no property 'log.retention.ms'; it knows auto.create.topics.enable"),
        ({"config": {"num.partitions": "many"}}, "num.partitions is 'many'; expected a whole number"),
        ({"config": {"num.partitions": 3}}, "num.partitions is 3; expected a string"),
        ({"config": {"auto.create.topics.enable": "yes"}}, "expected 'true' or 'false'"),
        ({"credentials": {"ann": 5}}, "credentials has the user 'ann' with something that is no string"),
        ({"broker_config": {4: {}}}, "broker_config has 4, but the node ids are 1 to 3"),
    ],
)
def test_a_wrong_argument_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EmbeddedKafka(**options)


def test_replicas_that_are_none_are_refused(cluster: EmbeddedKafka) -> None:
    wrong: list[list[list[int]]] = [[[]], [[4]], [[1, 1]]]
    for assignment in wrong:
        with pytest.raises(InvalidReplicationAssignmentError, match="The manual partition assignment"):
            cluster.create_topic("t", assignment=assignment)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda cluster: cluster.create_topic("t", "3"), "partitions is '3'; expected a whole number"),
        (lambda cluster: cluster.create_topic("t", 3, assignment=[[1]]), "assignment names replicas of 1"),
        (lambda cluster: cluster.slow_follower(1, float("nan")), "delay_s is nan"),
        (lambda cluster: cluster.slow_follower(1, -1), "delay_s is -1"),
        (lambda cluster: cluster.set_quota("producer_byte_rate", float("inf")), "bytes_a_second is inf"),
        (lambda cluster: cluster.set_quota("request_rate", 1), "there is no quota 'request_rate'"),
        (lambda cluster: cluster.kill(9), "there is no broker 9"),
    ],
)
def test_a_wrong_argument_of_a_method_is_refused(
    cluster: EmbeddedKafka, call: Callable[[EmbeddedKafka], object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        call(cluster)


def test_its_own_thread_may_not_wait_for_itself(cluster: EmbeddedKafka) -> None:
    said: list[str] = []

    def call_back(_: Any) -> None:
        try:
            cluster.leader_of("t")
        except RuntimeError as error:
            said.append(str(error))

    with cluster.intercept("ApiVersions", call_back):
        assert answer_of(cluster, 1, ApiVersionsRequest(), 0).error_code == 0
    assert said == ["called on the embedded cluster's own thread, where it would wait for itself"]


def test_it_is_not_closed_by_a_function_of_its_own(cluster: EmbeddedKafka) -> None:
    said: list[str] = []

    def close(_: Any) -> None:
        try:
            cluster.close()
        except RuntimeError as error:
            said.append(str(error))

    with cluster.intercept("ApiVersions", close):
        assert answer_of(cluster, 1, ApiVersionsRequest(), 0).error_code == 0
    assert said == ["the embedded cluster cannot be closed by a function that one of its faults calls"]
    assert answer_of(cluster, 1, ApiVersionsRequest(), 0).error_code == 0, "it is open as before"


FORKING = """
import os, socket, sys
from pooledkafka.testing import EmbeddedKafka
with EmbeddedKafka(brokers=1) as cluster:
    host, port = cluster.address_of(1).split(":")
    client = socket.create_connection((host, int(port)))
    client.settimeout(5)
    cluster.connections  # the broker has accepted it
    down, up = os.pipe()
    child = os.fork()
    if not child:
        print(repr(cluster).endswith("closed>"), flush=True)
        cluster.close()
        with cluster:
            print(cluster.address_of(1) != f"{host}:{port}", flush=True)
        os.read(down, 1)
        os._exit(0)
    cluster.kill(1)
    print(client.recv(1) == b"", flush=True)
    try:
        socket.create_connection((host, int(port)), 5)
    except ConnectionRefusedError:
        print(True, flush=True)
    cluster.start(1)
    print(cluster.address_of(1) == f"{host}:{port}", flush=True)
    os.write(up, b"x")
    os.waitpid(child, 0)
"""


def test_a_forked_process_has_none_and_holds_nothing_of_it() -> None:
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.replace("True", "").strip() == "", done.stderr
    assert done.stdout.count("True") == 5, done.stderr


def test_clients_send_and_receive(cluster: EmbeddedKafka) -> None:
    topic = cluster.create_topic("t", partitions=3)
    with KafkaProducer(**cluster.client_options()) as producer:
        for number in range(30):
            producer.send(topic, b"%d" % number, partition=number % 3)
        producer.flush()
    consumer = KafkaConsumer(**cluster.client_options(), auto_offset_reset="earliest")
    try:
        consumer.assign([TopicPartition(topic, index) for index in range(3)])
        received: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
        while sum(map(len, received.values())) < 30:
            for partition, records in consumer.poll(timeout_ms=10_000).items():
                received[partition.partition].extend(record.value for record in records)
    finally:
        consumer.close()
    assert received == {index: [b"%d" % number for number in range(index, 30, 3)] for index in range(3)}


# -- brokers that fail -------------------------------------------------------------------------------------------------


def test_a_killed_broker_refuses_connections_and_others_lead(cluster: EmbeddedKafka) -> None:
    topic = cluster.create_topic("t", assignment=[[1, 2, 3]])
    answer_of(cluster, 1, produce(topic, b"a"), 9)
    with Wire(cluster.address_of(1)) as wire:
        address = cluster.address_of(1)
        cluster.kill(1)
        assert wire.has_ended()
    with pytest.raises(ConnectionRefusedError):
        Wire(address)
    assert cluster.leader_of(topic) == 2
    assert fetched(answer_of(cluster, 2, fetch(topic), 11)) == [b"a"]
    with pytest.raises(UnhealthyClusterError, match="broker 1 is down"):
        cluster.wait_until_healthy(timeout_s=0)
    cluster.start(1)
    cluster.wait_until_healthy(timeout_s=5)
    assert cluster.address_of(1) == address
    assert error_of(answer_of(cluster, 1, produce(topic, b"b"), 9)) == NotLeaderForPartitionError.errno
    assert cluster.leader_of(topic) == 2


def test_a_topic_without_replicas_elsewhere_has_no_leader_until_its_broker_is_back(cluster: EmbeddedKafka) -> None:
    topic = cluster.create_topic("t", assignment=[[2]], config={"min.insync.replicas": "1"})
    answer_of(cluster, 2, produce(topic, b"a"), 9)
    cluster.kill(2)
    assert cluster.leader_of(topic) == -1
    cluster.start(2)
    assert cluster.leader_of(topic) == 2
    assert fetched(answer_of(cluster, 2, fetch(topic), 11)) == [b"a"]


def test_a_paused_broker_is_silent_until_it_runs_on(cluster: EmbeddedKafka) -> None:
    with Wire(cluster.address_of(1)) as wire:
        wire.ask(ApiVersionsRequest(), 0)
        cluster.pause(1)
        number = wire.send(ApiVersionsRequest(), 0)
        with Wire(cluster.address_of(1)) as new:
            new.send(ApiVersionsRequest(), 0)
            new.socket.settimeout(0.05)
            with pytest.raises(TimeoutError):
                new.receive()
        with pytest.raises(UnhealthyClusterError, match="broker 1 is paused or cut off"):
            cluster.wait_until_healthy(timeout_s=0)
        cluster.resume(1)
        assert wire.receive()[0] == number
        cluster.wait_until_healthy(timeout_s=5)


def test_a_broker_cut_off_from_the_others_serves_but_leads_nothing(cluster: EmbeddedKafka) -> None:
    topic = cluster.create_topic("t", assignment=[[1, 2, 3]])
    cluster.partition(1, from_="brokers")
    assert cluster.leader_of(topic) == 2
    assert error_of(answer_of(cluster, 1, produce(topic, b"a"), 9)) == NotLeaderForPartitionError.errno
    cluster.heal(1)
    cluster.wait_until_healthy(timeout_s=5)
    with pytest.raises(ValueError, match="from_ is 'the world'; expected one of"):
        cluster.partition(1, from_="the world")


def test_a_request_does_not_outlive_its_broker(cluster: EmbeddedKafka) -> None:
    topic = cluster.create_topic("t", assignment=[[1]], config={"min.insync.replicas": "1"})
    cluster.pause(1)
    with Wire(cluster.address_of(1)) as wire, cluster.intercept("Produce") as met:
        wire.send(produce(topic, b"a"), 9)
        while not any(each.exchanges for each in cluster.connections):
            time.sleep(0.001)  # until the broker has read it
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    while any(each.closed_at is None for each in cluster.connections):
        time.sleep(0.001)
    cluster.kill(1)
    cluster.start(1)
    assert answer_of(cluster, 1, ApiVersionsRequest(), 0).error_code == 0
    assert met.requests == []
    assert cluster.high_watermark_of(topic) == 0


def test_a_second_failure_has_its_own_session_timeout() -> None:
    with EmbeddedKafka(brokers=2, config={"broker.session.timeout.ms": "600000"}) as cluster:
        cluster.create_topic("t", assignment=[[1, 2]])
        for _ in range(3):
            cluster.kill(1)
            cluster.start(1)
        assert cluster._call(lambda: dict(cluster._controller._giving_up)) == {}


def test_all_faults_end_together(cluster: EmbeddedKafka) -> None:
    topic = cluster.create_topic("t", assignment=[[1, 2, 3]])
    cluster.intercept("Produce", Never())
    cluster.slow_follower(3, None)
    cluster.set_quota("producer_byte_rate", 1)
    cluster.kill(1)
    cluster.pause(2)
    cluster.partition(3)
    cluster.reset_faults()
    cluster.wait_until_healthy(timeout_s=5)
    assert error_of(answer_of(cluster, cluster.leader_of(topic), produce(topic, b"a"), 9)) == 0


def test_others_lead_only_after_the_session_timeout() -> None:
    with EmbeddedKafka(brokers=2, config={"broker.session.timeout.ms": "600000"}) as cluster:
        topic = cluster.create_topic("t", assignment=[[1, 2]])
        cluster.kill(1)
        assert cluster.leader_of(topic) == 1
        cluster.start(1)
        cluster.restart(1)  # in order: it gives its partitions away
        assert cluster.leader_of(topic) == 2


# -- replicas ----------------------------------------------------------------------------------------------------------


def test_a_slow_follower_holds_back_acks_and_readers(cluster: EmbeddedKafka) -> None:
    topic = cluster.create_topic("t", assignment=[[1, 2, 3]])
    cluster.slow_follower(3, None)
    with Wire(cluster.address_of(1)) as writer, Wire(cluster.address_of(1)) as reader:
        writer.send(produce(topic, b"a", timeout_ms=60_000), 9)
        reader.send(fetch(topic, max_wait_ms=60_000), 11)
        assert cluster.high_watermark_of(topic) == 0
        cluster.slow_follower(3, 0)
        assert error_of(writer.receive()[1]) == 0
        assert fetched(reader.receive()[1]) == [b"a"]


def test_a_producer_hears_that_followers_were_too_slow(cluster: EmbeddedKafka) -> None:
    topic = cluster.create_topic("t", assignment=[[1, 2, 3]])
    cluster.slow_follower(2, None)
    late = answer_of(cluster, 1, produce(topic, b"a", timeout_ms=50), 9)
    assert error_of(late) == RequestTimedOutError.errno
    assert error_of(answer_of(cluster, 1, produce(topic, b"b", acks=1), 9)) == 0


def test_a_follower_that_lags_too_long_leaves_the_isr_and_comes_back() -> None:
    with EmbeddedKafka(brokers=3, config={"replica.lag.time.max.ms": "50"}) as cluster:
        topic = cluster.create_topic("t", assignment=[[1, 2, 3]])
        cluster.slow_follower(3, None)
        assert error_of(answer_of(cluster, 1, produce(topic, b"a"), 9)) == 0  # when 3 has left
        with pytest.raises(UnhealthyClusterError, match=r"t-0 is in sync on \[1, 2\] of \[1, 2, 3\]"):
            cluster.wait_until_healthy(timeout_s=0)
        cluster.slow_follower(2, None)
        assert error_of(answer_of(cluster, 1, produce(topic, b"b"), 9)) in (19, 20)
        assert error_of(answer_of(cluster, 1, produce(topic, b"c"), 9)) == NotEnoughReplicasError.errno
        cluster.slow_follower(2, 0)
        cluster.slow_follower(3, 0)
        cluster.wait_until_healthy(timeout_s=5)


def test_a_new_leader_has_lost_what_it_had_not_copied(cluster: EmbeddedKafka) -> None:
    topic = cluster.create_topic("t", assignment=[[1, 2]])
    answer_of(cluster, 1, produce(topic, b"a"), 9)
    cluster.slow_follower(2, None)
    answer_of(cluster, 1, produce(topic, b"b", acks=1), 9)
    cluster.move_leader(topic, 0, 2)
    assert fetched(answer_of(cluster, 2, fetch(topic), 11)) == [b"a"]
    cluster.slow_follower(2, 0)
    answer_of(cluster, 2, produce(topic, b"c"), 9)
    assert fetched(answer_of(cluster, 2, fetch(topic), 11)) == [b"a", b"c"]


def test_a_moved_leader_answers_a_parked_fetch_elsewhere(cluster: EmbeddedKafka) -> None:
    topic = cluster.create_topic("t", assignment=[[1, 2]])
    with Wire(cluster.address_of(1)) as wire:
        wire.send(fetch(topic, max_wait_ms=600_000, current_leader_epoch=0), 11)
        cluster.move_leader(topic, 0, 2)
        assert error_of(wire.receive()[1]) in (6, 74)
    with pytest.raises(ValueError, match=r"broker 3 cannot lead t-0: its replicas are \[1, 2\]"):
        cluster.move_leader(topic, 0, 3)


def test_a_replica_that_is_not_in_sync_leads_only_where_it_is_said_to_be_unclean() -> None:
    with EmbeddedKafka(brokers=3, config={"replica.lag.time.max.ms": "50"}) as cluster:
        topic = cluster.create_topic("t", assignment=[[1, 2, 3]])
        cluster.slow_follower(3, None)
        assert error_of(answer_of(cluster, 1, produce(topic, b"a"), 9)) == 0  # when 3 has left the ISR
        with pytest.raises(ValueError, match=r"broker 3 is not in sync with t-0, but \[1, 2\] are"):
            cluster.move_leader(topic, 0, 3)
        cluster.move_leader(topic, 0, 3, unclean=True)
        assert cluster.high_watermark_of(topic) == 0, "what was acknowledged is lost"


def test_a_replica_that_was_not_in_sync_leads_where_nobody_else_can_and_that_is_allowed() -> None:
    config = {"replica.lag.time.max.ms": "50", "unclean.leader.election.enable": "true", "min.insync.replicas": "1"}
    with EmbeddedKafka(brokers=2, config=config) as cluster:
        topic = cluster.create_topic("t", assignment=[[1, 2]])
        cluster.kill(2)
        answer_of(cluster, 1, produce(topic, b"a"), 9)
        cluster.kill(1)
        assert cluster.leader_of(topic) == -1
        cluster.start(2)
        assert cluster.leader_of(topic) == 2


def test_a_truncated_log_diverges(cluster: EmbeddedKafka) -> None:
    topic = cluster.create_topic("t", assignment=[[1]], config={"min.insync.replicas": "1"})
    for value in (b"a", b"b", b"c"):
        answer_of(cluster, 1, produce(topic, value), 9)
    cluster.truncate(topic, 0, 1)
    answer_of(cluster, 1, produce(topic, b"d"), 9)
    response = answer_of(cluster, 1, fetch(topic, 3, current_leader_epoch=1, last_fetched_epoch=0), 12)
    diverging = response.responses[0].partitions[0].diverging_epoch
    assert (diverging.epoch, diverging.end_offset) == (0, 1)
    with pytest.raises(ValueError, match="the log of t-0 goes from 0 to 2"):
        cluster.truncate(topic, 0, 3)


def test_coordinators_move(cluster: EmbeddedKafka) -> None:
    before = cluster.coordinator_of("group")
    other = before % 3 + 1
    cluster.move_coordinator("group", other)
    assert cluster.coordinator_of("group") == other
    cluster.kill(other)
    assert cluster.coordinator_of("group") not in (other, -1)


def test_its_log_is_what_it_was_asked(cluster: EmbeddedKafka) -> None:
    answer_of(cluster, 1, ApiVersionsRequest(), 0)
    assert "ApiVersions v0 of wire" in cluster.logs(1)
    assert cluster.logs(2) == ""
