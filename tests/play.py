"""Small stories in code: events in, decisions out, through the real engine."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from decisioning import backtest
from decisioning.backtest import Memory
from decisioning.config import Config, load

START = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)

CAMPAIGN: dict[str, Any] = {
    "id": "cart",
    "trigger": {"event": "Product Added", "delay": "30m", "cancel_on": ["Order Completed"]},
    "channels": ["email"],
    "variants": {"subject": [{"id": "a", "text": "Hello {{ user.first_name | default: 'you' }}"}]},
}
CONFIG: dict[str, Any] = {
    "version": 1,
    "timezone": "UTC",
    "channels": {"email": {"address": "email"}, "push": {"address": "push_token"}},
    "campaigns": [CAMPAIGN],
}


@dataclass
class Played:
    """All that came out of a story."""

    decisions: list[dict[str, Any]] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)
    memory: Memory = field(default_factory=Memory)

    @property
    def sent(self) -> list[tuple[str, str]]:
        """(trigger's message id, minute and second of the decision) of each decision to send."""
        return [(d["trigger"]["message_id"], d["decided_at"][11:19]) for d in self.decisions]

    @property
    def reasons(self) -> list[list[str]]:
        """Reasons of what was not sent, in order."""
        return [entry["reasons"] for entry in self.log if entry["action"] != "send"]


def at(clock: str) -> str:
    """RFC 3339 of a time on the day of the story: `10:29:59`, or `+1d 08:00` for a later day."""
    days, _, rest = clock.rpartition(" ")
    parts = [int(part) for part in rest.split(":")]
    seconds = parts[0] * 3600 + parts[1] * 60 + (parts[2] if len(parts) > 2 else 0)
    day = START.replace(hour=0) + timedelta(days=int(days.strip("+d") or 0) if days else 0, seconds=seconds)
    return day.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def ms(clock: str) -> int:
    """The same in milliseconds since the epoch."""
    return int(datetime.fromisoformat(at(clock)).timestamp() * 1000)


def track(
    clock: str, message_id: str, event: str = "Product Added", user: str | None = "u1", **more: Any
) -> dict[str, Any]:
    """A track event; `properties`, `anonymousId`, `receivedAt` and others as keywords."""
    body = {"messageId": message_id, "type": "track", "timestamp": at(clock), "userId": user, "event": event}
    body |= {"properties": {}} | more
    return {key: value for key, value in body.items() if value is not None}


def identify(clock: str, message_id: str, user: str | None = "u1", **more: Any) -> dict[str, Any]:
    """An identify event; with an e-mail address unless `traits` says otherwise."""
    body = {"messageId": message_id, "type": "identify", "timestamp": at(clock), "userId": user}
    body |= {"traits": {"email": f"{user}@example.com"}} | more
    return {key: value for key, value in body.items() if value is not None}


def config(**changes: Any) -> Config:
    """The usual configuration with some of its top-level keys replaced; `campaign` changes keys of its campaign."""
    document = copy.deepcopy(CONFIG)
    campaign = changes.pop("campaign", {})
    document |= changes
    for key, value in campaign.items():
        target = document["campaigns"][0]
        target[key] = {**target[key], **value} if key == "trigger" else value
    return load(json.dumps(document))


def play(events: Iterable[dict[str, Any] | bytes], until: str = "23:00", setup: Config | None = None) -> Played:
    """Play a story whose person `u1` has an e-mail address from the day before."""
    first = {**identify("00:00", "m0"), "timestamp": "2026-03-01T08:00:00.000Z"}
    return play_raw([first, *events], until, setup)


def play_raw(
    events: Iterable[dict[str, Any] | bytes],
    until: str = "23:00",
    setup: Config | None = None,
    memory: Memory | None = None,
) -> Played:
    """Play exactly these events, perhaps on a state that is there already."""
    played = Played(memory=memory or Memory())
    lines = [event if isinstance(event, bytes) else orjson.dumps(event) for event in events]
    for effects in backtest.run(setup or config(), lines, ms(until), played.memory):
        played.decisions += [orjson.loads(record.value) for record in effects.decisions]
        played.log += [orjson.loads(record.value) for record in effects.log]
        played.examples += [orjson.loads(record.value) for record in effects.examples]
        played.rejected += [letter.reason for letter in effects.dead_letters]
        played.counts += effects.counts
    return played
