"""docs/logs.md lists every event that the source logs, with its level and fields, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from tests.docs.pages import ROOT

LEVELS = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR", "exception": "ERROR"}
PROGRAMS = {"_cli", "_demo", "_bench"}
"""Which are not for use within another one: standard output is theirs."""
SPREAD = {"self._context": ("pool", "group"), "_where(records)": ("topic", "partition", "offset", "records")}
"""What is passed on by ``**``."""


class Event(NamedTuple):
    name: str
    level: str
    fields: frozenset[str]


def logged() -> Iterator[Event]:
    for path in sorted((ROOT / "pooledkafka").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if ast.unparse(node.func.value) != "_log":
                continue
            assert node.func.attr in LEVELS, f"{path}:{node.lineno}: a level that the page knows nothing of"
            (name,) = node.args
            assert isinstance(name, ast.Constant), f"{path}:{node.lineno}: an event's name is fixed, its fields vary"
            fields: set[str] = {"exc_info"} if node.func.attr == "exception" else set()
            for keyword in node.keywords:
                fields |= {keyword.arg} if keyword.arg else set(SPREAD[ast.unparse(keyword.value)])
            yield Event(str(name.value), LEVELS[node.func.attr], frozenset(fields))


def documented() -> dict[str, tuple[str, frozenset[str], frozenset[str]]]:
    """By its name: the level, the fields that are always there, and those that may be."""
    found = {}
    for names, level, fields in re.findall(
        r"^\| (`[^|]+`) \| ([A-Z]+) \| ([^|]+) \|", (ROOT / "docs/logs.md").read_text(), re.M
    ):
        each = [field.strip() for field in fields.split(",")]
        always = frozenset(field for field in each if not field.endswith("*"))
        for name in re.findall(r"`([^`]+)`", names):
            assert name not in found, f"{name} is there twice"
            found[name] = (level, always, frozenset(field.rstrip("*") for field in each))
    return found


def test_the_page_lists_what_is_logged_and_nothing_else() -> None:
    assert {event.name for event in logged()} == set(documented())


def test_levels_and_fields_are_those_of_the_source() -> None:
    page = documented()
    for event in logged():
        level, always, all_of_them = page[event.name]
        assert (event.name, level) == (event.name, event.level)
        assert always <= event.fields <= all_of_them, event


def test_names_are_dotted() -> None:
    assert [event.name for event in logged() if not re.fullmatch(r"[a-z_]+\.[a-z_]+", event.name)] == []


def test_nothing_else_in_the_package_logs_or_prints() -> None:
    """So the page has all there is: no second logger, and nothing that goes to standard output by itself."""
    others = []
    for path in sorted((ROOT / "pooledkafka").rglob("*.py")):
        if path.relative_to(ROOT / "pooledkafka").parts[0] in PROGRAMS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {
                "logging.getLogger",
                "print",
                "structlog.get_logger",
            }:
                others.append(str(path.relative_to(ROOT / "pooledkafka")))
    assert others == ["_logging.py", "_wire/discretion.py"], "the latter filters kafka-python's records"
