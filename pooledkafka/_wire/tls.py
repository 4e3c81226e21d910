"""Connects to a broker, with TLS or without."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, MutableMapping
from typing import Any

from kafka.errors import KafkaConnectionError, KafkaTimeoutError
from kafka.net.inet import KafkaNetSocket
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

from pooledkafka._forking import unforked
from pooledkafka.errors import ConfigurationError

__all__ = ["build_transport", "check_tls", "connected_socket", "is_secure", "transport_over"]

_FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile")


def check_tls(config: MutableMapping[str, Any]) -> None:
    """Raise ConfigurationError where a certificate or key cannot be used.

    kafka-python reads them anew for each connection, so that renewed certificates are taken up; but a wrong one would
    only show there, as a broker that cannot be reached.
    """
    if not is_secure(config):
        return
    # Without a password OpenSSL would ask for one on the terminal, and the I/O thread would wait for it.
    config["ssl_password"] = config["ssl_password"] or ""
    for name in _FILES:
        path = config[name]
        if path is not None and not os.path.isfile(path):
            raise ConfigurationError(f"{name}={path!r} is not there, or no file")
    try:
        KafkaSSLTransport._build_ssl_context({name: config[name] for name in KafkaSSLTransport.DEFAULT_CONFIG})
    except (OSError, ValueError, TypeError) as error:
        shown = ", ".join(f"{name}={config[name]!r}" for name in _FILES if config[name] is not None)
        hint = " and ssl_password" if config["ssl_certfile"] else ""
        raise ConfigurationError(f"TLS cannot be set up with {shown}: {error}. Check the files{hint}.") from error


async def build_transport(net: Any, node: Any, config: Mapping[str, Any], timeout_at: float | None) -> Any:
    """A transport that is connected to ``node``, with the TLS handshake done where there is one.

    As kafka-python's, which waits for ever for a broker that does not answer the handshake, and leaves the socket to
    the garbage collector when it fails.
    """
    return await transport_over(await connected_socket(net, node, config, timeout_at), net, node, config, timeout_at)


async def transport_over(sock: Any, net: Any, node: Any, config: Mapping[str, Any], timeout_at: float | None) -> Any:
    """What ``build_transport`` does once TCP has connected ``sock``, which is closed where it fails."""
    if not is_secure(config):
        return KafkaTCPTransport(net, sock, host=node.host)
    transport = None
    try:
        # This reads files, and may ask the user for a password; what follows moves the connection to another socket.
        context = KafkaSSLTransport._build_ssl_context(
            {name: config[name] for name in KafkaSSLTransport.DEFAULT_CONFIG}
        )
        with unforked():
            transport = KafkaSSLTransport(net, sock, host=node.host, ssl_context=context)
            net.sockets.add(transport._sock)
        await _shake_hands(net, transport._sock, timeout_at)
    except BaseException as error:  # also where the event loop ends meanwhile
        if transport is None:
            sock.close()
        else:
            transport.abort(error)
        if not isinstance(error, Exception):
            raise
        raise KafkaConnectionError(f"Handshake failed: {error}") from error
    return transport


async def connected_socket(net: Any, node: Any, config: Mapping[str, Any], timeout_at: float | None) -> Any:
    """As kafka-python's ``create_connection``, which leaves each socket that could not be connected open."""
    factory = KafkaNetSocket(config["proxy_url"])
    made: list[Any] = []
    make = factory.socket

    def remembered(*args: Any) -> Any:
        with unforked():
            made.append(make(*args))
            net.sockets.add(made[-1])
        return made[-1]

    factory.socket = remembered
    error = KafkaConnectionError("DNS Resolution failure")
    connected = None
    try:
        for address in factory.dns_lookup(node.host, node.port):
            try:
                connected = await factory.connect(net, address, config["socket_options"], timeout_at=timeout_at)
                return connected
            except KafkaTimeoutError:
                raise KafkaConnectionError("Connection timed out") from None
            except KafkaConnectionError as problem:
                error = problem
            except OSError as problem:
                error = KafkaConnectionError(f"unable to connect: {problem}")
        raise error
    finally:
        for sock in made:
            if sock is not connected:
                sock.close()


async def _shake_hands(net: Any, sock: ssl.SSLSocket, timeout_at: float | None) -> None:
    while True:
        try:
            sock.do_handshake()
            return
        except ssl.SSLWantReadError:
            wait = net.wait_read
        except ssl.SSLWantWriteError:
            wait = net.wait_write
        try:
            await wait(sock, timeout_at=timeout_at)
        except KafkaTimeoutError:
            raise KafkaTimeoutError("no answer in time") from None


def is_secure(config: Mapping[str, Any]) -> bool:
    """Whether the broker is spoken to over TLS."""
    return config["security_protocol"] in ("SSL", "SASL_SSL")
