from __future__ import annotations

import re
from typing import Any

import pytest

from pooledkafka.testing import Listener
from pooledkafka.testing._properties import RESERVED, checked_config, checked_configs, render, server_properties


def properties(node_ids: tuple[int, ...] = (1, 2, 3), config: dict[str, str] | None = None) -> dict[str, str]:
    ports = {Listener.PLAINTEXT: 20001, Listener.TLS: 20002}
    return server_properties(node_ids[-1], node_ids, ports, config or {}, "secret")


def parsed(text: bytes) -> dict[str, str]:
    """As java.util.Properties reads it, for lines that are not continued."""
    read = {}
    for line in text.decode("latin-1").splitlines():
        name, value = line.split("=", 1)
        units = re.sub(r"\\u([0-9a-f]{4})", lambda match: chr(int(match[1], 16)), value.lstrip(" "))
        units = units.removeprefix("\\") if units.startswith("\\ ") else units
        read[name] = units.encode("utf-16", "surrogatepass").decode("utf-16")
    return read


def test_a_broker_of_three() -> None:
    broker = properties()
    assert broker["node.id"] == "3"
    assert broker["process.roles"] == "broker,controller"
    assert broker["controller.quorum.voters"] == "1@kafka-1:19093,2@kafka-2:19093,3@kafka-3:19093"
    assert broker["listeners"] == "BROKER://:19092,CONTROLLER://:19093,HOST://:9092,TLS://:9093"
    assert broker["advertised.listeners"] == "BROKER://kafka-3:19092,HOST://127.0.0.1:20001,TLS://127.0.0.1:20002"
    assert broker["listener.security.protocol.map"] == "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT,HOST:PLAINTEXT,TLS:SSL"
    assert broker["inter.broker.listener.name"] == "BROKER"


@pytest.mark.parametrize(("node_ids", "replicas", "in_sync"), [((1,), "1", "1"), ((1, 2, 3), "3", "2")])
def test_topics_are_on_every_broker_and_survive_the_loss_of_one(
    node_ids: tuple[int, ...], replicas: str, in_sync: str
) -> None:
    broker = properties(node_ids)
    for name in (
        "default.replication.factor",
        "offsets.topic.replication.factor",
        "transaction.state.log.replication.factor",
        "share.coordinator.state.topic.replication.factor",
    ):
        assert broker[name] == replicas
    for name in ("min.insync.replicas", "transaction.state.log.min.isr", "share.coordinator.state.topic.min.isr"):
        assert broker[name] == in_sync


def test_the_users_properties_go_over_the_defaults() -> None:
    broker = properties(config={"group.initial.rebalance.delay.ms": "500", "log.retention.ms": "1000"})
    assert broker["group.initial.rebalance.delay.ms"] == "500"
    assert broker["log.retention.ms"] == "1000"


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_what_the_cluster_sets_itself_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"config sets {name}, which the cluster sets itself; leave it out"):
        checked_config({name: "1"})


@pytest.mark.parametrize("name", ["", "two words", "a=b", "a:b", "#a", "a\nb"])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(ValueError, match="which is no name of a Kafka property"):
        checked_config({name: "1"})


def test_a_value_that_is_no_string() -> None:
    with pytest.raises(ValueError, match=r"config\['num.partitions'\] is 4; expected a string"):
        checked_config({"num.partitions": 4})  # type: ignore[dict-item]


def test_a_config_is_copied() -> None:
    given = {"num.partitions": "4"}
    checked = checked_config(given)
    given["num.partitions"] = "5"
    assert checked == {"num.partitions": "4"}
    assert checked_config(None) == {}


def test_the_properties_of_one_broker_go_over_those_of_all() -> None:
    common = {"log.retention.ms": "1000", "broker.rack": "a"}
    checked = checked_configs(common, {2: {"broker.rack": "b"}}, (1, 2))
    assert checked == {1: common, 2: {"log.retention.ms": "1000", "broker.rack": "b"}}
    assert checked_configs(None, None, (1,)) == {1: {}}


@pytest.mark.parametrize("unknown", [0, 4, "1"])
def test_properties_of_a_broker_that_is_not_there(unknown: Any) -> None:
    with pytest.raises(ValueError, match=f"broker_config has {unknown!r}, but the node ids are 1, 2, 3"):
        checked_configs(None, {unknown: {}}, (1, 2, 3))


def test_rendered_values_are_read_back_as_they_were() -> None:
    values = {
        "plain": "SASL_PLAINTEXT://:9092,a=b;c",
        "blanks": "  two leading and one trailing ",
        "backslash": r"C:\u0041\n",
        "lines": "one\ntwo\r\tthree",
        "umlaut": "Größe \N{GRINNING FACE}",
        "empty": "",
        "quotes": 'required user="a b";',
    }
    rendered = render(values)
    assert rendered.isascii()
    assert len(rendered.splitlines()) == len(values)
    assert parsed(rendered) == values
