"""Raises when it is imported, as one that misses a variable of the environment does."""

from __future__ import annotations

raise LookupError("no such variable")
