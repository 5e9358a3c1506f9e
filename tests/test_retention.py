"""Who is not heard of for as long as profiles are kept is forgotten, by a step that looks for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from decisioning import profile as profiles
from decisioning.partitioner import partition_of
from decisioning.profile import Profile
from features.codec import encode_many
from features.rows import ERASED
from streams.seams import UnavailableError
from streams.sweep import Sweep
from tests.play import at, identify, ms, track
from tests.shell_world import FakeClock
from tests.test_engine_laws import NOW_MS, Cluster
from tests.test_erasure import delete

DAY_MS = 86_400_000
KEEP_MS = 400 * DAY_MS
LATER_MS = NOW_MS + KEEP_MS


def expire(cluster: Cluster, people: Sequence[str], now_ms: int = LATER_MS) -> None:
    """A step of every partition that is given all these people, whoever they are."""
    for partition, (memory, state) in enumerate(zip(cluster.memories, cluster.states, strict=True)):
        batch = cluster.engine.decode([])
        batch.expired = [person for person in people if partition_of(person, len(cluster.memories)) == partition]
        while missing := cluster.engine.reads(state, batch):
            memory.rows.add_new(sorted(missing))
        effects = cluster.engine.step(state, batch, now_ms)
        memory.apply(effects)
        cluster.internal.extend((record.partition or 0, record.value) for record in effects.internal)
    cluster.settle()


def lived(*events: dict[str, Any], partitions: int = 1) -> Cluster:
    """People to whom something happened."""
    cluster = Cluster(partitions)
    for event in events:
        who = event.get("userId") or event["anonymousId"]
        cluster.step(partition_of(who, partitions), [orjson.dumps(event)])
        cluster.settle()
    return cluster


VIEW = track("09:00", "v", "Product Viewed")


@pytest.mark.parametrize("partitions", [1, 3, 5])
def test_an_idle_person_is_forgotten_under_all_ids(partitions: int) -> None:
    """Nothing is left: no profile, an empty row, and no forwarding address in any partition."""
    devices = [f"d{number}" for number in range(4)]
    merges = [identify(f"09:{number:02d}", f"i{number}", anonymousId=one) for number, one in enumerate(devices, 10)]
    cluster = lived(VIEW, *merges, partitions=partitions)
    expire(cluster, ["u1", *devices])
    for memory in cluster.memories:
        assert memory.profiles == {}
        here = [person for person in ("u1", *devices) if person in memory.rows]
        assert not memory.rows.gather(here).view("u1").any()


@pytest.mark.parametrize(
    "event",
    [
        track("+1d 09:00", "v2", "Product Viewed"),
        identify("+1d 09:00", "i"),
        identify("+1d 09:00", "i", traits={"consent": {"email": True}}),
        track("+1d 09:00", "s", "Unsubscribed"),
        track("+1d 09:00", "o", "Email Opened"),
        track("+1d 09:00", "p", "Product Viewed", context={"timezone": "Europe/Berlin"}),
        track("09:30", "t", "Product Added"),
    ],
)
def test_whoever_was_heard_of_since_or_waits_for_something_is_not(event: dict[str, Any]) -> None:
    """Any kind of event tells, and a pending timer holds; the shell's proposal is only a proposal."""
    cluster = lived(VIEW, event)
    before = dict(cluster.memories[0].profiles), cluster.memories[0].rows.gather(["u1"]).tobytes()
    expire(cluster, ["u1"], ms("+1d 08:59") + KEEP_MS - 60_000)
    assert (dict(cluster.memories[0].profiles), cluster.memories[0].rows.gather(["u1"]).tobytes()) == before


def test_who_was_never_heard_of_is_left_alone() -> None:
    """Somebody unknown, and an id of which only a name is known."""
    cluster = lived({"type": "identify", "messageId": "i", "userId": "u2", "timestamp": at("09:00"), "traits": {}})
    before = cluster.memories[0].rows.gather(["u2"]).tobytes()
    expire(cluster, ["u1", "u2"])
    assert cluster.memories[0].profiles == {}
    assert cluster.memories[0].rows.gather(["u2"]).tobytes() == before


def test_the_mark_of_an_erasure_stays() -> None:
    """Somebody who was erased, came back and fell silent is still known to have been erased, and when."""
    cluster = lived(VIEW, delete("09:10"), identify("+1d 10:04", "i"))
    expire(cluster, ["u1"], LATER_MS + DAY_MS)
    memory = cluster.memories[0]
    assert profiles.decode(memory.profiles["u1"]) == Profile(erased_ms=NOW_MS)
    assert memory.rows.gather(["u1"])["flags"].tolist() == [ERASED]


class Shelf:
    """A view that is a dictionary."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        memory = cluster.memories[number]
        people = [person for person in PEOPLE if person in memory.rows]
        rows = encode_many(memory.rows.gather(people))
        self.rows = [(person.encode(), row) for person, row in zip(people, rows, strict=True)]
        self.profiles = {person.encode(): data for person, data in memory.profiles.items()}
        self.away = False

    async def some_rows(self, cursor: int, _most: int) -> tuple[int, dict[bytes, bytes]]:
        if self.away:
            raise UnavailableError("away")
        after = cursor + 2
        return (0 if after >= len(self.rows) else after), dict(self.rows[cursor:after])

    async def their_profiles(self, people: Sequence[bytes]) -> list[bytes | None]:
        return [self.profiles.get(person) for person in people]


PEOPLE = [f"u{number}" for number in range(12)]


def test_the_sweep_proposes_exactly_those_whom_the_step_forgets() -> None:
    """Partition after partition, some people at a time, again and again; a Redis that is away is asked later."""
    old = [track("09:00", f"v{one}", "Product Viewed", user=one) for one in PEOPLE[::2]]
    new = [identify("+1d 09:00", f"i{one}", one) for one in PEOPLE[1::2]]
    pending = track("09:00", "t", "Product Added", user="u0")
    cluster = lived(*old, *new, pending, partitions=3)
    shelves = [Shelf(cluster, number) for number in range(3)]
    proposed: list[str] = []
    owners: Any = {number: SimpleNamespace(ready=number != 1, expire=proposed.extend) for number in range(3)}
    clock = FakeClock()
    clock.ms = ms("+1d 08:00") + KEEP_MS
    sweep = Sweep(lambda: owners, lambda number: shelves[number], clock, KEEP_MS)  # type: ignore[arg-type,return-value]

    async def turns(count: int) -> list[str]:
        proposed.clear()
        for _ in range(count):
            await sweep.turn()
        return sorted(set(proposed))

    expected = sorted(one for one in PEOPLE[2::2] if partition_of(one, 3) != 1)
    assert expected
    assert asyncio.run(turns(20)) == expected
    assert asyncio.run(turns(20)) == expected
    shelves[0].away = shelves[2].away = True
    assert asyncio.run(turns(5)) == []
    owners.clear()
    assert asyncio.run(turns(1)) == []
