"""What must hold whatever bytes arrive: one function for each reader, called with anything.

A target returns or its input is a finding. Typed refusals (`CorruptRow`, `ConfigError`, a dead letter, …) are answers;
any other exception is not, and neither is a verdict that depends on the neighbours in the batch.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from decisioning import check, config, events, messages
from decisioning import profile as profiles
from decisioning.backtest import Memory
from decisioning.config import Config
from decisioning.effects import Effects, State
from decisioning.engine import Engine
from decisioning.events import Event
from decisioning.findings import ConfigError
from decisioning.messages import Message
from features import codec, rows
from streams import changelog
from streams.dead_letters import publishable
from streams.seams import Entry
from tests.play import START, identify, track
from tests.play import config as configured

NOW_MS: Final = int(START.timestamp() * 1000) + 86_400_000
IMAGE_LIMIT_BYTES: Final = 1_000_000  # a broker takes records up to 1 MiB by default
MAX_RECORDS: Final = 40
TIME: Final = re.compile(rb"@-?[0-9]{1,18}")
MAX_DELIVERED: Final = 400  # messages between partitions that so few records can cause

# The fast reading fills these and nobody asks for them; the strict one leaves them alone.
UNUSED: Final = {"channel", "version", "name", "category", "group_id", "project_id", "integrations", "metadata"}
USED: Final = [name for name in Event.__struct_fields__ if name not in UNUSED]
ALIASES: Final = {"Added To Cart": "Product Added"}


@dataclass(frozen=True)
class Line:
    """A record of `events` or `internal`."""

    value: bytes | None
    timestamp: int = NOW_MS
    topic: str = "events"
    partition: int = 0
    offset: int = 0
    key: bytes | None = None


NEIGHBOUR: Final = Line(orjson.dumps(track("10:00", "neighbour", properties={"price": 2.5}, context={"a": {"b": 1}})))


@functools.cache
def usual() -> Config:
    """A configuration with every clause that looks into events."""
    return configured(
        quiet_hours={"from": "21:00", "to": "08:00"},
        caps=[{"name": "daily", "channel": "any", "max": 2, "per": "24h"}],
        rules=[{"name": "minors", "when": "user.traits.age < 18"}],
        event_aliases=ALIASES,
        campaign={
            "when": "event.properties.price >= 1",
            "trigger": {
                "where": "event.properties.price > 0",
                "per": "properties.cart_id",
                "restart_on": ["Cart Viewed"],
                "max_wait": "2h",
            },
            "requires_stock": "properties.product_id",
            "goal": {"event": "Order Completed", "within": "72h", "value": "properties.revenue"},
            "variants": {
                "subject": [
                    {"id": "a", "text": "Hello {{ event.properties.name }}"},
                    {"id": "b", "text": "Hi {{ user.first_name }}", "when": "user.orders_total == 0"},
                ]
            },
        },
    )


@functools.cache
def usual_engine() -> Engine:
    """One for all inputs: it holds nothing of them."""
    return Engine(usual())


class World:
    """Two partitions in memory; every step is checked as it is taken."""

    def __init__(self, engine: Engine, partitions: int = 2) -> None:
        self.engine = engine
        self.memories = [Memory() for _ in range(partitions)]
        self.states = [State(p, partitions, m.rows, m.profiles, m.stock) for p, m in enumerate(self.memories)]
        self.waiting: deque[tuple[int, bytes]] = deque()

    def step(self, partition: int, lines: Sequence[Line], internal: Sequence[Line] = (), *, fire: bool = False) -> None:
        """One micro-batch, and what must be true of its effects."""
        held, state = self.memories[partition], self.states[partition]
        batch = self.engine.decode(lines, internal)
        kept = len(batch.events) + len(batch.messages) + len(batch.stock)
        assert kept + len(batch.rejected) == len(lines) + len(internal), "a record was lost or counted twice"
        if fire:
            batch.due, batch.fire_until_ms = held.due(NOW_MS), NOW_MS
        while missing := self.engine.reads(state, batch):
            held.rows.add_new(sorted(missing))
        effects = self.engine.step(state, batch, NOW_MS)
        assert list(effects.dead_letters) == batch.rejected
        self._check(effects)
        held.apply(effects)
        self.waiting.extend((record.partition or 0, record.value) for record in effects.internal)

    def settle(self) -> None:
        """Deliver what partitions tell each other, until nobody has anything to say."""
        for _ in range(MAX_DELIVERED):
            if not self.waiting:
                return
            partition, value = self.waiting.popleft()
            assert messages.decode(value) is not None, "a partition wrote what no partition reads"
            self.step(partition, [], [Line(value, topic="internal", partition=partition)])
        raise AssertionError("messages go round for ever")

    def fire(self) -> None:
        """Let everything that is due be decided."""
        for partition in range(len(self.memories)):
            self.step(partition, [], fire=True)

    def _check(self, effects: Effects) -> None:
        """All of it can be published, and read again."""
        encoded = rows.encode_many(effects.rows)
        rows.decode_many(encoded)
        packed = [effects.profiles.get(person, b"") for person in effects.people]
        due = [effects.due.get(person) for person in effects.people]
        for key, value in changelog.encode_images(effects.people, encoded, packed, due):
            assert len(key) + len(value) < IMAGE_LIMIT_BYTES, f"a post-image of {len(value)} bytes"
            assert profiles.encode(profiles.decode(changelog.decode_image(value).profile)) is not None
        for record in (*effects.decisions, *effects.log, *effects.examples, *effects.catalog):
            orjson.loads(record.value)
        for record in effects.internal:
            assert len(record.value) < IMAGE_LIMIT_BYTES, f"a message of {len(record.value)} bytes"
        for letter in effects.dead_letters:
            publishable(letter)


def decode_events(data: bytes) -> None:
    """`events.decode` gives each record one verdict, alone and among others; `body` gives what was accepted."""
    lines = [Line(part) for part in data.split(b"\n")[:MAX_RECORDS]]
    together = events.decode([NEIGHBOUR, *lines, NEIGHBOUR, NEIGHBOUR, NEIGHBOUR], ALIASES)
    assert len(together.events) == len(together.records)
    verdicts: dict[int, Event | str] = {id(line): e for line, e in zip(together.records, together.events, strict=True)}
    verdicts |= {id(letter.record): letter.reason for letter in together.rejected}
    assert len(together.events) + len(together.rejected) == len(lines) + 4
    for line in lines:
        alone = events.decode([line], ALIASES)
        assert len(alone.events) + len(alone.rejected) == 1
        verdict = verdicts[id(line)]
        if alone.rejected:
            assert verdict == alone.rejected[0].reason
            continue
        assert isinstance(verdict, Event), f"alone accepted, among others {verdict}"
        assert _used(verdict) == _used(alone.events[0])
        document = events.body(line, ALIASES)
        assert document["type"] == verdict.type
        orjson.dumps(document)
    events.arrival_ms(data)


def _used(event: Event) -> list[Any]:
    return [getattr(event, name) for name in USED]


def decode_messages(data: bytes) -> None:
    """`messages.decode` gives a message or None, and a step takes whatever it gives."""
    if messages.decode(data) is not None:
        _live(World(usual_engine()), [], [data])


def decode_profile(data: bytes) -> None:
    """`profile.decode` refuses or gives a person that every later step can live with."""
    try:
        profile = profiles.decode(data)
    except profiles.CorruptProfile:
        return
    packed = profiles.encode(profile)
    assert profiles.encode(profiles.decode(packed)) == packed
    _absorb(packed, _EMPTY_ROW)


def decode_rows(data: bytes) -> None:
    """`codec.decode_many` refuses a batch if it refuses one of it; what it accepts is encoded to the same bytes."""
    cut = data.find(b"\n" * 4)
    parts = [data] if cut < 0 else [data[:cut], data[cut + 4 :]]
    good = []
    for part in parts:
        with contextlib.suppress(codec.CorruptRow):
            codec.decode(part)
            good.append(part)
    try:
        many = codec.decode_many(parts)
    except codec.CorruptRow:
        assert len(good) < len(parts)
    else:
        assert good == parts
        assert codec.encode_many(many) == parts
    for part in good:
        _absorb(b"", part)


_EMPTY_ROW = codec.encode_many(np.zeros(1, rows.ROW))[0]
HISTORY = [
    orjson.dumps(event)
    for event in (
        identify("08:00", "h1", "u1"),
        track("09:00", "h2", "Product Added", "u1", properties={"cart_id": "c1", "price": 20}),
        track("09:10", "h3", "Email Opened", "u1", properties={"decision_id": "d1"}),
        track("09:20", "h4", "Order Completed", "u1", properties={"cart_id": "c1", "revenue": 5}),
        track("09:30", "h5", "Product Added", "u1", properties={"cart_id": "c2", "price": 20}),
        {**identify("09:40", "h6", "u1"), "anonymousId": "anon1"},
        {**track("09:50", "h7", user="u1"), "type": "alias", "previousId": "u2"},
    )
]


def _absorb(profile: bytes, row: bytes) -> None:
    """Hand a person over, twice, to one who lives on."""
    taken = [
        Message("absorb", f"a{n}", "u1", NOW_MS, source="x", row=messages.pack(row), profile=messages.pack(profile))
        for n in range(2)
    ]
    _live(World(usual_engine()), HISTORY, [orjson.dumps(_plain(message)) for message in taken])


def _plain(message: Message) -> dict[str, Any]:
    return {name: getattr(message, name) for name in message.__struct_fields__}


def _live(world: World, lines: Iterable[bytes], internal: Iterable[bytes]) -> None:
    internal = list(internal)
    for partition in range(2):
        world.step(partition, [], [Line(value, topic="internal", partition=partition) for value in internal])
        world.settle()
    for partition, line in itertools.product(range(2), lines):
        world.step(partition, [Line(line)])
        world.settle()
    world.fire()
    world.settle()


def decode_changelog(data: bytes) -> None:
    """The changelog's readers raise `CorruptError` or, for offsets that somebody else committed, give None."""
    with contextlib.suppress(changelog.CorruptError):
        marker = changelog.decode_marker(data)
        assert changelog.decode_marker(changelog.encode_marker(marker)) == marker
    for text in (data.decode(errors="replace"), data.decode(errors="surrogateescape")):
        position = changelog.decode_position(text)
        assert position is None or changelog.decode_position(changelog.encode_position(position)) == position
    with contextlib.suppress(changelog.CorruptError):
        image = changelog.decode_image(data)
        again = changelog.encode_images(["u"], [image.row], [image.profile], [image.due_ms])
        assert again[0][1] == data
    key, _, value = data.partition(b"\n")
    with contextlib.suppress(changelog.CorruptError):
        changelog.latest([Entry(0, key, value)])


def read_config(data: bytes) -> None:
    """`config.load` gives a usable configuration or one `ConfigError` that holds what `check` finds."""
    findings = check.check(data)
    assert all(str(finding) for finding in findings)
    try:
        loaded = config.load(data)
    except ConfigError:
        assert not check.is_usable(findings), "refused without an error"
        return
    assert check.is_usable(findings), "taken in spite of an error"
    assert loaded.version_hash == config.load(data).version_hash
    _live(World(Engine(loaded)), HISTORY, [])


def take_steps(data: bytes) -> None:
    r"""Whole batches through the engine: a line is an event, or with `>` in front a message between partitions.

    `@<milliseconds>` is the time of the records that follow, `|` ends a batch, `!` ends it and fires all that is due.
    """
    world = World(usual_engine())
    lines: list[Line] = []
    internal: list[Line] = []
    timestamp = NOW_MS
    turns = itertools.cycle(range(2))
    for part in [*data.split(b"\n")[:MAX_RECORDS], b"!"]:
        if TIME.fullmatch(part):
            timestamp = int(part[1:])
        elif part in {b"|", b"!"}:
            world.step(next(turns), lines, internal, fire=part == b"!")
            world.settle()
            lines, internal = [], []
        elif part.startswith(b">"):
            internal.append(Line(part[1:], timestamp, "internal"))
        else:
            lines.append(Line(part or None, timestamp))
    world.fire()
    world.settle()


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "events": decode_events,
    "messages": decode_messages,
    "profile": decode_profile,
    "rows": decode_rows,
    "changelog": decode_changelog,
    "config": read_config,
    "engine": take_steps,
}
