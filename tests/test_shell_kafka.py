"""The owner's protocol on a real Kafka and a real Redis: each record once, none lost, and Redis == fold(changelog)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import RequestTimedOutError
from aiokafka.protocol.transaction import EndTxnRequest, TxnOffsetCommitRequest
from confluent_kafka.admin import AdminClient

from decisioning.effects import Outgoing
from features.rows import decode
from streams import changelog, topics
from streams.app import SystemClock
from streams.kafka import Cluster, KafkaLog
from streams.metrics import Metrics
from streams.partition import Partition, Place
from streams.seams import ConflictError, Entry, FencedError, Meta, UnknownOutcomeError
from streams.settings import Settings
from streams.store import RedisStore, Scripts, connect
from tests.services import LocalKafka, LocalRedis
from tests.shell_world import CountingEngine, Crash

PARTITION = 1
PEOPLE = ("ann", "bob", "cem", "dee")


class Dying:
    """Passes calls on, and dies before or after the one with a given number."""

    def __init__(self, inner: Any, deaths: Deaths) -> None:
        self._inner = inner
        self._deaths = deaths

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name in {"changelog", "transactional", "release"} or not callable(value):
            return value

        async def call(*args: Any) -> Any:
            return await self._deaths.around(name, value, *args)

        return call


class Deaths:
    def __init__(self, at: int | None = None, *, after: bool = False) -> None:
        self.at = at
        self.after = after
        self.names: list[str] = []

    async def around(self, name: str, call: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        self.names.append(name)
        dying = len(self.names) - 1 == self.at
        if dying and not self.after:
            raise Crash(name)
        result = await call(*args)
        if dying:
            raise Crash(name)
        return result


class World:
    """One partition on real services."""

    def __init__(self, kafka: str, redis: str, prefix: str) -> None:
        self.settings = Settings(kafka=kafka, redis=redis, topic_prefix=prefix, partitions=4)
        self.group = prefix + "group"
        self.cluster = Cluster(self.settings.kafka_options(), prefix, self.group)
        self.client = connect(redis)
        self.scripts = Scripts(self.client)
        self.logs: list[KafkaLog] = []
        self.added = 0

    async def open(self) -> None:
        await topics.create(self.settings)
        await self.cluster.start()
        self.producer = AIOKafkaProducer(bootstrap_servers=self.settings.brokers)
        await self.producer.start()

    async def close(self) -> None:
        for log in self.logs:
            await log.release()
            if log._closing:
                await asyncio.wait(log._closing)
        await self.producer.stop()
        await self.cluster.stop()
        await self.client.aclose()

    async def add(self, *values: str) -> None:
        """Append records of the people in turn."""
        for value in values:
            person = PEOPLE[self.added % len(PEOPLE)].encode()
            topic = self.cluster.topic("events")
            await self.producer.send_and_wait(topic, value.encode(), key=person, partition=PARTITION)
            self.added += 1

    def owner(self, deaths: Deaths | None = None, cache: int = 2) -> Any:
        log: Any = KafkaLog(self.cluster, PARTITION)
        store: Any = RedisStore(self.scripts, self.group, PARTITION)
        self.logs.append(log)
        if deaths is not None:
            log, store = Dying(log, deaths), Dying(store, deaths)
        return Partition(Place(PARTITION, 4, cache), CountingEngine(), log, store, SystemClock(), Metrics())

    async def read(self, name: str, start: int = 0) -> tuple[list[Any], int]:
        """All committed records of our partition of a topic, and the position after them."""
        topic = self.cluster.topic(name)
        place = TopicPartition(topic, PARTITION)
        end = (await self.cluster.stable_offsets([place]))[place]
        records: list[Any] = []
        async with self.cluster.reading(place, start) as reader:
            while await reader.position(place) < end:
                records += (await reader.getmany(place, timeout_ms=100)).get(place, [])
        return records, end

    async def work(self, owner: Partition) -> None:
        """Handle what there is, three records a step, and fire all timers."""
        for name in ("events", "internal"):
            records, end = await self.read(name, owner.offsets[name])
            for i in range(0, len(records), 3):
                some = records[i : i + 3]
                position = end if i + 3 >= len(records) else some[-1].offset + 1
                lines = {"events": [], "internal": [], name: some}
                await owner.step(lines["events"], lines["internal"], {**owner.offsets, name: position})
        while owner.next_due_ms() is not None:
            await owner.step([], [], owner.offsets, 10**13)

    async def live(self, deaths: Deaths | None = None) -> Any:
        """Start and work until all is handled; START again after every unknown outcome."""
        owner = self.owner(deaths)
        while True:
            try:
                await owner.start()
                await self.work(owner)
            except (UnknownOutcomeError, FencedError):
                continue
            return owner

    async def check(self) -> None:
        """Every record handled once, in order; Redis is the fold of the changelog."""
        decisions = [orjson.loads(record.value) for record in (await self.read("decisions"))[0]]
        events = (await self.read("events"))[0]
        handled = [d["why"] for d in decisions if "/" in d["why"] and not d["why"].startswith("timer")]
        good = [f"{r.topic}/{r.offset}" for r in events if r.value != b"bad"]
        good += [f"{r.topic}/{r.offset}" for r in (await self.read("internal"))[0]]
        assert sorted(handled) == sorted(good)
        numbers: dict[str, list[int]] = {}
        for decision in decisions:
            numbers.setdefault(decision["person"], []).append(decision["count"])
        assert all(counts == list(range(1, len(counts) + 1)) for counts in numbers.values()), numbers
        letters = (await self.read("dead-letters"))[0]
        assert [(r.key, r.value) for r in letters] == [(r.key, r.value) for r in events if r.value == b"bad"]
        await self.check_view({person: len(counts) for person, counts in numbers.items()})

    async def check_view(self, counts: dict[str, int]) -> None:
        entries = [Entry(r.offset, r.key, r.value) for r in (await self.read("changelog"))[0]]
        images = changelog.latest(entries)
        keys = RedisStore(self.scripts, self.group, PARTITION).keys
        rows: Any = await self.client.hgetall(keys[1])
        profiles: Any = await self.client.hgetall(keys[2])
        assert rows == {person.encode(): image.row for person, image in images.items()}
        assert profiles == {person.encode(): image.profile for person, image in images.items() if image.profile}
        assert {p.decode(): int(decode(row)["zone"]) for p, row in rows.items()} == counts


def scenario(kafka: str, redis: str, prefix: str, steps: Callable[[World], Awaitable[None]]) -> None:
    """Run steps on a fresh world, with a deadline."""

    async def run() -> None:
        world = World(kafka, redis, prefix)
        await world.open()
        try:
            await steps(world)
        finally:
            await world.close()

    asyncio.run(asyncio.wait_for(run(), 100))


def test_a_death_between_any_two_steps_of_the_protocol(kafka: str, redis_url: str, topic_prefix: str) -> None:
    """Before and after every operation of START and STEP the owner dies; the next one leaves no trace of it."""

    async def steps(world: World) -> None:
        await world.add("add", "in 500", "forward", "bad")
        await world.live()
        at = 0
        deaths = Deaths()
        reached = True
        while reached:
            for after in (False, True):
                await world.add("add", "in 700", "forward", "add")
                deaths = Deaths(at, after=after)
                try:
                    await world.live(deaths)
                    reached = False
                except Crash:
                    await world.live()
            at += 1
        assert {"acquire", "committed", "append", "offsets", "commit", "apply", "read"} <= set(deaths.names)
        await world.check()

    scenario(kafka, redis_url, topic_prefix, steps)


def test_a_former_owner_is_fenced(kafka: str, redis_url: str, topic_prefix: str) -> None:
    """Two owners of one partition: the old one can neither append, nor commit what it appended, nor write to Redis."""

    async def steps(world: World) -> None:
        await world.add("add", "add", "add")
        former = await world.live()
        await world.add("add", "add", "add")
        log, store = former._log, former._view._store
        await log.begin()
        await log.append([(b"ann", b"never seen")], {})
        owner = world.owner()
        await owner.start()
        with pytest.raises(FencedError):
            await log.offsets({"events": 99, "internal": 0}, "")
            await log.commit()
        await world.work(owner)
        before = former._meta
        late = Meta(before.n + 1, before.d + 2, before.offsets, 4, "", 0)
        with pytest.raises(ConflictError):
            await store.apply(
                before,
                late,
                former._images(former._engine.step(former._state, former._engine.decode([], []), 0, None), {}),
            )
        with pytest.raises((FencedError, UnknownOutcomeError)):
            await former.step([], [], former.offsets, 1)
        await world.check()

    scenario(kafka, redis_url, topic_prefix, steps)


@pytest.mark.parametrize("carried_out", [True, False])
@pytest.mark.parametrize("request_type", [EndTxnRequest, TxnOffsetCommitRequest])
def test_an_unknown_outcome_is_settled_by_starting_again(
    kafka: str, redis_url: str, topic_prefix: str, request_type: type, carried_out: bool
) -> None:
    """A transactional request without an answer ends the producer, and START finds out what became of the step."""

    async def steps(world: World) -> None:
        await world.add("add", "add", "add")
        owner = await world.live()
        await world.add("add", "add", "add")
        producer = owner._log._producer
        send, sent = producer._send_request, []

        async def lose(node: int, request: Any, **options: Any) -> Any:
            if isinstance(request, request_type):
                sent.append(request)
                if carried_out:
                    await send(node, request, **options)
                raise RequestTimedOutError
            return await send(node, request, **options)

        producer._send_request = lose
        with pytest.raises(UnknownOutcomeError):
            await world.work(owner)
        assert len(sent) == 1, "a transactional request was repeated"
        await owner.start()
        expected = 6 if request_type is EndTxnRequest and carried_out else 3
        assert owner.offsets["events"] == expected
        await world.work(owner)
        await world.check()

    scenario(kafka, redis_url, topic_prefix, steps)


def test_expired_offsets_come_from_the_last_marker(kafka: str, redis_url: str, topic_prefix: str) -> None:
    """A group whose offsets are gone goes on where it was, with or without its view."""

    async def steps(world: World) -> None:
        await world.add("add", "in 500", "add", "add")
        owner = await world.live()
        admin = AdminClient({"bootstrap.servers": kafka})
        for deleted in admin.delete_consumer_groups([world.group]).values():
            await asyncio.to_thread(deleted.result)
        assert not (await world.cluster.committed(PARTITION)).offsets
        await world.client.delete(*owner._view._store.keys)
        await world.add("add", "add")
        again = await world.live()
        assert again.step_number > owner.step_number
        await world.check()

    scenario(kafka, redis_url, topic_prefix, steps)


def test_flushall_while_running(kafka: str, redis_server: LocalRedis, topic_prefix: str) -> None:
    """Redis forgets everything between two steps of a running owner; nobody passes for a new person."""

    async def steps(world: World) -> None:
        owner = await world.live()
        for i in range(8):
            await world.add("add", "in 500", "add")
            if i % 3 == 1:
                redis_server.flush()
            await world.work(owner)
        await world.check()

    scenario(kafka, redis_server.url, topic_prefix, steps)


def test_redis_restarts_while_running(kafka: str, redis_server: LocalRedis, topic_prefix: str) -> None:
    """Killed and started again in the middle of a step: the owner waits for it and goes on."""

    async def steps(world: World) -> None:
        owner = await world.live()
        await world.add(*["add"] * 6)
        await world.work(owner)
        await world.add(*["add"] * 6)
        redis_server.kill()
        working = asyncio.create_task(world.work(owner))
        await asyncio.to_thread(redis_server.start)
        await working
        await world.check()

    scenario(kafka, redis_server.url, topic_prefix, steps)


def test_the_broker_restarts_while_running(kafka_server: LocalKafka, redis_url: str, topic_prefix: str) -> None:
    """Killed in the middle of a step: the outcome is unknown, and the next START knows it."""

    async def steps(world: World) -> None:
        owner = await world.live()
        await world.add(*["add"] * 6)
        await owner.start()
        log = owner._log
        await log.begin()
        await log.append([(b"ann", b"never seen")], {})
        kafka_server.kill()
        with pytest.raises(UnknownOutcomeError):
            await log.offsets({"events": 99, "internal": 0}, "")
        await asyncio.to_thread(kafka_server.start)
        while True:
            try:
                await owner.start()
                await world.work(owner)
                break
            except UnknownOutcomeError:
                await asyncio.sleep(0)
        await world.check()

    scenario(kafka_server.bootstrap, redis_url, topic_prefix, steps)


def test_without_transactions_the_changelog_goes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything else is acknowledged before it is sent: its marker says that all of the step is there."""
    sent: list[list[str]] = []

    class Batch:
        offset = 0

        def append(self, **_: Any) -> bool:
            return True

        def close(self) -> None:
            pass

        def record_count(self) -> int:
            return 1

    class Producer:
        create_batch = Batch

        async def partitions_for(self, topic: str) -> set[int]:
            return {0, 1}

    async def send_all(producer: Producer, queues: Any) -> list[list[Batch]]:
        sent.append([place.topic for place, _ in queues])
        return [[Batch()] for _ in queues]

    async def commit(_: Any) -> None:
        """Nobody watches."""

    log = KafkaLog(Cluster({}, "t.", "g"), PARTITION, commit)
    monkeypatch.setattr(log, "_live", Producer)
    monkeypatch.setattr("streams.kafka.send_all", send_all)
    asyncio.run(log.append([(b"ann", b"image")], {"decisions": [Outgoing(b"ann", b"{}")], "decision-log": []}))
    assert sent == [["t.decisions"], ["t.changelog"]]


def test_at_least_once_keeps_its_offsets_in_redis(kafka: str, redis_url: str, topic_prefix: str) -> None:
    """Without transactions: START goes on from Redis; if that is lost, from the changelog's last marker."""

    async def steps(world: World) -> None:
        async def commit(_: Any) -> None:
            """Nobody watches."""

        def owner() -> Any:
            log = KafkaLog(world.cluster, PARTITION, commit)
            world.logs.append(log)
            store = RedisStore(world.scripts, world.group, PARTITION)
            return Partition(Place(PARTITION, 4, 2), CountingEngine(), log, store, SystemClock(), Metrics())

        await world.add("add", "in 500", "forward", "bad")
        first = owner()
        await first.start()
        await world.work(first)
        await world.add("add", "add")
        second = owner()
        await second.start()
        assert second.step_number == first.step_number
        await world.work(second)
        await world.client.delete(*second._view._store.keys)
        third = owner()
        await third.start()
        assert (third.step_number, third.offsets) == (second.step_number, second.offsets)
        await world.work(third)
        await world.check()

    scenario(kafka, redis_url, topic_prefix, steps)


def test_a_large_step_goes_in_several_batches(kafka: str, redis_url: str, topic_prefix: str) -> None:
    """More post-images than one batch of the broker holds are one step all the same."""

    async def steps(world: World) -> None:
        owner = await world.live()
        log = owner._log
        await log.begin()
        records = [(b"p%d" % i, bytes(1000)) for i in range(3000)]
        d = await log.append(records, {})
        await log.offsets({"events": 0, "internal": 0}, "")
        await log.commit()
        await log.acquire()
        entries = [e async for some, _ in log.changelog(0, d) for e in some]
        assert [(e.key, e.value) for e in entries] == records
        assert entries[-1].offset + 1 == d

    scenario(kafka, redis_url, topic_prefix, steps)
