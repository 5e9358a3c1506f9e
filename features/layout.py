"""What lies where in a feature row."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xxhash
from numpy.typing import NDArray

from features.signals import CHANNELS, COUNTED, OUTCOMES

HOUR_S, DAY_S = 3_600.0, 86_400.0
COUNT_HALF_LIVES_S = (HOUR_S, DAY_S, 7 * DAY_S)
OUTCOME_HALF_LIFE_S = 30 * DAY_S
REVENUE_HALF_LIVES_S = (7 * DAY_S, 30 * DAY_S)
PRICE_HALF_LIFE_S = 7 * DAY_S

COUNTS = 0  # one block of kinds per half-life
RECENCY = COUNTS + len(COUNT_HALF_LIVES_S) * len(COUNTED)
CHANNEL_COUNTS = RECENCY + len(COUNTED)  # one block of channels per outcome
REVENUE = CHANNEL_COUNTS + len(OUTCOMES) * CHANNELS
PRICE = REVENUE + len(REVENUE_HALF_LIVES_S)  # sum of prices, then how many they are
WIDTH = PRICE + 2

HALF_LIVES_S: NDArray[np.float64] = np.array(
    [half_life_s for half_life_s in COUNT_HALF_LIVES_S for _ in COUNTED]
    + [np.inf] * len(COUNTED)  # recency is a time, not a sum: it does not decay
    + [OUTCOME_HALF_LIFE_S] * (len(OUTCOMES) * CHANNELS)
    + [*REVENUE_HALF_LIVES_S, PRICE_HALF_LIFE_S, PRICE_HALF_LIFE_S]
)
"""Half-life of each column, in seconds."""

RING = 64
"""Message ids a person's row remembers."""

REFERENCE_STEP_MS = 60_000.0
"""Reference times are whole minutes, rounded up. A row that is folded many times a second would otherwise be
multiplied by numbers so close to one (1 - 3e-8 for 100 ms at 30 days) that float32 rounds the decay away."""

RECENCY_EPOCH_MS = 1_577_836_800_000.0
"""2020-01-01T00:00:00Z. Recency is in float32 hours since then: good to 15 seconds until 2034."""
RECENCY_FLOOR_H = 2.0**-10
"""0 means never, so what happened before that epoch counts as its very start."""

MOVED = 1
"""Flag: this id was merged into another person."""
ERASED = 2
"""Flag: this person was erased."""
KNOWN = 4
"""Flag: this id is a person's own, not only a device's."""
AWAITED = 8
"""Flag: a sign of life is waited for, so that whatever this person does next means something."""

ROW = np.dtype(
    [
        ("at_ms", "<f8"),  # reference time of the decayed sums; 0: never folded
        ("count", "<u8"),  # message ids ever accepted; the next one goes to ring[count % RING]
        ("flags", "<u4"),
        ("zone", "<u4"),  # 32-bit hash of the latest event's time zone; 0: none
        ("values", "<f4", (WIDTH,)),
        ("ring", "<u8", (RING,)),
    ]
)
WORDS = ROW.itemsize // 8
assert ROW.itemsize == 8 * WORDS

Rows = NDArray[np.void]


def take(rows: Rows, index: NDArray[np.int64]) -> Rows:
    """`rows[index]`, as plain words: numpy copies structured items field by field, which is slower."""
    words: NDArray[np.uint64] = rows.view(np.uint64).reshape(-1, WORDS)
    return words[index].view(ROW).reshape(-1)


def ring_ids(message_ids: Iterable[str]) -> NDArray[np.uint64]:
    """Hash message ids for the ring. 0 means an empty place there, so that hash is taken as 1.

    Returns
    -------
    uint64[n]
        XXH3-64 of each id. Two of a person's 64 ids collide with probability below 2e-16 per message.
    """
    ids = np.array([xxhash.xxh3_64_intdigest(message_id.encode()) for message_id in message_ids], np.uint64)
    ids[ids == 0] = 1
    return ids
