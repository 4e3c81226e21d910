"""How events are written."""

from __future__ import annotations

import json
from typing import Any


def to_json(event: Any) -> bytes:
    return json.dumps(event).encode()


def from_json(data: bytes | None) -> Any:
    return None if data is None else json.loads(data)
