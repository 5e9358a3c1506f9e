"""What the people of a simulation do, and what must come of each trigger whatever fails.

Every trigger is a cart of its own, so that its outcome is known beforehand, or is one of a known few where it depends
on what is still under way from another partition.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import orjson

from decisioning.localtime import DAY_MS, iso
from decisioning.partitioner import partition_of
from tests.play import CAMPAIGN, CONFIG, config

DELAY_MS = 8_000
AGAIN_MS = 3_000  # after a hello, which is always sent
FIRST_MS = 3_000  # nobody does anything before
SPREAD_MS = 30_000
CARTS = 10
EVERYBODYS = -1  # number of the story that all others need: who people are
DAMAGED = (b"{", b"\xff\xfe", b"[]", b'{"type":"track"}')

SETUP = config(
    retention={"profile": "1d"},
    campaigns=[
        CONFIG["campaigns"][0]
        | {
            "trigger": CAMPAIGN["trigger"]
            | {"delay": f"{DELAY_MS // 1000}s", "per": "properties.cart_id", "restart_on": ["Cart Viewed"]}
        },
        CAMPAIGN | {"id": "hello", "trigger": {"event": "Signed Up", "delay": "0s", "per": "properties.cart_id"}},
        CAMPAIGN
        | {
            "id": "hello-again",
            "trigger": {
                "event": "Decision Sent",
                "where": "event.properties.campaign == 'hello'",
                "delay": f"{AGAIN_MS // 1000}s",
                "per": "properties.decision_id",
            },
        },
    ],
)


@dataclass(frozen=True)
class Planned:
    """A record that a producer will append."""

    at_ms: int
    topic: str
    partition: int
    key: bytes
    value: bytes


@dataclass(frozen=True)
class Expected:
    """What may come of a trigger: actions and first reasons, and when it is due at the earliest."""

    outcomes: frozenset[str]
    due_ms: frozenset[int]


@dataclass
class Workload:
    """Everything that happens outside."""

    partitions: int
    chance: random.Random
    start_ms: int
    records: list[Planned] = field(default_factory=list)
    triggers: dict[str, Expected] = field(default_factory=dict)  # by message id
    sent: dict[str, set[str]] = field(default_factory=dict)  # known person -> ids of their messages
    merged: set[str] = field(default_factory=set)  # known people who were somebody else before
    erased: dict[str, int] = field(default_factory=dict)  # person who asked for it -> number of the story
    uniting: set[int] = field(default_factory=set)  # stories with two people who turn out to be one
    forgotten: dict[str, int] = field(default_factory=dict)  # all ids of those, likewise
    idle: dict[str, int] = field(default_factory=dict)  # people whom nothing was heard of lately, likewise
    damaged: int = 0
    greeted: int = 0
    stories: dict[str, int] = field(default_factory=dict)  # message id -> number of the story it belongs to
    ids: dict[bytes, str] = field(default_factory=dict)  # value of a record -> message id
    story: int = EVERYBODYS
    _messages: int = 0

    def event(
        self,
        at_ms: int,
        user: str | None,
        *,
        anonymous: str | None = None,
        astray: bool = False,
        orderly: bool = False,
        **body: Any,
    ) -> str:
        """Plan an event; `astray` sends it to a partition that is not its person's, `orderly` keeps copies from it."""
        self._messages += 1
        message_id = f"m{self._messages}"
        self.stories[message_id] = self.story
        said: dict[str, Any] = {"messageId": message_id, "timestamp": iso(at_ms), **body}
        if user is not None:
            said["userId"] = user
            self.sent.setdefault(user, set()).add(message_id)
        if anonymous is not None:
            said["anonymousId"] = anonymous
        person, value = user or anonymous or "", orjson.dumps(said)
        self.ids[value] = message_id
        self._plan(at_ms, person, value, astray=astray)
        if self.chance.random() < 0.15:  # the producer repeats itself
            again_ms = at_ms + self.chance.choice((0, 5, 900, 15_000))
            self._plan(again_ms, person, value, astray=self.chance.random() < 0.3 and not orderly)
        return message_id

    def _plan(self, at_ms: int, person: str, value: bytes, *, astray: bool) -> None:
        partition = partition_of(person, self.partitions)
        if astray:
            partition = (partition + self.chance.randrange(1, self.partitions)) % self.partitions
        self.records.append(Planned(at_ms, "events", partition, person.encode(), value))

    def track(self, at_ms: int, user: str | None, event: str, cart: str, **more: Any) -> str:
        """Plan a track event about a cart."""
        return self.event(at_ms, user, type="track", event=event, properties={"cart_id": cart}, **more)

    def identify(self, at_ms: int, user: str, **more: Any) -> str:
        """Plan an identify that gives an address."""
        return self.event(at_ms, user, type="identify", traits={"email": f"{user}@example.com"}, **more)

    def damage(self) -> None:
        """Plan a record that is no event."""
        self.damaged += 1
        topic = self.chance.choice(("events", "events", "internal"))
        at_ms = self.start_ms + self.chance.randrange(SPREAD_MS)
        partition = self.chance.randrange(self.partitions)
        self.records.append(Planned(at_ms, topic, partition, b"", self.chance.choice(DAMAGED)))

    def expect(self, message_id: str, outcomes: str, *due_ms: int) -> None:
        """Say what may come of a trigger."""
        self.triggers[message_id] = Expected(frozenset(outcomes.split("|")), frozenset(due_ms))


def make(partitions: int, chance: random.Random, start_ms: int) -> Workload:
    """Plan a workload."""
    work = Workload(partitions, chance, start_ms)
    users = [f"u{chance.randrange(1000)}" for _ in range(3)]
    for user in users:
        work.identify(start_ms, user)
    for number in range(CARTS):
        at_ms = start_ms + FIRST_MS + chance.randrange(SPREAD_MS)
        work.story = number
        chance.choice(STORIES)(work, chance.choice(users), f"c{number}", at_ms)
    for _ in range(chance.randrange(4)):
        work.damage()
    work.story = EVERYBODYS
    for user in users:  # the last word, after all faults: whatever Redis lost must be noticed at the latest now
        work.event(start_ms + 2 * SPREAD_MS, user, type="page", name="end")
    work.records.sort(key=lambda planned: planned.at_ms)
    return work


def _plain(work: Workload, user: str, cart: str, at_ms: int) -> None:
    work.expect(work.track(at_ms, user, "Product Added", cart), "send", at_ms + DELAY_MS)


def _at_once(work: Workload, user: str, cart: str, at_ms: int) -> None:
    work.expect(work.track(at_ms, user, "Signed Up", cart), "send", at_ms)
    work.greeted += 1


def _cancelled(work: Workload, user: str, cart: str, at_ms: int) -> None:
    due_ms = at_ms + DELAY_MS
    off_ms = work.chance.choice((-7_000, -1_000, -20, -1, 1, 20, 400))
    work.track(due_ms + off_ms, user, "Order Completed", cart)
    astray = work.chance.random() < 0.2
    message_id = work.track(at_ms, user, "Product Added", cart, astray=astray)
    work.expect(message_id, "cancelled" if off_ms < 0 else "cancelled|send", due_ms)


def _restarted(work: Workload, user: str, cart: str, at_ms: int) -> None:
    due_ms = at_ms + DELAY_MS
    restart_ms = due_ms + work.chance.choice((-7_000, -1_000, -1, 1, 20))
    message_id = work.track(at_ms, user, "Product Added", cart)
    # A restart that is read before its trigger moves nothing, so no copy of it may overtake that by another partition.
    work.track(restart_ms, user, "Cart Viewed", cart, orderly=True)
    late = [] if restart_ms < due_ms else [due_ms]
    work.expect(message_id, "send", restart_ms + DELAY_MS, *late)


def _misrouted(work: Workload, user: str, cart: str, at_ms: int) -> None:
    due_ms = at_ms + DELAY_MS
    message_id = work.track(at_ms, user, "Product Added", cart, astray=True)
    if work.chance.random() < 0.5:
        work.expect(message_id, "send", due_ms)
        return
    work.track(due_ms - work.chance.choice((1, 50, 5_000)), user, "Order Completed", cart, astray=True)
    work.expect(message_id, "send|cancelled", due_ms)


def _anonymous(work: Workload, user: str, cart: str, at_ms: int) -> None:
    """A visitor fills a cart and says later who they are, perhaps at another partition."""
    visitor = f"a{work.chance.randrange(1000)}"
    message_id = work.track(at_ms, None, "Product Added", cart, anonymous=visitor)
    merge_ms = at_ms + work.chance.choice((1, 200, 4_000, DELAY_MS - 1, DELAY_MS + 50))
    work.identify(merge_ms, user, anonymous=visitor)
    work.merged.add(user)
    work.uniting.add(work.story)
    outcomes = "send|no_address"
    if work.chance.random() < 0.3:
        work.track(merge_ms + work.chance.choice((1, 100, 3_000)), user, "Order Completed", cart)
        outcomes += "|cancelled"
    work.expect(message_id, outcomes, at_ms + DELAY_MS)


def _renamed(work: Workload, user: str, cart: str, at_ms: int) -> None:
    """A known person turns out to be another known person."""
    before = f"k{cart}"
    work.identify(work.start_ms, before)
    message_id = work.track(at_ms, before, "Product Added", cart)
    alias_ms = at_ms + work.chance.choice((1, 200, DELAY_MS - 1, DELAY_MS + 50))
    work.event(alias_ms, user, type="alias", previousId=before)
    work.merged |= {user, before}
    work.uniting.add(work.story)
    outcomes = "send"
    if work.chance.random() < 0.5:
        work.track(alias_ms + work.chance.choice((1, 100, 3_000)), before, "Order Completed", cart)
        outcomes += "|cancelled"
    work.expect(message_id, outcomes, at_ms + DELAY_MS)


def _erased(work: Workload, user: str, cart: str, at_ms: int) -> None:
    """Somebody asks to be forgotten while a timer of theirs runs, perhaps just after they were a visitor."""
    person, visitor = f"e{cart}", f"v{cart}"
    work.identify(work.start_ms, person)
    message_id = work.track(at_ms, person, "Product Added", cart)
    if work.chance.random() < 0.5:
        added = work.track(at_ms, None, "Product Added", f"{cart}-v", anonymous=visitor)
        work.identify(at_ms + work.chance.choice((0, 1)), person, anonymous=visitor, orderly=True)
        # Read after the erasure, which a slow partition may be, it is as if it had never been.
        work.expect(added, "erased|no_address|unheard", at_ms + DELAY_MS)
        work.merged.add(person)
        work.forgotten[visitor] = work.story
        work.uniting.add(work.story)
    # A copy that overtakes the trigger would leave nothing of it, not even a line in the log.
    work.event(at_ms + work.chance.choice((1, 500, DELAY_MS - 1)), person, type="delete", orderly=True)
    work.erased[person] = work.forgotten[person] = work.story
    work.expect(message_id, "erased", at_ms + DELAY_MS)


def _idle(work: Workload, user: str, cart: str, at_ms: int) -> None:
    """What is heard of somebody is days old."""
    person = f"i{cart}"
    for later_ms in (0, 5_000):
        work.event(at_ms + later_ms, person, type="page", name="old", timestamp=iso(at_ms - 3 * DAY_MS))
    work.idle[person] = work.story
    work.merged.add(person)


STORIES = (
    _plain, _plain, _at_once, _cancelled, _cancelled, _restarted, _misrouted, _anonymous, _anonymous, _renamed, _erased,
    _idle,
)  # fmt: skip
