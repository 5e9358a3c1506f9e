"""The profile's bytes: they come back as they went, old versions stay readable, damage is told."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from decisioning import profile as profiles
from decisioning.profile import (
    MAX_DAYS,
    MAX_RECENT,
    Chosen,
    Contents,
    CorruptProfile,
    Happened,
    Mark,
    Pending,
    Profile,
    Reservation,
    Send,
    Trait,
    count_day,
    counts,
    remember,
    remember_mark,
)
from tests.play import at, config, identify, play_raw, track

GOLDEN = Path(__file__).parent / "golden" / "profile-v1.hex"
DAY_MS = 86_400_000

FULL = Profile(
    moved_to=None,
    erased_ms=5,
    traits={"email": Trait(7, "ann@example.com"), "age": Trait(8, 41), "gone": Trait(9, None)},
    consent={"email": Trait(7, True), "personalization": Trait(8, False)},
    suppressed={"email": {"unsubscribed": 11}},
    context_zone=Trait(12, "Europe/Berlin"),
    aliases=["anon-1"],
    pending=[
        Pending(
            "cart",
            "c1",
            "u1",
            Contents(13, "m1", "Product Added", b'{"a":1}'),
            Contents(14, "m2", "Product Added", b'{"a":2}'),
            15,
            16,
            17,
            ["deferred:quiet_hours"],
            [Contents(18, "m3", "Product Added", b"{}")],
            [Mark("cancel", 19, "m4")],
            Chosen("now", 20, 0, {"now": 0.5, "mon-01": 0.5}, 0.25, {"now": 0.125}, 7, {"explore": 0.05}),
        )
    ],
    recent=[Happened("Order Completed", 20, "m5", {"properties.cart_id": "c1"})],
    sends=[
        Send(
            "d1",
            "cart",
            "email",
            21,
            {"subject": ("a", 0.5)},
            {"add_7d": 1.5},
            True,
            ["Email Link Clicked"],
            2.5,
            0.1,
            {"slot_09": 1.0},
        )
    ],
    reservations=[Reservation("d1", "email", 21)],
    days={20_000: [1.0, 2.5, 0.0, 0.0, 3.0]},
    totals=[1.0, 2.5, 0.0, 0.0, 3.0],
    device=Trait(22, "mobile"),
    engaged=[23],
)
FIRST = structs.replace(
    FULL,
    pending=[structs.replace(FULL.pending[0], chosen=None)],
    sends=[structs.replace(FULL.sends[0], credited=[], reward=None, cost=None, slot={})],
    device=None,
    engaged=[],
)
"""What the first release could say of it."""


def test_a_profile_comes_back_as_it_went() -> None:
    """Every field, through bytes and back."""
    assert profiles.decode(profiles.encode(FULL)) == FULL


def test_an_empty_profile_is_no_bytes() -> None:
    """Most people have none, and it costs nothing."""
    assert profiles.encode(Profile()) == b""
    assert profiles.decode(b"") == profiles.decode(None) == Profile()


def test_version_1_stays_readable() -> None:
    """Bytes written by the first release, and by this one, which has more at the end of it."""
    first, now = [bytes.fromhex(line) for line in GOLDEN.read_text().split()]
    assert profiles.decode(first) == FIRST
    assert profiles.decode(now) == FULL
    assert profiles.encode(FULL) == now


@given(st.data())
def test_damaged_bytes_are_told_and_nothing_else_happens(data: st.DataObject) -> None:
    """Cut or changed bytes give CorruptProfile, or a profile: never another exception."""
    whole = profiles.encode(FULL)
    cut = data.draw(st.integers(1, len(whole)))
    place, value = data.draw(st.integers(0, cut - 1)), data.draw(st.integers(0, 255))
    damaged = bytearray(whole[:cut])
    damaged[place] = value
    with contextlib.suppress(CorruptProfile):
        assert isinstance(profiles.decode(bytes(damaged)), Profile)


def test_a_newer_version_is_refused_with_the_remedy() -> None:
    """An old worker does not guess."""
    with pytest.raises(CorruptProfile, match="upgrade first"):
        profiles.decode(b"\x63abc")


@given(st.lists(st.tuples(st.integers(0, 100), st.sampled_from(profiles.DAILY), st.integers(0, 5)), max_size=60))
def test_daily_counts_are_those_of_the_last_days(entries: list[tuple[int, str, int]]) -> None:
    """`x_7d` counts the current UTC day and the six before it, in whatever order events came; totals count all."""
    profile = Profile()
    newest = max((day for day, *_ in entries), default=0)
    for day, name, amount in entries:
        count_day(profile, day * DAY_MS + 5, name, amount)
    found = counts(profile, newest * DAY_MS + 10)
    for days in (1, 7, 30):
        for name in profiles.DAILY:
            expected = sum(a for d, n, a in entries if n == name and newest - days < d <= newest)
            assert found[f"{name}_{days}d"] == expected
    assert all(found[f"{name}_total"] == sum(a for _, n, a in entries if n == name) for name in profiles.DAILY)
    assert len(profile.days) <= MAX_DAYS


def test_recent_events_are_bounded_and_the_latest_stay() -> None:
    """A person who buys all day costs no more than the limit."""
    profile = Profile()
    for number in range(100):
        remember(profile, Happened("Order Completed", number, str(number)))
    assert sorted(happened.at_ms for happened in profile.recent) == list(range(100 - MAX_RECENT, 100))


def test_a_timer_keeps_the_earliest_mark_of_each_kind() -> None:
    """The first to come into effect is the one that counts."""
    marks: list[Mark] = []
    for number in (5, 3, 9):
        remember_mark(marks, Mark("cancel", number, str(number)))
        remember_mark(marks, Mark("goal", 10 * number, str(number)))
    assert marks == [Mark("cancel", 3, "3"), Mark("goal", 30, "3")]


def test_a_hostile_person_stays_within_a_record() -> None:
    """Endless carts, traits, names and merges of such people: the profile always fits where it must go."""
    setup = config(campaign={"trigger": {"per": "properties.cart_id", "restart_on": ["Product Added"], "delay": "5h"}})
    events = []
    for number in range(400):
        user = f"u{number % 4}"
        properties = {"cart_id": f"{number % 90}", "junk": ["x" * 1000] * (number % 30)}
        events.append(track("10:00", f"{number}" * 120, user=user, properties=properties))
        traits = {f"t{number}": "y" * 3000, "email": "a@example.com"}
        events.append(identify("10:00", f"i{number}", user, traits=traits))
    events += [
        {"type": "alias", "messageId": f"a{n}", "previousId": f"u{n}", "userId": "u0", "timestamp": at("11:00")}
        for n in (1, 2, 3)
    ]
    played = play_raw(events, until="12:00", setup=setup)
    assert len(played.memory.profiles["u0"]) < 600_000
    assert played.counts["dropped_traits_total",] > 0
