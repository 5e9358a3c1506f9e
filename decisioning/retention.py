"""Who has not been heard of for longer than anything is kept about them, and forgetting them.

Nothing looks for idle people within a step. The shell proposes some, and the step looks again: the same people, batch
and `now_ms` give the same effects, whoever was proposed when.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from decisioning import erasure
from decisioning.localtime import DAY_MS
from decisioning.profile import Profile
from decisioning.work import Work


def last_ms(row: np.void, profile: Profile) -> int:
    """When the latest event of a person was, as far as anything kept tells; 0: nothing does.

    Parameters
    ----------
    row
        One row of `features.rows.ROW`; its reference time is at most a minute after the event.
    """
    times = [int(row["at_ms"])]
    times += [trait.at_ms for trait in (*profile.traits.values(), *profile.consent.values())]
    times += [since_ms for reasons in profile.suppressed.values() for since_ms in reasons.values()]
    times += [happened.at_ms for happened in profile.recent]
    times += [day * DAY_MS for day in profile.days]
    if profile.context_zone is not None:
        times.append(profile.context_zone.at_ms)
    return max(times)


def is_idle(row: np.void, profile: Profile, before_ms: int) -> bool:
    """Whether a person was last heard of before a time, and waits for nothing."""
    return not profile.pending and 0 < last_ms(row, profile) < before_ms


def expire(work: Work, people: Iterable[str], before_ms: int) -> None:
    """Of those of these people who are idle, forget everything, under all their ids, but that they were erased once."""
    for person in people:
        if person not in work.slot or not is_idle(work.rows[work.slot[person]], work.profile(person), before_ms):
            continue
        aliases = work.profile(person).aliases
        erasure.forget(work, person, 0)
        erasure.unlink(work, person, aliases, 0, "expired")
        work.count("expired_profiles_total")
