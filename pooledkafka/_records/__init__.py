"""The records of a batch, message format v2: decoded into columns, encoded many at once; no I/O."""

from pooledkafka._records.decoding import Columns, UndecodableError, decode, headers_size
from pooledkafka._records.encoding import Encoded, Record, encode

__all__ = ["Columns", "Encoded", "Record", "UndecodableError", "decode", "encode", "headers_size"]
