"""What keeps a message from being a mistake: one small pure function for each constraint, in the order they apply.

    erased, rules, when | consent, suppression, address | stock, cooldown, goal, caps, fatigue | quiet hours, expiry

Each gives the reason codes of the contract; an empty list means nothing speaks against it. What concerns a channel is
asked for each of them, and so are the caps that name one. The holdout comes last: it is a choice, in `choice`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from decisioning.config import Cap, Config
from decisioning.localtime import DAY_MS, day_number, quiet_until, resolve_zone, week_number
from decisioning.plan import Plan
from decisioning.profile import Pending, Profile, Reservation, Send
from decisioning.triggers import goal_reached

UNSUBSCRIBED, HARD_BOUNCED, COMPLAINED = "unsubscribed", "hard_bounced", "complained"


@dataclass(frozen=True, slots=True)
class Case:
    """One decision to be made: who, for what, when, and what rules and texts may read.

    `env` holds `event`, `user`, `campaign` and `now` for expressions and templates.
    """

    decision_id: str
    plan: Plan
    config: Config
    person: str
    profile: Profile
    pending: Pending
    now_ms: int
    zone: ZoneInfo
    env: dict[str, Any]
    fatigue: float
    in_stock: bool


@dataclass(slots=True)
class Verdict:
    """What the constraints leave.

    Attributes
    ----------
    reasons
        Why nothing is sent at all; empty where something may be.
    channels
        Channels that may be used now, in order of preference.
    refused
        Channel -> reason codes, wherever a channel was refused.
    defer_to_ms
        When quiet hours end, where only they stand in the way.
    errors
        Expressions that met missing or mistyped data, by where they stand.
    """

    reasons: list[str] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=dict)
    defer_to_ms: int | None = None
    errors: list[str] = field(default_factory=list)


def examine(case: Case) -> Verdict:
    """Apply every constraint but the holdout, which is a choice."""
    verdict = Verdict()
    verdict.reasons = erased(case) or rules(case, verdict.errors) or eligible(case, verdict.errors)
    if verdict.reasons:
        return verdict
    for channel in case.plan.channels:
        against = consent(case, channel) + suppression(case, channel) + address(case, channel)
        if against:
            verdict.refused[channel] = against
    if len(verdict.refused) == len(case.plan.channels):
        verdict.reasons = _no_channel(verdict, case)
        return verdict
    verdict.reasons = stock(case) or cooldown(case) or goal(case) or caps(case, "any") or fatigue(case)
    if verdict.reasons:
        return verdict
    _timely(case, verdict)
    return verdict


def _timely(case: Case, verdict: Verdict) -> None:
    """Channels whose caps have room and whose hours are not quiet, now or later; unless it is too late."""
    quiet: dict[str, int] = {}
    for channel in case.plan.channels:
        if channel in verdict.refused:
            continue
        full, end_ms = caps(case, channel), quiet_hours(case, channel)
        if full:
            verdict.refused[channel] = full
        elif end_ms is not None:
            quiet[channel] = end_ms
        else:
            verdict.channels.append(channel)
    if expired(case, case.now_ms):
        verdict.reasons, verdict.channels = ["expired"], []
    elif not verdict.channels and quiet:
        end_ms = min(quiet.values())
        if expired(case, end_ms):
            verdict.reasons = ["expired"]
        else:
            verdict.defer_to_ms = end_ms
    elif not verdict.channels:
        verdict.reasons = _no_channel(verdict, case)
    else:
        verdict.refused.update({channel: ["deferred:quiet_hours"] for channel in quiet})


def _no_channel(verdict: Verdict, case: Case) -> list[str]:
    """Why none is left: the channels' own reasons."""
    codes = [code for codes in verdict.refused.values() for code in codes]
    return list(dict.fromkeys(codes)) + (["no_channel"] if len(case.plan.channels) > 1 else [])


def erased(case: Case) -> list[str]:
    """Whether the person was erased after the trigger; a merge may bring such a timer from another id."""
    erased_ms = case.profile.erased_ms
    return ["erased"] if erased_ms is not None and case.pending.first.at_ms <= erased_ms else []


def rules(case: Case, errors: list[str]) -> list[str]:
    """Hard constraints of the configuration."""
    broken = []
    for rule in case.plan.rules:
        holds, error = rule.when.test(case.env)
        if error:
            errors.append(f"rules.{rule.name}")
        if holds:
            broken.append(f"rule:{rule.name}")
    return broken


def eligible(case: Case, errors: list[str]) -> list[str]:
    """The campaign's own condition."""
    if case.plan.when is None:
        return []
    holds, error = case.plan.when.test(case.env)
    if error:
        errors.append(f"{case.plan.id}.when")
    return [] if holds else ["not_eligible"]


def stock(case: Case) -> list[str]:
    """Whether the product the campaign speaks of can be had."""
    return [] if case.in_stock else ["out_of_stock"]


def cooldown(case: Case) -> list[str]:
    """Whether the campaign wrote to the person too lately: (now - cooldown, now]."""
    since_ms = case.now_ms - case.plan.campaign.cooldown_ms
    recent = any(s.campaign == case.plan.id and s.channel and s.at_ms > since_ms for s in case.profile.sends)
    return ["cooldown"] if case.plan.campaign.cooldown_ms and recent else []


def goal(case: Case) -> list[str]:
    """Whether the person already did what the message would ask for."""
    return ["goal_reached"] if goal_reached(case.pending, case.now_ms) else []


def fatigue(case: Case) -> list[str]:
    """Whether too many messages went unanswered."""
    limit = case.config.fatigue
    over = limit is not None and case.plan.marketing and case.fatigue > limit.limit
    return ["fatigue"] if over else []


def caps(case: Case, channel: str) -> list[str]:
    """Frequency caps that name this channel (or `any`) and have no room left."""
    if not case.plan.marketing:
        return []
    full = [cap for cap in case.config.caps if cap.channel == channel and len(used(case, cap)) >= cap.max]
    return [f"frequency_cap:{cap.name}" for cap in full]


def consent(case: Case, channel: str) -> list[str]:
    """Whether the person agreed to marketing on the channel."""
    if not case.plan.marketing:
        return []
    given = case.profile.consent.get(channel)
    agreed = case.config.consent.default == "granted" if given is None else bool(given.value)
    return [] if agreed else ["no_consent"]


def suppression(case: Case, channel: str) -> list[str]:
    """Unsubscribed (marketing only), complained, or the address bounces."""
    held = case.profile.suppressed.get(channel, {})
    found = [code for code in (HARD_BOUNCED, COMPLAINED) if code in held]
    gone = UNSUBSCRIBED in held or case.profile.trait("unsubscribed") is True
    return ([UNSUBSCRIBED] if gone and case.plan.marketing else []) + found


def address(case: Case, channel: str) -> list[str]:
    """Whether there is an address to send to."""
    return [] if address_of(case.config, case.profile, case.person, channel) else ["no_address"]


def address_of(config: Config, profile: Profile, person: str, channel: str) -> str | None:
    """The person's address on a channel; None where there is none that can be written to."""
    kind = config.channels[channel].address  # type: ignore[index]  # names were checked with the file
    if kind == "id":
        return person
    found = profile.trait(kind)
    return found if isinstance(found, str) and found and found.isprintable() else None  # a line break forges headers


def quiet_hours(case: Case, channel: str) -> int | None:
    """When the quiet hours that hold now on this channel end, None outside of them."""
    hours = case.config.quiet_hours_of(channel) if case.plan.marketing else None
    if hours is None:
        return None
    return quiet_until(case.now_ms, hours.from_minute, hours.to_minute, case.zone)


def expired(case: Case, at_ms: int) -> bool:
    """Whether a decision at that time comes too late."""
    after_ms = case.plan.campaign.expires_after_ms
    return after_ms is not None and at_ms > case.pending.due_ms + after_ms


def zone_of(config: Config, profile: Profile) -> ZoneInfo:
    """The person's time zone by the ladder of the contract."""
    latest = None if profile.context_zone is None else profile.context_zone.value
    return resolve_zone(profile.trait("timezone"), latest, profile.trait("country"), config.timezone)


def fatigue_of(config: Config, profile: Profile, now_ms: int) -> float:
    """How tired of messages a person is, in [0, 1].

    With S the decayed number of sends and E of human opens and clicks (both by UTC day, at the configured half-life),
    fatigue = 1 - 2^-max(0, S - E). It never falls by a send and never rises by an open or a click; the more recent a
    send or an answer is, the more it weighs; in silence an excess of sends fades. Days are kept as long as for
    `user.sends_30d`.
    """
    if config.fatigue is None:
        return 0.0
    today = now_ms // DAY_MS
    half_life_days = config.fatigue.half_life_ms / DAY_MS
    burden = 0.0
    for day, (_, _, sends, opens, clicks) in sorted(profile.days.items()):
        burden += (sends - opens - clicks) * math.exp2(-max(0, today - day) / half_life_days)
    return 1.0 - math.exp2(-max(0.0, burden))


def last_send(profile: Profile, campaign: str, at_ms: int, within_ms: int) -> Send | None:
    """The latest send of a campaign at or before an event and not longer ago than its window."""
    found = [s for s in profile.sends if s.campaign == campaign and 0 <= at_ms - s.at_ms <= within_ms]
    return max(found, key=lambda s: (s.at_ms, s.decision_id), default=None)


def used(case: Case, cap: Cap) -> list[Reservation]:
    """The sends that take room in a cap's window now."""
    taken = [r for r in case.profile.reservations if cap.channel in ("any", r.channel)]
    if cap.per_ms is not None:
        # one decided elsewhere by a clock ahead of ours is in a window with this one, too
        return [r for r in taken if case.now_ms - cap.per_ms < r.at_ms]
    number = day_number if cap.calendar == "day" else week_number
    today = number(case.now_ms, case.zone)
    return [r for r in taken if number(r.at_ms, case.zone) == today]
