from __future__ import annotations

import threading
from typing import Any

import pytest

from pooledkafka import ConfigurationError, ConnectionPool
from pooledkafka.contrib.django import pools, producer
from pooledkafka.contrib.django.test import embedded_cluster


def test_there_is_one_pool_for_each_alias_whatever_threads_ask_for_it(settings: Any) -> None:
    settings.POOLEDKAFKA = {"default": {"bootstrap_servers": "a:1"}, "other": {"bootstrap_servers": "b:2"}}
    found: list[ConnectionPool] = []
    together = threading.Barrier(8)

    def ask() -> None:
        together.wait(10)
        found.append(pools["default"])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1
    assert pools["other"].options["bootstrap_servers"] == "b:2"
    assert list(pools) == ["default", "other"]
    assert "other" in pools
    assert "third" not in pools
    assert len(pools) == 2


def test_an_alias_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ConfigurationError, match="no alias 'x'; it has 'default', 'analytics', 'embedded'"):
        pools["x"]


def test_settings_that_are_missing_are_said_to_be(settings: Any) -> None:
    del settings.POOLEDKAFKA
    with pytest.raises(ConfigurationError, match=r"settings\.POOLEDKAFKA is missing"):
        producer.send("orders", b"")


def test_what_was_closed_is_made_anew() -> None:
    embedded_cluster("embedded").create_topic("orders")
    first = pools["embedded"]
    producer["embedded"].send("orders", b"one").get(timeout=10)
    pools.close_all()
    assert "disconnected" in repr(first)
    pools.close_all()
    embedded_cluster("embedded").create_topic("orders")
    assert pools["embedded"] is not first
    assert producer["embedded"].send("orders", b"two").get(timeout=10).offset == 0, "the cluster is new, too"


def test_closing_delivers_what_is_buffered() -> None:
    embedded_cluster("embedded").create_topic("orders")
    future = producer["embedded"].send("orders", b"one")
    pools["embedded"].disconnect()
    assert future.succeeded()


def test_other_settings_end_the_pools_of_those_before(settings: Any) -> None:
    first = pools["embedded"]
    first.connect()
    settings.POOLEDKAFKA = {"default": {"bootstrap_servers": "a:1"}}
    assert "disconnected" in repr(first)


def test_only_an_embedded_alias_has_a_cluster() -> None:
    with pytest.raises(ConfigurationError, match="has the backend 'memory', and no cluster"):
        embedded_cluster("default")
