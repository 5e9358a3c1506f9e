"""The job that every peer does: decode an event, decayed counts by person and kind, a decision for each add.

Imported by peers that run in an environment of their own, so nothing but msgspec is needed.
"""

from __future__ import annotations

import os
import struct
from datetime import datetime
from typing import Any, Final

import msgspec

HALF_LIFE_S: Final = 86_400.0
KINDS: Final = (
    "Product Viewed",
    "Product Added",
    "Product List Viewed",
    "Cart Viewed",
    "Checkout Started",
    "Order Completed",
)
ADDED: Final = KINDS.index("Product Added")
WIDTH: Final = 1 + len(KINDS) + 1  # reference time, one count for each kind and one for all others
BATCH: Final = 2000

_kind_of = {name: kind for kind, name in enumerate(KINDS)}.get
_packing = struct.Struct(f"<{WIDTH}d")


class Event(msgspec.Struct):
    """What the job needs of an event."""

    messageId: str  # noqa: N815 - as on the wire
    userId: str  # noqa: N815
    event: str
    timestamp: datetime


decode = msgspec.json.Decoder(Event).decode
_encode = msgspec.json.Encoder().encode


def setting(name: str) -> str:
    """One of `kafka, redis, group, events, decisions, folder`, as the benchmark sets them."""
    return os.environ[f"JOB_{name.upper()}"]


def nobody() -> list[float]:
    """Counts of a person who was never seen."""
    return [0.0] * WIDTH


def fold(counts: list[float], event: Event) -> int:
    """Add an event to a person's counts; returns its kind."""
    kind = _kind_of(event.event, len(KINDS))
    at_s = event.timestamp.timestamp()
    if at_s > counts[0]:
        decay = 2.0 ** ((counts[0] - at_s) / HALF_LIFE_S)
        counts[:] = [at_s, *[count * decay for count in counts[1:]]]
    counts[1 + kind] += 2.0 ** ((at_s - counts[0]) / HALF_LIFE_S)
    return kind


def decision(event: Event, counts: list[float]) -> bytes:
    """What is published for an add."""
    return _encode(
        {
            "decision_id": event.messageId,
            "user_id": event.userId,
            "campaign": "added",
            "channel": "in_app",
            "viewed": counts[1],
            "added": counts[2],
        }
    )


def packed(counts: list[float]) -> bytes:
    """Counts as bytes, for a store."""
    return _packing.pack(*counts)


def unpacked(data: Any) -> list[float]:
    """Counts from the bytes of a store; None: nobody's."""
    return nobody() if data is None else list(_packing.unpack(data))
