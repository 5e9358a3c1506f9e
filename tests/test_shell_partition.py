"""The owner's protocol on Kafka and Redis in memory: whatever fails wherever, the outcome is that of no failure."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from features.rows import decode
from streams import changelog
from streams.metrics import Metrics
from streams.partition import Partition, Place
from streams.seams import Committed, FencedError, Meta, RefusedError, UnknownOutcomeError
from tests.shell_world import (
    CountingEngine,
    Crash,
    FakeClock,
    FakeLog,
    FakeStore,
    Faults,
    Kafka,
    Redis,
)

PEOPLE = ("ann", "bob", "cem")
STEP = 4


def an_owner(
    kafka: Kafka,
    redis: Redis,
    faults: Faults | None = None,
    *,
    transactional: bool = True,
    cache: int = 2,
    partitions: int = 4,
) -> Partition:
    faults = faults or Faults()
    log, store = FakeLog(kafka, faults, transactional=transactional), FakeStore(redis, faults)
    return Partition(
        Place(0, partitions, cache, replayed_people=1), CountingEngine(), log, store, FakeClock(), Metrics()
    )


async def work(owner: Partition, kafka: Kafka, until: int | None = None) -> None:
    """Handle the inputs from where the owner is, a few records a step, and fire what is due at the end."""
    while True:
        lines = {name: kafka.inputs[name][offset : offset + STEP] for name, offset in owner.offsets.items()}
        if until is not None:
            lines["events"] = [line for line in lines["events"] if line.offset < until]
        if not any(lines.values()):
            break
        offsets = {name: owner.offsets[name] + len(some) for name, some in lines.items()}
        await owner.step(lines["events"], lines["internal"], offsets)
    while until is None and owner.next_due_ms() is not None:
        await owner.step([], [], owner.offsets, 10_000)


async def live(kafka: Kafka, redis: Redis, faults: Faults, *, transactional: bool = True) -> None:
    """One worker after another until everything is handled; a dead one is followed by the next."""
    while True:
        owner = an_owner(kafka, redis, faults, transactional=transactional)
        try:
            while True:
                try:
                    await owner.start()
                    await work(owner, kafka)
                    return
                except (UnknownOutcomeError, FencedError):
                    continue
        except Crash:
            continue


def fill(kafka: Kafka) -> None:
    for i, value in enumerate(
        ("add", "in 500", "add", "forward", "bad", "add", "in 700", "forget", "add", "add", "add")
    ):
        kafka.add("events", PEOPLE[i % 3], value)
    for i in range(3):
        kafka.add("internal", PEOPLE[i], "add")


def counts(kafka: Kafka, topic: str = "decisions") -> dict[str, list[int]]:
    """The counts in each person's decisions, in order of publication."""
    found: dict[str, list[int]] = {}
    for name, record in kafka.published:
        if name == topic:
            decision = orjson.loads(record.value)
            found.setdefault(decision["person"], []).append(decision["count"])
    return found


def whys(kafka: Kafka) -> list[str]:
    return sorted(orjson.loads(r.value)["why"] for name, r in kafka.published if name == "decisions")


def check(kafka: Kafka, redis: Redis) -> None:
    """Each record handled once and in order, and the view is the fold of the changelog."""
    for person, numbers in counts(kafka).items():
        assert numbers == list(range(1, len(numbers) + 1)), f"{person}: a record was lost or handled twice"
    check_fold(kafka, redis)
    for person, numbers in counts(kafka).items():
        assert decode(redis.rows[person])["zone"] == len(numbers)


def check_fold(kafka: Kafka, redis: Redis) -> None:
    """The view is the fold of the changelog."""
    images = changelog.latest(entry for entry in kafka.changelog if entry is not None)
    assert redis.rows == {person: image.row for person, image in images.items()}
    assert redis.profiles == {person: image.profile for person, image in images.items() if image.profile}
    assert redis.due == {person: image.due_ms for person, image in images.items() if image.due_ms is not None}


def undisturbed(*, transactional: bool = True) -> tuple[list[str], list[str]]:
    """What comes out, and the operations on the seams, if nothing fails."""
    kafka, redis, faults = Kafka(), Redis(), Faults()
    fill(kafka)
    asyncio.run(live(kafka, redis, faults, transactional=transactional))
    return whys(kafka), faults.names


EXPECTED, OPERATIONS = undisturbed()


@pytest.mark.parametrize("kind", ["before", "after", "lost", "unanswered", "late"])
@pytest.mark.parametrize("at", range(len(OPERATIONS)))
def test_a_failure_anywhere_changes_nothing(at: int, kind: str) -> None:
    """Every operation failed in every way: each decision once, none lost, view == fold(changelog)."""
    kafka, redis = Kafka(), Redis()
    fill(kafka)
    asyncio.run(live(kafka, redis, Faults(at, kind)))
    check(kafka, redis)
    assert whys(kafka) == EXPECTED


@pytest.mark.parametrize("at", range(0, 60, 3))
def test_two_failures_in_a_row_change_nothing(at: int) -> None:
    """The recovery from a failure may fail too, in any of its operations."""
    for again in range(at + 1, at + 12):
        kafka, redis = Kafka(), Redis()
        fill(kafka)
        asyncio.run(live(kafka, redis, Faults(at, "unanswered", again)))
        check(kafka, redis)
        assert whys(kafka) == EXPECTED


@pytest.mark.parametrize("damage", ["flush", "older", "torn", "ahead", "half replayed"])
@pytest.mark.parametrize("when", range(1, 12, 2))
def test_whatever_redis_forgets_is_rebuilt_while_running(damage: str, when: int) -> None:
    """FLUSHALL, a failover to an older replica, a torn write: the running owner notices and mends it."""

    async def scenario() -> None:
        kafka, redis = Kafka(), Redis()
        fill(kafka)
        owner = an_owner(kafka, redis, cache=1)
        await owner.start()
        await work(owner, kafka, until=max(when - 2, 0))
        earlier = redis.copy()
        await work(owner, kafka, until=when)
        assert redis.meta is not None
        match damage:
            case "flush":
                redis.flush()
            case "older":
                redis.restore(earlier)
            case "torn":
                redis.meta = Meta(redis.meta.n, redis.meta.d, {}, 4, "torn", 0)
                redis.rows.clear()
            case "half replayed":
                redis.flush()
                redis.meta = Meta(-1, 0, {}, 0, "replay", 0)
            case _:
                redis.meta = Meta(redis.meta.n + 5, redis.meta.d + 100, {}, 4, "", 0)
                owner = an_owner(kafka, redis)  # only START may bring a view back
                await owner.start()
        await work(owner, kafka)
        check(kafka, redis)
        assert whys(kafka) == EXPECTED

    asyncio.run(scenario())


@pytest.mark.parametrize("until", range(12))
def test_a_paused_owner_cannot_write(until: int) -> None:
    """The former owner, alive again at any point, is fenced or finds the view moved on; it changes nothing."""

    async def scenario() -> None:
        kafka, redis = Kafka(), Redis()
        fill(kafka)
        zombie = an_owner(kafka, redis, cache=1)
        await zombie.start()
        await work(zombie, kafka, until=until)
        owner = an_owner(kafka, redis)
        await owner.start()
        with pytest.raises(FencedError):
            await work(zombie, kafka)
        await work(owner, kafka)
        with pytest.raises(FencedError):
            await zombie.step([], [], zombie.offsets, 10_000)
        check(kafka, redis)
        assert whys(kafka) == EXPECTED

    asyncio.run(scenario())


def test_a_late_apply_of_a_paused_owner_is_refused() -> None:
    """Paused between commit and APPLY, while others go on and Redis falls back: its old images do not win."""

    async def scenario() -> None:
        kafka, redis = Kafka(), Redis()
        fill(kafka)
        zombie = an_owner(kafka, redis)
        await zombie.start()
        store = zombie._view._store
        applied = store.apply
        late: list[object] = []

        async def pause(*args: object) -> None:
            late.append(args)
            raise Crash

        store.apply = pause  # type: ignore[method-assign, assignment]
        with pytest.raises(Crash):
            await work(zombie, kafka)
        before = redis.copy()
        owner = an_owner(kafka, redis)
        await owner.start()
        await work(owner, kafka)
        redis.restore(before)  # a failover loses everything since
        third = an_owner(kafka, redis)
        await third.start()
        from streams.seams import ConflictError

        with pytest.raises(ConflictError):
            await applied(*late[0])  # type: ignore[misc]
        check(kafka, redis)

    asyncio.run(scenario())


@pytest.mark.parametrize(("people", "writes"), [(1, 6), (3, 4), (2000, 1)])
def test_a_rebuild_writes_so_many_people_at_once(people: int, writes: int) -> None:
    """Whoever comes often in the changelog is written once for so many people, and the view is the same."""

    async def scenario() -> None:
        kafka, redis = Kafka(), Redis()
        fill(kafka)
        await live(kafka, redis, Faults())
        redis.flush()
        faults = Faults()
        log, store = FakeLog(kafka, faults), FakeStore(redis, faults)
        place = Place(0, 4, 2, replayed_people=people)
        await Partition(place, CountingEngine(), log, store, FakeClock(), Metrics()).start()
        check(kafka, redis)
        assert faults.names.count("replay") == writes

    asyncio.run(scenario())


def test_expired_offsets_are_found_in_the_changelog() -> None:
    """After days without a group its offsets are gone; the last marker has them, however far back it is."""

    async def scenario() -> None:
        kafka, redis = Kafka(), Redis()
        fill(kafka)
        owner = an_owner(kafka, redis)
        await owner.start()
        await work(owner, kafka, until=7)
        kafka.offsets = Committed({}, "")
        kafka.changelog += [None] * 9000  # aborted transactions since
        redis.flush()
        owner = an_owner(kafka, redis)
        await owner.start()
        assert dict(owner.offsets) == {"events": 7, "internal": 3}
        await work(owner, kafka)
        check(kafka, redis)
        assert whys(kafka) == EXPECTED

    asyncio.run(scenario())


def test_offsets_reset_by_hand_count_and_the_state_stays() -> None:
    """An operator who moves the group's offsets gets them; the step number goes on from the marker."""

    async def scenario() -> None:
        kafka, redis = Kafka(), Redis()
        fill(kafka)
        owner = an_owner(kafka, redis)
        await owner.start()
        await work(owner, kafka)
        n = owner.step_number
        kafka.offsets = Committed({"events": 5, "internal": 3}, "")
        owner = an_owner(kafka, redis)
        await owner.start()
        assert (dict(owner.offsets), owner.step_number) == ({"events": 5, "internal": 3}, n)

    asyncio.run(scenario())


def test_another_number_of_partitions_is_refused() -> None:
    """People would be looked for in the wrong place; the message has both numbers and a remedy."""

    async def scenario() -> None:
        kafka, redis = Kafka(), Redis()
        fill(kafka)
        owner = an_owner(kafka, redis)
        await owner.start()
        await work(owner, kafka, until=3)
        with pytest.raises(RefusedError, match=r"made with 4 partitions.*now there are 8.*TOPIC_PREFIX"):
            await an_owner(kafka, redis, partitions=8).start()

    asyncio.run(scenario())


def test_a_changelog_that_ends_before_the_last_step_is_refused() -> None:
    """A topic that was deleted and created anew cannot restore anybody, and must not seem to."""

    async def scenario() -> None:
        kafka, redis = Kafka(), Redis()
        fill(kafka)
        owner = an_owner(kafka, redis)
        await owner.start()
        await work(owner, kafka, until=3)
        kafka.changelog.clear()
        redis.flush()
        owner = an_owner(kafka, redis)
        with pytest.raises(UnknownOutcomeError, match="changelog ends at 0"):
            await owner.start()
        with pytest.raises(RefusedError, match="changelog ends at 0"):
            await owner.start()

    asyncio.run(scenario())


def test_a_changelog_whose_end_mark_is_late_is_waited_for() -> None:
    """Who was fenced within START sees another's step committed and not yet its end in the changelog: START again."""

    async def scenario() -> None:
        kafka, redis = Kafka(), Redis()
        fill(kafka)
        owner = an_owner(kafka, redis)
        await owner.start()
        await work(owner, kafka, until=3)
        redis.flush()
        steps, whole = owner.step_number, list(kafka.changelog)
        owner = an_owner(kafka, redis)
        del kafka.changelog[-2:]  # the transaction's end, and the marker of the step
        with pytest.raises(UnknownOutcomeError, match="changelog ends at"):
            await owner.start()
        kafka.changelog[:] = whole
        await owner.start()
        assert owner.step_number == steps

    asyncio.run(scenario())


def test_an_idle_partition_changes_nothing() -> None:
    """START of a partition that is up to date writes nothing to Kafka and nothing to Redis."""

    async def scenario() -> None:
        kafka, redis = Kafka(), Redis()
        fill(kafka)
        await live(kafka, redis, Faults())
        before = len(kafka.changelog), len(kafka.published), redis.copy()
        faults = Faults()
        owner = an_owner(kafka, redis, faults)
        await owner.start()
        assert (len(kafka.changelog), len(kafka.published), redis) == before
        assert faults.names == ["acquire", "committed", "meta", "due"]

    asyncio.run(scenario())
