"""The worker's own tests, on an embedded broker or, with ``pytest --kafka-backend=docker``, on a real one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from worker import DEAD, TOPIC, work

from pooledkafka import Kafka


def test_what_cannot_be_billed_is_set_aside(kafka_bootstrap_servers: str, tmp_path: Path) -> None:
    kafka = Kafka(bootstrap_servers=kafka_bootstrap_servers)
    with kafka.connection_pool() as pool:
        producer = kafka.producer(connection_pool=pool)
        for order in ({"id": 1, "amount": 10}, {"id": 2, "amount": -5}, {"id": 3, "amount": 7}, "no order"):
            producer.send(TOPIC, json.dumps(order).encode()).get(timeout=10)
        work(kafka_bootstrap_servers, tmp_path / "ledger", until_end=True)
        assert (tmp_path / "ledger").read_text() == "1 10\n3 7\n"
        with kafka.consumer(DEAD, connection_pool=pool, auto_offset_reset="earliest", group_id=None) as dead:
            came = [next(dead) for _ in range(2)]
    assert [json.loads(record.value) for record in came] == [{"id": 2, "amount": -5}, "no order"]
    assert dict(came[0].headers)["dead-letter.error.message"] == b"order 2 has a negative amount"
