from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from features.rows import (
    AWAITED,
    ERASED,
    KNOWN,
    MOVED,
    RING,
    ROW,
    WIDTH,
    CorruptRow,
    Rows,
    RowTable,
    decode,
    decode_many,
    encode,
    encode_many,
)
from features.vector import NAMES, named, vectors

GOLDEN = json.loads((Path(__file__).parent / "golden" / "rows-v1.json").read_text())
START_MS = 1_772_370_000_000.0


def row(count: int = 0, at_ms: float = START_MS, flags: int = 0, zone: int = 0, first: float = 0.0) -> Rows:
    made: Rows = np.zeros(1, ROW)
    made["count"], made["at_ms"], made["flags"], made["zone"] = count, at_ms, flags, zone
    made["values"][0] = first + np.arange(WIDTH)
    made["ring"][0, : min(count, RING)] = 1 + np.arange(min(count, RING))
    return made


rows_of_any_kind = st.builds(
    row,
    count=st.one_of(st.integers(0, 3 * RING), st.integers(0, 2**64 - 1)),
    at_ms=st.floats(0, 9e12),
    flags=st.integers(0, MOVED | ERASED | KNOWN | AWAITED),
    zone=st.integers(0, 2**32 - 1),
    first=st.floats(0, 1e30),
)


@given(st.lists(rows_of_any_kind, max_size=5))
def test_a_row_comes_back_as_it_was(many: list[Rows]) -> None:
    """Encoding and decoding is the identity, one at a time and many at once."""
    rows: Rows = np.concatenate([np.zeros(0, ROW), *many])
    encoded = encode_many(rows)
    assert decode_many(encoded).tobytes() == rows.tobytes()
    assert encoded == [encode(one) for one in rows]
    assert all(decode(data) == one for data, one in zip(encoded, rows, strict=True))


def test_only_the_used_places_of_a_ring_take_space() -> None:
    """A person of one message costs 225 bytes, one of many never more than 729."""
    assert [len(encode(row(count=count)[0])) for count in (0, 1, RING, 10 * RING)] == [217, 225, 729, 729]


def test_golden_rows_of_version_1_stay_readable_and_are_still_written_so() -> None:
    """Bytes written by the first version decode to the same numbers, and the same numbers encode to them."""
    for golden in GOLDEN:
        decoded = decode(bytes.fromhex(golden["bytes"]))
        for name in ("at_ms", "count", "flags", "zone"):
            assert decoded[name] == golden[name]
        np.testing.assert_array_equal(decoded["values"], np.array(golden["values"], np.float32))
        ring = decoded["ring"].tolist()
        assert ring == golden["ring"] + [0] * (RING - len(golden["ring"]))
        assert encode(decoded).hex() == golden["bytes"]


@given(rows_of_any_kind, st.data())
def test_cut_or_extended_bytes_are_refused(rows: Rows, data: st.DataObject) -> None:
    """Every other length than the right one is `CorruptRow`, never a wrong row."""
    encoded = encode(rows[0])
    cut = data.draw(st.integers(0, len(encoded) - 1))
    for wrong in (encoded[:cut], encoded + b"\1", encoded + b"\1" * 8, encoded + bytes(8)):
        with pytest.raises(CorruptRow):
            decode(wrong)


def _with(name: str, value: float) -> bytes:
    changed = row(count=3)
    changed[name] = value
    return encode(changed[0])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" + encode(row()[0])[1:],
        b"\2" + encode(row()[0])[1:],
        _with("values", float("nan")),
        _with("values", float("inf")),
        _with("at_ms", float("nan")),
        _with("at_ms", -1.0),
        _with("at_ms", 1e300),
        _with("flags", 16),
        _with("ring", 0),
    ],
)
def test_what_no_fold_can_have_written_is_refused(data: bytes) -> None:
    """Another version, undefined numbers, times out of range, unknown flags and empty used places: `CorruptRow`."""
    with pytest.raises(CorruptRow):
        decode(data)


@given(st.binary(max_size=800))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    """Nothing but `CorruptRow` comes out of foreign bytes."""
    try:
        decode(data)
    except CorruptRow:
        return


people = st.sampled_from([f"u{number}" for number in range(12)])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(people, max_size=5)),
        st.tuples(st.just("new"), st.lists(people, max_size=5)),
        st.tuples(st.just("touch"), st.lists(people, max_size=5)),
        st.tuples(st.just("evict"), st.integers(0, 12)),
        st.tuples(st.just("clear"), st.none()),
    ),
    max_size=30,
)


@given(steps)
def test_a_table_is_an_ordered_dictionary(script: list[tuple[str, list[str] | int | None]]) -> None:
    """Whatever is done, contents, order of eviction and length are those of a plain ordered dictionary."""
    table = RowTable()
    model: OrderedDict[str, int] = OrderedDict()
    stamp = 0
    for action, argument in script:
        match action, argument:
            case "put", list(persons):
                rows: Rows = np.zeros(len(persons), ROW)
                for at, person in enumerate(persons):
                    stamp += 1
                    rows["count"][at] = model[person] = stamp
                table.put(persons, rows)
            case "new", list(persons):
                table.add_new(persons)
                for person in persons:
                    model.setdefault(person, 0)
            case "touch", list(persons):
                table.touch(persons)
                for person in persons:
                    if person in model:
                        model.move_to_end(person)
            case "evict", int(keep):
                gone = [model.popitem(last=False)[0] for _ in range(max(0, len(model) - keep))]
                assert table.evict(keep) == gone
            case _:
                table.clear()
                model.clear()
        assert len(table) == len(model)
        assert all((f"u{number}" in table) == (f"u{number}" in model) for number in range(12))
        assert table.gather(list(model))["count"].tolist() == list(model.values())


def test_a_person_who_was_not_read_is_never_a_new_person() -> None:
    """Gathering someone absent is an error, not a row of zeros."""
    table = RowTable()
    table.add_new(["a"])
    with pytest.raises(KeyError):
        table.gather(["a", "b"])


def test_gathered_rows_are_copies() -> None:
    """A step may do with them what it likes; the table changes by `put` alone."""
    table = RowTable()
    table.put(["a"], row(count=1))
    table.gather(["a"])["count"] = 9
    assert table.gather(["a"])["count"].tolist() == [1]


def test_who_was_evicted_comes_back_new() -> None:
    """A slot that is used again holds nothing of who had it before."""
    table = RowTable()
    table.put(["a"], row(count=5))
    assert table.evict(0) == ["a"]
    table.add_new(["b"])
    assert table.gather(["b"]).tobytes() == np.zeros(1, ROW).tobytes()


def test_a_row_in_use_costs_less_than_a_kilobyte() -> None:
    """The slab grows a fifth at a time, so from 5,000 persons on it is never much larger than what is used."""
    table = RowTable()
    for thousand in range(1, 40):
        table.add_new([f"{thousand}-{number}" for number in range(1000)])
        if thousand > 5:
            assert table.nbytes < 1000 * len(table)


@given(
    hnp.arrays(np.float32, (2, WIDTH), elements=st.floats(0, 2.0**100, width=32)),
    st.floats(0, 7e12),
    st.floats(0, 7e12),
)
def test_named_numbers_are_finite_and_not_negative(values: np.ndarray, at_ms: float, now_ms: float) -> None:
    """Whatever a row holds and whenever it is looked at, a policy gets usable numbers."""
    rows: Rows = np.zeros(2, ROW)
    rows["values"], rows["at_ms"] = values, at_ms
    found = vectors(rows, now_ms)
    assert found.shape == (2, len(NAMES))
    assert np.isfinite(found).all()
    assert (found >= 0).all()


def test_named_numbers_of_a_known_row() -> None:
    """An hour after its reference a count of half-life 1 h has halved, and the mean price is what it was."""
    rows: Rows = np.zeros(1, ROW)
    rows["at_ms"] = START_MS
    rows["values"][0, 0] = 8.0  # views at 1 h
    rows["values"][0, 24] = (START_MS - 1_577_836_800_000) / 3.6e6 - 23.0  # last view, 24 h before now
    rows["values"][0, 46:48] = 60.0, 3.0  # prices
    found = named(vectors(rows, START_MS + 3.6e6)[0])
    assert found["view_1h"] == pytest.approx(4.0)
    assert found["recent_view"] == pytest.approx(0.5, rel=1e-3)
    assert found["price_7d"] == pytest.approx(20.0)
    assert sum(value != 0 for value in found.values()) == 3
    assert list(found) == list(NAMES)
    assert len(set(NAMES)) == len(NAMES)
