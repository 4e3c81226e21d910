"""Lets ``pooledkafka top`` look at the pools of this process, through a socket that only its user can open.

Nothing is served, and no thread runs, until the application asks for it.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import stat
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from pooledkafka._forking import inherit, known, notice_fork
from pooledkafka._logging import get_logger
from pooledkafka._plain import plain
from pooledkafka.errors import ConfigurationError
from pooledkafka.pool import ConnectionPool

__all__ = ["Inspection", "runtime_directory", "serve"]

_log = get_logger("pooledkafka.inspection")

_PATIENCE_S = 1.0
"""How long one who asks may take to read the answer; others wait meanwhile."""
_PID = "{pid}"


def serve(path: str | os.PathLike[str] | None = None) -> Inspection:
    """Serve what the pools of this process hold, until it ends or ``close()`` is called.

    Who connects to the socket gets one JSON document, and nothing that is sent is read: clients, connections, counts
    and where the cluster is, as ``pool.stats()`` says; no option that is secret, and no record.

    Args:
        path: of a Unix socket; ``{pid}`` in it stands for the process. Default: ``<pid>.sock`` in
            ``runtime_directory()``, where ``pooledkafka top`` looks.

    The socket has mode 0600. One daemon thread answers. In a forked process another one does, at its own path; with a
    path that has no ``{pid}`` the parent keeps it, and nothing is served in the child.

    Raises:
        ConfigurationError: the path cannot be used; the message says why.

    Example:
        >>> inspection = serve()  # where the application starts  # doctest: +SKIP
    """
    return Inspection(f"{runtime_directory()}/{_PID}.sock" if path is None else os.fspath(path))


def runtime_directory() -> Path:
    """The directory of this user's sockets, made with mode 0700 where it is not there.

    Raises:
        ConfigurationError: there is something else of this name, or others may use it.
    """
    directory = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"pooledkafka-{os.getuid()}"
    try:
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        found = directory.lstat()
    except OSError as error:
        raise ConfigurationError(f"the directory {directory} cannot be made: {error}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigurationError(
            f"{directory} must be a directory that only its user {os.getuid()} may use; remove it, or give "
            "serve() a path"
        )
    return directory


class Inspection:
    """Made by ``serve``. A context manager, which closes it; all may be called from any thread."""

    def __init__(self, path: str) -> None:
        self._template = path
        self.path = path.replace(_PID, str(os.getpid()))
        """Where it is served now."""
        self._closed = threading.Event()
        self._listener = _listen(self.path)
        self._start()
        atexit.register(self.close)
        inherit(self)

    def close(self) -> None:
        """End it, and remove the socket. Idempotent."""
        notice_fork()
        if self._closed.is_set():
            return
        self._closed.set()
        atexit.unregister(self.close)
        with suppress(OSError), socket.socket(socket.AF_UNIX) as wake:  # not everywhere does shutdown() end an accept()
            wake.settimeout(_PATIENCE_S)
            wake.connect(self.path)
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with suppress(OSError):
            os.unlink(self.path)

    def __enter__(self) -> Inspection:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Inspection at {self.path}{' [closed]' if self._closed.is_set() else ''}>"

    def _start(self) -> None:
        thread = threading.Thread(
            target=self._serve, args=(self._listener, self._closed), name="pooledkafka-inspection", daemon=True
        )
        thread.start()

    def _in_child(self) -> None:
        if self._closed.is_set():
            return
        self._listener.close()  # this process's copy; the file is the parent's
        self._closed = threading.Event()
        self.path = self._template.replace(_PID, str(os.getpid()))
        try:
            if _PID not in self._template:
                raise ConfigurationError("the parent process has the socket, and its path has no {pid}")
            self._listener = _listen(self.path)
            self._start()
        except (ConfigurationError, RuntimeError) as error:  # no reason for a fork to fail
            self._closed.set()
            _log.info("inspection.not_in_child", path=self.path, reason=str(error))

    def _serve(self, listener: socket.socket, closed: threading.Event) -> None:
        while not closed.is_set():
            try:
                asking, _ = listener.accept()
            except OSError:  # closed; or there is no file descriptor left, and later there may be
                closed.wait(_PATIENCE_S)
                continue
            with asking:
                try:
                    asking.settimeout(_PATIENCE_S)
                    asking.sendall(json.dumps(_snapshot()).encode())
                except OSError:
                    pass  # who asked has gone
                except Exception as error:  # the next one may get an answer
                    _log.warning("inspection.failed", error=repr(error))


def _listen(path: str) -> socket.socket:
    """A socket at ``path`` that only this user can open, from its first moment on."""
    if _is_served(path):
        raise ConfigurationError(f"another process serves {path} already; give each its own, with {_PID} in it")
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):  # which the new socket would replace
        raise ConfigurationError(f"{path} is there, and is no socket; give serve() another path")
    listener = socket.socket(socket.AF_UNIX)
    try:
        # In a directory that nobody else can enter, and moved when it has its mode: the umask is the whole process's.
        with tempfile.TemporaryDirectory(prefix=".", dir=os.path.dirname(path) or ".") as private:
            hidden = os.path.join(private, "s")
            listener.bind(hidden)
            os.chmod(hidden, 0o600)
            listener.listen()
            os.rename(hidden, path)
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"no socket can be made at {path}: {error}") from error
    return listener


def _is_served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as other:
        other.settimeout(_PATIENCE_S)
        try:
            other.connect(path)
        except OSError:
            return False
        return True


def _snapshot() -> dict[str, Any]:
    pools = [
        {
            "client_id": pool.options["client_id"],
            "bootstrap_servers": plain(pool.options["bootstrap_servers"]),
            "state": pool._state.value,
            "stats": plain(pool.stats()),
        }
        for pool in known(ConnectionPool)
    ]
    # Without its arguments, among which may be secrets.
    return {"pid": os.getpid(), "program": os.path.basename(sys.argv[0]), "pools": pools}
