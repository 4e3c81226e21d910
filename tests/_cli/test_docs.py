"""docs/cli.md has the help of every command as it is; ``python -m tests._cli.test_docs`` writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from pooledkafka._cli.commands import commands

PAGE = Path(__file__).parent.parent.parent / "docs" / "cli.md"
_BEGIN = "## All options\n"


def helps(command: click.Command = commands, name: str = "pooledkafka") -> Iterator[tuple[str, str]]:
    """Every command with its help."""
    if not isinstance(command, click.Group):
        settings = {**commands.context_settings, "terminal_width": 100}
        yield name, command.get_help(click.Context(command, info_name=name, **settings))
        return
    for each in sorted(command.commands):
        yield from helps(command.commands[each], f"{name} {each}")


def letters(text: str) -> str:
    """Without line breaks, which releases of click set differently."""
    return re.sub(r"\s+", "", text)


def test_every_command_is_there_with_its_help() -> None:
    page = letters(PAGE.read_text())
    missing = [name for name, text in helps() if letters(text) not in page]
    assert not missing, f"{PAGE.name} has not the help of {missing}; run python -m tests._cli.test_docs"


def test_every_command_has_examples() -> None:
    for name, text in helps():
        assert f"{name} " in text.partition("Example")[2] or f"{name}\n" in text.partition("Example")[2], name


if __name__ == "__main__":
    kept = PAGE.read_text().partition(_BEGIN)[0]
    blocks = [f"### {name}\n\n```text\n{text.rstrip()}\n```\n" for name, text in helps()]
    PAGE.write_text(kept + _BEGIN + "\n" + "\n".join(blocks))
