"""Who a person is: following merged ids, merging people, and doing so across partitions.

An id that was merged leaves a forwarding address (`moved_to`) at its home; later events of it are sent on. A merge is
two messages: `move` to the home of the old id, which answers with `absorb`, carrying everything held, to the home of
the new one. Where both homes are this partition it happens at once.

A circle of aliases (a is b, b is a, said at two homes at the same time) is noticed by the path a message took and
broken at the circle's smallest id, so every home breaks it at the same place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from decisioning import erasure
from decisioning import profile as profiles
from decisioning.eligibility import UNSUBSCRIBED
from decisioning.messages import Message, outgoing, pack, unpack
from decisioning.profile import Profile, Send, Trait
from decisioning.triggers import Cancelled, Timing, unite
from decisioning.work import Work
from features import rows as feature_rows
from features.rows import ROW

MAX_HOPS = 100
_NOBODY = Profile()


@dataclass(frozen=True, slots=True)
class Place:
    """Where following an id led: the person, whether they live in this partition, and the ids passed."""

    person: str
    here: bool
    path: list[str]


def follow(work: Work, person: str, path: list[str]) -> Place:
    """The canonical person of an id, as far as this partition knows."""
    passed = list(path)
    while work.is_home(person):
        profile = work.profile(person)
        goal = profile.moved_to
        if goal is None:
            return Place(person, True, passed)
        passed.append(person)
        circle = passed[passed.index(goal) :] if goal in passed else []
        if (circle and person == min(circle)) or len(passed) > MAX_HOPS:
            profile.moved_to = None
            work.touch(person)
            work.mark(person, moved=False)
            return Place(person, True, passed)
        person = goal
    return Place(person, False, passed)


def move(work: Work, message: Message, timings: dict[str, Timing], now_ms: int) -> list[tuple[str, Cancelled]]:
    """Give what is held under `message.person` to `message.into`; at the home of the former.

    Returns
    -------
    list of (person, Cancelled)
        Timers that the merge ended.
    """
    source, into = message.person, message.into
    if not work.is_home(source):
        work.effects.internal.append(outgoing(message, work.state.partitions))
        return []
    profile = work.profile(source)
    if into in (source, profile.moved_to):
        return []
    if profile.moved_to is not None:
        return _move_again(work, message, profile, timings, now_ms)
    if work.is_known(source) and message.by != "alias":
        return []
    work.fold_signals()
    row = work.rows[work.slot[source] : work.slot[source] + 1].copy()
    work.replace(source, Profile(moved_to=into, erased_ms=profile.erased_ms))
    work.mark(source, moved=True, clear=True)
    return _hand_over(work, message, row, profile, timings, now_ms)


def _hand_over(
    work: Work, message: Message, row: NDArray[np.void], profile: Profile, timings: dict[str, Timing], now_ms: int
) -> list[tuple[str, Cancelled]]:
    """Give what was held under the id that moves to the person it belongs to now, here or by a message."""
    source = message.person
    place = follow(work, message.into, [source])
    if place.here:
        return _add(work, message, place.person, row, profile, timings, now_ms)
    carried = Message(
        "absorb",
        id=message.id + "/absorb",
        person=place.person,
        at_ms=message.at_ms,
        source=source,
        row=pack(feature_rows.encode(row[0])),
        profile=pack(profiles.encode(profile)),
        path=place.path,
    )
    work.effects.internal.append(outgoing(carried, work.state.partitions))
    return []


def _move_again(
    work: Work, message: Message, profile: Profile, timings: dict[str, Timing], now_ms: int
) -> list[tuple[str, Cancelled]]:
    """The id belongs to somebody already: an alias of a known id moves that person, anything else only the id."""
    owner = profile.moved_to
    assert owner is not None
    if message.by == "alias" and work.is_known(message.person):
        onward = replace(message, person=owner, path=[*message.path, message.person])
        return [] if len(onward.path) > MAX_HOPS else move(work, onward, timings, now_ms)
    profile.moved_to = message.into  # a shared device: later events go to the new owner, nothing is merged
    work.touch(message.person)
    return _hand_over(work, message, np.zeros(1, ROW), Profile(), timings, now_ms)  # but whose it is must be known


def absorb(work: Work, message: Message, timings: dict[str, Timing], now_ms: int) -> list[tuple[str, Cancelled]]:
    """Add the row and profile of `message.source` to the person they belong to, here or at their home."""
    place = follow(work, message.person, message.path)
    if not place.here:
        onward = replace(message, person=place.person, path=place.path)
        work.effects.internal.append(outgoing(onward, work.state.partitions))
        return []
    row = np.zeros(1, ROW)
    row[0] = feature_rows.decode(unpack(message.row))
    profile = profiles.decode(unpack(message.profile))
    return _add(work, message, place.person, row, profile, timings, now_ms)


def _add(
    work: Work,
    message: Message,
    person: str,
    row: NDArray[np.void],
    profile: Profile,
    timings: dict[str, Timing],
    now_ms: int,
) -> list[tuple[str, Cancelled]]:
    """Make what was held under an id part of a person who lives here, unless it was merged before they were erased."""
    source = message.source or message.person
    erased_ms = work.profile(person).erased_ms
    if erased_ms is not None and message.at_ms <= erased_ms:
        erasure.unlink(work, person, [source, *profile.aliases], erased_ms, message.id)
        return [(person, Cancelled(pending, None, "erased")) for pending in profile.pending]
    if row["at_ms"][0]:
        work.absorb_row(person, row)
    ended = merge_profiles(work.profile(person), profile, source, timings, now_ms)
    work.touch(person)
    return [(person, cancelled) for cancelled in ended]


def merge_profiles(
    into: Profile, other: Profile, source: str, timings: dict[str, Timing], now_ms: int
) -> list[Cancelled]:
    """Make one person of two: counters add, caps add, timers unite, the more restrictive consent wins."""
    profiles.remember_aliases(into, [source, *other.aliases])
    if other == _NOBODY:
        return []
    left = _left(into, other)
    newer = ((n, t) for n, t in other.traits.items() if n not in into.traits or into.traits[n].at_ms < t.at_ms)
    profiles.take_traits(into, list(newer))
    if left is not None:
        into.traits[UNSUBSCRIBED] = left
    for channel, consent in other.consent.items():
        mine = into.consent.get(channel)
        into.consent[channel] = consent if mine is None else _stricter(mine, consent)
    for channel, reasons in other.suppressed.items():
        held = into.suppressed.setdefault(channel, {})
        for reason, since_ms in reasons.items():
            held[reason] = max(since_ms, held.get(reason, since_ms))
    zones = [z for z in (into.context_zone, other.context_zone) if z is not None]
    into.context_zone = max(zones, key=lambda z: z.at_ms, default=None)
    profiles.remember_engaged(into, other.engaged)
    devices = [d for d in (into.device, other.device) if d is not None]
    into.device = max(devices, key=lambda d: d.at_ms, default=None)
    sends: dict[str, Send] = {s.decision_id: s for s in (*other.sends, *into.sends)}
    into.sends = profiles.bounded_sends(sorted(sends.values(), key=lambda s: (s.at_ms, s.decision_id)))
    held_room = {r.decision_id: r for r in (*other.reservations, *into.reservations)}
    into.reservations = sorted(held_room.values(), key=lambda r: (r.at_ms, r.decision_id))[-profiles.MAX_RESERVATIONS :]
    for day, values in other.days.items():
        mine_day = into.days.setdefault(day, [0.0] * len(values))
        into.days[day] = [a + b for a, b in zip(mine_day, values, strict=True)]
    for old in sorted(into.days)[: -profiles.MAX_DAYS]:
        del into.days[old]
    into.totals = [a + b for a, b in zip(into.totals, other.totals, strict=True)]
    return unite(into, other, timings, now_ms)


def _left(into: Profile, other: Profile) -> Trait | None:
    """The latest word of either that nothing shall be written at all, whatever the other said later."""
    said = [one.traits[UNSUBSCRIBED] for one in (into, other) if one.trait(UNSUBSCRIBED) is True]
    return max(said, key=lambda trait: trait.at_ms, default=None)


def _stricter(a: Trait, b: Trait) -> Trait:
    if bool(a.value) != bool(b.value):
        return a if not a.value else b
    return max(a, b, key=lambda t: t.at_ms)
