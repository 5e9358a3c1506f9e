"""Histories of several people under one configuration of everything, and partitions that live through them."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from hypothesis import strategies as st

from decisioning import profile as profiles
from decisioning.backtest import Memory
from decisioning.config import Config, load
from decisioning.effects import Effects, State
from decisioning.engine import Engine
from decisioning.partitioner import partition_of

DAY_MS = 86_400_000
KNOWN, DEVICES = ("k1", "k2", "k3"), ("d1", "d2", "d3")
ZONES = (
    "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Antarctica/Troll", "Pacific/Chatham",
    "Africa/Casablanca", "Mars/Olympus", "",
)  # fmt: skip
# The evening before clocks change somewhere: Europe and Troll (by two hours), America, Lord Howe (by half an hour)
EVENINGS = ("2026-03-28", "2026-10-24", "2026-03-07", "2026-10-31", "2026-04-04", "2026-10-03", "2026-06-10")
TEXTS = {"subject": [{"id": "a", "text": "Hello"}, {"id": "b", "text": "Hi"}]}
DOCUMENT: dict[str, Any] = {
    "version": 1,
    "timezone": "Europe/Berlin",
    "quiet_hours": {"from": "21:00", "to": "08:00"},
    "channels": {
        "email": {"address": "email"},
        "push": {"address": "push_token", "quiet_hours": {"from": "01:30", "to": "02:30"}},
        "in_app": {"address": "id", "quiet_hours": None},
    },
    "caps": [
        {"name": "rolling", "channel": "any", "max": 4, "per": "24h"},
        {"name": "push-hours", "channel": "push", "max": 1, "per": "1h"},
        {"name": "email-day", "channel": "email", "max": 2, "per": "day"},
        {"name": "week", "channel": "any", "max": 6, "per": "week"},
    ],
    "fatigue": {"half_life": "2d", "limit": 0.97},
    "holdout": {"share": 0.1, "salt": "s"},
    "campaigns": [
        {
            "id": "cart",
            "trigger": {
                "event": "Product Added", "delay": "30m", "per": "properties.cart_id", "max_wait": "2h",
                "restart_on": ["Product Added", "Cart Viewed"], "cancel_on": ["Order Completed"],
            },
            "channels": ["email", "push"],
            "expires_after": "9h",
            "cooldown": "6h",
            "holdout": {"share": 0.1, "salt": "c"},
            "variants": TEXTS,
        },
        {
            "id": "news",
            "trigger": {"event": "Product Viewed", "delay": "0s"},
            "channels": ["push", "email", "in_app"],
            "variants": TEXTS,
            "policy": {"algorithm": "uniform"},
        },
        {
            "id": "receipt",
            "kind": "transactional",
            "trigger": {"event": "Order Completed", "delay": "0s"},
            "channels": ["email"],
            "variants": TEXTS,
        },
        {
            "id": "parcel",
            "kind": "transactional",
            "count": True,
            "trigger": {"event": "Checkout Started", "delay": "5m"},
            "channels": ["push", "email"],
            "variants": TEXTS,
        },
    ],
}  # fmt: skip
SETUP: Config = load(json.dumps(DOCUMENT))


@dataclass(frozen=True, slots=True)
class Read:
    """An event as it was read."""

    event: dict[str, Any]
    at_ms: int


@dataclass(frozen=True, slots=True)
class Line:
    """A record of `events` or `internal`."""

    value: bytes
    timestamp: int
    topic: str = "events"
    partition: int = 0
    offset: int = 0
    key: bytes | None = None


class World:
    """Partitions with a clock of their own: each event is read when it arrives, each timer fires when it is due."""

    def __init__(self, partitions: int) -> None:
        self.engine = Engine(SETUP)
        self.partitions = partitions
        self.memories = [Memory() for _ in range(partitions)]
        self.sent: list[str] = []
        self.told: deque[tuple[int, bytes]] = deque()

    def live(self, history: list[Read], until_ms: int) -> Iterator[Read | dict[str, Any]]:
        """Events as they are read, each followed by the log records of what is decided; decisions with `address`."""
        for read in history:
            yield from self._fire_before(read.at_ms)
            if not read.event:
                self._restart()
                continue
            event = self._of_a_decision(read.event)
            yield Read(event, read.at_ms)
            home = partition_of(str(event.get("userId") or event["anonymousId"]), self.partitions)
            yield from self._step(home, read.at_ms, [orjson.dumps(event)])
        yield from self._fire_before(until_ms)

    def _of_a_decision(self, event: dict[str, Any]) -> dict[str, Any]:
        """A bounce names one of the decisions there were."""
        back = event.get("properties", {}).get("bounces")
        if back is None or back >= len(self.sent):
            return event
        return {**event, "properties": {**event["properties"], "decision_id": self.sent[-1 - back]}}

    def _restart(self) -> None:
        """Workers that take over know the bytes that were committed, and nothing else."""
        self.engine = Engine(SETUP)
        for number, held in enumerate(self.memories):
            people = sorted(held.rows._slots)
            due = {person: profiles.decode(data).next_fire_ms() for person, data in held.profiles.items()}
            fresh = self.memories[number] = Memory()
            if people:
                fresh.apply(Effects(people, held.rows.gather(people), dict(held.profiles), due))

    def _fire_before(self, before_ms: int) -> Iterator[dict[str, Any]]:
        while True:
            due = [(ms, p) for p, held in enumerate(self.memories) if (ms := held.next_due_ms()) is not None]
            if not due or min(due)[0] >= before_ms:
                return
            at_ms, partition = min(due)
            yield from self._step(partition, at_ms, [])

    def _step(self, partition: int, now_ms: int, values: list[bytes]) -> Iterator[dict[str, Any]]:
        yield from self._batch(partition, now_ms, values, [])
        while self.told:  # what a step tells other partitions is read there before the clock goes on
            here, message = self.told.popleft()
            yield from self._batch(here, now_ms, [], [message])

    def _batch(
        self, partition: int, now_ms: int, values: list[bytes], messages: list[bytes]
    ) -> Iterator[dict[str, Any]]:
        held = self.memories[partition]
        state = State(partition, self.partitions, held.rows, held.profiles, held.stock)
        told = [Line(value, now_ms, "internal") for value in messages]
        batch = self.engine.decode([Line(value, now_ms) for value in values], told)
        batch.due, batch.fire_until_ms = held.due(now_ms), now_ms
        while missing := self.engine.reads(state, batch):
            held.rows.add_new(sorted(missing))
        effects = self.engine.step(state, batch, now_ms)
        assert not effects.dead_letters
        held.apply(effects)
        self.told.extend((message.partition or 0, message.value) for message in effects.internal)
        decisions = [orjson.loads(record.value) for record in effects.decisions]
        log = [orjson.loads(record.value) for record in effects.log]
        assert [d["decision_id"] for d in decisions] == [e["decision_id"] for e in log if e["action"] == "send"]
        addresses = {decision["decision_id"]: decision["address"] for decision in decisions}
        self.sent += addresses
        for entry in log:
            yield entry | {"address": addresses.get(entry["decision_id"])}


def _identify(draw: st.DrawFn, user: str) -> dict[str, Any]:
    some = st.sampled_from
    traits: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "email": some([f"{user}@example.com", f"{user}@example.org", ""]),
                "push_token": some(["token", None]),
                "timezone": some(ZONES),
                "country": some(["JP", "US"]),
                "unsubscribed": st.booleans(),
                "consent": st.dictionaries(some(["email", "push", "in_app"]), st.booleans(), max_size=2),
            },
        )
    )
    return {"type": "identify", "userId": user, "traits": traits}


def _track(draw: st.DrawFn, name: str) -> dict[str, Any]:
    some = st.sampled_from
    who = draw(some([*KNOWN * 3, *DEVICES]))
    event: dict[str, Any] = {"type": "track", "event": name, "properties": {}}
    event["userId" if who in KNOWN else "anonymousId"] = who
    if name in ("Product Added", "Cart Viewed", "Order Completed"):
        event["properties"] = draw(some([{}, {"cart_id": "c1"}, {"cart_id": "c2"}]))
    elif name == "Unsubscribed":
        event["properties"] = {"channel": draw(some(["email", "push", "in_app"]))}
    elif name.endswith("Bounced"):
        event["properties"] = {"bounce_type": draw(some(["soft", "soft", "hard"])), "bounces": draw(st.integers(0, 9))}
    if draw(st.integers(0, 4)) == 0:
        event["context"] = {"timezone": draw(some(ZONES))}
    return event


BUSY = ["Product Added", "Product Viewed", "Product Viewed", "Cart Viewed", "Order Completed", "Checkout Started"]
RARE = ["Unsubscribed", "Email Bounced", "Push Bounced", "Email Marked as Spam", "Email Opened", "Page Seen"]


@st.composite
def histories(draw: st.DrawFn) -> list[Read]:
    """Some days in the life of six ids, out of order by up to two hours, some events read twice; `{}` is a restart."""
    evening = draw(st.sampled_from(EVENINGS))
    clock_ms = int(datetime.fromisoformat(f"{evening}T17:00").replace(tzinfo=UTC).timestamp() * 1000)
    history = [
        Read(
            _event({"type": "identify", "userId": user, "traits": {"email": f"{user}@example.com"}}, clock_ms, i),
            clock_ms,
        )
        for i, user in enumerate(KNOWN)
    ]
    kinds = st.sampled_from([*BUSY * 4, *RARE, "identify", "identify", "device", "alias", "again", "restart"])
    for number in range(draw(st.integers(10, 45))):
        clock_ms += draw(st.sampled_from([0, 1, 5, 20, 60, 180, 540])) * 60_000 + 1_000
        kind, late_ms = draw(kinds), draw(st.sampled_from([0, 0, 0, 7, 119])) * 60_000
        if kind == "again":
            named = [read.event for read in history if "userId" in read.event]
            history.append(Read(draw(st.sampled_from(named)), clock_ms))
            continue
        if kind == "restart":
            history.append(Read({}, clock_ms))
            continue
        if kind == "identify":
            body = _identify(draw, draw(st.sampled_from(KNOWN)))
        elif kind == "device":
            pair = draw(st.sampled_from(KNOWN)), draw(st.sampled_from(DEVICES))
            body = {"type": "identify", "userId": pair[0], "anonymousId": pair[1], "traits": {}}
        elif kind == "alias":
            pair = draw(st.sampled_from(KNOWN)), draw(st.sampled_from([*KNOWN, *DEVICES]))
            body = {"type": "alias", "userId": pair[0], "previousId": pair[1]}
        else:
            body = _track(draw, kind)
        history.append(Read(_event(body, clock_ms - late_ms, 1000 + number), clock_ms))
    return history


def _event(body: dict[str, Any], at_ms: int, number: int) -> dict[str, Any]:
    """With an id, and a time that no other event has."""
    moment = datetime.fromtimestamp(at_ms / 1000, UTC).replace(microsecond=number % 1000 * 1000)
    return {"messageId": f"m{number}", "timestamp": moment.isoformat(timespec="milliseconds"), **body}
