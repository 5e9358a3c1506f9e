"""The feature row: one fixed-width record per person, made of decayed sums.

A decayed sum is S(t) = sum of v_i * 2**(-(t - t_i) / half_life). It is kept as its value at a reference time
and needs nothing else: advancing the reference multiplies, a late signal is decayed to it, two people are
merged by adding. So the order of signals, the boundaries of batches and the moment of a merge cannot matter
beyond rounding.
Everything here works on arrays of rows; a single person never costs a Python object.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.codec import CorruptRow, decode, decode_many, encode, encode_many
from features.layout import (
    AWAITED,
    CHANNEL_COUNTS,
    COUNT_HALF_LIVES_S,
    COUNTS,
    ERASED,
    HALF_LIVES_S,
    KNOWN,
    MOVED,
    OUTCOME_HALF_LIFE_S,
    PRICE,
    PRICE_HALF_LIFE_S,
    RECENCY,
    RECENCY_EPOCH_MS,
    RECENCY_FLOOR_H,
    REFERENCE_STEP_MS,
    REVENUE,
    REVENUE_HALF_LIVES_S,
    RING,
    ROW,
    WIDTH,
    Rows,
    ring_ids,
    take,
)
from features.signals import ADD, CHANNELS, COUNTED, ORDER, SENT, VIEW, Signals
from features.table import RowTable

__all__ = [
    "AWAITED",
    "ERASED",
    "HALF_LIVES_S",
    "KNOWN",
    "MOVED",
    "RING",
    "ROW",
    "WIDTH",
    "CorruptRow",
    "RowTable",
    "Rows",
    "decode",
    "decode_many",
    "encode",
    "encode_many",
    "fold",
    "fold_outcome",
    "folded",
    "fresh",
    "merge",
    "ring_ids",
]


_LARGEST = float(np.finfo(np.float32).max)


def fresh(rows: Rows, slot: NDArray[np.int64], ids: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], Rows]:
    """Tell which messages are new to their person, and advance the rings by those.

    Parameters
    ----------
    rows : ROW[m]
    slot : int64[n]
        Row of each message, in the order of reading.
    ids : uint64[n]
        From `ring_ids`, none of them 0.

    Returns
    -------
    new : bool[n]
        False where the id is among the last 64 accepted ones of that person.
    rows : ROW[m]
        Copies with ring and count advanced.

    Notes
    -----
    Equal to taking the messages one at a time. A message is surely known if its id is in the ring and could not be
    pushed out even if all the row's other messages of the batch were new. Rows whose remaining messages are neither
    in the ring nor twice in the batch are advanced together; what is left is taken one message at a time.
    """
    rows = take(rows, np.arange(len(rows)))
    new = np.ones(len(slot), np.bool_)
    if len(slot) == 0:
        return new, rows
    assert int(ids.min()) > 0, "0 is an empty place of a ring"
    # Flat, because numpy takes 40 times as long to find the rare True among two dimensions.
    found, place = np.divmod(np.flatnonzero(rows["ring"][slot] == ids[:, None]), RING)
    newer = (rows["count"][slot[found]].astype(np.int64) - 1 - place) % RING  # ids that came after that one
    others = np.bincount(slot, minlength=len(rows))[slot[found]] - 1
    stays = newer + others < RING
    new[found[stays]] = False

    rest = np.flatnonzero(new)
    doubtful = np.zeros(len(rows), np.bool_)
    doubtful[slot[found[~stays]]] = True
    order = rest[np.argsort(ids[rest], kind="stable")]
    again = ids[order[1:]] == ids[order[:-1]]
    doubtful[slot[order[1:][again]]] = True
    doubtful[slot[order[:-1][again]]] = True
    singly = doubtful[slot[rest]]
    _append(rows, slot[rest[~singly]], ids[rest[~singly]])
    if singly.any():
        new[rest[singly]] = _one_by_one(rows, slot[rest[singly]], ids[rest[singly]])
    return new, rows


def _append(rows: Rows, slot: NDArray[np.int64], ids: NDArray[np.uint64]) -> None:
    """Accept every message, in place."""
    order = np.argsort(slot, kind="stable")
    slot, ids = slot[order], ids[order]
    total = np.bincount(slot, minlength=len(rows))
    first = np.cumsum(total) - total
    rank = np.arange(len(slot)) - first[slot]
    last = rank >= total[slot] - RING  # earlier ones are overwritten within this batch
    place = (rows["count"][slot].astype(np.int64) + rank) % RING
    rows["ring"][slot[last], place[last]] = ids[last]
    rows["count"] += total.astype(np.uint64)


def _one_by_one(rows: Rows, slot: NDArray[np.int64], ids: NDArray[np.uint64]) -> list[bool]:
    """Accept or refuse message by message, in place: the definition of what `fresh` does."""
    touched = np.unique(slot)
    counts = rows["count"][touched].tolist()
    rings: dict[int, deque[int]] = {}
    for row, count, ring in zip(touched.tolist(), counts, rows["ring"][touched].tolist(), strict=True):
        oldest = count % RING if count > RING else 0
        rings[row] = deque(ring[oldest : min(count, RING)] + ring[:oldest], RING)
    new = []
    for row, message in zip(slot.tolist(), ids.tolist(), strict=True):
        known = rings[row]
        new.append(message not in known)
        if new[-1]:
            known.append(message)
    np.add.at(rows["count"], slot[np.array(new, np.bool_)], np.uint64(1))
    for row, known in rings.items():
        newest = int(rows["count"][row])
        rows["ring"][row, (newest - len(known) + np.arange(len(known))) % RING] = known
    return new


def _decay(values: NDArray[np.float64], elapsed_s: NDArray[np.float64]) -> None:
    """Advance values[m, WIDTH] by elapsed_s[m] >= 0, in place."""
    moved = np.flatnonzero(elapsed_s)
    if len(moved) == 0:
        return
    values[moved] *= np.exp2(-elapsed_s[moved, None] / HALF_LIVES_S)


def _reference(at_ms: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.ceil(at_ms / REFERENCE_STEP_MS) * REFERENCE_STEP_MS)


def fold(rows: Rows, signals: Signals) -> Rows:
    """Add signals to rows.

    Parameters
    ----------
    rows : ROW[m]
        Not changed.
    signals : Signals
        `slot` indexes `rows`.

    Returns
    -------
    ROW[m]
        New rows. Order and grouping of signals do not matter, to 1e-5 relative: the sums rest in float32.
    """
    out = take(rows, np.arange(len(rows)))
    at_ms, values = folded(rows["at_ms"], rows["values"].astype(np.float64), signals)
    assert bool(np.isfinite(values).all())
    out["at_ms"], out["values"] = at_ms, values
    return out


def fold_outcome(rows: Rows, slot: int, kind: int, at_ms: float, channel: int) -> bool:
    """Add one signal of a message's outcome to one row in place, for a fraction of what `fold` costs.

    Returns
    -------
    bool
        False, and nothing was done, where `fold` has to: it is no outcome, or the sums would have to decay first.
    """
    ahead_ms = float(rows["at_ms"][slot]) - at_ms
    if kind < len(COUNTED) or channel < 0 or ahead_ms < 0:
        return False
    column = CHANNEL_COUNTS + (kind - SENT) * CHANNELS + channel
    values = rows["values"][slot]
    values[column] = float(values[column]) + float(np.exp2(ahead_ms / -1e3 / OUTCOME_HALF_LIFE_S))
    return True


def folded(
    at_ms: NDArray[np.float64], values: NDArray[np.float64], signals: Signals
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`fold` in float64: reference times [m] and values [m, WIDTH] in, the same out; `values` is used up."""
    slot, kind, value = signals.slot, signals.kind.astype(np.int64), signals.value
    reference_ms = at_ms.copy()
    np.maximum.at(reference_ms, slot, _reference(signals.at_ms))
    _decay(values, (reference_ms - at_ms) / 1e3)

    age_s = (reference_ms[slot] - signals.at_ms) / 1e3
    base = slot * WIDTH
    counted = kind < len(COUNTED)
    columns: list[NDArray[np.int64]] = []
    amounts: list[NDArray[np.float64]] = []

    def add(chosen: NDArray[Any], column: NDArray[np.int64] | int, half_life_s: float, amount: Any) -> None:
        columns.append(base[chosen] + column)
        amounts.append(np.exp2(age_s[chosen] / -half_life_s) * amount)

    which = np.flatnonzero(counted)
    for block, half_life_s in enumerate(COUNT_HALF_LIVES_S):
        add(which, COUNTS + block * len(COUNTED) + kind[which], half_life_s, 1.0)
    priced = np.flatnonzero(((kind == VIEW) | (kind == ADD)) & (value > 0))
    add(priced, PRICE, PRICE_HALF_LIFE_S, value[priced])
    add(priced, PRICE + 1, PRICE_HALF_LIFE_S, 1.0)
    orders = np.flatnonzero(kind == ORDER)
    for block, half_life_s in enumerate(REVENUE_HALF_LIVES_S):
        add(orders, REVENUE + block, half_life_s, value[orders])
    outcomes = np.flatnonzero(~counted & (signals.channel >= 0))
    outcome_column = CHANNEL_COUNTS + (kind[outcomes] - SENT) * CHANNELS + signals.channel[outcomes]
    add(outcomes, outcome_column, OUTCOME_HALF_LIFE_S, 1.0)

    flat = values.reshape(-1)
    flat += np.bincount(np.concatenate(columns), np.concatenate(amounts), minlength=len(flat))
    hours = np.maximum((signals.at_ms[which] - RECENCY_EPOCH_MS) / 3.6e6, RECENCY_FLOOR_H)
    np.maximum.at(flat, base[which] + RECENCY + kind[which], hours)
    return reference_ms, values


def merge(a: Rows, b: Rows) -> Rows:
    """Add the histories of b[i] to a[i]: two ids turned out to be one person.

    Parameters
    ----------
    a, b : ROW[m]

    Returns
    -------
    ROW[m]
        Sums added at the later reference time, recency by maximum; ring, count, flags and zone are of `a`.
    """
    assert len(a) == len(b)
    out = take(a, np.arange(len(a)))
    reference_ms = np.maximum(a["at_ms"], b["at_ms"])
    left, right = a["values"].astype(np.float64), b["values"].astype(np.float64)
    _decay(left, (reference_ms - a["at_ms"]) / 1e3)
    _decay(right, (reference_ms - b["at_ms"]) / 1e3)
    recency = slice(RECENCY, RECENCY + len(COUNTED))
    latest = np.maximum(left[:, recency], right[:, recency])
    left += right
    left[:, recency] = latest
    np.clip(left, -_LARGEST, _LARGEST, out=left)  # what came from elsewhere may be any number float32 holds
    out["at_ms"], out["values"] = reference_ms, left
    return out
