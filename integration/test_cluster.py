"""Clusters of one and of three brokers, as stock kafka-python finds them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing

import docker
import pytest
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from integration.remains import label_of, remains_of, volumes_of, wait_until_gone
from integration.traffic import create_topic, group_consumer, read_log
from pooledkafka.testing import ClusterError, ExternalCluster, KafkaCluster, UnhealthyClusterError, build_image
from pooledkafka.testing._engine import RUN_LABEL
from pooledkafka.testing._ports import pick_free_ports
from pooledkafka.testing._readiness import problem, wait_for

RECORDS = 1_000


@pytest.fixture(scope="module", params=[1, 3], ids=["1 broker", "3 brokers"])
def cluster(request: pytest.FixtureRequest) -> Iterator[KafkaCluster]:
    with KafkaCluster(brokers=request.param) as cluster:
        yield cluster


def test_produce_and_consume(cluster: KafkaCluster) -> None:
    options = cluster.client_options()
    topic = f"records-{uuid.uuid4().hex[:8]}"
    create_topic(options, topic, partitions=6)
    sent = [b"%d" % number for number in range(RECORDS)]
    with KafkaProducer(**options, enable_idempotence=True, acks="all") as producer:
        for future in [producer.send(topic, value, key=value) for value in sent]:
            future.get(timeout=30)
    received = []
    with group_consumer(topic, **options, group_id=topic, consumer_timeout_ms=30_000) as consumer:
        for record in consumer:
            received.append(record.value)
            if len(received) == RECORDS:
                break
    assert sorted(received) == sorted(sent)
    log = read_log(options, topic)
    assert len(log) == 6
    assert sorted(number for numbers in log.values() for number in numbers) == list(range(RECORDS))


def test_every_topic_is_on_every_broker(cluster: KafkaCluster) -> None:
    with KafkaAdminClient(**cluster.client_options()) as admin:
        topics = [topic for topic in admin.describe_topics() if not topic["error_code"]]
        brokers = {broker["broker_id"]: broker for broker in admin.describe_cluster()["brokers"]}
    assert "__consumer_offsets" in {topic["name"] for topic in topics}
    for topic in topics:
        for partition in topic["partitions"]:
            assert sorted(partition["isr_nodes"]) == list(cluster.node_ids), topic["name"]
    assert tuple(sorted(brokers)) == cluster.node_ids
    addresses = [f"{brokers[node_id]['host']}:{brokers[node_id]['port']}" for node_id in cluster.node_ids]
    assert ",".join(addresses) == cluster.bootstrap_servers


def test_ports_are_open_on_the_loopback_address_only(cluster: KafkaCluster) -> None:
    with closing(docker.from_env()) as client:
        containers = client.containers.list(filters={"label": label_of(cluster)})
        published = {
            (binding["HostIp"], f"{binding['HostIp']}:{binding['HostPort']}")
            for container in containers
            for bindings in container.ports.values()
            for binding in bindings or []
        }
    assert len(containers) == len(cluster.node_ids)
    assert published == {("127.0.0.1", address) for address in cluster.bootstrap_servers.split(",")}


def test_the_same_interface_over_a_running_cluster(cluster: KafkaCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLEDKAFKA_BOOTSTRAP", cluster.bootstrap_servers.split(",")[0])
    external = ExternalCluster.from_environment()
    assert external is not None
    with external:
        assert external.node_ids == cluster.node_ids
        assert external.bootstrap_servers == cluster.bootstrap_servers
        assert external.client_options() == cluster.client_options()
        external.wait_until_healthy(10)


def test_unhealthy_while_a_broker_is_paused(cluster: KafkaCluster) -> None:
    last = cluster.node_ids[-1]
    cluster.pause(last)
    try:
        with pytest.raises(
            UnhealthyClusterError, match=rf"not healthy after 0.5 s: broker {last}: no answer from .*timed out"
        ):
            cluster.wait_until_healthy(0.5)
    finally:
        cluster.resume(last)
    cluster.wait_until_healthy(30)


def test_the_log_of_a_broker(cluster: KafkaCluster) -> None:
    for node_id in cluster.node_ids:
        assert f"[BrokerServer id={node_id}]" in cluster.logs(node_id, tail=10_000)
        assert len(cluster.logs(node_id, tail=3).splitlines()) == 3


def test_open_and_close_any_number_of_times() -> None:
    cluster = KafkaCluster(config={"auto.create.topics.enable": "false", "num.partitions": "4"})
    labels = []
    for _ in range(2):
        cluster.open()
        cluster.open()
        label = label_of(cluster)
        volumes = volumes_of(label)
        assert remains_of(label, volumes)
        with KafkaAdminClient(**cluster.client_options()) as admin:
            admin.create_topics(["topic"], wait_for_metadata=True)
            (topic,) = admin.describe_topics(["topic"])
        assert len(topic["partitions"]) == 4
        cluster.close()
        cluster.close()
        wait_until_gone(label, volumes, 0)
        labels.append(label)
    assert len(set(labels)) == 2
    with pytest.raises(ClusterError, match="the cluster is not open"):
        cluster.client_options()


def test_the_image_takes_the_variables_of_the_official_one() -> None:
    (port,) = pick_free_ports(1)
    label = f"{RUN_LABEL}={uuid.uuid4().hex}"
    with closing(docker.from_env()) as client:
        container = client.containers.run(
            build_image(),
            detach=True,
            ports={"9092/tcp": ("127.0.0.1", port)},
            labels=dict([label.split("=")]),
            environment={
                "CLUSTER_ID": "4L6g3nShT-eMCtK--X86sw",
                "KAFKA_NODE_ID": "7",
                "KAFKA_PROCESS_ROLES": "broker,controller",
                "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
                "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
                "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
                "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
                "KAFKA_CONTROLLER_QUORUM_VOTERS": "7@localhost:9093",
                "KAFKA_NUM_PARTITIONS": "5",
            },
        )
        try:
            assert wait_for(lambda: problem({7: ("127.0.0.1", port)}), 30) is None, container.logs(tail=30).decode()
            with KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{port}") as admin:
                assert admin.describe_cluster()["cluster_id"] == "4L6g3nShT-eMCtK--X86sw"
                admin.create_topics(["topic"], wait_for_metadata=True)
                (topic,) = admin.describe_topics(["topic"])
            assert len(topic["partitions"]) == 5
        finally:
            container.remove(force=True, v=True)
    assert remains_of(label) == []
