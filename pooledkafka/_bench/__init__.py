"""What ``pooledkafka bench`` measures; needs the cli extra."""

from __future__ import annotations
