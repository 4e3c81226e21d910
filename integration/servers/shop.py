"""Runs the shop of examples/wsgi, or another one with the same interface, as its README says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from integration.servers.running import Server

__all__ = ["EXAMPLE", "GROUPS", "gunicorn", "order", "run_shop", "uwsgi"]

EXAMPLE = Path(__file__).parents[2] / "examples" / "wsgi"

GROUPS = ("billing", "shipping", "stock", "mail", "statistics")
"""A consumer of each runs in every worker."""


def gunicorn(*options: str, application: str = "app:app") -> list[str]:
    configured = ["--config", str(EXAMPLE / "gunicorn.conf.py"), "--chdir", str(EXAMPLE)]
    return [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:{port}", *configured, *options, application]


def uwsgi(*options: str) -> list[str]:
    configured = ["--ini", str(EXAMPLE / "uwsgi.ini"), "--disable-logging"]
    return [str(Path(sys.executable).with_name("uwsgi")), "--http-socket", "127.0.0.1:{port}", *configured, *options]


def run_shop(command: list[str], bootstrap_servers: str, topic: str, directory: Path, **environment: str) -> Server:
    told = {"KAFKA_BOOTSTRAP": bootstrap_servers, "SHOP_TOPIC": topic, **environment}
    return Server(command, bootstrap_servers, topic, directory, environment=told, ready="/alive")


def order(server: Server, number: str) -> dict[str, Any]:
    """Have an order taken; raises HTTPException where it is not acknowledged."""
    return server.ask("/orders", {"id": number, "item": "book", "count": 1})
