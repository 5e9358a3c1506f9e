"""What happened next: which decision an outcome belongs to, and what it is worth.

An example was posted with the decision at reward 0; every outcome becomes a correction by its value, so the sum of an
arm's records is right whatever the order and delay of outcomes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msgspec import structs

from decisioning.eligibility import last_send
from decisioning.plan import Plan, value_at
from decisioning.profile import Profile, Send


@dataclass(frozen=True, slots=True)
class Reward:
    """An outcome credited to a decision."""

    send: Send
    value: float
    late: bool


def settle(profile: Profile, plan: Plan, body: dict[str, Any], decision_id: str | None, at_ms: int) -> Reward | None:
    """Credit a goal event to the decision it names, else to the campaign's latest send within its window.

    The profile remembers it: a decision is credited once, however often its goal is reached.

    Returns
    -------
    Reward or None
        None where there is no such decision, or it was credited before. A named decision is credited after its window
        too, and called late.
    """
    if plan.goal is None:
        return None
    if decision_id is None:
        send = last_send(profile, plan.id, at_ms, plan.goal.within_ms)
    else:
        named = (s for s in profile.sends if s.decision_id == decision_id and s.campaign == plan.id)
        send = next(named, None)
    if send is None or send.rewarded:
        return None
    profile.sends = [structs.replace(s, rewarded=True) if s is send else s for s in profile.sends]
    value = value_at(plan.goal.value, body, 1.0)
    late = at_ms - send.at_ms > plan.goal.within_ms
    return Reward(send, value, late)
