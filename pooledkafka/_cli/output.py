"""What commands say: tables and JSON on stdout, progress on stderr."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import IO, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from pooledkafka._plain import plain

__all__ = ["JSON_OPTION", "print_json", "print_table", "progress", "table"]

_WIDE = 10_000
"""Nothing is cut where no terminal says how wide it is."""

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """``value`` as JSON."""
    click.echo(json.dumps(plain(value), indent=indent, ensure_ascii=False))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Rows under their headers; numbers to the right."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)
    with console.capture() as printed:
        console.print(table(headers, rows))
    for line in printed.get().splitlines():
        click.echo(line.rstrip())


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """The same, not yet printed."""
    made = Table(box=None, pad_edge=False)
    for position, header in enumerate(headers):
        numbers = bool(rows) and all(isinstance(row[position], int | float | None) for row in rows)
        made.add_column(header, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        # Not as markup: a group may be named like an emoji's code, and a backslash at the end is one.
        made.add_row(*(Text("" if each is None else str(each)) for each in row))
    return made


def progress(*, beside: IO[str] | None = None) -> Progress:
    """A display of long work, on stderr and only where that is a terminal; not where ``beside`` is one too, on which
    it would be in the way.
    """
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal or (beside is not None and beside.isatty()),
    )
