"""Calls a handler with a consumer's records: retries, dead letters, limits, signals and a progress display."""

from __future__ import annotations

from pooledkafka._run.loop import Run
from pooledkafka._run.options import RunOptions
from pooledkafka._run.signals import stopped_by_signals

__all__ = ["Run", "RunOptions", "stopped_by_signals"]
