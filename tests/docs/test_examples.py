"""Every example of the documentation runs, on an embedded cluster in place of localhost:9092.

One that cannot is marked where it stands, with the reason: ``<!-- skip: next "needs Docker" -->``.
"""

from __future__ import annotations

import inspect
import re
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, SkipParser

from pooledkafka import Kafka, PoolStats
from pooledkafka.config import CONNECTION_OPTIONS
from pooledkafka.testing import EmbeddedKafka
from tests.docs.pages import PAGES, ROOT, names_of

NOT_RUN = {"diff", "ini", "javascript", "json", "shell", "text", "yaml", "{eval-rst}", "{include}", "{toctree}"}
"""Languages of blocks that nobody takes for Python; those of Python's are all "python"."""
FENCE = re.compile(r"^ *```+(?P<language>[^\n]*)\n.*?^ *```+ *$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=1) as cluster:
        yield cluster


def code_of(example: Example, address: str = "localhost:9092") -> Any:
    """With the line numbers of the page, for the traceback."""
    source = "\n" * (example.line + example.parsed.line_offset) + example.parsed.replace("localhost:9092", address)
    return compile(source, example.path, "exec", dont_inherit=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run(page: Path, cluster: EmbeddedKafka) -> None:
    def run(example: Example) -> None:
        exec(code_of(example, cluster.bootstrap_servers), example.namespace)

    documents = Sybil([CodeBlockParser("python", run), SkipParser()])
    document = documents.parse(page)
    with names_of(page, cluster) as document.namespace:
        for example in document.examples():
            try:
                example.evaluate()
            except unittest.SkipTest:
                code_of(example)  # at least it is Python


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_block_of_a_page_escapes_by_its_language(page: Path) -> None:
    languages = {fence["language"].strip().split(" ")[0] for fence in FENCE.finditer(page.read_text())}
    assert languages <= {"python", *NOT_RUN}, f"{page.relative_to(ROOT)}: write python, or one of {sorted(NOT_RUN)}"


def test_an_example_that_is_not_marked_is_run(tmp_path: Path, cluster: EmbeddedKafka) -> None:
    page = tmp_path / "new.md"
    page.write_text("# New\n\n```python\nnobody.knows(this)\n```\n")
    with pytest.raises(NameError, match="nobody"):
        test_the_examples_of_a_page_run(page, cluster)


def test_a_mark_holds_for_one_example_only(tmp_path: Path, cluster: EmbeddedKafka) -> None:
    page = tmp_path / "new.md"
    block = "```python\nnobody.knows(this)\n```\n"
    page.write_text(f'<!-- skip: next "it is a fragment" -->\n\n{block}\n')
    test_the_examples_of_a_page_run(page, cluster)
    page.write_text(page.read_text() + block)
    with pytest.raises(NameError, match="nobody"):
        test_the_examples_of_a_page_run(page, cluster)


def test_the_figures_and_options_that_pages_explain_are_there() -> None:
    named = {
        "operations.md": set(PoolStats.__dataclass_fields__),
        "tuning.md": {*inspect.signature(Kafka.connection_pool).parameters, *CONNECTION_OPTIONS},
    }
    for page, known in named.items():
        table = re.search(r"^\| (figure|option) \|.*?\n\n", (ROOT / "docs" / page).read_text(), re.M | re.S)
        assert table is not None
        first = [row.split("|")[1] for row in table[0].strip().splitlines()[2:]]
        told = {name for cell in first for name in re.findall(r"`(\w+)`", cell)}
        assert told, page
        assert told <= known, page
    options = set(inspect.signature(Kafka.connection_pool).parameters) - {"self"}
    assert options <= told, "each option of a pool is on the page"
