"""What one event that means something does to a person: traits, consent, suppressions, counts, timers, rewards.

Everything here changes the step's own copy of a profile; signals for the feature row are collected, not folded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from decisioning import profile as profiles
from decisioning import triggers
from decisioning.eligibility import COMPLAINED, HARD_BOUNCED, UNSUBSCRIBED
from decisioning.events import Event, number, text
from decisioning.followups import chain_of
from decisioning.plan import Plan
from decisioning.profile import (
    CANCEL,
    GOAL,
    MAX_CONTENTS_BYTES,
    Contents,
    Happened,
    Mark,
    Profile,
    Trait,
)
from decisioning.rewards import Reward, settle
from decisioning.triggers import Cancelled
from decisioning.view import UserView, environment

CHANNELS = ("email", "push", "sms", "in_app")
MAX_SHORT_CHARACTERS = 128
MAX_SHORT_PROPERTIES = 64

OPENED, CLICKED, BOUNCED, SPAM, LEFT, DELIVERED = "opened", "clicked", "bounced", "spam", "left", "delivered"
ENGAGEMENT: dict[str, tuple[str, str]] = {
    "Email Delivered": ("email", DELIVERED),
    "Email Opened": ("email", OPENED),
    "Email Link Clicked": ("email", CLICKED),
    "Email Bounced": ("email", BOUNCED),
    "Email Marked as Spam": ("email", SPAM),
    "Unsubscribed": ("email", LEFT),
    "Push Delivered": ("push", DELIVERED),
    "Push Tapped": ("push", CLICKED),
    "Push Bounced": ("push", BOUNCED),
    "SMS Delivered": ("sms", DELIVERED),
    "SMS Link Clicked": ("sms", CLICKED),
    "SMS Bounced": ("sms", BOUNCED),
    "In-App Shown": ("in_app", OPENED),
    "In-App Clicked": ("in_app", CLICKED),
}
"""Event name -> (channel, what happened to a message on it)."""
FELT = frozenset(name for name, (_, what) in ENGAGEMENT.items() if what != DELIVERED)
"""Those that change a person even if no campaign names them."""
ORDER = "Order Completed"


@dataclass(slots=True)
class Life:
    """What an event brought about beside the profile it changed.

    Attributes
    ----------
    ended
        Timers that ended without a send.
    rewards
        Outcomes credited to decisions.
    engaged
        (channel, opened or clicked) for the feature row, where a human did it.
    refused
        (channel, reason code) of what stands against a channel from now on because the person wants no more there.
    errors
        Expressions that met missing or mistyped data, by where they stand.
    trimmed
        The event is too large to be kept whole for rules and texts.
    stranger
        It is worth something and names a decision of which nothing is known.
    """

    ended: list[Cancelled] = field(default_factory=list)
    rewards: list[Reward] = field(default_factory=list)
    engaged: tuple[str, str] | None = None
    refused: tuple[str, str] | None = None
    errors: list[str] = field(default_factory=list)
    trimmed: bool = False
    stranger: bool = False


def identify(profile: Profile, traits: Mapping[str, Any], at_ms: int) -> int:
    """Take over traits and consent; of two identifies the one with the later event time wins.

    Returns
    -------
    int
        How many traits found no room: too large, or more than a person may have.
    """
    consent = traits.get("consent")
    if isinstance(consent, Mapping):
        _agree(profile, consent, at_ms)
    others = ((name, Trait(at_ms, value)) for name, value in traits.items() if name != "consent")
    return profiles.take_traits(profile, others)


def advance(
    profile: Profile,
    plans: list[Plan],
    event: Event,
    body: dict[str, Any],
    person: str,
    user: UserView,
    now_ms: int,
) -> Life:
    """Let one `track` event act on a person.

    Parameters
    ----------
    profile
        Changed in place.
    plans
        Campaigns that name this event.
    event, body
        The event, typed and as received.
    person
        The canonical id.
    user
        What expressions read.
    now_ms
        The moment it is read.
    """
    life = Life()
    name = event.event or ""
    if name in ENGAGEMENT:
        if event.props.get("machine_open") is True or event.props.get("machine_click") is True:
            return life  # a proxy or scanner: it means nothing, and cancels nothing
        _engage(profile, life, event)
    if name == ORDER:
        profiles.count_day(profile, event.at_ms, "orders", 1.0)
        profiles.count_day(profile, event.at_ms, "revenue", number(event.props, "revenue"))
    _remember(profile, plans, event, body)
    for plan in plans:
        _campaign(profile, life, plan, event, body, person, user, now_ms)
    return life


def _campaign(
    profile: Profile,
    life: Life,
    plan: Plan,
    event: Event,
    body: dict[str, Any],
    person: str,
    user: UserView,
    now_ms: int,
) -> None:
    name, timing = event.event or "", plan.timing
    any_per = plan.per_or_any(body)
    if name in timing.cancel_on:
        mark = Mark(CANCEL, event.at_ms, event.message_id)
        life.ended += triggers.cancel(profile, plan.id, any_per, mark, timing, now_ms)
    contents = None
    if name in plan.triggers and _matches(plan, body, user, now_ms, life):
        contents = Contents(event.at_ms, event.message_id, name, _kept(body, life))
    if name in timing.restart_on:
        triggers.restart(profile, plan.id, any_per, event.at_ms, contents, timing)
    if contents is not None:
        ended = triggers.trigger(profile, plan.id, plan.per(body), person, contents, timing, now_ms)
        life.ended += [] if ended is None else [ended]
    if name in timing.goals:
        triggers.reach(profile, plan.id, any_per, Mark(GOAL, event.at_ms, event.message_id))
    if name in timing.goals or name in plan.worth:
        named = text(event.props, "decision_id")
        reward = settle(profile, plan, name, body, named, event.at_ms)
        life.rewards += [] if reward is None else [reward]
        life.stranger = named is not None and all(send.decision_id != named for send in profile.sends)
    if name in timing.cancel_on or name in timing.goals:
        life.ended += triggers.shed(profile)  # the marks of an event may take more room than its timers have


def _remember(profile: Profile, plans: list[Plan], event: Event, body: dict[str, Any]) -> None:
    """Keep an event that may cancel, or reach the goal of, a trigger that is read after it."""
    name = event.event or ""
    concerned = [plan for plan in plans if name in plan.timing.cancel_on or name in plan.timing.goals]
    if not concerned:
        return
    pers = {plan.timing.per: plan.per(body) for plan in concerned if plan.timing.per}
    happened = Happened(name, event.at_ms, event.message_id, {path: value for path, value in pers.items() if value})
    profiles.remember(profile, happened)


def _matches(plan: Plan, body: dict[str, Any], user: UserView, now_ms: int, life: Life) -> bool:
    if plan.id in chain_of(body):
        return False
    if plan.where is None:
        return True
    holds, error = plan.where.test(environment(plan, body, user, now_ms))
    if error is not None:
        life.errors.append(f"{plan.id}.where")
    return holds


def _engage(profile: Profile, life: Life, event: Event) -> None:
    channel, what = ENGAGEMENT[event.event or ""]
    if what == LEFT:
        asked = event.props.get("channel", channel)
        channel = asked if asked in CHANNELS else channel
        _suppress(profile, channel, UNSUBSCRIBED, event.at_ms)
        life.refused = channel, UNSUBSCRIBED
    elif what == SPAM:
        _suppress(profile, channel, COMPLAINED, event.at_ms)
        life.refused = channel, COMPLAINED
    elif what == BOUNCED:
        if event.props.get("bounce_type") == "hard":
            _suppress(profile, channel, HARD_BOUNCED, event.at_ms)
        decision_id = text(event.props, "decision_id")
        profile.reservations = [r for r in profile.reservations if r.decision_id != decision_id]
    elif what in (OPENED, CLICKED):
        profiles.count_day(profile, event.at_ms, "opens" if what == OPENED else "clicks", 1.0)
        life.engaged = (channel, what)


def _suppress(profile: Profile, channel: str, reason: str, at_ms: int) -> None:
    held = profile.suppressed.setdefault(channel, {})
    held[reason] = max(at_ms, held.get(reason, at_ms))  # a consent takes back only what was said before it


def _agree(profile: Profile, consent: Mapping[str, Any], at_ms: int) -> None:
    """Consent by channel; a consent later than an unsubscription takes it back."""
    for channel, value in consent.items():
        if channel not in (*CHANNELS, "personalization") or not isinstance(value, bool):
            continue
        known = profile.consent.get(channel)
        if known is not None and known.at_ms > at_ms:
            continue
        profile.consent[channel] = Trait(at_ms, value)
        held = profile.suppressed.get(channel, {})
        if value and held.get(UNSUBSCRIBED, at_ms) < at_ms:
            del held[UNSUBSCRIBED]


def _kept(body: dict[str, Any], life: Life) -> bytes:
    """The event as JSON for later; one that is too large keeps its short scalars."""
    data = orjson.dumps(body)
    if len(data) <= MAX_CONTENTS_BYTES:
        return data
    life.trimmed = True
    small = {key: value for key, value in body.items() if _short(value)}
    properties = body.get("properties")
    if isinstance(properties, dict):
        kept = [(key, value) for key, value in properties.items() if _short(value)]
        small["properties"] = dict(kept[:MAX_SHORT_PROPERTIES])
    return orjson.dumps(small)


def _short(value: Any) -> bool:
    return (
        value is None
        or isinstance(value, (bool, int, float))
        or (isinstance(value, str) and len(value) <= MAX_SHORT_CHARACTERS)
    )
