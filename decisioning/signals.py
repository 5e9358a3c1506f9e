"""Events as neutral signals: what the feature rows are folded from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from decisioning.events import Event, number
from features.signals import ADD, CART, CHECKOUT, ORDER, OTHER, REFUND, REMOVE, VALUE_LIMIT, VIEW, Signals

SILENT: Final = -1
"""Kind of an event that the row does not count: it acts on the profile, or counts by what a human did to a message."""

_KIND_OF_EVENT: Final[dict[str | None, int]] = {
    "Product Viewed": VIEW,
    "Product Added": ADD,
    "Product Removed": REMOVE,
    "Cart Viewed": CART,
    "Checkout Started": CHECKOUT,
    "Order Completed": ORDER,
    "Order Refunded": REFUND,
    "Order Cancelled": REFUND,
}
_KIND_OF_TYPE: Final = {
    "track": OTHER, "page": OTHER, "screen": OTHER, "group": OTHER,
    "identify": SILENT, "alias": SILENT, "delete": SILENT,
}  # fmt: skip


def kinds_of(events: Sequence[Event], silent: frozenset[str]) -> list[int]:
    """Kind of each event, `SILENT` for what the row does not count; `silent` names track events of that sort."""
    by_name = _KIND_OF_EVENT | dict.fromkeys(silent, SILENT)
    find = by_name.get
    return [
        find(event.event, OTHER) if event.event is not None else _KIND_OF_TYPE[event.type] for event in events
    ]  # fmt: skip


def value_of(event: Event, kind: int) -> float:
    """Price of a view or an add, revenue of an order, 0 for the rest and for what is no sum of money."""
    if kind in (VIEW, ADD):
        value = number(event.props, "price")
    elif kind == ORDER:
        value = number(event.props, "revenue")
    else:
        return 0.0
    return value if value <= VALUE_LIMIT else 0.0


def signals_of(events: Sequence[Event], slot: NDArray[np.int64], kinds: Sequence[int]) -> Signals:
    """Signals of events that the row counts: event i belongs to row `slot[i]` and is of kind `kinds[i]`."""
    values = [value_of(event, kind) for event, kind in zip(events, kinds, strict=True)]
    return Signals(
        slot=slot,
        kind=np.array(kinds, np.int16),
        at_ms=np.array([event.at_ms for event in events], np.float64),
        value=np.array(values, np.float64),
        channel=np.full(len(events), -1, np.int8),
    )


def zone_hash(name: str) -> int:
    """A time zone's name as the row holds it; never 0, which means none."""
    return xxhash.xxh32_intdigest(name.encode()) or 1
