"""A worker: bills each order of a topic, sets aside what it cannot bill, and ends cleanly when it is told to.

python worker.py localhost:9092          # until SIGTERM or Ctrl-C
python worker.py                         # a demonstration on an embedded broker, which ends by itself
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pooledkafka import Kafka
from pooledkafka.testing import EmbeddedKafka

TOPIC, DEAD = "orders", "orders.dead"


def biller(ledger: Path) -> Callable[[Any], None]:
    def bill(record: Any) -> None:
        order = json.loads(record.value)
        if order["amount"] < 0:
            raise ValueError(f"order {order['id']} has a negative amount")
        with ledger.open("a") as file:
            file.write(f"{order['id']} {order['amount']}\n")

    return bill


def work(bootstrap_servers: str, ledger: Path, *, until_end: bool) -> None:
    kafka = Kafka(bootstrap_servers=bootstrap_servers)
    with kafka.connection_pool() as pool, kafka.consumer(group_id="billing", connection_pool=pool) as consumer:
        consumer.subscribe([TOPIC], from_beginning=True)
        consumer.run(
            biller(ledger),
            retries=2,
            dead_letter_topic=DEAD,
            error_limit=100,
            handle_signals=True,  # the first SIGTERM or SIGINT ends it after the order in hand, the second at once
            progress=True,
            until_end=until_end,
        )


def demonstrate(ledger: Path) -> None:
    with EmbeddedKafka() as cluster:
        kafka = Kafka(**cluster.client_options())
        orders = [{"id": number, "amount": -1 if number % 300 == 299 else number} for number in range(1_000)]
        with kafka.connection_pool() as pool, kafka.producer(connection_pool=pool) as producer:
            producer.send_batch(TOPIC, [{"value": json.dumps(order).encode()} for order in orders]).get(timeout=10)
        work(cluster.bootstrap_servers, ledger, until_end=True)
    print(f"{len(ledger.read_text().splitlines())} of {len(orders)} orders are in {ledger}, the others in {DEAD}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bootstrap_servers", nargs="?", help="brokers, host:port,...; none: a demonstration")
    parser.add_argument("--ledger", type=Path, default=Path("ledger.txt"), help="where the bills go")
    parser.add_argument("--until-end", action="store_true", help="end when all that is there is billed, as for cron")
    given = parser.parse_args()
    if given.bootstrap_servers is None:
        demonstrate(given.ledger)
    else:
        work(given.bootstrap_servers, given.ledger, until_end=given.until_end)
