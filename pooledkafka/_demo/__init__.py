"""What ``pooledkafka demo`` and ``make demo`` show; needs the cli extra."""

from __future__ import annotations
