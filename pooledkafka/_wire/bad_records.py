"""What becomes of fetched records that cannot be read: a wrong checksum, a key or value that cannot be deserialized."""

from __future__ import annotations

from typing import Any

__all__ = ["give_up_bad_records"]


def give_up_bad_records(fetcher: Any) -> None:
    """Have a partition fetched again from its position after an error in its records.

    kafka-python raises the error and keeps what it was reading, which has come to its end by that: the next poll takes
    nothing from it, for ever. Read again, the records are good, or raise again until their consumer seeks past them.
    """
    fetched_records = fetcher.fetched_records

    def fetched(*args: Any, **kwargs: Any) -> Any:
        raised = True
        try:
            result = fetched_records(*args, **kwargs)
            raised = False
        finally:
            # An error that came after good records is kept for the next call.
            if raised or fetcher._next_in_line_exception_metadata is not None:
                _drain(fetcher)
        return result

    fetcher.fetched_records = fetched


def _drain(fetcher: Any) -> None:
    if fetcher._next_partition_records is not None:
        fetcher._next_partition_records.drain()
        fetcher._next_partition_records = None
