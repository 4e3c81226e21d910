"""The errors that pooledkafka itself raises.

All derive from kafka-python's ``KafkaError``, so one ``except KafkaError`` still catches everything.
"""

from __future__ import annotations

from kafka.errors import KafkaConfigurationError, KafkaConnectionError, KafkaError, KafkaTimeoutError

__all__ = [
    "ConcurrentUseError",
    "ConfigurationError",
    "ConnectFailedError",
    "ErrorLimitError",
    "ForkedClientError",
    "PoolClosedError",
    "PoolError",
    "PoolTimeoutError",
]


class PoolError(KafkaError):  # type: ignore[misc]
    """Base of all errors of the pool itself."""


class PoolClosedError(PoolError):
    """The client, or the pool under it, was closed or disconnected."""


class PoolTimeoutError(PoolError, KafkaTimeoutError):  # type: ignore[misc]
    """Something did not finish within its timeout; the message says what, and the last cause that was seen."""


class ConnectFailedError(PoolTimeoutError, KafkaConnectionError):  # type: ignore[misc]
    """No broker could be reached, and waiting for the rest of the timeout would not help.

    A name was not resolved, a port refused the connection, TLS failed, or a broker hung up; the message says which,
    with the address, and what to check. A login that is refused raises kafka-python's SaslAuthenticationFailedError or
    UnsupportedSaslMechanismError instead. A KafkaTimeoutError too, which is what kafka-python's own clients raise.
    """


class ConfigurationError(PoolError, KafkaConfigurationError, ValueError):  # type: ignore[misc]
    """An option is unknown, has a value that cannot work, or contradicts the pool's."""


class ConcurrentUseError(PoolError):
    """A consumer was used by two threads at once. kafka-python's consumer is not thread-safe, and neither is ours."""


class ErrorLimitError(PoolError):
    """So many records in a row could not be handled that ``Consumer.run`` goes on no more; its cause is the last error.

    All of them are in the dead-letter topic.
    """


class ForkedClientError(PoolError):
    """What cannot be used in a forked process: a consumer, a producer with a ``transactional_id``, and the futures of
    records that had not been acknowledged.

    It belongs to the process that made it, whose membership, transaction or record it is. Pools and all other clients
    may be used in a forked process: they connect anew there.
    """
