"""The events of the benchmarks: Segment-like, about 285 bytes, many people of whom some are seen more often."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import orjson

PERSONS: Final = 100_000
# Of the rank in the share of events. With 1 the first person alone would have 8 % of a shop's events, and more timers
# waiting in a backlog than a person may have.
ZIPF: Final = 0.5
SPAN_S: Final = 3600  # the events of a run lie in the hour before it
CLICKS: Final = {
    "Product Viewed": 60,
    "Product Added": 18,
    "Product List Viewed": 12,
    "Cart Viewed": 5,
    "Checkout Started": 3,
    "Order Completed": 2,
}
"""The plain job: percent by event name."""
SHOP: Final = {
    "Product Viewed": 62,
    "Product List Viewed": 15,
    "Cart Viewed": 8,
    "Email Delivered": 7,
    "Email Opened": 3,
    "Email Link Clicked": 1,
    "Checkout Started": 1,
    "Product Added": 2,
    "Order Completed": 1,
}
"""The whole flow: 2 % of the events are triggers."""


@dataclass(frozen=True, slots=True)
class Line:
    """A record of a benchmark; its message id tells which decision it asks for."""

    value: bytes
    person: str
    message_id: str
    event: str
    timestamp: int
    topic: str = "events"
    partition: int = 0
    offset: int = 0
    key: bytes | None = None


def events(count: int, seed: int, now_ms: int, mix: dict[str, int]) -> Iterator[Line]:
    """So many events of the hour before `now_ms`, in the order of time; the same for the same arguments."""
    chance = random.Random(seed)
    weights = np.arange(1, PERSONS + 1) ** -ZIPF
    people = np.random.default_rng(seed).choice(PERSONS, count, p=weights / weights.sum())
    names, shares = list(mix), list(mix.values())
    for number, person in enumerate(people.tolist()):
        name = chance.choices(names, shares)[0]
        user, message_id = f"user-{person}", f"{chance.getrandbits(96):024x}{number:08x}"
        at = datetime.fromtimestamp(now_ms / 1e3, UTC) - timedelta(seconds=SPAN_S * (1 - number / count))
        event = {
            "messageId": message_id,
            "type": "track",
            "userId": user,
            "timestamp": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
            "event": name,
            "properties": {
                "product_id": f"p-{chance.randrange(5000)}",
                "category": "shoes",
                "price": round(chance.uniform(5, 200), 2),
                "line_id": f"{number:08d}",
            },
            "context": {"timezone": "Europe/Berlin"},
        }
        yield Line(orjson.dumps(event), user, message_id, name, now_ms)
