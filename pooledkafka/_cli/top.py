"""``pooledkafka top``."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live

from pooledkafka._cli.output import JSON_OPTION, print_json, print_table, table
from pooledkafka.contrib.inspection import runtime_directory

__all__ = ["top"]

_PATIENCE_S = 2.0
_NOBODY = (
    "no process shows its pools; call pooledkafka.contrib.inspection.serve() in it, as the same user, "
    "and with the same XDG_RUNTIME_DIR"
)
_POOLS = [
    "pid", "program", "pool", "state", "consumers", "producers", "connections", "in flight", "waiting", "created",
    "closed", "fetches/s", "on the wire/s", "read ahead", "metadata",
]  # fmt: skip


@click.command()
@click.option("--pid", "pids", type=int, multiple=True, help="Only this process; repeatable. Default: all of yours.")
@click.option(
    "--socket",
    "sockets",
    type=click.Path(path_type=Path),
    multiple=True,
    help="What was given to serve(), where that was not its default; repeatable.",
)
@click.option("--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Look once. So it is where stdout is no terminal, but for --json.")
@JSON_OPTION
@click.pass_context
def top(
    context: click.Context,
    pids: tuple[int, ...],
    sockets: tuple[Path, ...],
    interval: float,
    once: bool,
    as_json: bool,
) -> None:
    """Watch the pools of processes that show them.

    A process does that which calls pooledkafka.contrib.inspection.serve(): a socket then tells its user, and nobody
    else, what its pools hold. With --json there is a line for each look; with --once too one object. The exit code is 1
    where no process shows its pools.

    \b
    Examples:
      pooledkafka top
      pooledkafka top --once --json | jq '.[].pools[].stats.connections'
    """
    console = Console()
    look = _Look(pids, sockets)
    found = look.now()
    if not found:
        raise click.ClickException(_NOBODY)
    if as_json:
        print_json(found, indent=2 if once else None)
        while not once:
            time.sleep(interval)
            print_json(look.now(), indent=None)
    elif once or not console.is_terminal:
        for headers, rows in _tables(found, {}, 0.0):
            print_table(headers, rows)
    else:
        _watch(console, look, found, interval)


class _Look:
    """Asks the processes."""

    def __init__(self, pids: tuple[int, ...], sockets: tuple[Path, ...]) -> None:
        self._pids = pids
        self._sockets = sockets

    def now(self) -> list[dict[str, Any]]:
        paths = list(self._sockets)
        if self._pids or not paths:
            directory = runtime_directory()
            names = [f"{pid}.sock" for pid in self._pids]
            paths += [directory / name for name in names] if names else sorted(directory.glob("*.sock"))
        answers = (_ask(path) for path in paths)
        return [answer for answer in answers if answer is not None]


def _ask(path: Path) -> dict[str, Any] | None:
    """What the process says; None where there is none any more."""
    received = bytearray()
    with socket.socket(socket.AF_UNIX) as asking, suppress(TimeoutError):
        asking.settimeout(_PATIENCE_S)
        try:
            asking.connect(str(path))
            while data := asking.recv(65_536):
                received += data
        except ConnectionRefusedError:  # it was killed, and could not remove its socket
            with suppress(OSError):
                if path.is_socket():  # a file that is none refuses likewise
                    os.unlink(path)
        except (FileNotFoundError, ConnectionResetError):
            pass
    if not received:
        return None
    answer: dict[str, Any] = json.loads(received)
    return answer


def _watch(console: Console, look: _Look, found: list[dict[str, Any]], interval: float) -> None:
    before: dict[tuple[int, int], dict[str, Any]] = {}
    began = time.monotonic()
    with Live(console=console, screen=True, auto_refresh=False) as display:
        while True:
            now = time.monotonic()
            shown = [table(headers, rows) for headers, rows in _tables(found, before, now - began)]
            display.update(Group(*shown) if shown else "no process shows its pools any more", refresh=True)
            before, began = _by_pool(found), now
            time.sleep(interval)
            found = look.now()


def _by_pool(found: list[dict[str, Any]]) -> dict[tuple[int, int], dict[str, Any]]:
    return {
        (process["pid"], number): pool["stats"] for process in found for number, pool in enumerate(process["pools"])
    }


def _tables(
    found: list[dict[str, Any]], before: dict[tuple[int, int], dict[str, Any]], seconds: float
) -> list[tuple[list[str], list[list[Any]]]]:
    """The pools, and the connections of those that have some; rates are since ``before``."""
    pools: list[list[Any]] = []
    lanes: list[list[Any]] = []
    names = sorted(
        {lane for stats in _by_pool(found).values() for each in stats["connections"].values() for lane in each}
    )
    for process in found:
        for number, pool in enumerate(process["pools"]):
            stats = pool["stats"]
            earlier = before.get((process["pid"], number))
            label = [process["pid"], process["program"], pool["client_id"]]
            open_now = sum(count for each in stats["connections"].values() for count in each.values())
            pools.append(
                [
                    *label,
                    pool["state"],
                    stats["consumers"],
                    stats["producers"],
                    open_now,
                    stats["requests_in_flight"],
                    stats["requests_waiting"],
                    stats["connections_created"],
                    stats["connections_closed"],
                    _rate("logical_fetches", stats, earlier, seconds),
                    _rate("wire_fetches", stats, earlier, seconds),
                    f"{stats['read_ahead_bytes'] / 1024:.0f} KiB",
                    "" if stats["metadata_age_ms"] is None else f"{stats['metadata_age_ms'] / 1000:.0f} s",
                ]
            )
            lanes += [
                [*label, int(broker), *(counts.get(name) for name in names)]
                for broker, counts in stats["connections"].items()
            ]
    tables: list[tuple[list[str], list[list[Any]]]] = [(_POOLS, pools)]
    if lanes:
        tables.append((["pid", "program", "pool", "broker", *names], lanes))
    return tables


def _rate(name: str, stats: dict[str, Any], earlier: dict[str, Any] | None, seconds: float) -> str:
    if earlier is None or seconds <= 0 or stats[name] < earlier[name]:
        return ""
    return f"{(stats[name] - earlier[name]) / seconds:.1f}"
