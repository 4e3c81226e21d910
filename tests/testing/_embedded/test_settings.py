"""The brokers' properties: what is taken, and that each that is taken is heeded somewhere."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

import pooledkafka.testing._embedded as package
from pooledkafka.testing import EmbeddedKafka
from pooledkafka.testing._embedded.settings import RACK_AWARE_SELECTOR, Settings


def test_properties_are_taken_as_server_properties_has_them() -> None:
    settings = Settings().with_properties(
        {
            "auto.create.topics.enable": "false",
            "broker.rack": "a",
            "num.partitions": "3",
            "replica.selector.class": RACK_AWARE_SELECTOR,
        }
    )
    assert not settings.auto_create_topics_enable
    assert (settings.broker_rack, settings.num_partitions) == ("a", 3)
    assert settings.default_replication_factor == 1


def test_each_property_is_shown_as_it_is_taken() -> None:
    defaults = Settings()
    for name in Settings.property_names():
        shown = defaults.value_of(name)
        assert defaults.with_properties({name: shown or ""}) == defaults
    assert defaults.value_of("auto.create.topics.enable") == "true"
    assert defaults.value_of("num.partitions") == "1"
    assert defaults.value_of("broker.rack") is None
    assert {Settings.kind_of(name) for name in Settings.property_names()} == {bool, int, str}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("log.dirs", "/tmp", r"no property 'log\.dirs'; it knows auto\.create\.topics\.enable, .*KafkaCluster"),
        ("num.partitions", "0", "expected a whole number from 1 on"),
        ("num.partitions", "2147483648", "expected a whole number from 1 on"),
        ("max.connections.per.ip", "-1", "expected a whole number from 0 on"),
        ("min.insync.replicas", "0", "expected a whole number from 1 on"),
        ("unclean.leader.election.enable", "True", "expected 'true' or 'false'"),
        ("replica.selector.class", "org.example.Mine", "expected one of '', 'org.apache.kafka"),
    ],
)
def test_what_would_not_be_heeded_is_refused(name: str, value: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Settings().with_properties({name: value})


@pytest.mark.parametrize("name", ["num.partitions", "min.insync.replicas", "replica.lag.time.max.ms"])
def test_what_holds_for_the_cluster_is_not_one_brokers(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is the same for all brokers; it belongs into config"):
        EmbeddedKafka(broker_config={1: {name: "1"}})
    EmbeddedKafka(config={name: "1"})


def test_every_property_is_read_somewhere() -> None:
    """Each has a test of its own with what heeds it; this finds one that was added and forgotten."""
    root = Path(package.__file__).parent
    read = "\n".join(path.read_text() for path in root.rglob("*.py") if path.name != "settings.py")
    assert [field.name for field in fields(Settings) if not re.search(rf"\.{field.name}\b", read)] == []
