"""All that the embedded brokers serve: one table, a file for each family of requests.

What is not in the table, or in another version, is refused as a broker refuses it: ApiVersions does not list it, and a
connection that asks all the same is closed.
"""

from __future__ import annotations

from typing import Any

from ..call import Api
from .cluster import DESCRIBE_CLUSTER, ELECT_LEADERS
from .configs import ALTER_CONFIGS, DESCRIBE_CONFIGS, INCREMENTAL_ALTER_CONFIGS
from .coordinators import FIND_COORDINATOR
from .fetch import FETCH
from .group_admin import DELETE_GROUPS, DESCRIBE_GROUPS, LIST_GROUPS
from .group_offsets import OFFSET_COMMIT, OFFSET_DELETE, OFFSET_FETCH
from .groups import HEARTBEAT, JOIN_GROUP, LEAVE_GROUP, SYNC_GROUP
from .metadata import METADATA
from .offsets_of_logs import LIST_OFFSETS, OFFSET_FOR_LEADER_EPOCH
from .produce import PRODUCE
from .quotas import ALTER_CLIENT_QUOTAS, DESCRIBE_CLIENT_QUOTAS
from .sasl import SASL_AUTHENTICATE, SASL_HANDSHAKE
from .topics import CREATE_PARTITIONS, CREATE_TOPICS, DELETE_RECORDS, DELETE_TOPICS
from .transactions import TRANSACTIONS
from .versions import api_versions

__all__ = ["APIS", "API_VERSIONS", "AUTHENTICATION", "checked_name"]

APIS: dict[int, Api] = {
    api.key: api
    for api in (
        ALTER_CLIENT_QUOTAS,
        ALTER_CONFIGS,
        CREATE_PARTITIONS,
        CREATE_TOPICS,
        DELETE_GROUPS,
        DELETE_RECORDS,
        DELETE_TOPICS,
        DESCRIBE_CLIENT_QUOTAS,
        DESCRIBE_CLUSTER,
        DESCRIBE_CONFIGS,
        DESCRIBE_GROUPS,
        ELECT_LEADERS,
        FETCH,
        FIND_COORDINATOR,
        HEARTBEAT,
        INCREMENTAL_ALTER_CONFIGS,
        JOIN_GROUP,
        LEAVE_GROUP,
        LIST_GROUPS,
        LIST_OFFSETS,
        METADATA,
        OFFSET_COMMIT,
        OFFSET_DELETE,
        OFFSET_FETCH,
        OFFSET_FOR_LEADER_EPOCH,
        PRODUCE,
        SASL_AUTHENTICATE,
        SASL_HANDSHAKE,
        SYNC_GROUP,
        *TRANSACTIONS,
    )
}
API_VERSIONS = api_versions(APIS)
APIS[API_VERSIONS.key] = API_VERSIONS

AUTHENTICATION: tuple[Api, ...] = (API_VERSIONS, SASL_AUTHENTICATE, SASL_HANDSHAKE)
"""What a connection may ask before it has authenticated."""


def checked_name(api: Any) -> str | None:
    """The name of an API that is given by its name or its request class. Raises ValueError for one not served here."""
    if api is None:
        return None
    names = {each.name for each in APIS.values()}
    name = api if isinstance(api, str) else str(getattr(api, "name", api)).removesuffix("Request")
    if name not in names:
        raise ValueError(f"api is {api!r}; expected one of {', '.join(sorted(names))}, or None for all")
    return name
