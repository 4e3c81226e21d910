"""Asks for groups, whose coordinators may not be there yet."""

from __future__ import annotations

import time
from typing import Any

from kafka.errors import GroupAuthorizationFailedError, KafkaError

__all__ = ["described_group"]

_PAUSE_S = 0.1


def described_group(admin: Any, group: str, timeout_ms: float) -> dict[str, Any]:
    """What ``describe_groups`` says of one; waits for its coordinator, which a cluster new to groups has to make first.

    Raises:
        GroupAuthorizationFailedError: the user may not describe it.
    """
    until = time.monotonic() + timeout_ms / 1000
    while True:
        try:
            described: dict[str, Any] = admin.describe_groups([group])[group]
        except KafkaError as error:
            if not getattr(error, "retriable", False) or time.monotonic() > until:
                raise
        else:
            said = str(described["error"] or "")
            if "GroupAuthorizationFailed" in said:
                raise GroupAuthorizationFailedError(group)
            if "Coordinator" not in said or time.monotonic() > until:
                return described
        time.sleep(_PAUSE_S)
