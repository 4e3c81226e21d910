"""``pooledkafka bench``."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import click

from pooledkafka._bench.cases import CASES, CLIENTS
from pooledkafka._bench.plot import PlotError, check_matplotlib, plot
from pooledkafka._cli.connecting import TIMEOUT_OPTION, cluster_options, connected
from pooledkafka._cli.output import JSON_OPTION, print_json, print_table, progress
from pooledkafka._demo.leaving import take_back
from pooledkafka.admin import Admin
from pooledkafka.producer import Producer

__all__ = ["bench"]

_BATCH = 500
_LONGEST_S = 600.0
"""Of one measurement."""


@click.command()
@cluster_options()
@TIMEOUT_OPTION
@click.option("--case", "chosen", type=click.Choice(list(CASES)), multiple=True, help="Repeatable. Default: all.")
@click.option("--records", type=click.IntRange(min=1), default=50_000, show_default=True)
@click.option("--size", type=click.IntRange(min=0), default=100, show_default=True, help="Bytes of a record's value.")
@click.option("--consumers", type=click.IntRange(min=1), default=50, show_default=True, help="Of the idle case.")
@click.option("--seconds", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Of the idle case.")
@click.option("--partitions", type=click.IntRange(min=1), default=6, show_default=True)
@click.option("--runs", type=click.IntRange(min=1), default=3, show_default=True, help="Medians are shown of so many.")
@click.option(
    "--plot", "picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw a PNG; takes matplotlib."
)
@JSON_OPTION
def bench(
    options: dict[str, Any],
    timeout: float,
    chosen: tuple[str, ...],
    records: int,
    size: int,
    consumers: int,
    seconds: float,
    partitions: int,
    runs: int,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Measure pooledkafka and stock kafka-python on a cluster of yours.

    Cases: send (records by send(), until all are acknowledged), send_batch (500 at once; kafka-python, which has no
    such call, sends them by send()), consume (one consumer from the beginning), idle (consumers in groups of their own
    to which nothing is sent: connections, threads, memory, processor time). Both have their default options. Each
    measurement has a process of its own, the two take turns, and the medians are shown.

    It makes a topic and groups and deletes them, and loads the cluster and this machine: figures from one that does
    other work compare nothing. They say nothing of latencies under a steady load, nor of other libraries; for these
    see the benchmarks in the project's repository.

    \b
    Examples:
      pooledkafka bench -b kafka.example:9092
      pooledkafka bench -b kafka.example:9092 --case idle --consumers 200 --json --plot idle.png
    """
    if options.get("sasl_oauth_token_provider") is not None:
        raise click.UsageError("bench cannot hand a token on to its processes; use another mechanism")
    cases = [case for case in CASES if not chosen or case in chosen]
    try:
        if picture is not None:
            check_matplotlib()
        setting = {"records": records, "size": size, "consumers": consumers, "seconds": seconds}
        measured: dict[str, dict[str, list[dict[str, float]]]] = {}
        with _topic(options, timeout, partitions) as topic, progress() as shown:
            task = shown.add_task("measuring", total=len(cases) * runs * len(CLIENTS))
            for case in cases:
                if case == "consume":
                    _fill(options, timeout, topic, records, size)
                of_case = measured[case] = {client: [] for client in CLIENTS}
                for _ in range(runs):
                    for client in CLIENTS:
                        shown.update(task, description=f"{case} with {client}")
                        given = {"case": case, "client": client, "topic": topic, "options": options, **setting}
                        of_case[client].append(_measured(given))
                        shown.advance(task)
        found: dict[str, dict[str, dict[str, Any]]] = {
            case: {client: {"median": _median(of_client), "runs": of_client} for client, of_client in of_case.items()}
            for case, of_case in measured.items()
        }
        if picture is not None:
            title = f"medians of {runs}; {records} records of {size} bytes, {consumers} idle consumers"
            plot(found, title, picture)
    except PlotError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        print_json({"setting": {**setting, "partitions": partitions}, "versions": _versions(), "cases": found})
    else:
        for case, by_client in found.items():
            names = list(by_client[CLIENTS[0]]["median"])
            click.echo(f"{case}: {CASES[case]}")
            print_table(
                ["", *names],
                [[client, *(round(by_client[client]["median"][name], 1) for name in names)] for client in CLIENTS],
            )


@contextmanager
def _topic(options: dict[str, Any], timeout: float, partitions: int) -> Iterator[str]:
    name = f"pooledkafka-bench-{uuid.uuid4().hex[:8]}"
    with connected(options, timeout) as pool, closing(Admin(connection_pool=pool)) as admin:
        brokers = len(admin.describe_cluster()["brokers"])
        admin.create_topics(
            {name: {"num_partitions": partitions, "replication_factor": min(3, brokers)}}, wait_for_metadata=True
        )
        try:
            yield name
        finally:
            take_back(admin, name)


def _fill(options: dict[str, Any], timeout: float, topic: str, records: int, size: int) -> None:
    messages = [{"value": bytes(size)}] * _BATCH
    with connected(options, timeout) as pool, Producer(connection_pool=pool) as producer:
        for future in [producer.send_batch(topic, messages) for _ in range(-(-records // _BATCH))]:
            future.get(_LONGEST_S)


def _measured(task: dict[str, Any]) -> dict[str, float]:
    arguments = [sys.executable, "-m", "pooledkafka._bench"]
    try:
        done = subprocess.run(
            arguments, input=json.dumps(task), capture_output=True, text=True, timeout=_LONGEST_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise click.ClickException(f"{task['case']} with {task['client']} took longer than {_LONGEST_S:g} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise click.ClickException(f"{task['case']} with {task['client']} failed: {said[-1]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _median(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: median(run[name] for run in runs) for name in runs[0]}


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{each: version(each) for each in CLIENTS}}
