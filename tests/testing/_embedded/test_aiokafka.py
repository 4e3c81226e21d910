"""aiokafka, which shares no code with the other clients, on the embedded cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from pooledkafka.testing import EmbeddedKafka

aiokafka = pytest.importorskip("aiokafka")
WITHIN_S = 15.0


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=3) as cluster:
        yield cluster


async def received(consumer: Any, count: int) -> list[bytes]:
    values: list[bytes] = []
    while len(values) < count:
        for records in (await consumer.getmany(timeout_ms=1_000)).values():
            values.extend(record.value for record in records)
    return values


def test_a_group_receives_what_an_idempotent_producer_sends(cluster: EmbeddedKafka) -> None:
    topic = cluster.create_topic("t", partitions=3)

    async def run() -> list[bytes]:
        async with aiokafka.AIOKafkaProducer(
            bootstrap_servers=cluster.bootstrap_servers, enable_idempotence=True
        ) as producer:
            for number in range(30):
                await producer.send_and_wait(topic, b"%02d" % number, partition=number % 3)
        async with aiokafka.AIOKafkaConsumer(
            topic, bootstrap_servers=cluster.bootstrap_servers, group_id="g", auto_offset_reset="earliest"
        ) as consumer:
            values = await received(consumer, 30)
            await consumer.commit()
        async with aiokafka.AIOKafkaConsumer(
            topic, bootstrap_servers=cluster.bootstrap_servers, group_id="g", auto_offset_reset="earliest"
        ) as consumer:
            assert await consumer.getmany(timeout_ms=200) == {}, "all was committed"
        return values

    assert sorted(asyncio.run(asyncio.wait_for(run(), WITHIN_S))) == [b"%02d" % number for number in range(30)]


def test_aborted_transactions_are_not_read(cluster: EmbeddedKafka) -> None:
    topic = cluster.create_topic("t")

    async def run() -> list[bytes]:
        async with aiokafka.AIOKafkaProducer(
            bootstrap_servers=cluster.bootstrap_servers, transactional_id="tx"
        ) as producer:
            async with producer.transaction():
                await producer.send_and_wait(topic, b"kept")
            await producer.begin_transaction()
            await producer.send_and_wait(topic, b"void")
            await producer.abort_transaction()
            async with producer.transaction():
                await producer.send_and_wait(topic, b"kept too")
        async with aiokafka.AIOKafkaConsumer(
            topic,
            bootstrap_servers=cluster.bootstrap_servers,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        ) as consumer:
            return await received(consumer, 2)

    assert asyncio.run(asyncio.wait_for(run(), WITHIN_S)) == [b"kept", b"kept too"]
