"""The cut batch through the whole stack: KafkaConsumer over a pool, a scripted broker."""

from __future__ import annotations

import threading
import time
from typing import Any

from kafka.protocol.consumer import FetchRequest, FetchResponse
from kafka.structs import TopicPartition

from pooledkafka import ConnectionPool, Consumer
from tests._fetch.test_multiplexer_turns import real_batch
from tests.scripted_broker import ScriptedBroker

ORDERS = TopicPartition("orders", 0)
BATCHES = [real_batch(2 * n, 2) for n in range(6)]
Topic = FetchResponse.FetchableTopicResponse


def test_a_reader_gets_its_log_where_the_broker_cuts_batches() -> None:
    def fetch(request: Any) -> Any:
        topics = []
        for topic in request.topics:
            for p in topic.partitions:
                first = p.fetch_offset // 2
                # as a broker whose response limit is used up by other partitions: a whole batch, and a piece
                records = BATCHES[first] + (BATCHES[first + 1][:40] if first + 1 < 6 else b"") if first < 6 else b""
                topics.append(
                    Topic(
                        topic=topic.topic,
                        partitions=[
                            Topic.PartitionData(
                                partition_index=0,
                                error_code=0,
                                high_watermark=12,
                                last_stable_offset=12,
                                log_start_offset=0,
                                aborted_transactions=[],
                                preferred_read_replica=-1,
                                records=records,
                            )
                        ],
                    )
                )
        if request.max_wait_ms and not any(t.partitions[0].records for t in topics):
            time.sleep(request.max_wait_ms / 1000)
        return FetchResponse(
            version=request.API_VERSION, throttle_time_ms=0, error_code=0, session_id=0, responses=topics
        )

    seen: list[int] = []
    errors: list[BaseException] = []

    def consume(consumer: Consumer) -> None:
        end = time.monotonic() + 5
        while time.monotonic() < end and len(seen) < 12:
            try:
                for records in consumer.poll(timeout_ms=200).values():
                    seen.extend(record.offset for record in records)
                time.sleep(0.2)  # meanwhile the pool reads on
            except BaseException as error:
                errors.append(error)

    with ScriptedBroker({"orders": 1}) as broker:
        broker.on(FetchRequest, fetch)
        pool = ConnectionPool(bootstrap_servers=broker.address)
        consumer = Consumer(connection_pool=pool)
        consumer.assign([ORDERS])
        consumer.seek(ORDERS, 0)
        thread = threading.Thread(target=consume, args=(consumer,), daemon=True)
        thread.start()
        thread.join(8)
        hangs = thread.is_alive()
        try:
            pool.disconnect(timeout_ms=200)
        except BaseException:
            pass
    assert (seen, errors, hangs) == (list(range(12)), [], False)
