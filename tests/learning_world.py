"""`examples`, `models` and `model-history` in memory as learners see them, with failures at any point."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from decisioning.effects import Outgoing
from decisioning.learners import Learners
from decisioning.learning import learner_of
from decisioning.localtime import iso
from decisioning.plan import plans_of
from streams.learner import POSITION_KEY, Learning
from streams.metrics import Metrics
from streams.seams import FencedError, UnknownOutcomeError
from tests.play import config
from tests.shell_world import FakeClock, Faults, Line

PLANS = plans_of(config())
POLICIES = ("cart/subject", "cart/channel")
ARMS = ("plain", "offer", "push")
FETCH = 7
START_MS = 1_800_000_000_000


def example(number: int, policy: str, arm: str, reward: float = 0.0, *, late: bool = False, **more: Any) -> bytes:
    """A record of `examples`; a late one corrects."""
    record = {
        "schema": 1,
        "decision_id": f"d{number}",
        "policy": policy,
        "arm": arm,
        "propensity": 0.5,
        "context": {"view_7d": float(number % 5), "fatigue": 0.1 * (number % 7)},
        "reward": reward,
        "correction": late,
        "at": iso(START_MS + 1000 * number),
    }
    if late:
        record |= {"delta": reward, "sent_at": record["at"]}
    return orjson.dumps(record | more)


def history(count: int, seed: int) -> list[bytes]:
    """Sends and their outcomes in any order, with records between them that nobody can learn from."""
    chance = random.Random(seed)
    records = []
    for number in range(count):
        policy, arm = chance.choice(POLICIES), chance.choice(ARMS)
        match chance.randrange(8):
            case 0:
                records.append(chance.choice([b"", b"no json", example(number, "gone/subject", arm), b"[]" * 9]))
            case 1 | 2:
                records.append(example(number, policy, arm, chance.random(), late=True))
            case _:
                records.append(example(number, policy, arm))
    return records


def folded(records: Sequence[bytes]) -> Learners:
    """What a learner knows that was never interrupted."""
    learner = learner_of(PLANS)
    for offset, record in enumerate(records):
        learner.take(record, offset)
    return learner


class Topics:
    """What the broker holds, and who may write to it."""

    def __init__(self, records: Sequence[bytes]) -> None:
        self.examples = [Line("examples", 0, offset, b"", value) for offset, value in enumerate(records)]
        self.models: dict[str, bytes] = {}
        self.kept: list[tuple[str, bytes]] = []
        self.epoch = 0
        self.open: tuple[int, list[tuple[str, Outgoing]]] | None = None


class FakeLearnerLog:
    """See `seams.LearnerLog`."""

    def __init__(self, topics: Topics, faults: Faults, *, transactional: bool = True) -> None:
        self._topics = topics
        self._faults = faults
        self._transactional = transactional
        self._epoch = 0

    async def _do(self, name: str, operation: Any) -> Any:
        return await self._faults.around(name, operation, UnknownOutcomeError)

    async def acquire(self) -> None:
        def take() -> int:
            self._topics.open = None
            self._topics.epoch += 1
            return self._topics.epoch

        self._epoch = -1
        self._epoch = await self._do("acquire", take)

    async def bounds(self) -> tuple[int, int]:
        end: int = await self._do("bounds", lambda: len(self._topics.examples))
        return 0, end

    async def models(self) -> Mapping[str, bytes]:
        found: dict[str, bytes] = await self._do("models", lambda: dict(self._topics.models))
        return found

    async def history(self, model: str) -> Sequence[bytes]:
        return [value for key, value in self._topics.kept if key.rpartition("@")[0] == model]

    async def begin(self) -> None:
        def opened() -> None:
            self._topics.open = self._epoch, []

        if self._transactional:
            await self._do("begin", partial(self._live, opened))

    async def append(self, topic: str, records: Sequence[Outgoing]) -> None:
        def added() -> None:
            for record in records:
                if not self._transactional:
                    self._write(topic, record)
                elif self._topics.open is not None:
                    self._topics.open[1].append((topic, record))

        await self._do("append", partial(self._live, added))

    async def commit(self) -> None:
        def committed() -> None:
            opened, self._topics.open = self._topics.open, None
            for topic, record in opened[1] if opened is not None else ():
                self._write(topic, record)

        if self._transactional:
            await self._do("commit", partial(self._live, committed))

    async def release(self) -> None:
        self._epoch = -1

    def _live(self, operation: Any) -> None:
        if self._transactional and self._epoch != self._topics.epoch:
            raise FencedError(f"epoch {self._epoch}, current is {self._topics.epoch}")
        operation()

    def _write(self, topic: str, record: Outgoing) -> None:
        key = (record.key or b"").decode()
        if topic == "models":
            self._topics.models[key] = record.value
        else:
            self._topics.kept.append((key, record.value))


class School:
    """Learners of one group, one after the other or at the same time."""

    def __init__(self, topics: Topics, *, transactional: bool = True) -> None:
        self.topics = topics
        self.clock = FakeClock()
        self.transactional = transactional
        self.metrics = Metrics()

    def learning(self, faults: Faults | None = None) -> Learning:
        """One more."""
        log = FakeLearnerLog(self.topics, faults or Faults(), transactional=self.transactional)
        return Learning(log, lambda: learner_of(PLANS), self.clock, self.metrics)

    async def read(self, learning: Learning, most: int = FETCH) -> bool:
        """Let it learn from one fetch and publish if it may; whether there was anything to do."""
        start = learning.position
        lines = self.topics.examples[start : start + most]
        if lines:
            learning.fold(lines, start + len(lines))
        self.clock.ms += 700
        if learning.wait_s() == 0.0:
            await learning.publish()
        return bool(lines) or learning.wait_s() is not None

    async def live(self, faults: Faults | None = None) -> Learning:
        """Learn everything; START again after every unknown outcome."""
        learning = self.learning(faults)
        while True:
            try:
                await learning.start()
                while await self.read(learning):
                    pass
            except (UnknownOutcomeError, FencedError):
                continue
            return learning

    def snapshots(self) -> dict[str, bytes]:
        """The models that are published."""
        return {name: value for name, value in self.topics.models.items() if name != POSITION_KEY.decode()}
