"""What the demo's clients hold without a pool: the same consumers and producers of stock kafka-python, for real.

Run as a module in a process of its own; prints what was measured as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import psutil
from kafka import KafkaConsumer, KafkaProducer

__all__ = ["sockets_to"]

ASSIGNED_WITHIN_S = 10.0
SETTLE_S = 3.0  # connections that only the start needed go away


def sockets_to(ports: set[int]) -> int:
    """The connections of the process to the brokers, as the operating system counts them."""
    connections = psutil.Process().net_connections(kind="tcp")
    return sum(c.status == psutil.CONN_ESTABLISHED and bool(c.raddr) and c.raddr.port in ports for c in connections)


def _main(bootstrap_servers: str, topic: str, consumers: int, producers: int, ports: set[int]) -> None:
    stop = threading.Event()
    assigned = [threading.Event() for _ in range(consumers)]

    def consume(number: int) -> None:
        consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap_servers, group_id=f"{topic}-apart-{number}")
        while not stop.is_set():
            consumer.poll(timeout_ms=200)
            if consumer.assignment():
                assigned[number].set()
        consumer.close()

    threads = [threading.Thread(target=consume, args=(number,)) for number in range(consumers)]
    for thread in threads:
        thread.start()
    senders = [KafkaProducer(bootstrap_servers=bootstrap_servers) for _ in range(producers)]
    deadline = time.monotonic() + ASSIGNED_WITHIN_S
    for event in assigned:  # kafka-python leaves about one consumer in twenty without partitions for ever
        event.wait(max(0.0, deadline - time.monotonic()))
    settled = time.monotonic() + SETTLE_S
    while time.monotonic() < settled:
        for sender in senders:
            for partition in sender.partitions_for(topic):
                sender.send(topic, b"", partition=partition)
        time.sleep(0.2)  # the pace of a little traffic
    process = psutil.Process()
    sys.stdout.write(
        json.dumps(
            {
                "connections": sockets_to(ports),
                "threads": process.num_threads() - consumers - 1,
                "rss_mb": process.memory_info().rss / 1e6,
                "assigned": sum(event.is_set() for event in assigned),
            }
        )
    )
    stop.set()
    for thread in threads:
        thread.join()
    for sender in senders:
        sender.close()


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), {int(port) for port in sys.argv[5].split(",")})
