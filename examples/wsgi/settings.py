"""What the environment says, and how long anything may take."""

from __future__ import annotations

import os

__all__ = ["ANSWER_WITHIN_S", "CLUSTER", "GROUPS", "PRODUCER", "TOPIC"]

TOPIC = os.environ.get("SHOP_TOPIC", "orders")
GROUPS = ["billing", "shipping", "stock", "mail", "statistics"][: int(os.environ.get("SHOP_CONSUMERS", "5"))]
CLUSTER = {
    "bootstrap_servers": os.environ.get("KAFKA_BOOTSTRAP", "localhost:9092"),
    "client_id": "shop",
    "bootstrap_timeout_ms": 5_000,
}

# An answer after which a record is still being sent would be none: what is not acknowledged in time has failed.
PRODUCER = {"delivery_timeout_ms": 10_000, "request_timeout_ms": 5_000, "max_block_ms": 5_000}
ANSWER_WITHIN_S = 12.0
