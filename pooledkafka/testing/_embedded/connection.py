"""One connection to a broker: frames in, answers out, one request at a time."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from kafka.errors import IllegalSaslStateError
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from ..._logging import get_logger
from .apis import API_VERSIONS, APIS
from .authentication import Credentials
from .call import Call
from .faults import Hangup, encoded
from .recorder import ConnectionRecord, Exchange

if TYPE_CHECKING:
    from .broker import Broker

__all__ = ["Connection"]

_READ_AHEAD = 64  # frames that are read while an earlier one is served, so that the recorder sees them
_AUTHENTICATING = (SaslHandshakeRequest.API_KEY, SaslAuthenticateRequest.API_KEY)
_log = get_logger(__name__)


class Malformed(Exception):
    """What came is no request that can be answered."""


class Connection(asyncio.Protocol):
    """Serves one connection as a broker does: the next request when the answer to the last is written.

    ``principal`` is who has authenticated here; None before that, where the listener asks for it.
    """

    def __init__(self, broker: Broker, listener: str, credentials: Credentials) -> None:
        self.broker = broker
        self.credentials = credentials
        self.listener = listener
        self.principal: str | None = None
        self.authentication: Any = None  # what the SASL handlers keep between their requests
        self.session_ends_at: float | None = None  # by the loop's clock; None: never
        self.logged_in_at: float | None = None
        self.record = ConnectionRecord(0, broker.node_id, listener)
        self._transport: Any = None
        self._buffer = bytearray()
        self._frames: deque[tuple[bytes, Exchange]] = deque()
        self._arrived = asyncio.Event()
        self.ended = asyncio.Event()  # nothing more will come
        self._writable = asyncio.Event()
        self._writable.set()
        self._task: asyncio.Task[None] | None = None
        self._active_at = 0.0

    # -- what asyncio calls --------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """The client has connected."""
        self._transport = transport
        self._active_at = self.broker.state.now()
        if self.broker.admit(self):
            self._task = asyncio.get_running_loop().create_task(self._serve())
            self.broker.serves(self._task)
        else:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Cut what came into frames. One that cannot be right ends the connection."""
        self._active_at = self.broker.state.now()
        self._buffer += data
        while len(self._buffer) >= 4 and not self.ended.is_set():
            (size,) = struct.unpack_from(">i", self._buffer)
            if not 0 <= size <= self.broker.settings.socket_request_max_bytes:
                _log.warning("embedded.bad_frame", broker=self.broker.node_id, size=size)
                self._end()
                return
            if len(self._buffer) < 4 + size:
                break
            frame = bytes(self._buffer[4 : 4 + size])
            del self._buffer[: 4 + size]
            self._frames.append((frame, self._noted(frame)))
            self._arrived.set()
        if len(self._frames) > _READ_AHEAD:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client will send no more: what has come is still answered, but over TLS, which ends both ways at once."""
        self._end()
        return self._transport.get_extra_info("ssl_object") is None

    def connection_lost(self, error: Exception | None) -> None:
        """It has ended. What it has begun goes on, as on a real broker."""
        sock = self._transport.get_extra_info("socket")
        try:
            if sock is not None:  # TLS that was cut off has given it up
                sock.shutdown(socket.SHUT_RDWR)  # though a forked process has it open
        except OSError:
            pass  # the client has closed it already
        self.record.closed_at = time.monotonic()
        self._end()
        self._writable.set()
        self.broker.left(self)

    def pause_writing(self) -> None:
        """The client does not read."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._writable.set()

    # -- for the broker ------------------------------------------------------------------------------------------------

    @property
    def idle_since(self) -> float | None:
        """When it last had something to do, by the loop's clock; None while it serves."""
        return None if self._frames else self._active_at

    def abort(self) -> None:
        """Close it at once, answers or not."""
        if self._task is not None:
            self._task.cancel()
        self._transport.abort()

    # -- serving -------------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        self.ended.set()
        self._arrived.set()

    def _noted(self, frame: bytes) -> Exchange:
        if len(frame) >= 8:
            key, version, correlation_id = struct.unpack_from(">hhi", frame)
            name = APIS[key].name if key in APIS else str(key)
        else:
            name, version, correlation_id = "malformed", -1, -1
        exchange = Exchange(name, version, None, correlation_id, time.monotonic())
        self.record.add(exchange)
        return exchange

    async def _serve(self) -> None:
        try:
            while await self._has_next():
                frame, exchange = self._frames[0]
                await self.broker.running.wait()
                data, muted_s = await self._answered(frame, exchange)
                await self.broker.running.wait()
                self._active_at = self.broker.state.now()
                if data is not None:
                    self._transport.write(data)
                    await self._writable.wait()
                exchange.answered_at = time.monotonic()
                self._frames.popleft()
                if len(self._frames) <= _READ_AHEAD // 2 and not self._transport.is_closing():
                    self._transport.resume_reading()
                if muted_s:
                    await asyncio.sleep(muted_s)
        except Hangup as hangup:
            self._transport.write(hangup.last_bytes)
        except Malformed as problem:
            _log.warning(
                "embedded.not_served",
                broker=self.broker.node_id,
                error=str(problem),
            )
        except Exception:  # a mistake of the embedded broker's; its client is not to wait for ever
            _log.exception("embedded.failed", broker=self.broker.node_id)
        finally:
            self._transport.close()

    async def _has_next(self) -> bool:
        while not self._frames:
            if self.ended.is_set():
                return False
            self._arrived.clear()
            await self._arrived.wait()
        return True

    async def _answered(self, frame: bytes, exchange: Exchange) -> tuple[bytes | None, float]:
        """The bytes of the answer, if there is one, and the seconds for which the connection is not read then."""
        if self.authentication is not None and (raw := self.authentication.raw_answer(self, frame)) is not None:
            exchange.api, exchange.version, exchange.correlation_id = "token", -1, -1
            return raw, 0.0
        call = self._call(frame)
        exchange.client_id = call.client_id
        if self.authentication is not None and call.api.key not in _AUTHENTICATING:
            # It has chosen a mechanism and owes the token: as SaslServerAuthenticator.
            refusal = call.api.refuse(call, IllegalSaslStateError.errno)
            raise Hangup(b"" if refusal is None else encoded(refusal, call.correlation_id))
        over = self.session_ends_at is not None and self.broker.state.now() >= self.session_ends_at
        if over and call.api.key not in _AUTHENTICATING:
            self.record.expired = True
            raise Hangup
        fault = self.broker.fault_for(call)
        response = await (fault.answer(call, call.api.handle) if fault else call.api.handle(call))
        muted_s = call.throttle_time_ms / 1000
        if response is None:
            return None, muted_s
        if call.throttle_time_ms:
            response.throttle_time_ms = call.throttle_time_ms
        data = encoded(response, call.correlation_id)
        return call.spoil(data) if call.spoil else data, muted_s

    def _call(self, frame: bytes) -> Call:
        if len(frame) < 8:
            raise Malformed(f"a frame of {len(frame)} bytes, too few for a header")
        key, version, correlation_id = struct.unpack_from(">hhi", frame)
        api = APIS.get(key)
        if api is None:
            raise Malformed(f"api key {key} is none that the embedded cluster serves")
        lowest, highest = api.versions
        if not lowest <= version <= highest:
            if api is not API_VERSIONS:
                raise Malformed(f"{api.name} version {version}; {lowest} to {highest} are served")
            # KIP-511: the answer has version 0 and lists what is served; the client asks again.
            return Call(api, 0, None, None, correlation_id, self)
        if self.authentication is None and self.broker.needs_authentication(self, api):
            raise Malformed(f"{api.name} before authentication on listener {self.listener}")
        try:
            request = api.request.decode(frame, version=version, header=True)
        except Exception as error:  # whatever the decoder says of bytes that are no request
            raise Malformed(f"{api.name} version {version} cannot be decoded: {error!r}") from error
        request.API_VERSION = version
        return Call(api, version, request, request.header.client_id, correlation_id, self)
