"""Runs a command, and says what became of it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

import click
from kafka.errors import KafkaError

from pooledkafka._cli.commands import commands
from pooledkafka.errors import ConfigurationError
from pooledkafka.testing import ClusterError

__all__ = ["run"]

_FAILED, _USAGE, _INTERRUPTED = 1, 2, 130
_NAME = "pooledkafka"
_NO_HANDLER = logging.NullHandler()
"""One for the process: a logger keeps each other one, and commands may run one after another."""
_COMPLETION = "_POOLEDKAFKA_COMPLETE"  # set by the shell's completion: what is there to complete with is to be told


def run(arguments: Sequence[str] | None) -> int:
    """The exit code of the command that ``arguments`` (None: those of the process) name. Errors go to stderr."""
    # Warnings would come between the lines of a command, which says itself what went wrong; kafka-python's are silent.
    logging.getLogger("pooledkafka").addHandler(_NO_HANDLER)
    try:
        return _run(arguments)
    except BrokenPipeError:
        # Who reads has enough, as ``head`` does. At exit Python would flush stdout, and complain.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
        return 0


def _run(arguments: Sequence[str] | None) -> int:
    if _COMPLETION in os.environ:
        commands.main(prog_name=_NAME)
    try:
        # Not by its main(), which says of a pipe that nobody reads any more that the command has failed.
        with commands.make_context(_NAME, list(sys.argv[1:] if arguments is None else arguments)) as context:
            commands.invoke(context)
        _flush()
        return 0
    except click.exceptions.Exit as end:
        _flush()
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except ConfigurationError as error:
        return _said(error, _USAGE)
    except BrokenPipeError:
        raise
    except (KafkaError, ClusterError, OSError) as error:
        return _said(error, _FAILED)


def _flush() -> None:
    if sys.stdout is not None:  # it may have been closed before the command began
        sys.stdout.flush()


def _said(error: Exception, code: int) -> int:
    click.echo(f"pooledkafka: {error or repr(error)}", err=True)
    return code
