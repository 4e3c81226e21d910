"""All commands."""

from __future__ import annotations

import logging

import click

from pooledkafka._cli.bench import bench
from pooledkafka._cli.consume import consume
from pooledkafka._cli.demo import demo
from pooledkafka._cli.doctor import doctor
from pooledkafka._cli.groups import groups
from pooledkafka._cli.produce import produce
from pooledkafka._cli.top import top
from pooledkafka._cli.topics import topics

__all__ = ["commands"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="pooledkafka")
@click.option("-v", "--verbose", is_flag=True, help="Show what kafka-python and the pool log, on stderr.")
def commands(verbose: bool) -> None:
    """Look at Kafka clusters, and at the connection pools of processes.

    \b
    Examples:
      pooledkafka doctor kafka.example:9092
      pooledkafka topics list -b kafka.example:9092
      pooledkafka consume orders --from-beginning --max 10
      pooledkafka top

    Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


for _command in (doctor, top, topics, groups, produce, consume, demo, bench):
    commands.add_command(_command)
