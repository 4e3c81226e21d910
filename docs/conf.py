"""How Sphinx builds the documentation: ``make docs``."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.logging import getLogger

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # the API reference is of this tree, installed or not

project = "pooledkafka"
html_show_copyright = False
release = version_of("pooledkafka")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
highlight_language = "text"  # of blocks that name none

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"pooledkafka {release}"

OPTIONAL_PAGES = ("metrics", "tracing", "cli")
"""What the table of contents names, whether it is there or not."""


def _as_on_the_site(app: Sphinx, page: str, content: list[str]) -> None:
    """What leaves docs/ is a link where the repository is browsed, and a path on the site."""

    def named(link: re.Match[str]) -> str:
        text, path = link["text"].strip("`"), link["path"]
        if not (HERE / ".." / path).exists():
            getLogger(__name__).warning("%s is not there", path, location=page)
        return f"{text} (`{path}` in the repository)"

    content[0] = re.sub(r"\[(?P<text>[^\]]+)\]\(\.\./(?P<path>[^)#]+)(#[^)]*)?\)", named, content[0])
    if page == "index":
        gone = {name for name in OPTIONAL_PAGES if not (HERE / f"{name}.md").exists()}
        content[0] = "\n".join(line for line in content[0].split("\n") if line not in gone)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _as_on_the_site)
