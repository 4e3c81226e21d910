"""Loggers of the library: structlog's interface over the standard library's logging.

structlog prints every level to stdout until the application configures it. A library must not: through ``logging``,
nothing below WARNING shows by default, nothing goes to stdout, and the application decides the rest.
"""

from __future__ import annotations

import logging

import structlog

__all__ = ["get_logger"]


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A structlog logger whose events go to the ``logging`` logger ``name``."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
    )
    return logger
