"""``pooledkafka demo``."""

from __future__ import annotations

import time

import click
from rich.console import Console

from pooledkafka._cli.output import JSON_OPTION, print_json
from pooledkafka._demo.demonstration import Demonstration, Result
from pooledkafka.testing import Cluster, EmbeddedKafka, KafkaCluster

__all__ = ["demo"]


@click.command()
@click.option("-b", "--bootstrap", metavar="HOST:PORT[,...]", help="On a cluster that runs already, without a login.")
@click.option(
    "--backend",
    type=click.Choice(["embedded", "docker"]),
    default="embedded",
    show_default=True,
    help="Brokers in this process, or Apache Kafka in Docker; without --bootstrap.",
)
@click.option("--consumers", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--producers", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--records", type=click.IntRange(min=1), default=600, show_default=True)
@click.option(
    "--rate", type=click.FloatRange(min=1), default=30.0, show_default=True, help="Records that are sent a second."
)
@JSON_OPTION
@click.pass_context
def demo(
    context: click.Context,
    bootstrap: str | None,
    backend: str,
    consumers: int,
    producers: int,
    records: int,
    rate: float,
    as_json: bool,
) -> None:
    """Show many clients over one pool, and the same clients without it.

    Each consumer is in a group of its own, and receives every record that the producers send; then consumers and
    producers of stock kafka-python are made, as many, to count what they hold. It works in a topic and groups of its
    own, which it deletes. The exit code is 1 where a group misses a record or receives one twice.

    \b
    Examples:
      pooledkafka demo
      pooledkafka demo --backend docker --consumers 100
      pooledkafka demo -b kafka.example:9092 --json
    """
    console = Console(stderr=as_json, soft_wrap=True, highlight=False)

    def run(bootstrap_servers: str) -> Result:
        return Demonstration(bootstrap_servers, console, consumers, producers, records, rate).run()

    if bootstrap:
        console.print(f"using the Kafka cluster at {bootstrap}")
        result = run(bootstrap)
    else:
        cluster: Cluster
        if backend == "docker":
            cluster, what = KafkaCluster(brokers=3), "brokers of Apache Kafka in Docker"
        else:
            cluster, what = EmbeddedKafka(brokers=3), "embedded brokers, in this process"
        console.print(f"starting three {what} ...")
        started = time.monotonic()
        with cluster:
            console.print(f"three {what} are ready after {time.monotonic() - started:.2f} s")
            result = run(cluster.bootstrap_servers)
    if as_json:
        print_json(
            {
                "groups": result.groups,
                "exact": result.exact,
                "sent": result.sent,
                "acknowledged_ms": _percentiles(result.acknowledged_ms),
                "received_ms": _percentiles(result.received_ms),
                "pooled": result.pooled,
                "apart": result.apart,
                "errors": result.errors,
            }
        )
    context.exit(0 if result.is_right else 1)


def _percentiles(latencies_ms: list[float]) -> dict[str, float]:
    ordered = sorted(latencies_ms)
    return {f"p{share}": ordered[len(ordered) * share // 100] for share in (50, 99)} if ordered else {}
