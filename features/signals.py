"""Neutral columns between those who know events and the rows: who, what, when, how much, through what."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COUNTED = ("view", "add", "remove", "cart", "checkout", "order", "refund", "other")
"""Kinds that have decayed counts and a recency of their own."""

OUTCOMES = ("sent", "opened", "clicked")
"""Kinds that are counted per channel."""

KINDS = COUNTED + OUTCOMES
"""Every kind; `Signals.kind` is an index into it."""

VIEW, ADD, REMOVE, CART, CHECKOUT, ORDER, REFUND, OTHER, SENT, OPENED, CLICKED = range(len(KINDS))

CHANNELS = 4
"""Channels a row can tell apart; `Signals.channel` is -1 where no channel is meant."""

VALUE_LIMIT = 1e15
"""No value is larger than this in size: 10**23 of them still fit a float32 sum."""

TIME_LIMIT_MS = 1e13
"""No time is later than this, the year 2286."""


@dataclass(frozen=True, slots=True, eq=False)
class Signals:
    """n things that happened, in columns.

    Parameters
    ----------
    slot : int64[n]
        Index of the person's row in the array the signals are folded into.
    kind : int16[n]
        Index into `KINDS`.
    at_ms : float64[n]
        When, in milliseconds since the epoch.
    value : float64[n]
        Price of a view or an add (0: unknown), revenue of an order; 0 elsewhere.
    channel : int8[n]
        Index of the channel of a sent, opened or clicked message; -1 elsewhere.

    Notes
    -----
    Values come from a decoder that refuses what is not finite or too large, so a violation here is a
    mistake in this program and not bad input: it is asserted.
    """

    slot: NDArray[np.int64]
    kind: NDArray[np.int16]
    at_ms: NDArray[np.float64]
    value: NDArray[np.float64]
    channel: NDArray[np.int8]

    def __post_init__(self) -> None:
        n = len(self.slot)
        assert len(self.kind) == len(self.at_ms) == len(self.value) == len(self.channel) == n
        if n == 0:
            return
        # Comparisons with NaN are false, so the bounds below refuse it as well.
        assert np.abs(self.value).max() <= VALUE_LIMIT
        assert self.at_ms.min() >= 0
        assert self.at_ms.max() < TIME_LIMIT_MS
        assert self.kind.min() >= 0
        assert self.kind.max() < len(KINDS)
        assert self.channel.min() >= -1
        assert self.channel.max() < CHANNELS

    def __len__(self) -> int:
        return len(self.slot)
