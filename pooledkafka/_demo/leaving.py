"""What the demonstration and the benchmark take back from a cluster that others use."""

from __future__ import annotations

from typing import Any

__all__ = ["take_back"]


def take_back(admin: Any, topic: str) -> None:
    """Delete the topic, and the groups that are named after it."""
    admin.delete_topics([topic])
    left = [each["group_id"] for each in admin.list_groups() if each["group_id"].startswith(topic)]
    if left:
        admin.delete_groups(left)
