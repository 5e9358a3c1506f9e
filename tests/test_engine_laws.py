"""Laws of the step: batches do not matter, partitions do not matter, nothing given to it changes, nothing stops it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decisioning.backtest import Memory
from decisioning.effects import Effects, State
from decisioning.engine import Engine
from decisioning.partitioner import partition_of
from tests.play import START, config, track

NOW_MS = int(START.timestamp() * 1000) + 86_400_000
PEOPLE = ["u1", "u2", "u3", "anon1", "anon2"]
SETUP = config(
    quiet_hours={"from": "21:00", "to": "08:00"},
    caps=[{"name": "daily", "channel": "any", "max": 2, "per": "24h"}],
    propensity={},
    campaign={
        "trigger": {"per": "properties.cart_id", "restart_on": ["Cart Viewed"], "max_wait": "2h"},
        "goal": {"event": "Order Completed", "within": "72h", "value": "properties.revenue"},
        "variants": {"subject": [{"id": "a", "text": "Hello"}, {"id": "b", "text": "Hi {{ user.first_name }}"}]},
    },
)


@dataclass(frozen=True)
class Line:
    """A record of `events` or `internal`."""

    value: bytes | None
    timestamp: int = NOW_MS
    topic: str = "events"
    partition: int = 0
    offset: int = 0
    key: bytes | None = None


class Cluster:
    """Partitions of one group in memory: each with its own state, messages delivered in order."""

    def __init__(self, partitions: int) -> None:
        self.engine = Engine(SETUP)
        self.memories = [Memory() for _ in range(partitions)]
        self.states = [State(p, partitions, m.rows, m.profiles, m.stock) for p, m in enumerate(self.memories)]
        self.internal: deque[tuple[int, bytes]] = deque()
        self.log: list[dict[str, Any]] = []
        self.examples: list[dict[str, Any]] = []

    def step(
        self, partition: int, events: list[bytes], internal: Sequence[bytes] = (), *, fire: bool = False
    ) -> Effects:
        """One micro-batch of one partition."""
        held, state = self.memories[partition], self.states[partition]
        batch = self.engine.decode([Line(e) for e in events], [Line(m, topic="internal") for m in internal])
        if fire:
            batch.due, batch.fire_until_ms = held.due(NOW_MS), NOW_MS
        while missing := self.engine.reads(state, batch):
            held.rows.add_new(sorted(missing))
        effects = self.engine.step(state, batch, NOW_MS)
        held.apply(effects)
        self.internal.extend((record.partition or 0, record.value) for record in effects.internal)
        self.log += [orjson.loads(record.value) for record in effects.log]
        self.examples += [orjson.loads(record.value) for record in effects.examples]
        return effects

    def settle(self) -> None:
        """Deliver every message, also those that deliveries cause."""
        delivered = 0
        while self.internal:
            partition, value = self.internal.popleft()
            self.step(partition, [], [value])
            delivered += 1
            assert delivered < 10_000, "messages go round for ever"

    def fire(self) -> None:
        """Let everything that is due be decided."""
        for partition in range(len(self.memories)):
            self.step(partition, [], fire=True)

    def decided(self) -> list[tuple[str, str, str, tuple[str, ...], str]]:
        """What was decided, in an order that does not depend on partitions."""
        return sorted(
            (e["decision_id"], e["user_id"], e["action"], tuple(e["reasons"]), orjson.dumps(e["variants"]).decode())
            for e in self.log
        )


def who(event: dict[str, Any]) -> str:
    """Key of an event."""
    return str(event.get("userId") or event["anonymousId"])


def _clock(minute: int) -> str:
    return f"{8 + minute // 60}:{minute % 60:02d}"


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Events of a few people who may turn out to be the same, in any order of event time, some of them sent again.

    A message is sent again under the id it had: of two ids of one person using the same message id within a batch,
    either may count.
    """
    events: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 25))):
        clock, user = _clock(draw(st.integers(0, 600))), draw(st.sampled_from(PEOPLE))
        message_id = f"{user}-{draw(st.integers(0, 9)) if draw(st.booleans()) else 100 + number}"
        kind = draw(st.sampled_from(["track"] * 6 + ["identify", "alias", "merge"]))
        if kind == "track":
            name = draw(
                st.sampled_from(["Product Added", "Product Viewed", "Cart Viewed", "Order Completed", "Unsubscribed"])
            )
            cart = draw(st.sampled_from([{}, {"cart_id": "c1"}, {"cart_id": "c2"}]))
            event = track(clock, message_id, name, user, properties={**cart, "revenue": 5, "price": 20})
            if user.startswith("anon") and draw(st.booleans()):
                event["anonymousId"] = event.pop("userId")
            events.append(event)
        else:
            event = {**track(clock, message_id, user=user), "type": "identify"}
            event["traits"] = {"email": f"{user}@example.com", "first_name": user}
            if kind == "merge":
                event["anonymousId"] = draw(st.sampled_from(["anon1", "anon2"]))
            if kind == "alias":
                event |= {"type": "alias", "previousId": draw(st.sampled_from(PEOPLE))}
            events.append(event)
    return events


def _one_by_one(events: list[dict[str, Any]], partitions: int) -> Cluster:
    cluster = Cluster(partitions)
    for event in events:
        cluster.step(partition_of(who(event), partitions), [orjson.dumps(event)])
        cluster.settle()
    cluster.fire()
    return cluster


def _close(a: Memory, b: Memory) -> bool:
    """Rows are the same but for rounding; a merged id's messages may enter the ring in another order."""
    people = sorted(a.rows._slots)
    assert people == sorted(b.rows._slots)
    if not people:
        return True
    left, right = a.rows.gather(people), b.rows.gather(people)
    same = all((left[name] == right[name]).all() for name in ("count", "flags", "zone"))
    same = same and bool((np.sort(left["ring"]) == np.sort(right["ring"])).all())
    return same and bool((abs(left["values"] - right["values"]) <= 1e-4 * (1 + abs(left["values"]))).all())


@given(histories(), st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_batch_boundaries_do_not_matter(events: list[dict[str, Any]], data: st.DataObject) -> None:
    """Cut anywhere, the same events give the same decisions, profiles and rows."""
    values = [orjson.dumps(event) for event in events]
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(values) - 1)), max_size=5)))
    whole, parts = Cluster(1), Cluster(1)
    whole.step(0, values)
    for start, end in zip([0, *cuts], [*cuts, len(values)], strict=True):
        parts.step(0, values[start:end])
    whole.fire()
    parts.fire()
    assert whole.decided() == parts.decided()
    assert whole.memories[0].profiles.keys() == parts.memories[0].profiles.keys()
    assert _close(whole.memories[0], parts.memories[0])


@given(histories())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_partitions_do_not_matter(events: list[dict[str, Any]]) -> None:
    """With everything delivered between events, five partitions decide as one does."""
    assert _one_by_one(events, 1).decided() == _one_by_one(events, 5).decided()


@given(histories())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_record_on_the_wrong_partition_is_forwarded_once(events: list[dict[str, Any]]) -> None:
    """Keyed anywhere, every event counts exactly once for its person."""
    astray = Cluster(5)
    for event in events:
        astray.step((partition_of(who(event), 5) + 1) % 5, [orjson.dumps(event)])
        astray.settle()
    astray.fire()
    assert astray.decided() == _one_by_one(events, 5).decided()


@given(histories())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_step_changes_nothing_it_was_given_and_repeats_itself(events: list[dict[str, Any]]) -> None:
    """The same state, batch and time give the same bytes; the state stays as it was."""
    held = Cluster(1)
    half = len(events) // 2
    held.step(0, [orjson.dumps(event) for event in events[:half]])
    engine, state = held.engine, held.states[0]

    def effects() -> tuple[Any, ...]:
        batch = engine.decode([Line(orjson.dumps(event)) for event in events[half:]])
        batch.fire_until_ms, batch.due = NOW_MS, sorted(held.memories[0].profiles)
        while missing := engine.reads(state, batch):
            held.memories[0].rows.add_new(sorted(missing))
        out = engine.step(state, batch, NOW_MS)
        return out.people, out.rows.tobytes(), out.profiles, out.due, out.decisions, out.log, out.examples

    profiles = dict(held.memories[0].profiles)
    assert effects() == effects()
    assert profiles == held.memories[0].profiles


def test_aliases_in_a_circle_at_two_homes_end_in_one_place() -> None:
    """`a` is b and b is a, said at two partitions before either heard of the other: nothing goes round for ever."""
    cluster = Cluster(5)
    people = next(
        (f"x{i}", f"x{j}") for i in range(20) for j in range(20) if partition_of(f"x{i}", 5) != partition_of(f"x{j}", 5)
    )
    a, b = people
    for person in people:
        cluster.step(partition_of(person, 5), [orjson.dumps(track("09:00", f"t-{person}", user=person))])
    for old, new in ((a, b), (b, a)):
        event = {**track("09:10", f"alias-{old}", user=new), "type": "alias", "previousId": old}
        cluster.step(partition_of(new, 5), [orjson.dumps(event)])
    cluster.settle()
    for person in people:
        cluster.step(
            partition_of(person, 5), [orjson.dumps(track("09:20", f"later-{person}", "Order Completed", person))]
        )
    cluster.settle()
    cluster.fire()
    assert [entry["reasons"] for entry in cluster.log] == [["cancelled"]]


@pytest.mark.parametrize(
    "value",
    [None, b"", b"null", b"{}", b'{"kind":"absorb","id":"1","person":"u","at_ms":1,"row":"?","profile":"?"}', b"\xff"],
)
def test_a_damaged_message_is_a_dead_letter(value: bytes | None) -> None:
    """What no partition could have written stops nobody."""
    cluster = Cluster(1)
    batch = cluster.engine.decode([], [Line(value, topic="internal")])
    while missing := cluster.engine.reads(cluster.states[0], batch):
        cluster.memories[0].rows.add_new(sorted(missing))
    effects = cluster.engine.step(cluster.states[0], batch, NOW_MS)
    assert [letter.reason for letter in effects.dead_letters] == ["bad_message"]
