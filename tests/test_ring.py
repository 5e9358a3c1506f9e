from __future__ import annotations

from collections import defaultdict, deque
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.rows import RING, ROW, Rows, fresh, ring_ids

PEOPLE = 3


def one_at_a_time(messages: list[tuple[int, int]]) -> tuple[list[bool], dict[int, list[int]]]:
    """The claim in plain Python: a person's last 64 accepted ids are known."""
    rings: dict[int, deque[int]] = defaultdict(lambda: deque(maxlen=RING))
    new = []
    for person, message in messages:
        new.append(message not in rings[person])
        if new[-1]:
            rings[person].append(message)
    return new, {person: list(ring) for person, ring in rings.items()}


def in_batches(messages: list[tuple[int, int]], cuts: list[int]) -> tuple[list[bool], Rows]:
    rows: Rows = np.zeros(PEOPLE, ROW)
    new: list[bool] = []
    bounds = [0, *sorted(min(cut, len(messages)) for cut in cuts), len(messages)]
    for start, end in pairwise(bounds):
        slot = np.array([person for person, _ in messages[start:end]], np.int64)
        ids = np.array([message for _, message in messages[start:end]], np.uint64)
        before = rows.copy()
        told, advanced = fresh(rows, slot, ids)
        assert rows.tobytes() == before.tobytes(), "the input is not changed"
        new += told.tolist()
        rows = advanced
    return new, rows


def remembered(row: np.void) -> list[int]:
    """The ids of a ring, the oldest first."""
    count = int(row["count"])
    return [int(row["ring"][place % RING]) for place in range(max(0, count - RING), count)]


cut_points = st.lists(st.integers(0, 400), max_size=6)


@given(
    # Ids from a range of 90 are often repeated, and as often forgotten before they come again.
    st.lists(st.tuples(st.integers(0, PEOPLE - 1), st.integers(1, 90)), max_size=400),
    cut_points,
)
def test_many_repeats_in_any_batches_are_judged_as_one_at_a_time(
    messages: list[tuple[int, int]], cuts: list[int]
) -> None:
    """With repeats everywhere, verdicts and rings equal the sequential model's, wherever batches are cut."""
    new, rows = in_batches(messages, cuts)
    expected, rings = one_at_a_time(messages)
    assert new == expected
    for person, ring in rings.items():
        assert remembered(rows[person]) == ring
        assert int(rows["count"][person]) == sum(
            ok for (who, _), ok in zip(messages, new, strict=True) if who == person
        )


@given(
    st.lists(st.integers(0, PEOPLE - 1), max_size=300),
    st.lists(st.tuples(st.integers(0, 299), st.integers(1, 130)), max_size=3),
    cut_points,
)
def test_few_repeats_in_any_batches_are_judged_as_one_at_a_time(
    people: list[int], repeats: list[tuple[int, int]], cuts: list[int]
) -> None:
    """Mostly new ids, so that rows are advanced together, with a repeat near the edge of what a ring remembers."""
    messages = [(person, 1 + at) for at, person in enumerate(people)]
    for at, back in repeats:
        if back <= at < len(messages):
            messages[at] = messages[at - back]
    new, rows = in_batches(messages, cuts)
    expected, rings = one_at_a_time(messages)
    assert new == expected
    for person, ring in rings.items():
        assert remembered(rows[person]) == ring


@pytest.mark.parametrize("between", [0, 1, RING - 1, RING, RING + 1, 3 * RING])
def test_the_last_64_accepted_ids_are_remembered_and_no_more(between: int) -> None:
    """An id that comes again after 63 others is known, after 64 others it is new."""
    messages = [(0, 7), *((0, 1000 + at) for at in range(between)), (0, 7)]
    for cuts in ([], [1], [1, between + 1]):
        new, _ = in_batches(messages, cuts)
        assert new[-1] == (between >= RING)


def test_a_refused_id_does_not_push_out_an_accepted_one() -> None:
    """Only accepted ids take a place: 1,000 repeats of one id leave the others remembered."""
    first = [(0, 1 + at) for at in range(RING)]
    new, _ = in_batches([*first, *[(0, RING)] * 1000, (0, 1)], [RING])
    assert new == [True] * RING + [False] * 1001


def test_no_messages_change_nothing() -> None:
    """An empty batch gives an empty answer."""
    new, rows = fresh(np.zeros(2, ROW), np.zeros(0, np.int64), np.zeros(0, np.uint64))
    assert new.shape == (0,)
    assert not rows["count"].any()


def test_hashes_of_message_ids_are_stable_and_never_0() -> None:
    """Rings are stored, so the hash is part of the format: XXH3-64 of the UTF-8 bytes."""
    assert ring_ids(["", "a", "é", "022bb90c-bbac-11e4-8dfc-aa07a5b093db"]).tolist() == [
        0x2D06800538D394C2,
        0xE6C632B61E964E1F,
        0xF7940A006CF10CB3,
        0x3BA16565FEF93686,
    ]
    assert (ring_ids(str(at) for at in range(10_000)) > 0).all()


def test_a_hash_of_0_is_taken_as_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 marks an empty place, so an id that hashes to it must become something else."""
    monkeypatch.setattr("features.layout.xxhash.xxh3_64_intdigest", lambda _: 0)
    assert ring_ids(["a"]).tolist() == [1]
