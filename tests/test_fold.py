from __future__ import annotations

from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.layout import (
    CHANNEL_COUNTS,
    COUNT_HALF_LIVES_S,
    OUTCOME_HALF_LIFE_S,
    PRICE,
    PRICE_HALF_LIFE_S,
    RECENCY,
    RECENCY_EPOCH_MS,
    RECENCY_FLOOR_H,
    REFERENCE_STEP_MS,
    REVENUE,
    REVENUE_HALF_LIVES_S,
)
from features.rows import ROW, WIDTH, Rows, fold, fold_outcome, folded, merge
from features.signals import ADD, CHANNELS, COUNTED, KINDS, ORDER, SENT, VALUE_LIMIT, VIEW, Signals

PEOPLE = 3
START_MS = 1_772_370_000_000
Item = tuple[int, int, int, float, int]

items = st.lists(
    st.tuples(
        st.integers(0, PEOPLE - 1),
        st.integers(0, len(KINDS) - 1),
        st.integers(START_MS - 3 * 86_400_000, START_MS + 3 * 86_400_000),
        st.one_of(st.just(0.0), st.floats(0, 1e15), st.floats(1, 500)),
        st.integers(-1, CHANNELS - 1),
    ),
    max_size=60,
)


def signals(chosen: list[Item]) -> Signals:
    slot, kind, at_ms, value, channel = zip(*chosen, strict=True) if chosen else ((),) * 5
    return Signals(
        np.array(slot, np.int64),
        np.array(kind, np.int16),
        np.array(at_ms, np.float64),
        np.array(value, np.float64),
        np.array(channel, np.int8),
    )


def after(*batches: list[Item]) -> Rows:
    rows: Rows = np.zeros(PEOPLE, ROW)
    for batch in batches:
        rows = fold(rows, signals(batch))
    return rows


def exactly(*batches: list[Item]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same in float64 all the way."""
    at_ms, values = np.zeros(PEOPLE), np.zeros((PEOPLE, WIDTH))
    for batch in batches:
        at_ms, values = folded(at_ms, values, signals(batch))
    return at_ms, values


def same(a: Rows, b: Rows, rtol: float = 1e-5) -> None:
    np.testing.assert_array_equal(a["at_ms"], b["at_ms"])
    np.testing.assert_allclose(a["values"], b["values"], rtol=rtol, atol=1e-30)


def plain(chosen: list[Item]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a row is to hold, signal by signal from the definition of a decayed sum."""
    at_ms, values = np.zeros(PEOPLE), np.zeros((PEOPLE, WIDTH))
    for slot, _, when, _, _ in chosen:
        at_ms[slot] = max(at_ms[slot], -(-when // REFERENCE_STEP_MS) * REFERENCE_STEP_MS)
    for slot, kind, when, value, channel in chosen:
        age_s = (at_ms[slot] - when) / 1e3
        if kind < len(COUNTED):
            for block, half_life_s in enumerate(COUNT_HALF_LIVES_S):
                values[slot, block * len(COUNTED) + kind] += 2 ** (-age_s / half_life_s)
            hours = max((when - RECENCY_EPOCH_MS) / 3.6e6, RECENCY_FLOOR_H)
            values[slot, RECENCY + kind] = max(values[slot, RECENCY + kind], hours)
        elif channel >= 0:
            column = CHANNEL_COUNTS + (kind - SENT) * CHANNELS + channel
            values[slot, column] += 2 ** (-age_s / OUTCOME_HALF_LIFE_S)
        if kind in {VIEW, ADD} and value > 0:
            values[slot, PRICE] += value * 2 ** (-age_s / PRICE_HALF_LIFE_S)
            values[slot, PRICE + 1] += 2 ** (-age_s / PRICE_HALF_LIFE_S)
        if kind == ORDER:
            for block, half_life_s in enumerate(REVENUE_HALF_LIVES_S):
                values[slot, REVENUE + block] += value * 2 ** (-age_s / half_life_s)
    return at_ms, values


@given(items)
def test_a_row_holds_the_decayed_sums_of_its_signals(chosen: list[Item]) -> None:
    """Every column equals its definition, to 1e-9 in float64 and to 1e-6 at rest."""
    at_ms, values = plain(chosen)
    reference_ms, found = exactly(chosen)
    np.testing.assert_array_equal(reference_ms, at_ms)
    np.testing.assert_allclose(found, values, rtol=1e-9, atol=1e-30)
    np.testing.assert_allclose(after(chosen)["values"], values, rtol=1e-6, atol=1e-30)


@given(items, st.randoms(use_true_random=False))
def test_the_order_of_signals_does_not_matter(chosen: list[Item], chance: Random) -> None:
    """Shuffled signals give the same row: late ones decay to the row's reference time."""
    shuffled = list(chosen)
    chance.shuffle(shuffled)
    same(after(chosen), after(shuffled))


@given(items, st.lists(st.integers(0, 60), max_size=8))
def test_batch_boundaries_do_not_matter(chosen: list[Item], cuts: list[int]) -> None:
    """Cut anywhere, the sums are the same: to 1e-9 in float64, to 1e-5 with float32 between batches."""
    bounds = [0, *sorted(cuts), len(chosen)]
    batches = [chosen[start:end] for start, end in pairwise(bounds)]
    same(after(chosen), after(*batches))
    at_ms, values = exactly(chosen)
    at_ms_cut, values_cut = exactly(*batches)
    np.testing.assert_array_equal(at_ms, at_ms_cut)
    np.testing.assert_allclose(values, values_cut, rtol=1e-9, atol=1e-30)


@given(items, items.filter(bool))
def test_one_outcome_is_added_as_if_it_were_folded(before: list[Item], chosen: list[Item]) -> None:
    """To the bit, or not at all: where it is no outcome, or where the row's sums would have to decay first."""
    rows = after(before)
    slot, kind, at_ms, _, channel = chosen[0]
    expected, untouched = fold(rows, signals(chosen[:1])), rows.copy()
    added = fold_outcome(rows, slot, kind, float(at_ms), channel)
    assert rows.tobytes() == (expected if added else untouched).tobytes()
    assert added == (kind >= SENT and channel >= 0 and at_ms <= untouched["at_ms"][slot])


@given(items, items)
def test_merging_commutes_in_values(left: list[Item], right: list[Item]) -> None:
    """Whoever is merged into whom, the sums are the same; and they are those of one person who did all of it."""
    a, b = after(left), after(right)
    same(merge(a, b), merge(b, a), rtol=1e-6)
    same(merge(a, b), after(left, right))


@given(items, items, items)
def test_merging_is_associative(one: list[Item], two: list[Item], three: list[Item]) -> None:
    """Three ids of one person may be found out in any order."""
    a, b, c = after(one), after(two), after(three)
    same(merge(merge(a, b), c), merge(a, merge(b, c)))


@given(items)
def test_merging_with_nobody_changes_nothing(chosen: list[Item]) -> None:
    """A row of zeros is the identity, exactly, from either side."""
    a = after(chosen)
    nobody: Rows = np.zeros(PEOPLE, ROW)
    assert merge(a, nobody).tobytes() == a.tobytes()
    assert merge(nobody, a)["values"].tobytes() == a["values"].tobytes()


def test_a_merge_keeps_who_the_known_person_is() -> None:
    """Ring, count, flags and zone are not numbers to add: they stay those of the person merged into."""
    a, b = after([(0, VIEW, START_MS, 5.0, -1)]), after([(0, ADD, START_MS, 5.0, -1)])
    for rows, number in ((a, 1), (b, 2)):
        for name in ("count", "flags", "zone", "ring"):
            rows[name] = number
    merged = merge(a, b)
    for name in ("count", "flags", "zone", "ring"):
        assert (merged[name] == a[name]).all()


def test_the_input_is_not_changed() -> None:
    """`fold` and `merge` give new rows: a step that fails must leave the cache as it was."""
    rows = after([(0, VIEW, START_MS, 5.0, -1)])
    before = rows.tobytes()
    fold(rows, signals([(0, ADD, START_MS + 10**9, 7.0, -1)]))
    merge(rows, after([(0, ADD, START_MS + 10**9, 7.0, -1)]))
    assert rows.tobytes() == before


def test_decay_is_not_lost_when_a_row_is_folded_very_often() -> None:
    """A send decays over an hour of signals every 100 ms as over one single step (float32 would round it away)."""
    sent = (0, SENT, START_MS, 0.0, 0)
    views = [(0, VIEW, START_MS + 100 * at, 0.0, -1) for at in range(36_000)]
    rows = after([sent])
    for view in views:
        rows = fold(rows, signals([view]))
    at_once = after([sent, views[-1]])
    column = CHANNEL_COUNTS
    assert rows["at_ms"][0] == at_once["at_ms"][0]
    assert rows["values"][0, column] == pytest.approx(at_once["values"][0, column], rel=1e-5)


def test_the_largest_values_stay_finite() -> None:
    """100,000 orders of the largest value a decoder lets through are still a finite float32."""
    rows = after([(0, ORDER, START_MS, VALUE_LIMIT, -1)] * 100_000)
    assert np.isfinite(rows["values"]).all()
    assert rows["values"][0, REVENUE] == pytest.approx(1e20, rel=1e-3)


def test_what_no_decoder_lets_through_is_a_mistake_of_the_program() -> None:
    """Infinite, undefined or too large values and unknown kinds are asserted, not folded."""
    for bad in (
        (0, ORDER, START_MS, float("nan"), -1),
        (0, ORDER, START_MS, float("inf"), -1),
        (0, ORDER, START_MS, 2 * VALUE_LIMIT, -1),
        (0, ORDER, -1, 1.0, -1),
        (0, len(KINDS), START_MS, 1.0, -1),
        (0, SENT, START_MS, 1.0, CHANNELS),
    ):
        with pytest.raises(AssertionError):
            signals([bad])
