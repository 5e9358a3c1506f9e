"""The learner's protocol on a real broker: killed at every request, fenced by the next one, always the same bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from decisioning.learning import learner_of
from streams import topics
from streams.app import SystemClock
from streams.cli import main
from streams.kafka import Cluster
from streams.learner import POSITION_KEY, Learning
from streams.metrics import Metrics
from streams.seams import FencedError, UnknownOutcomeError
from streams.settings import Settings
from streams.snapshots import EXAMPLES, SnapshotLog, kept_versions, latest_of
from tests.learning_world import PLANS, example, folded, history
from tests.shell_world import Crash
from tests.test_shell_kafka import Deaths, Dying
from tests.test_shell_worker import CONFIG

PIECE = 25


class World:
    """The topics of one test, and those who learn from them."""

    def __init__(self, kafka: str, prefix: str) -> None:
        self.settings = Settings(kafka=kafka, topic_prefix=prefix)
        self.cluster = Cluster(self.settings.kafka_options(), prefix, f"{prefix}group")
        self.logs: list[SnapshotLog] = []
        self.records: list[bytes] = []

    async def open(self) -> None:
        await topics.create(self.settings)
        await self.cluster.start()
        self.producer = AIOKafkaProducer(bootstrap_servers=self.settings.brokers)
        await self.producer.start()

    async def close(self) -> None:
        for log in self.logs:
            await log.close()
        await self.producer.stop()
        await self.cluster.stop()

    async def add(self) -> None:
        """Some more examples."""
        for value in history(PIECE, seed=len(self.records)):
            await self.producer.send(self.settings.topic(EXAMPLES), value, b"policy", 0)
            self.records.append(value)
        await self.producer.flush()

    def learning(self, deaths: Deaths | None = None) -> Learning:
        log: Any = SnapshotLog(self.cluster, transactional=True)
        self.logs.append(log)
        return Learning(Dying(log, deaths) if deaths else log, lambda: learner_of(PLANS), SystemClock(), Metrics())

    async def live(self, deaths: Deaths | None = None) -> Learning:
        """Learn all there is, and publish it."""
        learning = self.learning(deaths)
        while True:
            try:
                await learning.start()
                await self.read(learning)
                if learning.wait_s() is not None:
                    await learning.publish()
            except (UnknownOutcomeError, FencedError):
                continue
            return learning

    async def read(self, learning: Learning) -> None:
        place = TopicPartition(self.settings.topic(EXAMPLES), 0)
        end = (await self.cluster.stable_offsets([place]))[place]
        async for records, position in self.cluster.records(place, learning.position, end):
            learning.fold(records, position)

    async def check(self) -> None:
        """Latest and kept snapshots are those of an undisturbed fold; no version was published twice."""
        latest = {key: one.value for key, one in (await latest_of(self.cluster)).items()}
        del latest[POSITION_KEY.decode()]
        assert latest == folded(self.records).snapshots()
        for model in latest:
            kept = [one async for one in kept_versions(self.cluster, model)]
            assert len({one.version for one in kept}) == len(kept)
            for one in kept:
                assert one.value == folded(self.records[: one.version]).snapshots()[model]


def scenario(kafka: str, prefix: str, steps: Callable[[World], Awaitable[None]]) -> None:
    """Run steps on a fresh world, with a deadline."""

    async def run() -> None:
        world = World(kafka, prefix)
        await world.open()
        try:
            await steps(world)
        finally:
            await world.close()

    asyncio.run(asyncio.wait_for(run(), 100))


def test_a_death_at_any_request(kafka: str, topic_prefix: str) -> None:
    """Before and after each request of START and LEARN the learner dies; the next one leaves no trace of it."""

    async def steps(world: World) -> None:
        at, deaths, reached = 0, Deaths(), True
        while reached:
            for after in (False, True):
                await world.add()
                deaths = Deaths(at, after=after)
                try:
                    await world.live(deaths)
                    reached = False
                except Crash:
                    await world.live()
            at += 1
        assert deaths.names == ["acquire", "models", "bounds", "begin", "append", "append", "commit"]
        await world.check()

    scenario(kafka, topic_prefix, steps)


def test_a_former_learner_is_fenced(kafka: str, topic_prefix: str) -> None:
    """Taken for dead in the middle of publishing, it can neither append nor commit; what it appended is not seen."""

    async def steps(world: World) -> None:
        await world.add()
        former = world.learning()
        await former.start()
        await world.read(former)
        log = world.logs[-1]
        await log.begin()
        await log.append("models", [])
        await world.live()
        with pytest.raises((FencedError, UnknownOutcomeError)):
            await former.publish()
        await world.add()
        await world.live()
        await world.check()

    scenario(kafka, topic_prefix, steps)


def logged_decision(number: int, arm: str) -> bytes:
    """What is read of a record of `decision-log`."""
    arms = {"subject": {"plain": 0.5, "offer": 0.5}}
    record = {"decision_id": f"d{number}", "campaign": "cart", "action": "send", "variants": {"subject": arm}}
    return json.dumps(record | {"arms": arms}, separators=(",", ":")).encode()


def test_only_what_the_log_shows_to_be_better_is_promoted(
    kafka: str, topic_prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By decisions after a version: one that learned what is bought is promoted, one that knew nothing is not."""
    versions: list[int] = []

    async def steps(world: World) -> None:
        async def send(topic: str, value: bytes) -> None:
            await world.producer.send(world.settings.topic(topic), value, b"cart", 0)

        for round_number in range(3):
            for number in range(200 * round_number, 200 * round_number + (600 if round_number == 2 else 200)):
                arm = ("plain", "offer")[number % 2]
                await send(EXAMPLES, example(number, "cart/subject", arm))
                await send("decision-log", logged_decision(number, arm))
                if round_number and arm == "offer":
                    await send(EXAMPLES, example(number, "cart/subject", arm, 1.0, late=True))
            await world.producer.flush()
            if round_number < 2:
                await world.live()
        versions.extend([one.version async for one in kept_versions(world.cluster, "cart/subject")])

    scenario(kafka, topic_prefix, steps)
    ignorant, learned = versions
    (tmp_path / "campaigns.yaml").write_text(CONFIG.replace("uniform", "thompson, explore: 0.1"))

    def promote(*words: str) -> tuple[int, str]:
        where = ("--kafka", kafka, "--topic-prefix", topic_prefix)
        with pytest.raises(SystemExit) as ended:
            main(["models", "promote", "cart/subject", *words, *where])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    config = ("--config", str(tmp_path / "campaigns.yaml"))
    code, words = promote(str(ignorant), *config)
    assert (code, "is not promoted" in words, words.count("\n")) == (1, True, 1)
    code, words = promote(str(learned), *config)
    assert code == 0, words
    assert words.startswith(f"cart/subject: version {learned}; ")
    assert "+0.45" in words
    assert promote(str(ignorant), "--force")[0] == 2
    assert promote(str(ignorant), "--force", "--reason", "a test")[0] == 0
