"""A whole deployment in one thread and no time: workers, Kafka, Redis and people, all moved by one seed.

The engine, the partition's protocol and its owner are the real ones. Everything else is here or in the files beside:
a loop whose clock jumps to the next thing that happens, a network that loses, delays and repeats, processes that die
or stand still between any two awaits, and a group that deals the partitions out again and again. The same seed gives
the same run, to the last decision.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import partial
from hashlib import blake2b
from typing import Any

from decisioning import broadcast
from decisioning.effects import Switch
from decisioning.engine import Engine
from streams.owner import STEP_RECORDS
from streams.seams import INPUTS, Committed, ConflictError, Entry, FencedError, UnknownOutcomeError
from tests.shell_world import Redis
from tests.simulated_kafka import Cluster
from tests.simulated_loop import Jumping
from tests.simulated_work import SETUP, SPREAD_MS, make
from tests.simulated_worker import Worker

START_MS = 1_800_000_000_000
FAULTS_END_S = SPREAD_MS / 1e3 + 12
LONGEST_FREEZE_S = 15.0
LONGEST_DEAF_S = 6.0
SILENT_S = 20.0  # after that nothing of a dead process can still arrive
SKIPPED_S = 100.0  # by then all that somebody's hand left is done
MOST_S = 240.0  # by then all is settled, or never
ENGINE = Engine(SETUP)
WORKERS = 3
AT_LEAST_ONCE = 8  # every so many seeds are without transactions


@dataclass
class Weather:
    """Which faults a seed has, and how often: a rate of 0 leaves the others alone with each other."""

    lost: float = 0.0  # of a thousand requests
    unanswered: float = 0.0
    late: float = 0.0
    doubled: float = 0.0
    died: float = 0.0
    froze: float = 0.0
    kill: float = 0.0  # times in a run
    freeze: float = 0.0
    rebalance: float = 0.0
    flush: float = 0.0
    failover: float = 0.0
    torn: float = 0.0
    expire: float = 0.0
    compact: float = 0.0
    deaf: float = 0.0  # of twenty who ought to hear of a rebalance

    @classmethod
    def of(cls, chance: random.Random) -> Weather:
        """The weather of a seed."""
        return cls(**{one.name: chance.choice((0, 0, 1, 3, 10)) for one in fields(cls)})

    def clear(self, names: Iterable[str]) -> None:
        """Have none of these faults."""
        self.__dict__.update(dict.fromkeys(names, 0))


# Without transactions nobody is fenced, so the changelog has the steps of two owners at once: no rebuild from that is
# right. So a seed without transactions has the ones or the others; see docs/limits.md.
ALONE = (
    ("late", "doubled", "died", "froze", "kill", "freeze", "rebalance", "deaf"),
    ("flush", "failover", "torn"),
)


class World:
    """Everything there is, for one seed.

    Attributes
    ----------
    troubles
        What must not have happened and did.
    """

    def __init__(self, seed: int, loop: Jumping) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.loop = loop
        self.partitions = self.chance.choice((2, 3))
        self.weather = Weather.of(self.chance)
        self.transactional = seed % AT_LEAST_ONCE != AT_LEAST_ONCE - 1
        if not self.transactional:
            kept = self.chance.choice(ALONE)
            self.weather.clear(name for names in ALONE if names is not kept for name in names)
            if kept is ALONE[0]:
                self.weather.rebalance = self.weather.deaf = 10  # else there seldom are two
            else:
                self.weather.flush, self.weather.failover, self.weather.compact = 3, 10, 10
        self.engine = ENGINE
        self.kafka = Cluster(self.partitions, self.chance, self._later)
        self.kafka.transactional = self.transactional
        self.kafka.slow_marks_s = self.chance.choice((0.0, 0.0, 0.1, 2.0))
        self.redis = [Redis() for _ in range(self.partitions)]
        self.workers: list[Worker] = []
        self.troubles: list[str] = []
        self._trace: list[tuple[object, ...]] = []
        self.faulty = True
        self.step_records = self.chance.choice((1, 2, 5, STEP_RECORDS))
        self.operator = self.chance.choice(("", "", "", "", "", "", "back", "forward")) if self.transactional else ""
        self.faults_s: list[float] = []  # when anything failed
        self.down = False  # the whole group, while somebody moves its offsets
        self.work = make(self.partitions, self.chance, START_MS)
        self.damaged: list[tuple[str, int, int]] = []
        rates = [(fate, getattr(self.weather, fate)) for fate in ("lost", "unanswered", "late", "doubled")]
        self._fates = [(fate, rate) for fate, rate in rates if rate]
        self._slow_s = self.chance.choice((0.0, 0.1, 1.0))
        self._queue_s = self.chance.choice((0.0, 0.3, 3.0))
        self._replica = [redis.copy() for redis in self.redis]
        self.lost = [0] * self.partitions  # how often Redis lost something of a partition
        self._generation = 0
        self._names = 0

    def now_ms(self) -> int:
        return START_MS + round(self.loop.time() * 1000)

    def latency_s(self) -> float:
        """How long something takes on the network."""
        usual_s = 0.0005 + self.chance.random() * 0.004
        return usual_s + (self.chance.random() * self._slow_s if self.chance.random() < 0.1 else 0.0)

    def queue_s(self) -> float:
        """How long records lie in a worker's queue between consumer and owner."""
        return self.latency_s() + (self.chance.random() * self._queue_s if self.chance.random() < 0.2 else 0.0)

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        self.loop.call_later(delay_s, call)

    def note(self, *what: object) -> None:
        """Add to the record of the run."""
        self._trace.append((self.loop.now_s, *what))

    def digest(self) -> str:
        """Of all that was noted."""
        return blake2b(repr(self._trace).encode(), digest_size=8).hexdigest()

    # The network

    async def call(
        self,
        worker: Worker,
        name: str,
        operation: Callable[[], Any],
        unknown: type[Exception],
        *,
        certain: bool = False,
    ) -> Any:
        """Send a request and await the reply, or what the network makes of it."""
        await worker.alive()
        self._strike(worker)
        await worker.alive()
        reply: asyncio.Future[Any] = self.loop.create_future()
        fate = "" if certain else self._fate(name)
        self.note(worker.name, name, fate)
        arrivals_s = [] if fate == "lost" else [self.latency_s()]
        if fate == "late":
            arrivals_s = [self.chance.random() * 12]
        elif fate == "doubled":
            arrivals_s.append(self.chance.random() * 12)
        for delay_s in arrivals_s:
            self.loop.call_later(delay_s, partial(self._arrive, worker, operation, None if fate else reply))
        if fate:
            self.faults_s.append(self.loop.now_s)
            error = unknown(f"{name}: {fate}")
            worker.later(self.chance.choice((0.002, 0.1, 8.0)), partial(_answer, reply, error))
        result = await reply
        self._strike(worker)
        await worker.alive()
        if isinstance(result, Exception):
            raise result
        return result

    def _arrive(self, worker: Worker, operation: Callable[[], Any], reply: asyncio.Future[Any] | None) -> None:
        try:
            result = operation()
        except (ConflictError, FencedError, UnknownOutcomeError) as error:
            result = error
        if reply is not None:
            worker.later(self.latency_s(), partial(_answer, reply, result))

    def _fate(self, name: str) -> str:
        if not self.faulty:
            return ""
        for fate, rate in self._fates:
            if self.chance.random() * 1000 < rate and not (fate == "doubled" and name == "append"):
                return fate
        return ""

    def _strike(self, worker: Worker) -> None:
        """The process may die or stand still at any await."""
        if not self.faulty:
            return
        if self.weather.died and self.chance.random() * 1000 < self.weather.died / 2:
            self.kill(worker)
        elif self.weather.froze and self.chance.random() * 1000 < self.weather.froze / 2:
            self.freeze(worker)

    # Processes

    def kill(self, worker: Worker) -> None:
        if worker.dead:
            return
        self.note("kill", worker.name)
        self.faults_s.append(self.loop.now_s)
        worker.kill()
        self.loop.call_later(self.chance.uniform(0.01, 6), self.rebalance)  # a session timeout at most
        self.loop.call_later(self.chance.uniform(0.1, 3), self.join)

    def freeze(self, worker: Worker) -> None:
        seconds = self.chance.choice((0.05, 1.0, LONGEST_FREEZE_S)) * self.chance.random()
        self.note("freeze", worker.name, seconds)
        self.faults_s.append(self.loop.now_s)
        worker.frozen_until_s = max(worker.frozen_until_s, self.loop.time() + seconds)
        if seconds > 1:
            self.loop.call_later(min(6.0, seconds / 2), self.rebalance)

    def join(self) -> None:
        if self.down:
            return
        self._names += 1
        behind_ms = self.chance.choice((0, 0, 3, 1500))
        self.workers = [worker for worker in self.workers if not worker.dead]
        self.workers.append(Worker(self, f"w{self._names}", behind_ms))
        self.rebalance()

    def rebalance(self) -> None:
        """Deal the partitions out among whoever the group believes to be there."""
        self.faults_s.append(self.loop.now_s)
        self._generation += 1
        now_s = self.loop.time()
        living = [worker for worker in self.workers if not worker.dead]
        awake = [worker for worker in living if worker.frozen_until_s <= now_s] or living
        dealt: dict[str, list[int]] = {worker.name: [] for worker in living}
        for number in range(self.partitions):
            if awake:
                dealt[self.chance.choice(awake).name].append(number)
        for worker in living:
            first_s, then_s = self.latency_s() * 10, self.latency_s() * 20
            if self.faulty and self.chance.random() * 20 < self.weather.deaf:
                first_s += self.chance.random() * LONGEST_DEAF_S
            worker.later(first_s, partial(worker.revoked, self._generation))
            worker.later(first_s + then_s, partial(worker.assigned, self._generation, dealt[worker.name]))

    def unforeseen(self, worker: Worker, error: BaseException) -> None:
        self.troubles.append(f"{worker.name} ended: {type(error).__name__}: {error}")
        self.kill(worker)

    # What happens to Redis and Kafka

    def flush(self) -> None:
        for redis in self.redis:
            redis.flush()
        self._lost(range(self.partitions))

    def failover(self) -> None:
        for redis, earlier in zip(self.redis, self._replica, strict=True):
            redis.restore(earlier)
        self._lost(range(self.partitions))

    def _lost(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.lost[number] += 1

    def replicate(self) -> None:
        self._replica = [redis.copy() for redis in self.redis]

    def torn(self) -> None:
        number = self.chance.randrange(self.partitions)
        self._lost([number])
        redis = self.redis[number]
        if redis.meta is not None:
            redis.meta = replace(redis.meta, state="torn")
            redis.rows, redis.due = {}, {}

    def expire(self) -> None:
        number = self.chance.randrange(self.partitions)
        kept = self.kafka.visible[number].offsets
        some = {name: offset for name, offset in kept.items() if self.chance.random() < 0.3}
        self.kafka.visible[number] = Committed(some, "")

    def sweep(self) -> None:
        """Propose everybody to whoever is the owner: only those who have been idle may be forgotten."""
        for worker in self.workers:
            for number, owner in worker.owners.items():
                if owner.ready and not worker.dead:
                    owner.expire(sorted(self.redis[number].rows))

    def compact(self) -> None:
        for journal in self.kafka.changelog:
            journal.compact()

    # Somebody pauses a campaign

    def switch(self, paused: bool) -> None:
        self.note("pause" if paused else "resume")
        record = broadcast.switch_record("cart", Switch(paused=paused, at=str(self.now_ms())))
        control = self.kafka.control
        control.append(Entry(len(control), record.key or b"", record.value))
        for worker in self.workers:
            worker.later(self.latency_s(), worker.read_control)

    # Somebody moves the group's offsets

    def stop_all(self) -> None:
        self.down = True
        for worker in self.workers:
            self.kill(worker)
        self.loop.call_later(SILENT_S, self.move_offsets)

    def move_offsets(self) -> None:
        for number in range(self.partitions):
            now = self.kafka.position(number)
            if self.operator == "forward":
                end = self.kafka.inputs["events", number].stable()
                goal = {"events": self.chance.randint(now["events"], end)}
            else:
                goal = {name: self.chance.randint(0, now[name]) for name in self.chance.choice((INPUTS, ("events",)))}
            self.note("move", number, goal)
            self.kafka.move(number, goal)
        self.down = False
        self.join()

    def _schedule(self) -> None:
        if self.operator:
            self.weather.expire = 0  # else it would depend on the moment whose offsets count
            self.loop.call_later(self.chance.uniform(5, FAULTS_END_S - SILENT_S), self._do, "stop", self.stop_all)
        deeds: dict[str, Callable[[], None]] = {
            name: getattr(self, name) for name in ("flush", "failover", "torn", "expire", "compact", "rebalance")
        }
        deeds["kill"] = lambda: self.kill(self.chance.choice(self.workers))
        deeds["freeze"] = lambda: self.freeze(self.chance.choice(self.workers))
        for name, deed in deeds.items():
            for _ in range(round(getattr(self.weather, name))):
                self.loop.call_later(self.chance.random() * FAULTS_END_S, self._do, name, deed)
        pauses = random.Random(f"pauses {self.seed}")
        for _ in range(pauses.choice((0, 0, 0, 0, 1, 3))):
            at_s = pauses.random() * FAULTS_END_S
            self.loop.call_later(at_s, self.switch, True)
            self.loop.call_later(at_s + pauses.choice((0.01, 1, 10)), self.switch, False)
        for _ in range(12):
            self.loop.call_later(self.chance.random() * FAULTS_END_S, self.replicate)
        for _ in range(4):
            self.loop.call_later(self.chance.random() * FAULTS_END_S, self._do, "sweep", self.sweep)
        for planned in self.work.records:
            self.loop.call_at((planned.at_ms - START_MS) / 1e3, self._produce, planned)

    def _do(self, name: str, deed: Callable[[], None]) -> None:
        self.note(name)
        self.faults_s.append(self.loop.now_s)
        deed()

    def _produce(self, planned: Any) -> None:
        offset = self.kafka.produce(
            planned.topic, planned.partition, planned.key or None, planned.value, planned.at_ms
        )  # fmt: skip
        if not planned.key:
            self.damaged.append((planned.topic, planned.partition, offset))

    # The run

    async def run(self) -> None:
        """Live through everything, then let it settle."""
        for _ in range(self.chance.randrange(2, WORKERS + 1)):
            self.join()
        self._schedule()
        await asyncio.sleep(FAULTS_END_S)
        self.faulty = False
        self._slow_s = self._queue_s = 0.0
        await asyncio.sleep(LONGEST_FREEZE_S + 1)
        self.rebalance()
        while not self._settled() and self.loop.time() < MOST_S:  # noqa: ASYNC110 - nobody is told when all is settled
            await asyncio.sleep(1.0)
        self.sweep()
        await asyncio.sleep(15.0)  # whatever is still on its way arrives
        for worker in self.workers:
            worker.kill()
        await asyncio.sleep(0.01)

    def _settled(self) -> bool:
        done = Counter(name for commit in self.kafka.commits for name, _ in commit.published)
        return (
            self.now_ms() > self.work.records[-1].at_ms
            and (
                self.loop.now_s > SKIPPED_S
                if self.operator == "forward" or not self.transactional
                else done["decision-log"] >= len(self.work.triggers) + len(self.work.erased) + self.work.greeted
                and done["dead-letters"] >= self.work.damaged
            )
            and not self.kafka.unsettled()
            and not any(self.unread(name, number) for name, number in self.kafka.inputs)
        )

    def unread(self, name: str, number: int) -> bool:
        """Whether an input goes on behind the last step."""
        meta = self.redis[number].meta
        offsets = self.kafka.position(number) if self.transactional else meta.offsets if meta else {}
        return bool(self.kafka.inputs[name, number].read(offsets.get(name, 0), 1)[0])


def _answer(reply: asyncio.Future[Any], result: Any) -> None:
    if not reply.done():
        reply.set_result(result)
