"""ApiVersions: what is served here, in which versions."""

from __future__ import annotations

from typing import Any

from kafka.errors import UnsupportedVersionError
from kafka.protocol.metadata import ApiVersionsRequest, ApiVersionsResponse
from kafka.protocol.producer import ProduceRequest

from ..call import Api, Call

__all__ = ["api_versions"]

# Kafka lists versions of Produce that are gone: old librdkafka looks there for what it may compress (KAFKA-18659).
_LISTED_FROM = {ProduceRequest.API_KEY: 0}


def api_versions(table: dict[int, Api]) -> Api:
    """The entry of ApiVersions in a table of all that is served, itself included."""

    def answer(call: Call, error_code: int) -> Any:
        listed = sorted(table.items())
        if error_code:  # an unknown version is told which are known, and nothing else (KIP-511)
            unsupported = error_code == UnsupportedVersionError.errno
            listed = [(key, api) for key, api in listed if unsupported and key == ApiVersionsRequest.API_KEY]
        keys = [
            ApiVersionsResponse.ApiVersion(
                api_key=key, min_version=_LISTED_FROM.get(key, api.versions[0]), max_version=api.versions[1]
            )
            for key, api in listed
        ]
        return call.answer(error_code=error_code, api_keys=keys, throttle_time_ms=0)

    async def handle(call: Call) -> Any:
        # Without a request: its version is not served.
        return answer(call, 0 if call.request is not None else UnsupportedVersionError.errno)

    return Api(ApiVersionsRequest, ApiVersionsResponse, (0, 4), handle, answer)
