"""What a step of ``doctor`` has come to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Finding", "Status"]


class Status(str, Enum):
    """How a step ended."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """One step."""

    step: str
    where: str
    status: Status
    ms: float | None
    """How long it took, in milliseconds; None where nothing was done."""
    cause: str = ""
    """Why it failed, or was skipped."""
    advice: str = ""
    """What to do then; may be empty."""
    found: str = ""
    """What was found, where it went well; may be empty."""
