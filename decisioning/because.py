"""The rule and the numbers behind each reason not to send, for whoever asks later.

Computed for suppressions alone, after the verdict: what is sent costs nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from decisioning import durations
from decisioning.eligibility import COMPLAINED, HARD_BOUNCED, UNSUBSCRIBED, Case, Verdict, quiet_hours, used
from decisioning.localtime import iso
from decisioning.plan import Plan
from decisioning.profile import GOAL, Mark

Fact = dict[str, Any]
"""`reason`, `channel` where it is about one, and what the reason was found from."""


def facts(case: Case, verdict: Verdict) -> list[Fact]:
    """What stood against a decision, in the order of its reasons; then, channel by channel, what refused each."""
    found = [{"reason": code, **_about(case, code)} for code in verdict.reasons if not _is_of_channels(verdict, code)]
    for channel, codes in verdict.refused.items():
        found += [{"reason": code, "channel": channel, **_about_channel(case, code, channel)} for code in codes]
    return found


def cancelled(plan: Plan | None, by: Mark | None) -> list[Fact]:
    """Of a wait that was called off: by which event, when, and which events may; nothing of a campaign that is gone."""
    found: Fact = {"reason": "cancelled"}
    if by is not None:
        found |= {"message_id": by.message_id, "at": iso(by.at_ms)}
    return [found | {"cancel_on": None if plan is None else list(plan.campaign.trigger.cancel_on)}]


def without_room(what: str, most: int) -> list[Fact]:
    """Of a decision that found no room: for what, and how much of it there may be."""
    return [{"reason": "not_eligible", "room_for": what, "max": most}]


def _is_of_channels(verdict: Verdict, code: str) -> bool:
    return code == "no_channel" or any(code in codes for codes in verdict.refused.values())


def _about(case: Case, code: str) -> Fact:
    kind, _, name = code.partition(":")
    return _ABOUT[kind](case, name) if kind in _ABOUT else {}


def _about_channel(case: Case, code: str, channel: str) -> Fact:
    profile = case.profile
    if code == "no_consent":
        given = profile.consent.get(channel)
        return {"default": case.config.consent.default} if given is None else {"said_at": iso(given.at_ms)}
    if code == "no_address":
        return {"trait": case.config.channels[channel].address}  # type: ignore[index]  # a channel of the file
    if code in (UNSUBSCRIBED, HARD_BOUNCED, COMPLAINED):
        since_ms = profile.suppressed.get(channel, {}).get(code)
        return {"since": iso(profile.traits[UNSUBSCRIBED].at_ms if since_ms is None else since_ms)}
    return _about(case, code)


def _rule(case: Case, name: str) -> Fact:
    return {"when": next(rule.when.text for rule in case.plan.rules if rule.name == name)}


def _not_eligible(case: Case, _: str) -> Fact:
    return {"when": case.plan.campaign.when}


def _out_of_stock(case: Case, _: str) -> Fact:
    path = case.plan.campaign.requires_stock
    return {"product_id": "" if path is None else path.key(case.env["event"])}


def _goal_reached(case: Case, _: str) -> Fact:
    mark = next(mark for mark in case.pending.marks if mark.kind == GOAL)
    return {"message_id": mark.message_id, "at": iso(mark.at_ms)}


def _fatigue(case: Case, _: str) -> Fact:
    limit = case.config.fatigue
    assert limit is not None, "only a configured limit is exceeded"
    return {"fatigue": case.fatigue, "limit": limit.limit, "half_life": durations.spell(limit.half_life_ms)}


def _cooldown(case: Case, _: str) -> Fact:
    lasts_ms = case.plan.campaign.cooldown_ms
    last = max((s for s in case.profile.sends if s.campaign == case.plan.id and s.channel), key=lambda s: s.at_ms)
    return {
        "cooldown": durations.spell(lasts_ms),
        "last_decision_id": last.decision_id,
        "last_at": iso(last.at_ms),
        "ends_at": iso(last.at_ms + lasts_ms),
    }


def _cap(case: Case, name: str) -> Fact:
    cap = next(cap for cap in case.config.caps if cap.name == name)
    taken = used(case, cap)
    found: Fact = {"cap_channel": cap.channel, "used": len(taken), "max": cap.max}
    if cap.per_ms is None:
        return found | {"per": cap.calendar, "zone": case.zone.key}
    found["per"] = durations.spell(cap.per_ms)
    if cap.max:  # a cap of 0 never has room
        times = sorted(reservation.at_ms for reservation in taken)
        found["room_at"] = iso(times[-cap.max] + cap.per_ms)
    return found


def _expired(case: Case, _: str) -> Fact:
    after_ms = case.plan.campaign.expires_after_ms
    assert after_ms is not None, "only what can expire has expired"
    found: Fact = {
        "expires_after": durations.spell(after_ms),
        "expires_at": iso(case.pending.due_ms + after_ms),
    }
    return found | next(_quiet(case), {})


def _quiet(case: Case) -> Iterator[Fact]:
    """The quiet hours that hold now, of the first channel that has some."""
    for channel in case.plan.channels:
        hours, end_ms = case.config.quiet_hours_of(channel), quiet_hours(case, channel)
        if hours is not None and end_ms is not None:
            yield {
                "quiet_hours": {
                    "channel": channel,
                    "from": durations.spell_clock(hours.from_minute),
                    "to": durations.spell_clock(hours.to_minute),
                    "zone": case.zone.key,
                    "end_at": iso(end_ms),
                }
            }


_ABOUT: dict[str, Callable[[Case, str], Fact]] = {
    "rule": _rule,
    "not_eligible": _not_eligible,
    "out_of_stock": _out_of_stock,
    "cooldown": _cooldown,
    "goal_reached": _goal_reached,
    "frequency_cap": _cap,
    "fatigue": _fatigue,
    "expired": _expired,
}
