"""Timers: from trigger, restart and cancel events to what is pending, in event time whatever the order of arrival.

Nothing here reads a clock or decides; `engine` fires what is due. The rules are those of the configuration:

- a trigger opens a timer unless one is pending for the same campaign and `per` value;
- a restart moves it, never past first event + `max_wait`, and keeps the latest contents;
- a cancel ends it if trigger time <= cancel time <= now; on equal times the one read later counts;
- a cancel that is read before the trigger it cancels is found among the person's recent events.
"""

from __future__ import annotations

from dataclasses import dataclass

from decisioning.profile import (
    CANCEL,
    GOAL,
    MAX_CANDIDATES,
    MAX_PENDING,
    MAX_TIMERS_BYTES,
    Contents,
    Happened,
    Mark,
    Pending,
    Profile,
    remember,
    remember_mark,
    utf8_bytes,
)

_MARK_BYTES = 24  # of a mark beside its id
_CHOSEN_BYTES, _ARM_BYTES = 128, 32  # of a chosen hour: in all, and for each that could have been


@dataclass(frozen=True, slots=True)
class Timing:
    """How a campaign's timers run: times in milliseconds, events by name."""

    delay_ms: int
    max_wait_ms: int | None
    restart_on: frozenset[str] = frozenset()
    cancel_on: frozenset[str] = frozenset()
    goals: frozenset[str] = frozenset()
    per: str = ""  # path of the value that tells timers apart; empty: one timer per person

    def marks(self, happened: Happened, per: str) -> list[Mark]:
        """What an event means to the timer of a `per` value."""
        value = happened.pers.get(self.per, "")
        if value not in ("", per):
            return []
        kinds = ((CANCEL, self.cancel_on), (GOAL, self.goals))
        return [Mark(kind, happened.at_ms, happened.message_id) for kind, names in kinds if happened.event in names]


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A timer that ended without a decision to send, the event that ended it (None: none did), and the reason code."""

    pending: Pending
    by: Mark | None
    reason: str = "cancelled"


def due_ms(first_ms: int, moved_ms: int, timing: Timing) -> int:
    """When a timer is due: the latest move + delay, at most first event + max wait."""
    due = moved_ms + timing.delay_ms
    if timing.max_wait_ms is None:
        return due
    return max(first_ms + timing.delay_ms, min(due, first_ms + timing.max_wait_ms))


def trigger(
    profile: Profile, campaign: str, per: str, person: str, contents: Contents, timing: Timing, now_ms: int
) -> Cancelled | None:
    """Open a timer, or remember the event beside the one that is pending.

    Returns
    -------
    Cancelled or None
        The timer where a cancel that was read earlier ends it at once, or where the person has no room for it.
    """
    pending = find(profile, campaign, per)
    if pending is not None:
        if _bytes(profile) + contents.size <= MAX_TIMERS_BYTES:
            _remember_candidate(pending, contents)
        return None
    opened = _open(campaign, per, person, contents, timing)
    _mark(profile, opened, timing)
    by = _in_effect(opened, CANCEL, now_ms)
    if by is not None:
        return Cancelled(opened, by)
    if len(profile.pending) >= MAX_PENDING or _bytes(profile) + _timer_bytes(opened) > MAX_TIMERS_BYTES:
        return Cancelled(opened, None, "not_eligible")
    profile.pending.append(opened)
    return None


def restart(
    profile: Profile, campaign: str, per: str | None, at_ms: int, contents: Contents | None, timing: Timing
) -> None:
    """Move the timers that match; `contents` is given where the event is a trigger event itself."""
    for pending in _matching(profile, campaign, per):
        if at_ms < pending.first.at_ms:
            continue
        if at_ms > pending.moved_ms:
            pending.moved_ms = at_ms
            pending.due_ms = due_ms(pending.first.at_ms, pending.moved_ms, timing)
            pending.fire_ms = pending.due_ms
            pending.deferred, pending.chosen = [], None
        larger = 0 if contents is None else contents.size - pending.latest.size
        if contents is not None and at_ms >= pending.latest.at_ms and _bytes(profile) + larger <= MAX_TIMERS_BYTES:
            pending.latest = contents


def cancel(
    profile: Profile, campaign: str, per: str | None, mark: Mark, timing: Timing, now_ms: int
) -> list[Cancelled]:
    """Apply a cancel event to what is pending; `per` None concerns all of the campaign's timers.

    A trigger event that came after the cancel in event time, and was only remembered because the cancelled timer was
    pending, opens the next timer.
    """
    ended = []
    for pending in _matching(profile, campaign, per):
        if mark.at_ms < pending.first.at_ms:
            continue
        if mark.at_ms > now_ms:  # a clock ahead of ours: it counts once that time has come
            remember_mark(pending.marks, mark)
            continue
        profile.pending.remove(pending)
        ended.append(Cancelled(pending, mark))
        _reopen(profile, pending, mark.at_ms, timing)
    return ended


def reach(profile: Profile, campaign: str, per: str | None, mark: Mark) -> None:
    """Note that the goal was reached, for what is pending; the event that opened a timer does not reach its goal."""
    for pending in _matching(profile, campaign, per):
        if mark.at_ms >= pending.first.at_ms and mark.message_id != pending.first.message_id:
            remember_mark(pending.marks, mark)


def cancelled_by(pending: Pending, now_ms: int) -> Mark | None:
    """The cancel event in effect at the moment of decision, if there is one."""
    return _in_effect(pending, CANCEL, now_ms)


def goal_reached(pending: Pending, now_ms: int) -> bool:
    """Whether the goal was reached between the trigger and the moment of decision."""
    return _in_effect(pending, GOAL, now_ms) is not None


def unite(into: Profile, other: Profile, timings: dict[str, Timing], now_ms: int) -> list[Cancelled]:
    """Move `other`'s timers and events into `into`: one timer per campaign and `per` value, earliest first event.

    Cancels and goals of either side count for the timers of both; on equal times they count, since no order of
    reading is known across two histories and a message too few is the lesser harm.
    """
    for timers, recent in ((into.pending, other.recent), (other.pending, into.recent)):
        for pending in timers:
            timing = timings.get(pending.campaign)
            for happened in recent if timing else ():
                if timing and happened.at_ms >= pending.first.at_ms:
                    for mark in timing.marks(happened, pending.per):
                        remember_mark(pending.marks, mark)
    for pending in other.pending:
        mine = find(into, pending.campaign, pending.per)
        if mine is None:
            into.pending.append(pending)
            continue
        into.pending.remove(mine)
        into.pending.append(_united(mine, pending, timings.get(pending.campaign)))
    for happened in other.recent:
        remember(into, happened)
    ended = []
    for pending in list(into.pending):
        by = _in_effect(pending, CANCEL, now_ms)
        if by is not None:
            into.pending.remove(pending)
            ended.append(Cancelled(pending, by))
            timing = timings.get(pending.campaign)
            if timing is not None:
                _reopen(into, pending, by.at_ms, timing)
    into.pending.sort(key=_age)
    return ended + shed(into)


def shed(profile: Profile) -> list[Cancelled]:
    """Give up what a person has no room for after a merge or a mark: remembered triggers first, then late timers."""
    size = _bytes(profile)
    if len(profile.pending) <= MAX_PENDING and size <= MAX_TIMERS_BYTES:
        return []
    profile.pending.sort(key=_age)
    if size > MAX_TIMERS_BYTES:
        for pending in profile.pending:
            pending.candidates = []
        size = _bytes(profile)
    given_up = []
    while len(profile.pending) > MAX_PENDING or size > MAX_TIMERS_BYTES:
        given_up.append(Cancelled(profile.pending.pop(), None, "not_eligible"))
        size -= _timer_bytes(given_up[-1].pending)
    return given_up


def slot_bytes(arms: int) -> int:
    """About what a chosen hour takes, encoded; never less."""
    return _CHOSEN_BYTES + arms * _ARM_BYTES


def has_room(profile: Profile, size: int) -> bool:
    """Whether a person's timers may take so many bytes more."""
    return _bytes(profile) + size <= MAX_TIMERS_BYTES


def find(profile: Profile, campaign: str, per: str) -> Pending | None:
    """The pending timer of a campaign and `per` value."""
    return next((p for p in profile.pending if p.campaign == campaign and p.per == per), None)


def _open(campaign: str, per: str, person: str, contents: Contents, timing: Timing) -> Pending:
    due = due_ms(contents.at_ms, contents.at_ms, timing)
    return Pending(campaign, per, person, contents, contents, contents.at_ms, due, due)


def _matching(profile: Profile, campaign: str, per: str | None) -> list[Pending]:
    return [p for p in profile.pending if p.campaign == campaign and per in (None, p.per)]


def _in_effect(pending: Pending, kind: str, now_ms: int) -> Mark | None:
    found = [m for m in pending.marks if m.kind == kind and m.at_ms <= now_ms]
    return min(found, key=lambda m: (m.at_ms, m.message_id), default=None)


def _remember_candidate(pending: Pending, contents: Contents) -> None:
    if contents.at_ms < pending.first.at_ms:
        return  # changes nothing, and no cancel can make it the first: it would be cancelled too
    pending.candidates.append(contents)
    pending.candidates.sort(key=lambda c: c.at_ms)
    if len(pending.candidates) > MAX_CANDIDATES:
        del pending.candidates[0]


def _reopen(profile: Profile, ended: Pending, after_ms: int, timing: Timing) -> None:
    later = [c for c in ended.candidates if c.at_ms > after_ms]
    if not later:
        return
    opened = _open(ended.campaign, ended.per, ended.person, later[0], timing)
    opened.candidates = later[1:]
    _mark(profile, opened, timing)
    if ended.moved_ms > opened.moved_ms:
        opened.moved_ms = ended.moved_ms
        opened.latest = max(opened.latest, ended.latest, key=lambda c: c.at_ms)
        opened.due_ms = opened.fire_ms = due_ms(opened.first.at_ms, opened.moved_ms, timing)
    profile.pending.append(opened)


def _united(a: Pending, b: Pending, timing: Timing | None) -> Pending:
    """One timer as if both histories had been one person's: the earlier first event, moved by the other's restarts."""
    first, other = sorted((a, b), key=lambda p: (p.first.at_ms, p.first.message_id))
    united = Pending(
        first.campaign, first.per, first.person, first.first, first.latest, first.moved_ms, first.due_ms, first.fire_ms,
        first.deferred, chosen=first.chosen,
    )  # fmt: skip
    restarted = other.moved_ms > other.first.at_ms
    if timing is not None and (restarted or other.first.event in timing.restart_on):
        if other.moved_ms > united.moved_ms:
            united.moved_ms = other.moved_ms
            united.due_ms = united.fire_ms = due_ms(united.first.at_ms, united.moved_ms, timing)
            united.deferred, united.chosen = [], None
        united.latest = max(first.latest, other.latest, key=lambda c: c.at_ms)
    for contents in (*a.candidates, other.first, *b.candidates):
        _remember_candidate(united, contents)
    for mark in {(m.kind, m.message_id): m for m in (*a.marks, *b.marks)}.values():
        if mark.at_ms >= united.first.at_ms:
            remember_mark(united.marks, mark)
    return united


def _mark(profile: Profile, opened: Pending, timing: Timing) -> None:
    """Note what was read before the trigger that opened a timer: on equal times the trigger counts."""
    for happened in profile.recent:
        if happened.at_ms > opened.first.at_ms:
            for mark in timing.marks(happened, opened.per):
                remember_mark(opened.marks, mark)


def _age(pending: Pending) -> tuple[int, str, str]:
    return pending.first.at_ms, pending.campaign, pending.per


def _timer_bytes(pending: Pending) -> int:
    """About what a timer takes, encoded; never less."""
    size = pending.first.size + pending.latest.size + utf8_bytes(pending.person) + utf8_bytes(pending.per)
    if pending.candidates:
        size += sum([contents.size for contents in pending.candidates])
    if pending.chosen is not None:
        size += slot_bytes(len(pending.chosen.arms))
    if pending.marks:
        size += sum([utf8_bytes(mark.message_id) + _MARK_BYTES for mark in pending.marks])
    return size


def _bytes(profile: Profile) -> int:
    return sum(map(_timer_bytes, profile.pending))
