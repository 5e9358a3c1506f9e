"""The view's rules, on the fake that other tests use and on a real Redis: both must have the same."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from streams.seams import NOTHING, Changes, ConflictError, Meta, Store, UnavailableError
from streams.store import RedisStore, Scripts, connect
from tests.services import LocalRedis
from tests.shell_world import FakeStore, Faults, Redis

OFFSETS = {"events": 7, "internal": 0}
START = Meta(0, 10, OFFSETS, 4, "", 1000)
NEXT = Meta(1, 15, OFFSETS, 4, "", 2000)
CHANGES = Changes(
    people=["ann", "bób"],
    rows=[b"row a", b"row b\x00\xff"],
    profiles={"ann": b"profile a", "bób": b""},
    due={"ann": 1_795_502_048_573, "bób": None},
)

Scenario = Callable[[Store], Awaitable[None]]


@pytest.fixture(params=["fake", "redis"])
def run(request: pytest.FixtureRequest) -> Callable[[Scenario], None]:
    """Run a scenario on an empty view of either kind."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None

    def runner(scenario: Scenario) -> None:
        async def on_redis() -> None:
            assert url is not None
            client = connect(url)
            try:
                await scenario(RedisStore(Scripts(client), uuid.uuid4().hex, 3))
            finally:
                await client.aclose()

        async def on_fake() -> None:
            await scenario(FakeStore(Redis(), Faults()))

        asyncio.run(on_redis() if url else on_fake())

    return runner


async def sealed(store: Store, meta: Meta = START) -> None:
    await store.wipe(await store.meta(), meta.d)
    await store.seal(meta.d, meta)


async def refused(request: Awaitable[Any], found: int) -> None:
    with pytest.raises(ConflictError) as caught:
        await request
    assert caught.value.found == found


def test_a_step_is_applied_once_and_read_back(run: Callable[[Scenario], None]) -> None:
    """APPLY writes all of a step; repeating it is no error and changes nothing."""

    async def scenario(store: Store) -> None:
        await sealed(store)
        await store.apply(START, NEXT, CHANGES)
        assert await store.meta() == NEXT
        rows, profiles = await store.read(1, ["bób", "cem", "ann"])
        assert (rows, profiles) == ([b"row b\x00\xff", None, b"row a"], [None, None, b"profile a"])
        assert await store.due(1) == {"ann": 1_795_502_048_573}
        await store.apply(START, NEXT, Changes(["ann"], [b"other"], {}, {}))
        assert (await store.read(1, ["ann"]))[0] == [b"row a"]

    run(scenario)


def test_profiles_and_timers_go_when_told_to(run: Callable[[Scenario], None]) -> None:
    """An empty profile and a timer of None remove what was there."""

    async def scenario(store: Store) -> None:
        await sealed(store)
        await store.apply(START, NEXT, CHANGES)
        third = replace(NEXT, n=2, d=20)
        await store.apply(NEXT, third, Changes(["ann"], [b"row"], {"ann": b""}, {"ann": None}))
        assert await store.read(2, ["ann"]) == ([b"row"], [None])
        assert await store.due(2) == {}

    run(scenario)


def test_nothing_is_read_from_or_written_to_another_step(run: Callable[[Scenario], None]) -> None:
    """READ, DUE and APPLY say where the view is instead."""

    async def scenario(store: Store) -> None:
        await refused(store.read(0, ["ann"]), NOTHING)
        await refused(store.due(0), NOTHING)
        await refused(store.apply(START, NEXT, CHANGES), NOTHING)
        await sealed(store, NEXT)
        await refused(store.read(0, ["ann"]), 1)
        await refused(store.read(2, ["ann"]), 1)
        await refused(store.due(0), 1)
        await refused(store.apply(START, replace(NEXT, d=16), CHANGES), 1)
        await refused(store.apply(replace(NEXT, d=14), replace(NEXT, n=2, d=20), CHANGES), 1)
        assert await store.meta() == NEXT
        assert await store.read(1, ["ann"]) == ([None], [None])

    run(scenario)


def test_a_view_being_rebuilt_is_nobodys(run: Callable[[Scenario], None]) -> None:
    """From wipe to seal nothing can be read or applied; chunks go in only one after the other."""

    async def scenario(store: Store) -> None:
        await sealed(store, NEXT)
        await store.wipe(NEXT, 0)
        await refused(store.read(1, ["ann"]), NOTHING)
        await refused(store.apply(NEXT, replace(NEXT, n=2, d=20), CHANGES), NOTHING)
        await store.replay(0, 5, CHANGES, 3000)
        await refused(store.replay(0, 5, CHANGES, 3000), NOTHING)
        await refused(store.seal(0, NEXT), NOTHING)
        meta = await store.meta()
        assert meta is not None
        assert (meta.n, meta.d, meta.state, meta.at_ms) == (NOTHING, 5, "replay", 3000)
        await store.replay(5, 15, Changes(["ann"], [b"later"], {"ann": b"p"}, {"ann": 5}), 3000)
        await store.seal(15, NEXT)
        assert await store.read(1, ["ann", "bób"]) == ([b"later", b"row b\x00\xff"], [b"p", None])
        assert await store.due(1) == {"ann": 5}

    run(scenario)


def test_a_wipe_is_of_what_was_seen(run: Callable[[Scenario], None]) -> None:
    """Whoever is late with a wipe does not undo what others have done since."""

    async def scenario(store: Store) -> None:
        await sealed(store)
        await store.apply(START, NEXT, CHANGES)
        await refused(store.wipe(START, 0), 1)
        await refused(store.wipe(None, 0), 1)
        await store.wipe(NEXT, 0)
        await refused(store.wipe(NEXT, 0), NOTHING)

    run(scenario)


def test_a_step_of_many_people(run: Callable[[Scenario], None]) -> None:
    """More people and timers than Lua hands to a command at once, or a page of timers holds."""

    async def scenario(store: Store) -> None:
        people = [f"p{i}" for i in range(12_345)]
        await sealed(store)
        changes = Changes(
            people,
            [person.encode() for person in people],
            dict.fromkeys(people, b"profile"),
            {person: i for i, person in enumerate(people)},
        )
        await store.apply(START, NEXT, changes)
        rows, profiles = await store.read(1, people)
        assert rows == changes.rows
        assert profiles == [b"profile"] * len(people)
        assert await store.due(1) == changes.due

    run(scenario)


def test_a_redis_that_is_away_is_unavailable_and_comes_back(redis_server: LocalRedis) -> None:
    """No retries inside: the owner hears of it at once, and the same object works again afterwards."""

    async def scenario() -> None:
        client = connect(redis_server.url)
        store = RedisStore(Scripts(client), "g", 0)
        await sealed(store)
        redis_server.stop()
        for request in (store.meta, lambda: store.read(0, ["ann"]), lambda: store.apply(START, NEXT, CHANGES)):
            with pytest.raises(UnavailableError):
                await request()
        redis_server.start()
        assert await store.meta() == START
        await store.apply(START, NEXT, CHANGES)
        await client.aclose()

    asyncio.run(scenario())


def test_a_full_redis_is_unavailable_and_stays_whole(redis_server: LocalRedis) -> None:
    """With noeviction a write that does not fit is refused before any of it is made."""

    async def scenario() -> None:
        client = connect(redis_server.url)
        store = RedisStore(Scripts(client), "g", 0)
        await sealed(store)
        await client.config_set("maxmemory", "1mb")
        with pytest.raises(UnavailableError):
            await store.apply(START, NEXT, CHANGES)
        await client.config_set("maxmemory", "0")
        assert await store.meta() == START
        await client.aclose()

    asyncio.run(scenario())


def test_a_torn_write_is_known_as_such(redis_url: str) -> None:
    """A script that fails in the middle leaves a view that says so and serves nobody."""

    async def scenario() -> None:
        client = connect(redis_url)
        scripts = Scripts(client)
        store = RedisStore(scripts, uuid.uuid4().hex, 0)
        await sealed(store)
        await client.set(store.keys[2], "no hash")
        with pytest.raises(Exception, match="WRONGTYPE"):
            await store.apply(START, NEXT, CHANGES)
        meta = await store.meta()
        assert meta is not None
        assert meta.state == "torn"
        await refused(store.read(0, ["ann"]), NOTHING)
        await store.wipe(meta, 0)
        await store.seal(0, replace(START, d=0))
        await client.aclose()

    asyncio.run(scenario())


def test_all_rows_are_passed_by_once_beside_the_protocol(redis_url: str) -> None:
    """From cursor 0 back to 0 everybody is seen, with their profiles on request; the view is where it was."""

    async def go() -> None:
        client = connect(redis_url)
        store = RedisStore(Scripts(client), uuid.uuid4().hex, 0)
        try:
            await sealed(store)
            people = [f"u{number}" for number in range(3000)]
            rows = [b"row of " + person.encode() for person in people]
            await store.apply(START, NEXT, Changes(people, rows, {"u7": b"profile"}, {}))
            seen: dict[bytes, bytes] = {}
            cursor, turns = 0, 0
            while turns == 0 or cursor:
                cursor, some = await store.some_rows(cursor, 500)
                seen |= some
                turns += 1
            assert seen == {person.encode(): row for person, row in zip(people, rows, strict=True)}
            assert turns > 3
            assert await store.their_profiles([b"u7", b"u8"]) == [b"profile", None]
            assert await store.their_profiles([]) == []
            assert await store.meta() == NEXT
        finally:
            await client.aclose()

    asyncio.run(go())
