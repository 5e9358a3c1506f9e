"""`Decision Sent`: what happens to a person at the moment something is sent to them, so that campaigns may follow up.

It is no record of any topic: the step that decides lets it happen, in the same step, at the moment of decision. So it
happens exactly once for each decision to send, and its message id is a function of the decision's.

`properties.chain` names the campaigns that led to it, the one that sent last. A campaign is never triggered by what it
led to itself, and the last of `MAX_CHAIN` causes no event: however campaigns refer to each other and however short
their delays are, a chain ends.
"""

from __future__ import annotations

from typing import Any

import orjson

from decisioning.decision import Outcome
from decisioning.localtime import iso
from decisioning.profile import Pending
from decisioning.reading import Event

DECISION_SENT = "Decision Sent"
MAX_CHAIN = 16  # campaigns; the event stays far below what a timer may hold


def happened(outcome: Outcome) -> tuple[Event, dict[str, Any]] | None:
    """The event of a decision to send, and the same as rules and texts read it; None at the end of a chain."""
    chain = [*_led_here(outcome.pending), outcome.pending.campaign]
    if len(chain) >= MAX_CHAIN:
        return None
    choices = outcome.choices
    properties: dict[str, Any] = {
        "campaign": outcome.pending.campaign,
        "channel": choices.chosen["channel"],
        "variants": {slot: choices.chosen[slot] for slot in choices.content},
        "decision_id": outcome.decision_id,
        "chain": chain,
    }
    message_id = f"sent:{outcome.decision_id}"
    event = Event(message_id, "track", user_id=outcome.person, event=DECISION_SENT, props=properties)
    event.person, event.at_ms, event.record_ms = outcome.person, outcome.decided_ms, outcome.decided_ms
    body = {
        "type": "track",
        "messageId": message_id,
        "userId": outcome.person,
        "event": DECISION_SENT,
        "timestamp": iso(outcome.decided_ms),
        "properties": properties,
    }
    return event, body


def _led_here(pending: Pending) -> list[str]:
    """Campaigns that led to a timer, by the event that opened it and the latest that restarted it."""
    sent = {c.message_id: c for c in (pending.first, pending.latest) if c.event == DECISION_SENT}
    return list(dict.fromkeys(name for contents in sent.values() for name in chain_of(orjson.loads(contents.body))))


def chain_of(body: dict[str, Any]) -> list[str]:
    """Campaigns that led to an event; empty for whatever is no `Decision Sent`."""
    if body.get("event") != DECISION_SENT:
        return []
    properties = body.get("properties")
    chain = properties.get("chain") if isinstance(properties, dict) else None
    return [name for name in chain if isinstance(name, str)] if isinstance(chain, list) else []
