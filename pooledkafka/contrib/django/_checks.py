"""System checks: ``manage.py check`` explains settings that cannot work. None of them connects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.apps.config import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error

from pooledkafka.consumer import Consumer
from pooledkafka.contrib.django._settings import AliasSettings, parsed
from pooledkafka.errors import ConfigurationError
from pooledkafka.pool import ConnectionPool
from pooledkafka.producer import Producer

__all__ = ["check_settings"]

_HINT = "For example: POOLEDKAFKA = {'default': {'bootstrap_servers': 'localhost:9092'}}"


def check_settings(app_configs: Sequence[AppConfig] | None = None, **_: Any) -> list[CheckMessage]:
    """All that is wrong with ``settings.POOLEDKAFKA``.

    ========  ==================================================================================
    id        what is wrong
    ========  ==================================================================================
    E001      it is missing, or no dict
    E002      it has no alias ``default``
    E003      an alias is no dict of options, or has an unknown ``BACKEND`` or a section that is no dict,
              or names what cannot be imported or made
    E004      ``bootstrap_servers`` is missing, or no address
    E005      an option of the pool is unknown or cannot work
    E006      an option of the producers
    E007      an option of the consumers
    E008      an option of the embedded cluster
    ========  ==================================================================================
    """
    configured = getattr(settings, "POOLEDKAFKA", None)
    if not isinstance(configured, Mapping):
        what = "is not set" if configured is None else f"must be a dict of aliases, not {type(configured).__name__}"
        return [_error("E001", f"settings.POOLEDKAFKA {what}.", _HINT)]
    found: list[CheckMessage] = []
    if "default" not in configured:
        found.append(_error("E002", "settings.POOLEDKAFKA has no alias 'default'.", _HINT))
    for alias, given in configured.items():
        try:
            said = parsed(alias, given)
        except ConfigurationError as error:
            found.append(_error("E003", str(error.args[0])))
        else:
            found.extend(_of_alias(said))
    return found


def _of_alias(said: AliasSettings) -> Iterator[CheckMessage]:
    where = f"POOLEDKAFKA[{said.alias!r}]"
    options = dict(said.pool)
    if said.backend == "kafka":
        problem = _of_addresses(options.get("bootstrap_servers"))
        if problem:
            yield _error("E004", f"{where}['bootstrap_servers'] {problem}.", _HINT)
            options.pop("bootstrap_servers", None)
    try:
        pool = ConnectionPool(**options)
    except (ConfigurationError, TypeError) as error:
        yield _error("E005", f"{where}: {error.args[0]}")
        pool = ConnectionPool()
    try:
        Producer(connection_pool=pool, **said.producer)
    except (ConfigurationError, TypeError) as error:
        yield _error("E006", f"{where}['producer']: {error.args[0]}")
    try:
        Consumer(connection_pool=pool, **said.consumer)
    except (ConfigurationError, TypeError) as error:
        yield _error("E007", f"{where}['consumer']: {error.args[0]}")
    if said.cluster and said.backend != "embedded":
        yield _error("E008", f"{where}['cluster'] is for BACKEND 'embedded', and this one is {said.backend!r}.")
    elif said.cluster:
        from pooledkafka.testing import EmbeddedKafka

        try:
            EmbeddedKafka(**said.cluster)
        except (ValueError, TypeError) as error:
            yield _error("E008", f"{where}['cluster']: {error.args[0]}")


def _of_addresses(given: Any) -> str | None:
    """What is wrong with ``bootstrap_servers``."""
    if given is None or given in ("", [], ()):
        return "is missing"
    addresses = given.split(",") if isinstance(given, str) else given
    if not isinstance(addresses, (list, tuple)):
        return f"must be 'host:port', or a list of them, not {given!r}"
    for address in addresses:
        if not isinstance(address, str) or not address.strip():
            return f"must be 'host:port', or a list of them, but has {address!r} in it"
        port = address.strip().rpartition(":")[2]
        if ":" in address and not address.strip().endswith("]") and not (port.isdecimal() and 0 < int(port) < 65536):
            return f"has {address.strip()!r} in it, whose port is no number between 1 and 65535"
    return None


def _error(number: str, message: str, hint: str | None = None) -> Error:
    return Error(message, hint=hint, id=f"pooledkafka.{number}")
