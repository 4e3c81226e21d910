"""Runs the shop of examples/django under gunicorn, as its README says."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import urllib.parse
from pathlib import Path
from typing import Any

from integration.servers.running import Server

__all__ = ["EXAMPLE", "TOPIC", "manage", "place", "run_django"]

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "django"
TOPIC = "orders.placed"


def told(bootstrap_servers: str, directory: Path, **environment: str) -> dict[str, str]:
    """What the project's processes are told by their environment."""
    paths = [str(EXAMPLE), str(ROOT), *(path for path in sys.path if path.endswith("-packages"))]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "DJANGO_SETTINGS_MODULE": "integration.servers.django_shop.settings",
        "DATABASE": str(directory / "shop.sqlite3"),
        "BOOTSTRAP": bootstrap_servers,
        **environment,
    }


def manage(*arguments: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    """A process of ``manage.py``."""
    command = [sys.executable, str(EXAMPLE / "manage.py"), *arguments]
    return subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run_django(bootstrap_servers: str, directory: Path, *options: str, **environment: str) -> Server:
    """The server, with a database of its own in the directory, where it is not there yet."""
    known = told(bootstrap_servers, directory, **environment)
    migrating = manage("migrate", "--verbosity", "0", environment=known)
    said, _ = migrating.communicate(timeout=60)
    assert migrating.returncode == 0, said
    command = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--preload", "--workers", "4"]
    command += ["--worker-class", "gthread", "--threads", "8", "--graceful-timeout", "20", *options, "shop.wsgi"]
    return Server(command, bootstrap_servers, TOPIC, directory, environment=known, ready=None)


def place(server: Server, item: str) -> dict[str, Any]:
    """Have an order placed; raises HTTPException where it is not."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=40)
    try:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/orders/", urllib.parse.urlencode({"item": item}), form)
        response = connection.getresponse()
        told = response.read()
        if response.status != 201:
            raise http.client.HTTPException(f"{response.status}: {told[:200]!r}")
        return {"pid": int(response.headers["X-Process"])}
    finally:
        connection.close()
