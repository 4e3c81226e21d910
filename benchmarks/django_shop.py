"""What the project of examples/django holds and how it answers, beside the same view over stock kafka-python.

Each runs under gunicorn with four gthread workers of eight threads, preloaded, and is asked by 16 clients for some
seconds: a row in SQLite, and an event when it is committed. Then, with the producer in use before the workers are
forked, what becomes of the events. Ends with status 1 where one of a placed order is lost over a pool, or there twice.

    python -m benchmarks.django_shop                        # three brokers in Docker
    python -m benchmarks.django_shop --backend embedded --rounds 1 --seconds 2    # whether it works
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks import wsgi
from benchmarks.cases import Topic
from benchmarks.cluster import RunningBrokers, running
from benchmarks.rounds import machine
from benchmarks.wsgi import Figures
from integration.servers.placing import TOPIC, place, run_django
from integration.servers.running import Load

__all__ = ["main"]

WAYS: dict[str, dict[str, str]] = {
    "pooledkafka.contrib.django": {},
    "kafka-python, a producer a process": {"SHOP_PRODUCER": "process"},
}


def measure(brokers: RunningBrokers, directory: Path, way: dict[str, str], seconds: float) -> Figures:
    brokers.create([Topic(TOPIC, wsgi.PARTITIONS)])
    with run_django(brokers.bootstrap, directory, **way) as server:
        first = wsgi.first_orders_ms(server, place)
        idle = wsgi.held_idle(server)
        load, loaded = wsgi.under_load(server, seconds, place)
        ended_s = wsgi.ended_after_s(server)
    found = wsgi.left_in_log(brokers.bootstrap, TOPIC, load, "item")
    brokers.delete([TOPIC])
    return {
        "first_ms": statistics.median(first),
        "idle": idle[0],
        "idle_one_broker": idle[1],
        **loaded,
        "ended_s": ended_s,
        **found,
    }


def measure_forked(brokers: RunningBrokers, directory: Path, way: dict[str, str]) -> Figures:
    """What becomes of events where the producer was in use before the fork."""
    brokers.create([Topic(TOPIC, wsgi.PARTITIONS)])
    with run_django(brokers.bootstrap, directory, SHOP_IN_MASTER="1", **way) as server:
        load = Load(server, wsgi.FORKED_CLIENTS, place)
        wsgi.came_true(lambda: len(load.acked) >= wsgi.FORKED_ORDERS, wsgi.FORKED_WITHIN_S)
        load.stop()
        ended_s = wsgi.ended_after_s(server)
    found = wsgi.left_in_log(brokers.bootstrap, TOPIC, load, "item")
    brokers.delete([TOPIC])
    return {**wsgi.taken(load), "ended_s": ended_s, **found}


def carry_out(brokers: RunningBrokers, directory: Path, rounds: int, seconds: float) -> bool:
    """Whether nothing was lost or doubled over a pool."""
    loaded: dict[str, list[Figures]] = {name: [] for name in WAYS}
    for turn in range(rounds):
        for name, way in list(WAYS.items())[:: -1 if turn % 2 else 1]:
            figures = measure(brokers, directory, way, seconds)
            print(f"round {turn + 1}, {name}: {figures}", file=sys.stderr, flush=True)
            loaded[name].append(figures)
    print(wsgi.table([wsgi.loaded_row(*each) for each in loaded.items()]), end="\n\n", flush=True)
    forked = {name: measure_forked(brokers, directory, way) for name, way in WAYS.items()}
    print(wsgi.table([wsgi.forked_row(*each) for each in forked.items()]))
    pooled = next(iter(WAYS))
    return not any(
        figures["lost"] or figures["twice"] or figures["failed"] for figures in (*loaded[pooled], forked[pooled])
    )


def main(given: list[str]) -> int:
    arguments = wsgi.options("benchmarks.django_shop", __doc__).parse_args(given)
    with (
        running(arguments.backend, arguments.bootstrap) as brokers,
        tempfile.TemporaryDirectory(prefix="benchmarks-django-") as directory,
    ):
        print(f"{machine(brokers)}, {wsgi.versions('gunicorn', 'Django')}", end="\n\n", flush=True)
        return 0 if carry_out(brokers, Path(directory), arguments.rounds, arguments.seconds) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
