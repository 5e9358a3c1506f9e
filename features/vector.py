"""A row as named numbers: the context of a choice, and `user.features` of rules and texts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.layout import (
    CHANNEL_COUNTS,
    HALF_LIVES_S,
    PRICE,
    RECENCY,
    RECENCY_EPOCH_MS,
    REFERENCE_STEP_MS,
    Rows,
)
from features.signals import CHANNELS, COUNTED, OUTCOMES, VALUE_LIMIT

RECENT_HALF_LIFE_H = 24.0

NAMES: tuple[str, ...] = (
    *(f"{kind}_{span}" for span in ("1h", "1d", "7d") for kind in COUNTED),
    *(f"recent_{kind}" for kind in COUNTED),
    *(f"{outcome}_{channel}_30d" for outcome in OUTCOMES for channel in range(CHANNELS)),
    "revenue_7d",
    "revenue_30d",
    "price_7d",
)
"""In the order of a row: decayed counts by half-life and kind; ``recent_*`` from 0 (never) to 1 (just now),
halving every day; decayed counts of messages by outcome and channel index; decayed revenue; mean price."""


def vectors(rows: Rows, now_ms: float) -> NDArray[np.float64]:
    """Evaluate rows at a time.

    Parameters
    ----------
    rows : ROW[m]
    now_ms
        A time before the row's reference counts as at most one reference step before it.

    Returns
    -------
    float64[m, len(NAMES)]
        All finite and not negative.
    """
    values = rows["values"].astype(np.float64)
    elapsed_s = np.maximum(now_ms - rows["at_ms"], -REFERENCE_STEP_MS) / 1e3
    recency_h = values[:, RECENCY:CHANNEL_COUNTS].copy()
    values *= np.exp2(-elapsed_s[:, None] / HALF_LIVES_S)
    ago_h = np.maximum((now_ms - RECENCY_EPOCH_MS) / 3.6e6 - recency_h, 0.0)
    values[:, RECENCY:CHANNEL_COUNTS] = np.where(recency_h > 0, np.exp2(-ago_h / RECENT_HALF_LIFE_H), 0.0)
    # Sum and weight decay alike: their quotient is a mean that does not, until both have faded out.
    weight = rows["values"][:, PRICE + 1].astype(np.float64)
    prices = np.divide(rows["values"][:, PRICE], weight, out=np.zeros(len(rows)), where=weight > 0)
    return np.concatenate([values[:, :PRICE], np.minimum(prices, VALUE_LIMIT)[:, None]], axis=1)


def named(vector: NDArray[np.float64]) -> dict[str, float]:
    """One row of `vectors` by name.

    Parameters
    ----------
    vector : float64[len(NAMES)]
    """
    return dict(zip(NAMES, vector.tolist(), strict=True))
