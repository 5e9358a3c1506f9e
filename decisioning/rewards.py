"""What happened next: which decision an outcome belongs to, and what it is worth.

An example was posted with the decision; every outcome becomes a correction by its value, so the sum of an arm's records
is right whatever the order and delay of outcomes. A decision is credited once with its goal, and once with each other
event that is worth something, however often they happen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from decisioning.eligibility import last_send
from decisioning.events import Event
from decisioning.plan import FELT_MS, Plan, value_at
from decisioning.profile import Profile, Send


@dataclass(frozen=True, slots=True)
class Reward:
    """An outcome credited to a decision."""

    send: Send
    value: float
    late: bool
    clipped: bool = False


def settle(
    profile: Profile, plan: Plan, event: str, body: dict[str, Any], decision_id: str | None, at_ms: int
) -> Reward | None:
    """Credit an event to the decision it names, else to the campaign's latest send within its window.

    Parameters
    ----------
    profile
        Remembers that it was credited.
    event, body
        Name of the event, and all of it.

    Returns
    -------
    Reward or None
        None where it is worth nothing to the campaign, there is no such decision, or it was credited before. A named
        decision is credited after the window too, and called late.
    """
    goal, worth = plan.goal, plan.worth.get(event)
    reaches = goal is not None and event in goal.events
    if goal is not None and reaches:
        within_ms, value = goal.within_ms, value_at(goal.value, body, 1.0)
        clipped = goal.clip is not None and abs(value) > goal.clip
        if goal.clip is not None:
            value = min(max(value, -goal.clip), goal.clip)
        value *= worth.weight if worth else 1.0
    elif worth is not None:
        within_ms, value, clipped = worth.within_ms, worth.weight, False
    else:
        return None
    if decision_id is None:
        send = last_send(profile, plan.id, at_ms, within_ms)
    else:
        send = next((s for s in profile.sends if s.decision_id == decision_id and s.campaign == plan.id), None)
    if send is None or (send.rewarded if reaches else event in send.credited):
        return None
    noted: dict[str, Any] = {"rewarded": True} if reaches else {"credited": [*send.credited, event]}
    return _credit(profile, send, noted, Reward(send, value, at_ms - send.at_ms > within_ms, clipped))


def penalise(
    profile: Profile, plans: Mapping[str, Plan], event: Event, refusal: tuple[str, str], decision_id: str | None
) -> Reward | None:
    """Charge that a person refused a channel to the message it names, else to the latest one there.

    Parameters
    ----------
    refusal
        The channel, and the reason code that stands against it from now on.

    Returns
    -------
    Reward or None
        Its value is negative. None where there is no such message, its campaign has no penalty for that, or it was
        charged before.
    """
    (channel, code), at_ms, name = refusal, event.at_ms, event.event or ""
    if decision_id is None:
        sent = [s for s in profile.sends if s.channel == channel and 0 <= at_ms - s.at_ms <= FELT_MS]
        send = max(sent, key=lambda s: (s.at_ms, s.decision_id), default=None)
    else:
        send = next((s for s in profile.sends if s.decision_id == decision_id and s.channel), None)
    plan = None if send is None else plans.get(send.campaign)
    cost = None if plan is None else plan.penalties.get(code)
    if send is None or cost is None or name in send.credited:
        return None
    noted = {"credited": [*send.credited, name]}
    return _credit(profile, send, noted, Reward(send, -cost, at_ms - send.at_ms > FELT_MS))


def _credit(profile: Profile, send: Send, noted: dict[str, Any], reward: Reward) -> Reward:
    """Let the profile remember a reward."""
    known = structs.replace(send, reward=(send.reward or 0.0) + reward.value, **noted)
    profile.sends = [known if one is send else one for one in profile.sends]
    return reward
