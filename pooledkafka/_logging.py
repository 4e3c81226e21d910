"""Loggers of the library: structlog's interface over the standard library's logging.

structlog prints every level to stdout until the application configures it. A library must not: through ``logging``,
nothing below WARNING shows by default, nothing goes to stdout, and the application decides the rest.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

import structlog

__all__ = ["get_logger"]

_rendered = structlog.processors.KeyValueRenderer(key_order=["event"])


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A structlog logger whose events go to the ``logging`` logger ``name``."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[structlog.stdlib.filter_by_level, structlog.processors.format_exc_info, _to_logging],
    )
    return logger


def _to_logging(logger: Any, method: str, event: MutableMapping[str, Any]) -> tuple[tuple[str], dict[str, Any]]:
    """One line for whoever reads it, and the fields as attributes of the record for formatters that know them."""
    return (_rendered(logger, method, dict(event)),), {"extra": dict(event)}
