"""When to send within a window: which hours are open, what is known of each, and the one that was chosen.

Arms are `now` and the whole hours of the person's local time after it, named by weekday and hour (`tue-09`). A row of
numbers describes an arm to the policy, which all arms share: so what is learned of an hour holds for every weekday and
the other way round, and how much a person's own habit says beside everybody's is learned, too. A row follows from the
arm's name, the hour it was chosen at and the person's share of it: a record that has those has the rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from decisioning.durations import UNIT_MS
from decisioning.eligibility import Case, address, caps, consent, expired, quiet_hours, suppression
from decisioning.localtime import instant, local

NOW: Final = "now"
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WEEK_HOURS: Final = 168
FEATURES: Final = (
    "slot_now",
    "slot_wait",
    "slot_person",
    *(f"slot_{hour:02}" for hour in range(24)),
    *(f"slot_{day}" for day in DAYS),
)
"""``slot_wait`` is the wait in days, ``slot_person`` the person's own share; of the hour and the day one each is 1."""
DIM: Final = len(FEATURES)

_HALF_LIFE_MINUTES: Final = 60 * 24 * 60.0  # of a person's own habit: 60 days
_MINUTE_MS: Final = UNIT_MS["m"]
_DOUBT: Final = 2.0  # answers; with as many of their own, a person's habit counts half
_LABELS: Final = tuple(f"{day}-{hour:02}" for day in DAYS for hour in range(24))
_HOURS: Final = {label: hour for hour, label in enumerate(_LABELS)}


def are_arms(names: Iterable[str]) -> bool:
    """Whether these can be names of arms."""
    return all(name == NOW or name in _HOURS for name in names)


def week_hour(at_ms: int, zone: ZoneInfo) -> int:
    """Hour of the local week, 0 is Monday from midnight to one.

    Examples
    --------
    >>> week_hour(1_000, ZoneInfo("UTC"))  # a Thursday
    72
    """
    here = local(at_ms, zone)
    return here.weekday() * 24 + here.hour


def is_open(case: Case, channels: Iterable[str], at_ms: int) -> bool:
    """Whether one of these channels could be used then, as far as quiet hours, caps and expiry tell by now."""
    then = replace(case, now_ms=at_ms)
    if expired(case, at_ms) or caps(then, "any"):
        return False
    return any(not caps(then, channel) and quiet_hours(then, channel) is None for channel in channels)


def open_slots(case: Case) -> dict[str, int]:
    """Arms that can be chosen now, each with its time in milliseconds; none where nothing is open in the window.

    The window begins with due, so a decision that comes late has less of it. An hour that comes twice, when clocks are
    set back or after a week, is the first of them.
    """
    now_ms, zone = case.now_ms, case.zone
    until_ms = case.pending.due_ms + case.plan.campaign.send_time.within_ms
    usable = [
        channel
        for channel in case.plan.channels
        if not (consent(case, channel) or suppression(case, channel) or address(case, channel))
    ]
    found = {NOW: now_ms} if is_open(case, usable, now_ms) else {}
    here, last_ms = local(now_ms, zone), now_ms
    for hours in range(1, WEEK_HOURS + 1):
        wall = here.replace(tzinfo=None, minute=0, second=0, microsecond=0) + timedelta(hours=hours)
        at_ms = instant(wall.date(), wall.hour * 60, zone)
        label = _LABELS[week_hour(at_ms, zone)]  # in a gap it is the hour after it
        if at_ms > until_ms:
            break
        if at_ms > last_ms and label not in found and is_open(case, usable, at_ms):
            found[label] = at_ms
        last_ms = max(at_ms, last_ms)
    return found


def shares(engaged: Iterable[int], now_ms: int, zone: ZoneInfo, arms: Iterable[str], base: int) -> dict[str, float]:
    """How much of what a person answered to fell near each arm's hour, in [0, 1]; arms without any are left out.

    Parameters
    ----------
    engaged
        Minutes since the epoch at which the person opened or clicked.
    base
        Hour of the week in which `now` lies.

    Notes
    -----
    An answer counts 2^(-age / 60 days), spread over its hour (1/2), that hour of all days (1/4) and the two hours
    beside it (1/8 each); the sum is divided by all answers and two more, so that a single one says little.
    """
    weights = np.zeros(WEEK_HOURS)
    total = _DOUBT
    for minute in engaged:
        weight = math.exp2(-max(now_ms / _MINUTE_MS - minute, 0.0) / _HALF_LIFE_MINUTES)
        weights[week_hour(minute * _MINUTE_MS, zone)] += weight
        total += weight
    if total == _DOUBT:
        return {}
    daily = np.tile(weights.reshape(7, 24).sum(axis=0), 7)
    near = 0.5 * weights + 0.25 * daily + 0.125 * (np.roll(weights, 1) + np.roll(weights, -1))
    found = {arm: round(float(near[_hour(arm, base)] / total), 6) for arm in arms}
    return {arm: min(share, 1.0) for arm, share in found.items() if share}


def named(arm: str, base: int, share: float) -> dict[str, float]:
    """What is known of an arm, by name, what is 0 left out.

    Examples
    --------
    >>> named("tue-09", 24 + 7, 0.25)
    {'slot_wait': 0.083333, 'slot_person': 0.25, 'slot_09': 1.0, 'slot_tue': 1.0}
    """
    hour = _hour(arm, base)
    wait = 0.0 if arm == NOW else ((hour - base - 1) % WEEK_HOURS + 1) / 24.0
    numbers = {"slot_now": float(arm == NOW), "slot_wait": round(wait, 6), "slot_person": share}
    numbers |= {f"slot_{hour % 24:02}": 1.0, f"slot_{DAYS[hour // 24]}": 1.0}
    return {name: value for name, value in numbers.items() if value}


def row_of(context: Mapping[str, float]) -> NDArray[np.float64]:
    """What the policy sees of an arm: float64[DIM], finite and within [0, 8] whatever is in the context."""
    numbers = [context.get(name, 0.0) for name in FEATURES]
    return np.array([min(value, 8.0) if value > 0.0 else 0.0 for value in numbers])


def rows_of(arms: Iterable[str], base: int, shares: Mapping[str, float]) -> NDArray[np.float64]:
    """One row for each arm: float64[arms, DIM]."""
    return np.array([row_of(named(arm, base, shares.get(arm, 0.0))) for arm in arms])


def _hour(arm: str, base: int) -> int:
    return base if arm == NOW else _HOURS[arm]
