"""``topics`` and ``groups``."""

from __future__ import annotations

from kafka.structs import OffsetAndMetadata, TopicPartition

from pooledkafka import Consumer, Producer
from pooledkafka.testing import EmbeddedKafka
from tests._cli.conftest import Command


def test_topics(command: Command, cluster: EmbeddedKafka) -> None:
    where = ("-b", cluster.bootstrap_servers)
    cluster.create_topic("looked-at", assignment=[[1, 2], [2, 1]])
    with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        producer.send("looked-at", b"v", partition=1).get(10)
    (listed,) = [each for each in command("topics", "list", "--json", *where).json if each["topic"] == "looked-at"]
    assert listed == {"topic": "looked-at", "partitions": 2, "replicas": 2}
    assert "looked-at" in command("topics", "list", *where).out
    described = command("topics", "describe", "looked-at", "--json", *where).json["looked-at"]
    assert described[1] == {"partition": 1, "leader": 2, "replicas": [2, 1], "in_sync": [2, 1]}
    assert "2, 1" in command("topics", "describe", "looked-at", *where).out
    offsets = command("topics", "offsets", "looked-at", "--json", *where).json
    assert [(each["partition"], each["first"], each["end"], each["difference"]) for each in offsets] == [
        (0, 0, 0, 0),
        (1, 0, 1, 1),
    ]
    out = command("topics", "offsets", "looked-at", *where).out
    assert [line.split() for line in out.splitlines()] == [
        ["topic", "partition", "first", "end", "difference"],
        ["looked-at", "0", "0", "0", "0"],
        ["looked-at", "1", "0", "1", "1"],
    ]
    for subcommand in ("describe", "offsets"):
        result = command("topics", subcommand, "not-there", *where)
        assert result.code == 1
        assert "topic 'not-there' does not exist" in result.err
    assert "not-there" not in command("topics", "list", *where).out, "looking creates none"


def test_a_name_is_shown_as_it_is(command: Command, cluster: EmbeddedKafka) -> None:
    names = {"team:fire:1", "[red]x", "ends\\"}
    cluster.create_topic("odd")
    for name in names:
        with Consumer(bootstrap_servers=cluster.bootstrap_servers, group_id=name) as consumer:
            partition = TopicPartition("odd", 0)
            consumer.assign([partition])
            consumer.commit({partition: OffsetAndMetadata(0, "", -1)})
    listed = command("groups", "list", "-b", cluster.bootstrap_servers).out.splitlines()
    assert names <= {line.split()[0] for line in listed}


def test_groups(command: Command, cluster: EmbeddedKafka) -> None:
    where = ("-b", cluster.bootstrap_servers)
    cluster.create_topic("lagging", partitions=2)
    with (
        Producer(bootstrap_servers=cluster.bootstrap_servers) as producer,
        Consumer(
            "lagging", bootstrap_servers=cluster.bootstrap_servers, group_id="slow", client_id="shop",
            enable_auto_commit=False, auto_offset_reset="earliest",
        ) as consumer,
    ):  # fmt: skip
        producer.send("lagging", b"v", partition=0).get(10)
        while not consumer.poll(50):
            pass
        consumer.commit()
        for _ in range(3):
            producer.send("lagging", b"v", partition=0).get(10)
        assert {"group": "slow", "protocol": "consumer", "state": "Stable"} in command(
            "groups", "list", "--json", *where
        ).json
        group = command("groups", "describe", "slow", "--json", *where).json["slow"]
        shown = command("groups", "describe", "slow", *where).out
    assert (group["state"], len(group["members"]), group["lag"]) == ("Stable", 1, 3)
    (first, second) = group["partitions"]
    assert (first["committed"], first["end"], first["lag"], first["client_id"]) == (1, 4, 3, "shop")
    assert (second["end"], second["client_id"]) == (0, "shop")
    assert "slow: Stable, 1 members, lag 3" in shown
    result = command("groups", "describe", "nobody", *where)
    assert result.code == 1
    assert "there is no group 'nobody'" in result.err
