"""The shell's small parts: the changelog's codec, the index of timers, the cache, the inbox, dead letters."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisioning.effects import DeadLetter
from features.rows import ROW, encode_many
from streams import changelog, dead_letters
from streams.cache import Cache
from streams.changelog import CorruptError, Marker, Position
from streams.due import DueIndex
from streams.owner import Inbox
from streams.seams import Entry
from streams.transport import Fetched
from tests.shell_world import Line

PEOPLE = st.text(min_size=1, max_size=5)
TIMES = st.integers(0, 2**53)


@given(st.lists(st.tuples(PEOPLE, st.binary(), st.binary(), st.none() | TIMES), unique_by=lambda x: x[0]))
def test_post_images_come_back(images: list[tuple[str, bytes, bytes, int | None]]) -> None:
    """encode, then decode: the same row, profile and timer of everyone."""
    people, rows, profiles, due = ([image[i] for image in images] for i in range(4))
    records = changelog.encode_images(people, rows, profiles, due)  # type: ignore[arg-type]
    back = changelog.changes(changelog.latest(Entry(i, k, v) for i, (k, v) in enumerate(records)))
    assert (list(back.people), list(back.rows)) == (people, rows)
    assert list(back.profiles.values()) == profiles
    assert list(back.due.values()) == due


def test_version_one_stays_readable() -> None:
    """The bytes of a changelog outlive the program: this one was written by version 1."""
    value = bytes.fromhex("01 3930000000000000 03000000 726f77 70726f66696c65".replace(" ", ""))
    assert changelog.decode_image(value) == changelog.Image(b"row", b"profile", 12345)
    marker = b'{"n":7,"offsets":{"events":5,"internal":2},"now_ms":9,"partitions":4,"versions":{"models":"m"}}'
    assert changelog.decode_marker(marker) == Marker(
        n=7, offsets={"events": 5, "internal": 2}, now_ms=9, partitions=4, versions={"models": "m"}
    )


@pytest.mark.parametrize("value", [b"", b"\x02", b"\x01" * 12, b"\x01" + b"\0" * 8 + b"\xff\0\0\0"])
def test_foreign_bytes_are_refused(value: bytes) -> None:
    """What we did not write is an error, never somebody's state."""
    with pytest.raises(CorruptError):
        changelog.decode_image(value)


def test_a_position_survives_and_anything_else_is_none() -> None:
    """The committed metadata is ours or nobody's."""
    position = Position(n=3, d=2**40, partitions=8)
    assert changelog.decode_position(changelog.encode_position(position)) == position
    for text in ("", "x", '{"n":1}', '{"n":"1","d":2,"partitions":3}'):
        assert changelog.decode_position(text) is None


@given(st.lists(st.dictionaries(PEOPLE, st.none() | st.integers(0, 50)), max_size=20), st.integers(0, 50))
def test_the_index_of_timers_is_a_dictionary_in_order(changes: list[dict[str, int | None]], limit: int) -> None:
    """Whatever came and went: the next time, and who is due, in order of (time, person), each once."""
    index, truth = DueIndex(), dict[str, int]()
    for change in changes:
        index.update(change)
        for person, due_ms in change.items():
            truth.pop(person, None)
            if due_ms is not None:
                truth[person] = due_ms
    assert len(index) == len(truth)
    assert index.next_ms() == min(truth.values(), default=None)
    due = sorted((due_ms, person) for person, due_ms in truth.items() if due_ms <= limit)
    for most in (3, 100, 100):
        assert index.until(limit, most) == [person for _, person in due[:most]]


SOON = st.integers(0, 50)
PARKED = st.dictionaries(PEOPLE, st.tuples(SOON, st.none() | st.tuples(st.none() | SOON)), max_size=5)


@given(st.lists(st.none() | PARKED, max_size=20), SOON)
def test_who_is_parked_is_due_and_does_not_fire(changes: list[Any], limit: int) -> None:
    """Parked people stay counted, fire at their other time or not at all, and all fire again once unparked."""
    index, due, fires = DueIndex(), dict[str, int](), dict[str, int | None]()
    for change in changes:
        if change is None:
            index.unpark()
            fires = dict(due)
            continue
        parked = {person: other[0] for person, (_, other) in change.items() if other is not None}
        times = {person: due_ms for person, (due_ms, _) in change.items()}
        index.update(times, parked)
        due |= times
        fires |= times | parked
    assert {person: index.get(person) for person in due} == due
    free = sorted((fires_ms, person) for person, fires_ms in fires.items() if fires_ms is not None)
    assert index.next_ms() == (free[0][0] if free else None)
    assert index.until(limit, 100) == [person for fires_ms, person in free if fires_ms <= limit]


def test_the_index_forgets_outdated_entries() -> None:
    """A timer moved a million times does not fill the memory."""
    index = DueIndex()
    for due_ms in range(10_000):
        index.update({"ann": due_ms})
    assert len(index._heap) < 2000


def test_the_cache_is_bounded_and_forgets_profiles_with_rows() -> None:
    """The people used last stay; of the others nothing does."""
    cache = Cache(2)
    rows = np.zeros(3, ROW)
    rows["zone"] = [1, 2, 3]
    cache.load(["a", "b", "c"], encode_many(rows), [b"pa", b"pb", None])
    cache.load(["d"], [None], [None])
    cache.store(["a"], rows[:1], {"a": b"new"})
    cache.trim()
    assert [person for person in "abcd" if person in cache.rows] == ["a", "d"]
    assert cache.profiles == {"a": b"new"}
    assert cache.rows.gather(["a"])["zone"] == [1]
    cache.store(["a"], rows[:1], {"a": b""})
    assert cache.profiles == {}


@given(st.lists(st.integers(0, 5)), st.integers(1, 4))
def test_an_inbox_gives_back_everything_in_order(sizes: list[int], most: int) -> None:
    """However fetches are cut: all records, in order, and each time the offset after those taken."""
    inbox, offset, put = Inbox(), 0, []
    for size in sizes:
        records = [SimpleNamespace(offset=offset + i) for i in range(size)]
        put += records
        offset += size + 2  # ends of transactions follow
        inbox.put(Fetched("events", 0, 1, records, offset))
    taken: list[object] = []
    while True:
        records, position = inbox.take(most)
        taken += records
        if position is None:
            break
        assert len(records) <= most
        assert position > (records[-1].offset if records else -1)
    assert taken == put
    assert inbox.records == 0


def test_dead_letters_carry_the_bytes_and_connects_headers() -> None:
    """The original key and value, and where it came from and why it is here, as Kafka Connect says it."""
    record = Line("events", 3, 42, b"key", b"\xff{")
    letter = dead_letters.publishable(DeadLetter(record, "bad_json", "it is no JSON"))
    assert (letter.key, letter.value) == (b"key", b"\xff{")
    assert dict(letter.headers) == {
        "__connect.errors.topic": b"events",
        "__connect.errors.partition": b"3",
        "__connect.errors.offset": b"42",
        "__connect.errors.stage": b"VALUE_CONVERTER",
        "__connect.errors.exception.class.name": b"bad_json",
        "__connect.errors.exception.message": b"it is no JSON",
    }


def test_a_dead_letter_always_fits() -> None:
    """What not even the topic takes is cut and says so: nothing stops a partition."""
    record = Line("events", 0, 0, b"k" * (20 << 20), b"v" * (20 << 20))
    letter = dead_letters.publishable(DeadLetter(record, "too_big", "it is too big"))
    assert len(letter.key or b"") + len(letter.value) == dead_letters.MOST_BYTES
    assert dict(letter.headers)["decisioning.truncated.bytes"] == str(40 << 20).encode()
