"""``settings.POOLEDKAFKA``: what is said of each alias."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from pooledkafka._secrets import Options
from pooledkafka.errors import ConfigurationError

__all__ = ["BACKENDS", "SECTIONS", "AliasSettings", "alias_settings", "aliases", "parsed"]

BACKENDS = ("kafka", "memory", "embedded")
"""Where records go: to brokers, into a list for tests, or to an ``EmbeddedKafka`` in this process."""

SECTIONS = ("producer", "consumer", "cluster")
"""What in an alias's settings is no option of its pool: options of clients, and of the embedded cluster."""

_IMPORTED = (
    "key_serializer",
    "value_serializer",
    "key_deserializer",
    "value_deserializer",
    "partitioner",
    "sasl_oauth_token_provider",
)
"""Options that may be given by their dotted path, since settings can seldom import what they name."""


@dataclass(frozen=True)
class AliasSettings:
    """What ``settings.POOLEDKAFKA`` says of one alias."""

    alias: str
    backend: str
    pool: Mapping[str, Any]
    """Options of ``ConnectionPool``; without addresses where the backend has none."""
    producer: Mapping[str, Any]
    consumer: Mapping[str, Any]
    cluster: Mapping[str, Any]
    """Options of ``EmbeddedKafka``."""


def aliases() -> list[str]:
    """The aliases there are, in their order."""
    configured = getattr(settings, "POOLEDKAFKA", None)
    return list(configured) if isinstance(configured, Mapping) else []


def alias_settings(alias: str) -> AliasSettings:
    """What the settings say of ``alias``.

    Raises:
        ConfigurationError: there is no such alias, or what is said cannot be understood; ``manage.py check`` says more.
    """
    configured = getattr(settings, "POOLEDKAFKA", None)
    if not isinstance(configured, Mapping):
        raise ConfigurationError(
            "settings.POOLEDKAFKA is missing, or no dict; set e.g. "
            "POOLEDKAFKA = {'default': {'bootstrap_servers': 'localhost:9092'}}"
        )
    if alias not in configured:
        known = ", ".join(map(repr, configured)) or "none"
        raise ConfigurationError(f"settings.POOLEDKAFKA has no alias {alias!r}; it has {known}")
    return parsed(alias, configured[alias])


def parsed(alias: str, given: Any) -> AliasSettings:
    """The parts of ``settings.POOLEDKAFKA[alias]``; raises ConfigurationError where it has not that shape."""
    where = f"POOLEDKAFKA[{alias!r}]"
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{where} must be a dict of options, not {given!r}")
    backend = given.get("BACKEND", "kafka")
    if backend not in BACKENDS:
        near = difflib.get_close_matches(str(backend), BACKENDS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigurationError(f"{where}['BACKEND'] is {backend!r}; it is one of {', '.join(BACKENDS)}.{hint}")
    sections: dict[str, dict[str, Any]] = {}
    for name in SECTIONS:
        section = given.get(name, {})
        if not isinstance(section, Mapping):
            raise ConfigurationError(f"{where}[{name!r}] must be a dict of options, not {section!r}")
        sections[name] = _imported(f"{where}[{name!r}]", section)
    pool = {name: value for name, value in given.items() if name not in (*SECTIONS, "BACKEND")}
    return AliasSettings(alias, backend, Options(_imported(where, pool)), **sections)


def _imported(where: str, options: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(options)
    for name in _IMPORTED:
        if isinstance(found.get(name), str):
            path = found[name]
            try:
                value = import_string(path)
                found[name] = value() if isinstance(value, type) else value
            except Exception as error:  # of the module, or of a class that is not made without arguments
                raise ConfigurationError(
                    f"{where}[{name!r}] is {path!r}, which cannot be used: {type(error).__name__}: {error}"
                ) from error
    return found
