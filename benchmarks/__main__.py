"""Runs the benchmarks: ``python -m benchmarks``, or one of them; shows and plots what was measured."""

from __future__ import annotations

import argparse
import sys
import uuid
from pathlib import Path
from types import ModuleType

from benchmarks import clients, goals, latency, many_clients, partitions, throughput
from benchmarks.cases import Plan, WrongCountError
from benchmarks.cluster import running
from benchmarks.libraries import LIBRARIES, missing
from benchmarks.rounds import MeasurementError, Run, about_s, machine, read, taken_together
from benchmarks.tables import tables

__all__ = ["main"]

DESCRIPTION = """\
Compares pooledkafka with stock kafka-python, confluent-kafka and aiokafka on the same brokers. Each measurement runs in
a process of its own, and the libraries take turns, for several rounds. Prints tables of the medians, and writes every
figure as JSON. benchmarks/README.md says what the figures mean.

    python -m benchmarks                                  everything, on three brokers in Docker
    python -m benchmarks --quick --backend embedded       whether all of it works, in a few minutes
    python -m benchmarks goals --json goals.json          only what the project's goals compare
    python -m benchmarks show goals.json                  the tables of earlier runs, taken together
    python -m benchmarks plot all.json --to docs/images   pictures of them
"""


BENCHMARKS: dict[str, ModuleType] = {
    "many_clients": many_clients,
    "throughput": throughput,
    "latency": latency,
    "clients": clients,
    "partitions": partitions,
    "goals": goals,
}
"""Each module has a plan, the options of that, and what these are in a quick run."""
ALL = "all"


def options_of_all(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--bootstrap", metavar="HOST:PORT", help="a running cluster")
    add("--backend", choices=["docker", "embedded"], default="docker", help="or three brokers, started for this")
    add("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES), help="which to compare")
    add("--rounds", type=int, default=3)
    add("--warm-up", type=float, default=10.0, help="seconds of sending with each library before anything is measured")
    add("--json", type=Path, metavar="FILE", help="where to write all figures, after each measurement")
    add("--quick", action="store_true", help="little of everything, once: to see that it works; times mean nothing")


def parser_of(name: str, parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    options_of_all(parser)
    if name != ALL:
        BENCHMARKS[name].add_options(parser)
    return parser


def defaults(name: str, quick: bool) -> argparse.Namespace:
    """A benchmark's options where none is given."""
    benchmark = BENCHMARKS[name]
    parser = argparse.ArgumentParser()
    benchmark.add_options(parser)
    if quick:
        parser.set_defaults(**benchmark.QUICK)
    return parser.parse_args([])


def plans(name: str, arguments: argparse.Namespace) -> list[Plan]:
    """What is to be measured: one plan after another, so that few topics are there at a time."""
    topics = f"bench-{uuid.uuid4().hex[:8]}"
    if name != ALL:
        return [planned(name, arguments, topics)]
    every = {each: defaults(each, arguments.quick) for each in BENCHMARKS}
    every["goals"].many = 0  # many_clients tells it
    return [planned(each, given, f"{topics}-{each}") for each, given in every.items()]


def planned(name: str, arguments: argparse.Namespace, topics: str) -> Plan:
    plan: Plan = BENCHMARKS[name].plan(arguments, topics)
    return plan


def measure(name: str, arguments: argparse.Namespace) -> int:
    for library in filter(missing, arguments.libraries):
        print(f"{library} is not installed and is left out; to compare with it: pip install {library}", file=sys.stderr)
    libraries = [library for library in arguments.libraries if not missing(library)]
    todo = plans(name, arguments)
    minutes = sum(about_s(plan, libraries, arguments.rounds) for plan in todo) / 60
    print(f"this takes about {max(1, round(minutes))} min", file=sys.stderr, flush=True)
    settings = {key: value for key, value in vars(arguments).items() if not isinstance(value, Path)}
    with running(arguments.backend, arguments.bootstrap) as brokers:
        run = Run(brokers, brokers.bootstrap, libraries, arguments.rounds, settings, machine(brokers), arguments.json)
        if arguments.warm_up:
            run.warm_up(f"bench-{uuid.uuid4().hex[:8]}", arguments.warm_up)
        for plan in todo:
            run.carry_out(plan)
        print(tables(run.measurements))
    return 1 if run.failures else 0


def command_line(quick: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    parser_of(ALL, commands.add_parser(ALL, help="every benchmark with its defaults; what runs where none is named"))
    for name, benchmark in BENCHMARKS.items():
        about = str(benchmark.__doc__)
        parser_of(name, commands.add_parser(name, help=about.splitlines()[0], description=about))
    show = commands.add_parser("show", help="the tables of earlier runs, taken together as rounds of one")
    show.add_argument("files", type=Path, nargs="+", metavar="FILE")
    plot = commands.add_parser("plot", help="pictures of earlier runs, taken together as rounds of one")
    plot.add_argument("files", type=Path, nargs="+", metavar="FILE")
    plot.add_argument("--to", type=Path, required=True, metavar="DIRECTORY")
    plot.add_argument("--format", choices=["svg", "png"], default="svg")
    if quick:
        for name in (ALL, *BENCHMARKS):
            own = BENCHMARKS[name].QUICK if name in BENCHMARKS else {}
            commands.choices[name].set_defaults(rounds=1, warm_up=0.0, **own)
    return parser


def main(given: list[str]) -> int:
    names = (ALL, *BENCHMARKS, "show", "plot")
    if (not given or given[0].startswith("-")) and not {"-h", "--help"} & set(given):
        given = [ALL, *given]
    parser = command_line("--quick" in given)
    arguments = parser.parse_args(given)
    if arguments.command is None:
        parser.error(f"say what to do: {', '.join(names)}")
    try:
        return carry_out(arguments)
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))


def carry_out(arguments: argparse.Namespace) -> int:
    from pooledkafka.testing import ClusterError

    if arguments.command == "show":
        print(tables(taken_together([read(file) for file in arguments.files])))
        return 0
    if arguments.command == "plot":
        from benchmarks.plots import draw

        for file in draw(taken_together([read(file) for file in arguments.files]), arguments.to, arguments.format):
            print(file)
        return 0
    try:
        return measure(arguments.command, arguments)
    except ClusterError as error:
        print(f"the benchmark needs a Kafka cluster: {error}", file=sys.stderr)
        return 2
    except (MeasurementError, WrongCountError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
