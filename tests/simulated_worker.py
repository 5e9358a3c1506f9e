"""A worker process of a simulation: real owners, and around them what `streams.app` is around them otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from streams.metrics import COUNTED, Metrics
from streams.owner import Owner
from streams.partition import Partition, Place
from streams.seams import INPUTS
from streams.tables import Tables
from streams.transport import Fetched
from tests.shell_world import FakeStore, Faults
from tests.simulated_kafka import SimulatedLog

if TYPE_CHECKING:
    from tests.simulation import World


class Unmeasured:
    """A figure that nobody looks at."""

    def labels(self, *values: str) -> Unmeasured:
        return self

    def observe(self, amount: float = 1.0) -> None:
        pass

    set = inc = observe


class Uncounted(Metrics):
    """Metrics without figures, which cost more than what they measure here."""

    def __init__(self) -> None:
        self.__dict__.update(dict.fromkeys(Metrics().__dict__, Unmeasured()))

    def count(self, counts: Mapping[tuple[str, ...], float]) -> None:
        assert all(len(values) == len(COUNTED[name][0]) for name, *values in counts)

    def forget(self, partition: int) -> None:
        pass


METRICS = Uncounted()
CACHED_PEOPLE = 2  # few, so that READ has something to do


class Worker:
    """Owners of partitions that share a process: they die together, and stand still together.

    Its consumer fetches in a thread of its own, so records go on arriving while the process does something else, and
    those of an earlier assignment may still be queued when the next one begins.
    """

    def __init__(self, world: World, name: str, behind_ms: int) -> None:
        self.world = world
        self.name = name
        self.dead = False
        self.frozen_until_s = 0.0
        self.generation = 0
        self.owners: dict[int, Owner] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self._arrived: list[Callable[[], None]] = []
        self._running: list[asyncio.Task[None]] = []
        self.tables = Tables()
        self.read_control()
        self._behind_ms = behind_ms  # its clock is late by so much
        self._gates: dict[tuple[str, int], int] = {}
        self._positions: dict[tuple[str, int], int] = {}
        self._fetching: set[tuple[str, int]] = set()
        self._queued_until_s: dict[tuple[str, int], float] = {}

    # Being a process

    async def alive(self) -> None:
        """Go on only while the process runs."""
        while self.dead or self.frozen_until_s > self.world.loop.time():
            if self.dead:
                await self.world.loop.create_future()
            await asyncio.sleep(self.frozen_until_s - self.world.loop.time())

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Have something arrive at this process."""

        def arrive() -> None:
            self._arrived.append(call)
            if len(self._arrived) == 1:
                self._take_in()

        self.world.loop.call_later(delay_s, arrive)

    def _take_in(self) -> None:
        """Hand over what has arrived, in order, once the process runs."""
        wait_s = self.frozen_until_s - self.world.loop.time()
        if wait_s > 0:
            self.world.loop.call_later(wait_s, self._take_in)
            return
        arrived, self._arrived = self._arrived, []
        for call in arrived:
            if not self.dead:
                call()

    def kill(self) -> None:
        """As kill -9 does: nothing is tidied up; what was sent still arrives."""
        self.dead = True
        for task in self._running:
            task.cancel()

    # streams.tables

    def read_control(self) -> None:
        """Take in what was said of campaigns since the last time."""
        control = self.world.kafka.control
        self.tables.take("control", control[self.tables.offsets["control"] :], len(control))
        for owner in self.owners.values():
            owner.review()

    # seams.Clock

    def now_ms(self) -> int:
        return self.world.now_ms() - self._behind_ms

    def monotonic_s(self) -> float:
        return self.world.loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.alive()

    # owner.Flow

    async def open(self, partition: int, offsets: Mapping[str, int], epoch: int) -> None:
        await self.world.call(self, "open", lambda: None, TimeoutError, certain=True)
        for name, offset in offsets.items():
            self._gates[name, partition] = epoch
            self._positions[name, partition] = offset
            self._fetch_soon(name, partition)

    async def reopen(self, partition: int, name: str, epoch: int) -> None:
        self._gates[name, partition] = epoch
        self._fetch_soon(name, partition)

    def close(self, partition: int, name: str) -> None:
        self._gates.pop((name, partition), None)

    def _fetch_soon(self, name: str, partition: int) -> None:
        if (name, partition) not in self._fetching:
            self._fetching.add((name, partition))
            delay_s = self.world.latency_s()
            self.world.loop.call_later(delay_s, partial(self._fetch, name, partition))

    def _fetch(self, name: str, partition: int) -> None:
        place = name, partition
        self._fetching.discard(place)
        epoch = self._gates.get(place)
        if self.dead or epoch is None:
            return
        journal, start = self.world.kafka.inputs[place], self._positions[place]
        records, position = journal.read(start, self.world.chance.randrange(1, 5))
        if position == start:
            journal.waiters.append(partial(self._fetch_soon, name, partition))
            return
        self._positions[place] = position
        now_s = self.world.loop.time()
        at_s = max(now_s + self.world.queue_s(), self._queued_until_s.get(place, 0.0) + 1e-6)  # in order
        self._queued_until_s[place] = at_s
        self.later(at_s - now_s, partial(self._route, Fetched(name, partition, epoch, records, position)))
        self._fetch_soon(name, partition)

    def _route(self, fetched: Fetched) -> None:
        owner = self.owners.get(fetched.partition)
        if owner is not None:
            owner.put(fetched.topic, fetched)

    # owner.Sampler

    def ask(self, owner: Owner) -> None:
        at_ms = self.now_ms()

        def sample() -> None:
            ends = {name: self.world.kafka.inputs[name, owner.number].stable() for name in INPUTS}
            self.later(self.world.latency_s(), partial(owner.sampled, at_ms, ends))

        self.world.loop.call_later(self.world.latency_s(), sample)

    # Rebalances

    def revoked(self, generation: int) -> None:
        """The group begins to share out its partitions anew."""
        if generation > self.generation:
            self.generation = generation
            self._gates.clear()
            self._stop_owners()

    def assigned(self, generation: int, numbers: list[int]) -> None:
        """The group has shared out its partitions."""
        if generation != self.generation:
            return
        self._stop_owners()
        for number in numbers:
            owner = Owner(number, self._partition(number), self, self, self, METRICS, self.world.step_records)
            before = self.tasks.get(number)
            self.owners[number] = owner
            self.tasks[number] = self._start(owner.run(before))

    def _stop_owners(self) -> None:
        for number, owner in self.owners.items():
            owner.stop()
            if not owner.ready:
                self.tasks[number].cancel()
        self.owners = {}

    def _partition(self, number: int) -> Partition:
        wire = Wire(self)
        log = SimulatedLog(self.world.kafka, number, wire, self)
        store = FakeStore(self.world.redis[number], wire)
        place = Place(number, self.world.partitions, CACHED_PEOPLE, {}, self.tables, replayed_people=1)
        return Partition(place, self.world.engine, log, store, self, METRICS)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.world.loop.create_task(coroutine)
        self._running.append(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and not self.dead and (error := task.exception()) is not None:
            self.world.unforeseen(self, error)


class Wire(Faults):
    """The connections of one owner: every operation on the seams goes over them."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self._worker = worker

    async def around(self, name: str, operation: Callable[[], Any], unknown: type[Exception]) -> Any:
        return await self._worker.world.call(self._worker, name, operation, unknown)
