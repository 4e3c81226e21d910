"""Speaks of what was dropped without having been closed."""

from __future__ import annotations

import sys
import warnings

__all__ = ["Place", "made_here", "warn_unclosed"]

Place = tuple[str, int]
"""A file and a line of it."""


def made_here() -> Place:
    """The line outside this library that is making a pool or client now; keeps no frame alive."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("pooledkafka."):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def warn_unclosed(what: str, place: Place, released: str) -> None:
    """Warn, as of the line that made it. For finalizers: takes no lock of this library and waits for nothing."""
    file, line = place
    warnings.warn_explicit(
        f"{what} made at {file}:{line} was dropped without close() or disconnect(); {released}. Close it when it is no "
        "longer needed, or use it in a `with` statement.",
        ResourceWarning,
        file,
        line,
    )
