"""What OpenTelemetry costs pooled clients: ``python -m benchmarks.tracing``.

Thread time of who sends, polls, or runs a handler that does nothing, in microseconds for a record, in one process, with
an embedded broker, whose time does not count: off, with an SDK that samples all and exports nothing, and with one that
samples nothing. Compare them with each other.
"""

from __future__ import annotations

import argparse
import statistics
import time

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

from pooledkafka import ConnectionPool, Consumer, Kafka, Producer
from pooledkafka.contrib.opentelemetry import PooledKafkaInstrumentor
from pooledkafka.testing import EmbeddedKafka

VALUE = b"x" * 200
WITHIN_S = 60
WHAT = ["send", "poll", "send_batch", "process"]
WAYS = {"off": None, "all sampled": ALWAYS_ON, "none sampled": ALWAYS_OFF}


class Clients:
    """Sends to a topic, and reads it then."""

    def __init__(self, pool: ConnectionPool, topic: str) -> None:
        self.topic = topic
        self.producer = Producer(connection_pool=pool)
        self.consumer = Consumer(topic, connection_pool=pool, group_id=topic, auto_offset_reset="earliest")

    def close(self) -> None:
        self.consumer.close()
        self.producer.close()

    def send(self, records: int) -> None:
        for _ in range(records):
            self.producer.send(self.topic, VALUE)

    def send_batch(self, records: int) -> None:
        self.producer.send_batch(self.topic, [{"value": VALUE} for _ in range(records)])

    def poll(self, records: int) -> None:
        until = time.monotonic() + WITHIN_S
        while records > 0:
            if time.monotonic() > until:
                raise TimeoutError(f"{records} records did not come within {WITHIN_S} s")
            records -= sum(map(len, self.consumer.poll(timeout_ms=1_000).values()))

    def process(self, _: int) -> None:
        self.consumer.run(lambda record: None, until_end=True)


def microseconds(clients: Clients, what: str, records: int) -> float:
    began = time.thread_time()
    getattr(clients, what)(records)
    took = time.thread_time() - began
    clients.producer.flush(timeout=120)
    return took / records * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracing", description=__doc__)
    parser.add_argument("--records", type=int, default=20_000, help="sent in each measurement (default 20000)")
    parser.add_argument("--rounds", type=int, default=5, help="of which the medians are shown (default 5)")
    args = parser.parse_args()
    figures: dict[tuple[str, str], list[float]] = {}
    with EmbeddedKafka(brokers=1) as cluster, Kafka(**cluster.client_options()).connection_pool() as pool:
        warm_up = Clients(pool, "warm-up")
        for what in WHAT:
            microseconds(warm_up, what, args.records)
        warm_up.close()
        for number in range(args.rounds):
            for way, sampler in WAYS.items():
                if sampler is not None:
                    PooledKafkaInstrumentor().instrument(
                        tracer_provider=TracerProvider(sampler=sampler), meter_provider=MeterProvider()
                    )
                clients = Clients(pool, f"orders-{number}-{way.replace(' ', '-')}")
                for what in WHAT:  # what has been sent one by one is polled, and what was sent at once is handled
                    figures.setdefault((what, way), []).append(microseconds(clients, what, args.records))
                clients.close()
                PooledKafkaInstrumentor().uninstrument()
    for (what, way), taken in sorted(figures.items(), key=lambda each: WHAT.index(each[0][0])):
        print(f"{what:<10}  {way:<12}  {statistics.median(taken):6.1f} us ({min(taken):.1f} to {max(taken):.1f})")


if __name__ == "__main__":
    main()
