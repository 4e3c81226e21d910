"""An app with handlers."""

from __future__ import annotations

import json
from typing import Any


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


class NeedsArguments:
    """A serializer that settings cannot name."""

    def __init__(self, registry: str) -> None:
        self.registry = registry
