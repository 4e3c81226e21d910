"""The options by which commands know the cluster: from the command line, the environment and a file."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from kafka.net.sasl.oauth import AbstractTokenProvider

from pooledkafka._secrets import SecretText
from pooledkafka.config import pool_options
from pooledkafka.errors import ConfigurationError
from pooledkafka.pool import ConnectionPool

__all__ = ["TIMEOUT_OPTION", "cluster_options", "connected"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

_PROTOCOLS = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
_SECRETS = {"sasl_plain_password": "POOLEDKAFKA_SASL_PASSWORD", "ssl_password": "POOLEDKAFKA_SSL_PASSWORD"}
"""Options that are never given on the command line, where every user of the machine can read them."""
_TOKEN = "POOLEDKAFKA_SASL_TOKEN"


def _option(name: str, option: str, **how: Any) -> Callable[[_Function], _Function]:
    variable = f"POOLEDKAFKA_{option.strip('-').upper().replace('-', '_')}"
    return click.option(option, name, envvar=variable, **how)


_OPTIONS = [
    _option("security_protocol", "--security-protocol", type=click.Choice(_PROTOCOLS, case_sensitive=False)),
    _option("sasl_mechanism", "--sasl-mechanism", metavar="NAME", help="PLAIN, SCRAM-SHA-256, OAUTHBEARER, ..."),
    _option(
        "sasl_plain_username",
        "--sasl-username",
        metavar="USER",
        help="The password: POOLEDKAFKA_SASL_PASSWORD, or asked for on a terminal. A token: POOLEDKAFKA_SASL_TOKEN.",
    ),
    _option("ssl_cafile", "--ssl-cafile", metavar="FILE", help="The authorities to trust. Default: the system's."),
    _option("ssl_certfile", "--ssl-certfile", metavar="FILE", help="The client's certificate."),
    _option(
        "ssl_keyfile",
        "--ssl-keyfile",
        metavar="FILE",
        help="Its key. The key's password: POOLEDKAFKA_SSL_PASSWORD.",
    ),
    click.option(
        "--ssl-no-check-hostname",
        "ssl_no_check_hostname",
        is_flag=True,
        help="Take a certificate that was issued for another host.",
    ),
    _option(
        "config",
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="More of kafka-python's connection options: a JSON object, or lines of name=value. Other options and the "
        "environment go before it.",
    ),
]
_BOOTSTRAP = click.option(
    "-b",
    "--bootstrap",
    envvar="POOLEDKAFKA_BOOTSTRAP",
    metavar="HOST:PORT[,...]",
    help="Where the cluster is. Default: $POOLEDKAFKA_BOOTSTRAP, or localhost:9092.",
)


TIMEOUT_OPTION = click.option(
    "--timeout", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Seconds to connect."
)


@contextmanager
def connected(options: Mapping[str, Any], timeout: float) -> Iterator[ConnectionPool]:
    """A pool that has found the cluster within ``timeout`` seconds; no topic is created by looking at it."""
    pool = ConnectionPool(**{"allow_auto_create_topics": False, **options})
    pool.connect(timeout * 1000)
    with pool:
        yield pool


def cluster_options(*, bootstrap: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a command take the options of a connection, as ``options``: those of a pool.

    Without ``bootstrap`` the command has a parameter of this name of its own; None is taken for the default.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_options(*args: Any, bootstrap: str | None, config: Path | None, **rest: Any) -> Any:
            given = {name: rest.pop(name) for name in _NAMES}
            return command(*args, options=_pool_options(bootstrap, config, given), **rest)

        decorated = with_options
        for option in reversed(([_BOOTSTRAP] if bootstrap else []) + _OPTIONS):
            decorated = option(decorated)
        return decorated

    return decorate


_NAMES = (
    "security_protocol",
    "sasl_mechanism",
    "sasl_plain_username",
    "ssl_cafile",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_no_check_hostname",
)


def _pool_options(bootstrap: str | None, config: Path | None, given: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {"client_id": "pooledkafka-cli"}
    if config is not None:
        options.update(_read(config))
    if given.pop("ssl_no_check_hostname"):
        options["ssl_check_hostname"] = False
    options.update({name: value for name, value in given.items() if value is not None})
    if bootstrap is not None:
        options["bootstrap_servers"] = bootstrap
    for name, variable in _SECRETS.items():
        if variable in os.environ:
            options[name] = os.environ[variable]
    _complete_login(options)
    # Not the complete ones: the defaults of what a pool itself limits belong to the pool.
    checked = pool_options(options)
    return {name: checked[name] for name in options}


def _complete_login(options: dict[str, Any]) -> None:
    mechanism = options.get("sasl_mechanism")
    if not str(options.get("security_protocol", "")).startswith("SASL_"):
        if mechanism is not None:
            raise click.UsageError(
                f"--sasl-mechanism {mechanism} needs --security-protocol SASL_SSL, or SASL_PLAINTEXT without TLS"
            )
        return
    if mechanism == "OAUTHBEARER" and "sasl_oauth_token_provider" not in options and _TOKEN in os.environ:
        options["sasl_oauth_token_provider"] = _Token(os.environ[_TOKEN])
    if options.get("sasl_plain_username") is not None and options.get("sasl_plain_password") is None:
        if not sys.stdin.isatty():
            raise click.UsageError("there is no password; set POOLEDKAFKA_SASL_PASSWORD")
        options["sasl_plain_password"] = click.prompt("Password", hide_input=True, err=True)


class _Token(AbstractTokenProvider):  # type: ignore[misc]
    def __init__(self, token: str) -> None:
        self._token = SecretText(token)

    def token(self) -> str:
        return self._token


def _read(config: Path) -> Mapping[str, Any]:
    try:
        text = config.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--config {config} cannot be read: {error}") from None
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text)
        except ValueError as error:
            raise click.UsageError(f"--config {config} is no JSON: {error}") from None
        return {str(name).replace(".", "_"): value for name, value in found.items()}
    defaults = pool_options({})
    options: dict[str, Any] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith(("#", "!")):
            continue
        name, separator, value = stripped.partition("=")
        if not separator:
            # Not what is in it, which may be a secret.
            raise click.UsageError(f"line {number} of --config {config} is no name=value")
        name = name.strip().replace(".", "_")
        options[name] = _typed(name, value.strip(), defaults.get(name))
    return options


def _typed(name: str, value: str, default: Any) -> Any:
    """A value as the option's default is: a truth value, a number or a string."""
    if isinstance(default, bool):
        if value.lower() not in ("true", "false"):
            raise ConfigurationError(f"{name} must be true or false, not {value!r}")
        return value.lower() == "true"
    if isinstance(default, int | float):
        try:
            return int(value)
        except ValueError:
            raise ConfigurationError(f"{name} must be a whole number, not {value!r}") from None
    return value
