"""What OpenTelemetry costs a pooled producer: ``python -m benchmarks.tracing``.

Thread time of sending, in microseconds for a record, in one process, to an embedded broker, whose time does not count:
off, with an SDK that samples all and exports nothing, and with one that samples nothing. Compare them with each other.
"""

from __future__ import annotations

import argparse
import statistics
import time

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

from pooledkafka import Kafka, Producer
from pooledkafka.contrib.opentelemetry import PooledKafkaInstrumentor
from pooledkafka.testing import EmbeddedKafka

VALUE = b"x" * 200
WAYS = {"off": None, "all sampled": ALWAYS_ON, "none sampled": ALWAYS_OFF}


def send(producer: Producer, records: int) -> None:
    for _ in range(records):
        producer.send("orders", VALUE)


def send_batch(producer: Producer, records: int) -> None:
    producer.send_batch("orders", [{"value": VALUE} for _ in range(records)])


def microseconds(what: str, producer: Producer, records: int) -> float:
    began = time.thread_time()
    {"send": send, "send_batch": send_batch}[what](producer, records)
    took = time.thread_time() - began
    producer.flush(timeout=120)
    return took / records * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracing", description=__doc__)
    parser.add_argument("--records", type=int, default=20_000, help="sent in each measurement (default 20000)")
    parser.add_argument("--rounds", type=int, default=5, help="of which the medians are shown (default 5)")
    args = parser.parse_args()
    figures: dict[tuple[str, str], list[float]] = {}
    with EmbeddedKafka(brokers=1) as cluster, Kafka(**cluster.client_options()).connection_pool() as pool:
        producer = Producer(connection_pool=pool)
        send(producer, args.records)
        for _ in range(args.rounds):
            for way, sampler in WAYS.items():
                if sampler is not None:
                    PooledKafkaInstrumentor().instrument(
                        tracer_provider=TracerProvider(sampler=sampler), meter_provider=MeterProvider()
                    )
                for what in ("send", "send_batch"):
                    figures.setdefault((what, way), []).append(microseconds(what, producer, args.records))
                PooledKafkaInstrumentor().uninstrument()
    for (what, way), taken in sorted(figures.items()):
        print(f"{what:<10}  {way:<12}  {statistics.median(taken):6.1f} us ({min(taken):.1f} to {max(taken):.1f})")


if __name__ == "__main__":
    main()
