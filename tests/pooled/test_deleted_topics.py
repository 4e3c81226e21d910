"""A topic is deleted while it is read."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from kafka.errors import UnknownTopicOrPartitionError
from kafka.structs import TopicPartition

from pooledkafka import ConnectionPool, Consumer, Kafka
from pooledkafka.testing import EmbeddedKafka, Error
from tests.pooled.reading import read
from tests.pooled.watching import POOL
from tests.pooled.writing import Writer


@pytest.fixture
def consumer_of_both(cluster: EmbeddedKafka, consumer: Callable[..., Consumer], writer: Writer) -> Consumer:
    """Has read a record of each of two topics, and committed nothing."""
    for topic in ("stays", "goes"):
        cluster.create_topic(topic)
        writer.write(topic)
    reading = consumer("stays", "goes", group_id="g", auto_commit_interval_ms=600_000)
    assert len(read(reading, 2)) == 2
    return reading


def test_closing_does_not_commit_again_and_again_what_has_no_topic_any_more(
    cluster: EmbeddedKafka,
    kafka: Kafka,
    pool: ConnectionPool,
    consumer_of_both: Consumer,
    consumer: Callable[..., Consumer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with kafka.admin(connection_pool=pool) as admin:
        admin.delete_topics(["goes"])
    with cluster.intercept("OffsetCommit", client_id=POOL) as commits, caplog.at_level(logging.ERROR, "kafka"):
        consumer_of_both.close()
    assert len(commits.requests) == 1
    assert "commit failed" not in caplog.text.lower()
    assert consumer(group_id="g").committed(TopicPartition("stays", 0)) == 1, "the other topic's is there"


def test_closing_commits_again_what_a_broker_does_not_know_yet(
    cluster: EmbeddedKafka, consumer_of_both: Consumer, consumer: Callable[..., Consumer]
) -> None:
    error = Error(UnknownTopicOrPartitionError)
    commits: Any = cluster.intercept("OffsetCommit", lambda _: error if len(commits.requests) == 1 else None)
    consumer_of_both.close()
    assert len(commits.requests) == 2
    other = consumer(group_id="g")
    assert [other.committed(TopicPartition(topic, 0)) for topic in ("stays", "goes")] == [1, 1]
