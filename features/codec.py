"""Rows as bytes, for the changelog and the view. Golden files keep every version readable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from features.layout import AWAITED, ERASED, KNOWN, MOVED, RING, ROW, Rows
from features.signals import TIME_LIMIT_MS

_VERSION = 1
_HEAD_BYTES = ROW.fields["ring"][1] if ROW.fields else 0  # everything before the ring


class CorruptRow(ValueError):  # noqa: N818 - says what is wrong, and is part of the interface
    """Bytes that are not an encoded row of a known version."""


def encode_many(rows: Rows) -> list[bytes]:
    """Encode rows: one byte of version, the row as it lies in memory, its ring cut after the used places."""
    framed = np.empty((len(rows), 1 + ROW.itemsize), np.uint8)
    framed[:, 0] = _VERSION
    framed[:, 1:] = np.ascontiguousarray(rows).view(np.uint8).reshape(-1, ROW.itemsize)
    used = np.minimum(rows["count"], RING).astype(np.int64)
    starts = np.arange(len(rows)) * (1 + ROW.itemsize)
    ends = starts + 1 + _HEAD_BYTES + 8 * used
    raw = framed.tobytes()
    return [raw[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def encode(row: np.void) -> bytes:
    """`encode_many` of one row."""
    return encode_many(np.array([row], ROW))[0]


def decode_many(encoded: Sequence[bytes]) -> Rows:
    """Decode what `encode_many` wrote.

    Raises
    ------
    CorruptRow
        An unknown version, a length that does not fit, or contents that no fold can have produced.
        There is no checksum: both stores have their own.
    """
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    size = 1 + ROW.itemsize
    if len(encoded) and (int(lengths.min()) < 1 + _HEAD_BYTES or int(lengths.max()) > size):
        raise CorruptRow(f"expected {1 + _HEAD_BYTES} to {size} bytes, not {lengths.min()} to {lengths.max()}")
    raw = np.frombuffer(b"".join([one.ljust(size, b"\0") for one in encoded]), np.uint8).reshape(-1, size)
    if bool((raw[:, 0] != _VERSION).any()):
        raise CorruptRow(f"expected version {_VERSION}, got {sorted(set(raw[:, 0].tolist()))}")
    rows: Rows = np.ascontiguousarray(raw[:, 1:]).view(ROW).reshape(-1)
    used = np.minimum(rows["count"], RING).astype(np.int64)
    if bool((lengths != 1 + _HEAD_BYTES + 8 * used).any()):
        raise CorruptRow("the length does not fit the number of message ids")
    if bool((np.count_nonzero(rows["ring"], axis=1) != used).any()):
        raise CorruptRow("a used place of a ring is empty")
    at_ms = rows["at_ms"]
    if not (bool(np.isfinite(rows["values"]).all()) and bool(((at_ms >= 0) & (at_ms < TIME_LIMIT_MS)).all())):
        raise CorruptRow("a value or a time is not a number in range")
    if bool((rows["flags"] & ~np.uint32(MOVED | ERASED | KNOWN | AWAITED)).any()):
        raise CorruptRow("an unknown flag is set")
    return rows


def decode(data: bytes) -> np.void:
    """`decode_many` of one row.

    Raises
    ------
    CorruptRow
    """
    row: np.void = decode_many([data])[0]
    return row
