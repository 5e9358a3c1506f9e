"""Kafka and Redis in memory, as the owner of a partition sees them, with failures at any point; and an engine.

The fakes keep the two properties that the protocol is about: what a fenced producer sends has no effect, and the
view changes only by compare-and-set.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import orjson

from decisioning.effects import DeadLetter, Effects, Outgoing, Record, State
from features.rows import ROW
from streams.seams import (
    INPUTS,
    NOTHING,
    Changes,
    Committed,
    ConflictError,
    Entry,
    FencedError,
    Meta,
    UnavailableError,
    UnknownOutcomeError,
)

LATE = 4
T = TypeVar("T")


class Crash(BaseException):
    """The process dies here."""


@dataclass(frozen=True)
class Line:
    """A record of an input."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = 0


@dataclass
class Faults:
    """Counts the operations on the seams, and makes one of them fail.

    Parameters
    ----------
    at
        Number of the operation, from 0; None: none fails.
    kind
        `before`: the process dies before it. `after`: after it. `lost`: the request never arrives, which the caller
        cannot know. `unanswered`: it is carried out and the caller cannot know. `late`: as `lost`, but it arrives
        `LATE` operations afterwards.
    again
        Number of an operation after which the process dies.
    """

    at: int | None = None
    kind: str = "before"
    again: int | None = None
    count: int = 0
    names: list[str] = field(default_factory=list)
    late: tuple[int, Callable[[], Any]] | None = None

    async def around(self, name: str, operation: Callable[[], T], unknown: type[Exception]) -> T:
        """Run an operation, or its failure."""
        await asyncio.sleep(0)
        number, self.count = self.count, self.count + 1
        self.names.append(name)
        if self.late is not None and number == self.late[0]:
            with contextlib.suppress(FencedError, ConflictError):
                self.late[1]()
        if number == self.again:
            operation()
            raise Crash(name)
        if number != self.at:
            return operation()
        if self.kind == "before":
            raise Crash(name)
        if self.kind == "late":
            self.late = number + LATE, operation
        if self.kind in {"lost", "late"}:
            raise unknown(f"{name}: {self.kind}")
        operation()
        if self.kind == "after":
            raise Crash(name)
        raise unknown(f"{name}: unanswered")


class Kafka:
    """One partition of every topic."""

    def __init__(self) -> None:
        self.inputs: dict[str, list[Line]] = {name: [] for name in INPUTS}
        self.published: list[tuple[str, Outgoing]] = []
        self.changelog: list[Entry | None] = []  # None: an aborted record, or the end of a transaction
        self.changelog_first = 0
        self.offsets = self.stale_offsets = Committed({}, "")
        self.epoch = 0
        self.open: FakeLog | None = None

    def add(self, name: str, key: str, value: str) -> None:
        """Append a record to an input."""
        lines = self.inputs[name]
        lines.append(Line(name, 0, len(lines), key.encode(), value.encode()))

    def entries(self, start: int, end: int) -> list[Entry | None]:
        """A part of the changelog."""
        return self.changelog[start:end]

    def settle(self) -> None:
        """Abort what an earlier producer left open."""
        if self.open is not None:
            self.changelog += [None] * (len(self.open.pending_changelog) + 1)
            self.open = None
        self.stale_offsets = self.offsets


class FakeLog:
    """See `seams.Log`."""

    def __init__(self, kafka: Kafka, faults: Faults, *, transactional: bool = True) -> None:
        self.kafka = kafka
        self.faults = faults
        self.transactional = transactional
        self.epoch = 0
        self.pending: list[tuple[str, Outgoing]] = []
        self.pending_changelog: list[tuple[bytes, bytes]] = []
        self.pending_offsets = Committed({}, "")

    async def _do(self, name: str, operation: Callable[[], T]) -> T:
        return await self.faults.around(name, operation, UnknownOutcomeError)

    def _fence(self, epoch: int) -> None:
        if self.transactional and epoch != self.kafka.epoch:
            raise FencedError("a newer producer")

    async def acquire(self) -> None:
        def operation() -> None:
            self.kafka.settle()
            self.kafka.epoch += 1
            self.epoch = self.kafka.epoch

        await self._do("acquire", operation)

    async def committed(self) -> Committed:
        # As measured: right after a commit the old ones, until the next producer waits for the end markers.
        return await self._do("committed", lambda: self.kafka.stale_offsets)

    async def earliest(self) -> Mapping[str, int]:
        return dict.fromkeys(INPUTS, 0)

    async def bounds(self) -> tuple[int, int]:
        return await self._do("bounds", lambda: (self.kafka.changelog_first, len(self.kafka.changelog)))

    async def changelog(self, start: int, end: int) -> AsyncGenerator[tuple[Sequence[Entry], int], None]:
        while start < end:
            upto = min(start + 3, len(self.kafka.changelog))
            some: list[Entry | None] = await self._do("changelog", partial(self.kafka.entries, start, upto))
            yield [entry for entry in some if entry is not None], upto
            start = upto

    async def begin(self) -> None:
        def operation(epoch: int = self.epoch) -> None:
            self._fence(epoch)
            self.pending, self.pending_changelog = [], []
            self.kafka.open = self

        await self._do("begin", operation)

    async def append(self, changelog: Sequence[tuple[bytes, bytes]], outputs: Mapping[str, Sequence[Outgoing]]) -> int:
        def operation(epoch: int = self.epoch) -> int:
            self._fence(epoch)
            self.pending = [(name, record) for name, records in outputs.items() for record in records]
            self.pending_changelog = list(changelog)
            if not self.transactional:
                self._publish()
                return len(self.kafka.changelog)
            return len(self.kafka.changelog) + len(changelog)

        return await self._do("append", operation)

    async def offsets(self, offsets: Mapping[str, int], metadata: str) -> None:
        def operation(epoch: int = self.epoch) -> None:
            self._fence(epoch)
            self.pending_offsets = Committed(dict(offsets), metadata)

        await self._do("offsets", operation)

    async def commit(self) -> None:
        def operation(epoch: int = self.epoch) -> None:
            self._fence(epoch)
            if self.kafka.open is not self:
                return
            self._publish()
            self.kafka.changelog.append(None)
            self.kafka.stale_offsets, self.kafka.offsets = self.kafka.offsets, self.pending_offsets
            self.kafka.open = None

        await self._do("commit", operation)

    def _publish(self) -> None:
        kafka = self.kafka
        kafka.published += self.pending
        kafka.changelog += [
            Entry(len(kafka.changelog) + i, key, value) for i, (key, value) in enumerate(self.pending_changelog)
        ]

    async def release(self) -> None:
        """Nothing to throw away."""


@dataclass
class Redis:
    """The view of one partition.

    Attributes
    ----------
    wipes
        How often an owner emptied it because nothing or half a write was found in it.
    """

    meta: Meta | None = None
    rows: dict[str, bytes] = field(default_factory=dict)
    profiles: dict[str, bytes] = field(default_factory=dict)
    due: dict[str, int] = field(default_factory=dict)
    wipes: int = field(default=0, compare=False)

    def flush(self) -> None:
        """FLUSHALL."""
        self.meta, self.rows, self.profiles, self.due = None, {}, {}, {}

    def copy(self) -> Redis:
        """As a replica that lags behind would have it."""
        return Redis(self.meta, dict(self.rows), dict(self.profiles), dict(self.due))

    def restore(self, earlier: Redis) -> None:
        """A failover to such a replica."""
        self.__dict__.update(earlier.copy().__dict__ | {"wipes": self.wipes})


class FakeStore:
    """See `seams.Store`; the same rules as the Lua scripts."""

    def __init__(self, redis: Redis, faults: Faults) -> None:
        self.redis = redis
        self.faults = faults

    async def _do(self, name: str, operation: Callable[[], T]) -> T:
        return await self.faults.around(name, operation, UnavailableError)

    def _at(self, n: int) -> None:
        meta = self.redis.meta
        if meta is None or meta.state or meta.n != n:
            raise ConflictError(meta.n if meta is not None and not meta.state else NOTHING)

    async def meta(self) -> Meta | None:
        return await self._do("meta", lambda: self.redis.meta)

    async def read(self, n: int, people: Sequence[str]) -> tuple[list[bytes | None], list[bytes | None]]:
        def operation() -> Any:
            self._at(n)
            return [self.redis.rows.get(p) for p in people], [self.redis.profiles.get(p) for p in people]

        return await self._do("read", operation)

    async def due(self, n: int) -> dict[str, int]:
        def operation() -> dict[str, int]:
            self._at(n)
            return dict(self.redis.due)

        return await self._do("due", operation)

    async def apply(self, before: Meta, after: Meta, changes: Changes) -> None:
        def operation() -> None:
            meta = self.redis.meta
            if meta is not None and not meta.state and (meta.n, meta.d) == (after.n, after.d):
                return
            if meta is None or meta.state or (meta.n, meta.d) != (before.n, before.d):
                raise ConflictError(meta.n if meta is not None and not meta.state else NOTHING)
            self._write(changes)
            self.redis.meta = after

        await self._do("apply", operation)

    async def wipe(self, seen: Meta | None, d: int) -> None:
        def operation() -> None:
            self._as_seen(seen)
            self.redis.flush()
            self.redis.meta = Meta(NOTHING, d, {}, 0, "replay", 0)
            self.redis.wipes += seen is None or seen.state == "torn"

        await self._do("wipe", operation)

    def _as_seen(self, seen: Meta | None) -> None:
        meta = self.redis.meta
        place = None if meta is None else (meta.n, meta.d, meta.state)
        if place != (None if seen is None else (seen.n, seen.d, seen.state)):
            raise ConflictError(NOTHING if meta is None else meta.n)

    async def replay(self, d: int, d_after: int, changes: Changes, at_ms: int) -> None:
        def operation() -> None:
            meta = self._replayed(d)
            self._write(changes)
            self.redis.meta = replace(meta, d=d_after, state="replay", at_ms=at_ms)

        await self._do("replay", operation)

    async def seal(self, d: int, meta: Meta) -> None:
        def operation() -> None:
            self._replayed(d)
            self.redis.meta = meta

        await self._do("seal", operation)

    def _replayed(self, d: int) -> Meta:
        meta = self.redis.meta
        if meta is None or meta.d != d or meta.state not in {"", "replay"}:
            raise ConflictError(NOTHING if meta is None else meta.n)
        return meta

    def _write(self, changes: Changes) -> None:
        redis = self.redis
        redis.rows.update(zip(changes.people, changes.rows, strict=True))
        for person, profile in changes.profiles.items():
            if profile:
                redis.profiles[person] = profile
            else:
                redis.profiles.pop(person, None)
        for person, due_ms in changes.due.items():
            if due_ms is not None:
                redis.due[person] = due_ms
            else:
                redis.due.pop(person, None)


@dataclass
class FakeClock:
    """Time that passes only where somebody waits."""

    ms: int = 1_000_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1e3

    async def sleep(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)
        await asyncio.sleep(0)


@dataclass
class CountingBatch:
    """What `CountingEngine` makes of records."""

    records: list[tuple[str, str, Record]]
    rejected: list[DeadLetter]
    offset: int = 0
    due: Sequence[str] = ()
    fire_until_ms: int | None = None
    expired: Sequence[str] = ()


class CountingEngine:
    """Counts each person's records without knowing repeats, so that a lost or doubled step shows in the numbers.

    The value says what a record does: `add` decides at once, `in <ms>` sets a timer and says so, `forward` sends to
    `internal`, `forget` drops the profile, `bad` is no event. Every decision carries the person's count.
    """

    def decode(self, events: Sequence[Record], internal: Sequence[Record]) -> CountingBatch:
        records, rejected = [], []
        for record in [*events, *internal]:
            value = (record.value or b"").decode()
            if value == "bad":
                rejected.append(DeadLetter(record, "bad", "it says so"))
            else:
                records.append(((record.key or b"").decode(), value, record))
        return CountingBatch(records, rejected)

    def reads(self, state: State, batch: CountingBatch) -> set[str]:
        return {person for person, _, _ in batch.records if person not in state.rows} | {
            person for person in batch.due if person not in state.rows
        }

    def step(self, state: State, batch: CountingBatch, now_ms: int, models: Any) -> Effects:
        people = list(dict.fromkeys([*(person for person, _, _ in batch.records), *batch.due]))
        rows = state.rows.gather(people) if people else Effects().rows
        slot = {person: i for i, person in enumerate(people)}
        effects = Effects(people=people, rows=rows.astype(ROW, copy=True), dead_letters=batch.rejected)
        due = {person: orjson.loads(state.profiles.get(person, b"[]")) for person in people}
        for person, value, record in batch.records:
            effects.rows["zone"][slot[person]] += 1
            count = int(effects.rows["zone"][slot[person]])
            if value.startswith("in "):
                due[person].append(int(value[3:]))
            elif value == "forward":
                effects.internal.append(Outgoing(record.key, b"add", partition=0))
            elif value == "forget":
                due[person] = []
            effects.decisions.append(_decision(person, count, f"{record.topic}/{record.offset}"))
            effects.log.append(_decision(person, count, "log"))
            effects.examples.append(_decision(person, count, "example"))
        for person in batch.due:
            for at_ms in [at for at in due[person] if at <= (batch.fire_until_ms or 0)]:
                due[person].remove(at_ms)
                effects.rows["zone"][slot[person]] += 1
                count = int(effects.rows["zone"][slot[person]])
                effects.decisions.append(_decision(person, count, f"timer/{at_ms}"))
                effects.fired.append(("campaign", at_ms))
        effects.profiles = {person: orjson.dumps(times) if times else b"" for person, times in due.items()}
        effects.due = {person: min(times, default=None) for person, times in due.items()}
        return effects


def _decision(person: str, count: int, why: str) -> Outgoing:
    value = orjson.dumps({"person": person, "count": count, "why": why})
    return Outgoing(person.encode(), value, (("ce_id", why.encode()),))
