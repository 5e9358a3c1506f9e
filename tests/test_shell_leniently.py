"""The owner's protocol without transactions: decisions may come again, and whatever fails, nothing is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from features.rows import decode
from streams.metrics import Metrics
from streams.partition import Partition, Place
from streams.seams import FencedError, Meta
from tests.shell_world import CountingEngine, FakeClock, FakeLog, FakeStore, Faults, Kafka, Redis
from tests.test_shell_partition import EXPECTED, PEOPLE, an_owner, check_fold, fill, live, undisturbed, whys, work

_, OPERATIONS = undisturbed(transactional=False)


@pytest.mark.parametrize("kind", ["before", "after", "unanswered"])
@pytest.mark.parametrize("at", range(len(OPERATIONS)))
def test_at_least_once_loses_nothing(at: int, kind: str) -> None:
    """A failure may repeat decisions; every record's is there, and the view is whole."""
    kafka, redis = Kafka(), Redis()
    fill(kafka)
    asyncio.run(live(kafka, redis, Faults(at, kind), transactional=False))
    check_fold(kafka, redis)
    assert set(whys(kafka)) >= set(EXPECTED)
    assert redis.meta is not None
    assert dict(redis.meta.offsets) == {"events": 11, "internal": 3}


def test_two_owners_make_one_history() -> None:
    """Of two that take a step of the same number, the second starts again from where the first is: it builds on it."""

    async def scenario() -> None:
        kafka, redis = Kafka(), Redis()
        fill(kafka)
        lines = kafka.inputs["events"]
        one = an_owner(kafka, redis, transactional=False)

        class Overtaken(FakeLog):
            async def append(self, *args: Any) -> int:
                if one.step_number == 0:
                    await one.step(lines[:4], [], {"events": 4, "internal": 0})
                return await super().append(*args)

        log = Overtaken(kafka, Faults(), transactional=False)
        other = Partition(Place(0, 4, 2), CountingEngine(), log, FakeStore(redis, Faults()), FakeClock(), Metrics())
        await one.start()
        await other.start()
        with pytest.raises(FencedError):
            await other.step(lines[:2], [], {"events": 2, "internal": 0})
        await other.start()
        assert dict(other.offsets) == {"events": 4, "internal": 0}
        check_fold(kafka, redis)

    asyncio.run(scenario())


def test_a_rebuild_goes_to_the_end_of_the_changelog() -> None:
    """Redis falls back a step and then forgets all, in the middle of START: nobody is lost to compaction."""

    class Forgetful(FakeStore):
        async def meta(self) -> Meta | None:
            seen = await super().meta()
            self.redis.flush()
            return seen

    async def scenario() -> None:
        kafka, redis = Kafka(), Redis()
        fill(kafka)
        lines = kafka.inputs["events"]
        first = an_owner(kafka, redis, transactional=False)
        await first.start()
        await first.step(lines[:3], [], {"events": 3, "internal": 0})
        earlier = redis.copy()
        await first.step(lines[3:8], [], {"events": 8, "internal": 0})
        redis.restore(earlier)
        kafka.changelog[:4] = [None] * 4  # compacted: the second step has newer images of the same three people
        store = Forgetful(redis, Faults())
        log = FakeLog(kafka, Faults(), transactional=False)
        second = Partition(Place(0, 4, 2), CountingEngine(), log, store, FakeClock(), Metrics())
        with pytest.raises(FencedError, match="cannot be replayed up to"):
            await second.start()
        third = an_owner(kafka, redis, transactional=False)
        await third.start()
        assert dict(third.offsets) == {"events": 8, "internal": 0}
        assert set(redis.rows) == set(PEOPLE)

    asyncio.run(scenario())


@pytest.mark.parametrize("after", range(1, 5))
@pytest.mark.parametrize("back", range(5))
def test_a_view_that_fell_back_leaves_one_history(back: int, after: int) -> None:
    """Redis falls back and forgets all some steps later: what is rebuilt is all of one history, not some of either."""

    async def scenario() -> None:
        kafka, redis = Kafka(), Redis()
        fill(kafka)
        lines = kafka.inputs["events"]
        owner = an_owner(kafka, redis, transactional=False)
        await owner.start()
        copies = [redis.copy()]
        for line in lines[:8]:
            await owner.step([line], [], {"events": line.offset + 1, "internal": 0})
            copies.append(redis.copy())
        redis.restore(copies[back])
        owner = an_owner(kafka, redis, transactional=False)
        await owner.start()
        for line in lines[back : back + after]:
            await owner.step([line], [], {"events": line.offset + 1, "internal": 0})
        whole = redis.copy()
        redis.flush()
        owner = an_owner(kafka, redis, transactional=False)
        await owner.start()
        assert dict(owner.offsets) == {"events": back + after, "internal": 0}
        known = {person: row for person, row in redis.rows.items() if decode(row)["zone"]}
        assert (known, redis.profiles, redis.due) == (whole.rows, whole.profiles, whole.due)

    asyncio.run(scenario())


def test_what_another_has_appended_is_no_step() -> None:
    """Records of somebody else between two steps are noticed before APPLY, and START leaves one history."""

    async def scenario() -> None:
        kafka, redis = Kafka(), Redis()
        fill(kafka)
        lines = kafka.inputs["events"]
        one = an_owner(kafka, redis, transactional=False)
        await one.start()
        await one.step(lines[:1], [], {"events": 1, "internal": 0})
        other = an_owner(kafka, redis, transactional=False)
        await other.start()
        other._view.apply = None  # type: ignore[method-assign, assignment]  # it dies before that
        with pytest.raises(TypeError):
            await other.step(lines[1:4], [], {"events": 4, "internal": 0})
        with pytest.raises(FencedError, match="somebody else"):
            await one.step(lines[1:2], [], {"events": 2, "internal": 0})
        await one.start()
        assert dict(one.offsets) == {"events": 1, "internal": 0}
        await work(one, kafka)
        check_fold(kafka, redis)
        assert {person: decode(row)["zone"] for person, row in redis.rows.items()} == {"ann": 6, "bob": 4, "cem": 4}

    asyncio.run(scenario())
