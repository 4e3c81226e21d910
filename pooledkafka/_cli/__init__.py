"""The command line ``pooledkafka``; a file for each command. Nothing of it is imported by the rest."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    try:
        import click  # noqa: F401
        import psutil  # noqa: F401
        import rich  # noqa: F401
    except ImportError as error:
        sys.stderr.write(
            f"pooledkafka: the command line needs {error.name}, which is not installed; "
            "pip install 'pooledkafka[cli]'\n"
        )
        return 1
    from pooledkafka._cli.running import run

    return run(arguments)
