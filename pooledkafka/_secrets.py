"""Passwords that do not show where options are printed, logged, or listed in a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["SECRETS", "Options", "SecretText", "hidden"]

SECRETS = frozenset({"sasl_plain_password", "ssl_password", "sasl_oauth_token_provider", "proxy_url", "socks5_proxy"})
"""Options whose values are not shown: a proxy's address may have a password in it, a token provider its token."""

_HIDDEN = "<hidden>"


class SecretText(str):
    """A string like any other, but that its ``repr`` does not tell it.

    So it does not show in the ``repr`` of whatever holds it: copies of options, kafka-python's own among them, which
    its admin client logs, and the local variables that some error reporters send off.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return _HIDDEN


class SecretBytes(bytes):
    """As ``SecretText``, of bytes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return _HIDDEN

    __str__ = __repr__


class Options(dict[str, Any]):
    """Options by name; what is secret is in it, but is not shown."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__({name: _wrapped(value) if name in SECRETS else value for name, value in options.items()})

    def __repr__(self) -> str:
        return repr({name: hidden(name, value) for name, value in self.items()})


class _Shown(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def hidden(name: str, value: Any) -> Any:
    """What may be shown of the value of option ``name``."""
    return _Shown(_HIDDEN) if name in SECRETS and value is not None else value


def _wrapped(value: Any) -> Any:
    if isinstance(value, str):
        return SecretText(value)
    return SecretBytes(value) if isinstance(value, bytes) else value
