"""The one place that knows the docker package: connecting to the daemon, and its errors in terms of ours.

The package carries no type hints and is an optional dependency, so it is imported when first needed, as `Any`.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ._errors import ClusterError, DockerUnavailableError

# Every container and network carries this label with the id of its cluster as value: what removes by label never
# touches what belongs to another run on the same daemon.
RUN_LABEL = "pooledkafka.testing.run"

_REQUEST_TIMEOUT_S = 120
_DEFAULT_URL = "npipe:" if sys.platform == "win32" else "unix:///var/run/docker.sock"


def connect() -> Any:
    """Return a `docker.DockerClient` whose daemon has answered.

    Raises DockerUnavailableError that names the cause.
    """
    try:
        docker = importlib.import_module("docker")
    except ImportError as error:
        raise DockerUnavailableError(
            "the docker package is not installed; install it with: pip install 'pooledkafka[docker]'"
        ) from error
    try:
        _check_socket()
        return docker.from_env(timeout=_REQUEST_TIMEOUT_S)
    except (OSError, docker.errors.DockerException) as error:
        raise DockerUnavailableError(
            f"no Docker daemon answers ({_root_cause(error)}); start one, or point DOCKER_HOST to one"
        ) from error


@contextmanager
def translated_errors(action: str) -> Iterator[None]:
    """Raise what the docker package raises inside the block as a ClusterError that says which `action` failed."""
    requests = importlib.import_module("requests.exceptions")
    try:
        yield
    except errors().APIError as error:
        raise ClusterError(f"Docker could not {action}: {explanation(error)}") from error
    except (errors().DockerException, requests.RequestException) as error:
        raise DockerUnavailableError(
            f"the Docker daemon stopped answering while asked to {action} ({_root_cause(error)}); is it still running?"
        ) from error


def errors() -> Any:
    """The module `docker.errors`."""
    return importlib.import_module("docker.errors")


def explanation(error: Any) -> str:
    """The daemon's own words in an APIError."""
    return str(error.explanation or error)


def _check_socket() -> None:
    """Raise OSError when nothing listens on the daemon's Unix socket: the docker package would, too, but leaks one."""
    url = os.environ.get("DOCKER_HOST") or _DEFAULT_URL
    if url.startswith("unix://") and hasattr(socket, "AF_UNIX"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect("/" + url.removeprefix("unix://").lstrip("/"))


def _root_cause(error: BaseException) -> str:
    """The innermost message: requests and urllib3 wrap a refused connection three times over."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error) or type(error).__name__
