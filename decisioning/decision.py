"""Decisions as records: what goes to `decisions` and `decision-log`, and what is remembered of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

import orjson

from decisioning import slots
from decisioning.choice import Choices
from decisioning.effects import Headers, Outgoing
from decisioning.learning import rule_of
from decisioning.localtime import iso
from decisioning.plan import Plan
from decisioning.profile import Chosen, Pending, Send
from decisioning.unsubscribe import Links

SOURCE = b"decisioning"
SENT_TYPE = b"decisioning.decision.v1"
Action = Literal["send", "suppress", "holdout"]


@dataclass(frozen=True, slots=True)
class AsOf:
    """Up to where the partition had been read when the decision was made (`offset` is the next one)."""

    partition: int
    offset: int


@dataclass(slots=True)
class Outcome:
    """One decision, whatever its action, with all that explains it; filled in while it is made, then published."""

    decision_id: str
    plan: Plan | None  # None: the campaign is no longer configured
    pending: Pending
    person: str
    action: Action
    reasons: list[str]
    decided_ms: int
    as_of: AsOf
    config_version: str
    choices: Choices
    context: dict[str, float] = field(default_factory=dict)
    channel_reasons: dict[str, list[str]] = field(default_factory=dict)
    asleep: dict[str, dict[str, str]] = field(default_factory=dict)  # slot -> arm -> why it was not eligible
    address: str | None = None
    cancelled_by: str | None = None
    because: list[dict[str, Any]] = field(default_factory=list)  # rule and numbers behind each reason not to send


def decision_id(campaign: str, person: str, message_id: str) -> str:
    """A pure function of campaign, person at trigger time and the trigger's message id.

    Examples
    --------
    >>> decision_id("cart", "u1", "m1") == decision_id("cart", "u1", "m1") != decision_id("cart", "u", "1m1")
    True
    """
    parts = [part.encode("utf-8") for part in (campaign, person, message_id)]
    framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return blake2b(framed, digest_size=16, person=b"decision").hexdigest()


def published(outcome: Outcome, links: Links) -> tuple[Outgoing, Outgoing | None]:
    """The record of `decision-log` and, of a decision to send, the one of `decisions`; they share most fields."""
    choices, plan = outcome.choices, outcome.plan
    sends = outcome.action == "send"
    channel = choices.chosen["channel"] if sends else None
    common = {
        "schema": 1,
        "decision_id": outcome.decision_id,
        "campaign": outcome.pending.campaign,
        "kind": plan.campaign.kind if plan else None,
        "action": outcome.action,
        "user_id": outcome.person,
        "channel": channel,
    }
    times, variants = _times(outcome), {slot: choices.chosen[slot] for slot in choices.content}
    metadata = {"decision_id": outcome.decision_id, "user_id": outcome.person}
    key = outcome.person.encode()
    log = Outgoing(key, orjson.dumps(common | _provenance(outcome, times, variants, metadata)))
    if channel is None:
        return log, None
    decision = {
        **common,
        "address": outcome.address,
        "variants": variants,
        "content": {**choices.content, "blocks": choices.blocks},
        **times,
        "metadata": metadata,
        "headers": links.headers(outcome.person, channel, outcome.decision_id) if plan and plan.marketing else {},
    }
    return log, Outgoing(key, orjson.dumps(decision), _cloud_events(outcome))


def _provenance(
    outcome: Outcome, times: dict[str, Any], variants: dict[str, str], metadata: dict[str, str]
) -> dict[str, Any]:
    """What explains a decision and repeats it; no address and no text."""
    choices = outcome.choices
    propensity = choices.propensity()
    return {
        "variants": variants,
        "content_hash": _content_hash(choices) if choices.content else None,
        **times,
        "metadata": metadata,
        "reasons": outcome.reasons,
        "channel_reasons": outcome.channel_reasons,
        "propensity": propensity,
        "joint_propensity": math.prod(propensity.values()) if propensity else None,
        "arms": choices.arms,
        "asleep": outcome.asleep,
        "context": outcome.context,
        "model_versions": choices.versions,
        **({"policy": rule_of(outcome.plan.spec)} if choices.versions and outcome.plan else {}),
        **_slot(outcome),
        "random_draw": choices.random_draw,
        "as_of": {"partition": outcome.as_of.partition, "offset": outcome.as_of.offset},
        "config_version": outcome.config_version,
        "experiment": {"group": "holdout" if outcome.action == "holdout" else "treatment"},
        "cancelled_by": outcome.cancelled_by,
        **({"because": outcome.because} if outcome.because else {}),
    }


def erased(person: str, at_ms: int, message_id: str, as_of: AsOf, config_version: str) -> Outgoing:
    """The proof in `decision-log` that a person was erased."""
    record = {
        "schema": 1,
        "decision_id": decision_id("", person, message_id),
        "campaign": None,
        "action": "suppress",
        "user_id": person,
        "decided_at": iso(at_ms),
        "reasons": ["erased"],
        "as_of": {"partition": as_of.partition, "offset": as_of.offset},
        "config_version": config_version,
    }
    return Outgoing(person.encode(), orjson.dumps(record))


def remembered(outcome: Outcome) -> Send:
    """What the profile keeps of a decision that was sent, held out or found not to be worth it."""
    propensity = outcome.choices.propensity()
    choices = {name: (arm, propensity[name]) for name, arm in outcome.choices.chosen.items()}
    if outcome.action == "holdout":
        choices = {"holdout": choices["holdout"]}
    sends = outcome.action == "send"
    return Send(
        outcome.decision_id,
        outcome.pending.campaign,
        outcome.choices.chosen["channel"] if sends else "",
        outcome.decided_ms,
        choices,
        outcome.context,
        slot=_features(outcome.pending.chosen) if "send_time" in choices else {},
        cost=outcome.plan.campaign.policy.contact_cost if sends and outcome.plan else None,
    )


def _features(chosen: Chosen | None) -> dict[str, float]:
    return {} if chosen is None else slots.named(chosen.arm, chosen.base, chosen.shares.get(chosen.arm, 0.0))


def _times(outcome: Outcome) -> dict[str, Any]:
    pending, after_ms = outcome.pending, outcome.plan.campaign.expires_after_ms if outcome.plan else None
    first = pending.first
    return {
        "trigger": {"message_id": first.message_id, "event": first.event, "at": iso(first.at_ms)},
        "due_at": iso(pending.due_ms),
        "fire_at": iso(pending.fire_ms),
        "decided_at": iso(outcome.decided_ms),
        "expires_at": None if after_ms is None else iso(pending.due_ms + after_ms),
    }


def _slot(outcome: Outcome) -> dict[str, Any]:
    """What the chosen hour was chosen from; nothing where none was chosen."""
    chosen = outcome.pending.chosen
    if chosen is None or "send_time" not in outcome.choices.chosen:
        return {}
    slot = {"arm": chosen.arm, "chosen_at": iso(chosen.at_ms), "hour": chosen.base, "shares": chosen.shares}
    return {"slot": slot | ({"policy": chosen.rule} if chosen.rule else {})}


def _content_hash(choices: Choices) -> str:
    data = orjson.dumps([choices.content, choices.blocks], option=orjson.OPT_SORT_KEYS)
    return blake2b(data, digest_size=16).hexdigest()


def _cloud_events(outcome: Outcome) -> Headers:
    return (
        ("ce_id", outcome.decision_id.encode()),
        ("ce_type", SENT_TYPE),
        ("ce_source", SOURCE),
        ("ce_specversion", b"1.0"),
        ("ce_time", iso(outcome.decided_ms).encode()),
        ("ce_subject", outcome.pending.campaign.encode()),
        ("content-type", b"application/json"),
    )
