"""Kafka in memory as several workers see it: journals with open transactions, markers that come late, fenced producers.

Only what the protocol leans on is here, and that as it was measured: a commit is decided at one moment, but its marks
reach each partition and the group's offsets later, one by one; until then readers of committed records stop before the
transaction, and committed offsets are the old ones. Only the next producer waits for the marks.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from decisioning.effects import Outgoing
from streams import changelog
from streams.changelog import MARKER_KEY, Marker, decode_marker
from streams.seams import INPUTS, Committed, Entry, FencedError, UnknownOutcomeError
from tests.shell_world import Faults, Line

TRANSACTION_TIMEOUT_S = 10.0
CHUNK = 4  # records of a changelog read at once
PATIENCE_S = 8.0  # of a reader whose end mark does not come
Later = Callable[[float, Callable[[], None]], None]


@dataclass(eq=False)
class Transaction:
    """One transaction of the producer of a partition."""

    partition: int
    epoch: int
    state: str = "open"
    journals: list[Journal] = field(default_factory=list)
    published: list[tuple[str, Outgoing]] = field(default_factory=list)
    offsets: Committed | None = None
    marker: Marker | None = None
    complete: bool = False
    at_ms: int = 0  # of one that is none


class Journal:
    """One partition of one topic."""

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.slots: list[tuple[Transaction | None, Line | Entry] | None] = []  # None: a mark, or compacted away
        self.open: dict[Transaction, int] = {}
        self.waiters: list[Callable[[], None]] = []

    def add(self, record: Line | Entry, transaction: Transaction | None = None) -> None:
        """Append a record."""
        if transaction is not None and transaction not in self.open:
            self.open[transaction] = len(self.slots)
            transaction.journals.append(self)
        self.slots.append((transaction, record))
        self._changed()

    def mark(self, transaction: Transaction) -> None:
        """Append the mark that ends a transaction."""
        if self.open.pop(transaction, None) is not None:
            self.slots.append(None)
            self._changed()

    def stable(self) -> int:
        """The last stable offset."""
        return min(self.open.values(), default=len(self.slots))

    def read(self, start: int, most: int) -> tuple[list[Any], int]:
        """Committed records from an offset on, at most so many, and the position after them."""
        records: list[Any] = []
        position = start
        while position < self.stable() and len(records) < most:
            slot = self.slots[position]
            if slot is not None and (slot[0] is None or slot[0].state == "committed"):
                records.append(slot[1])
            position += 1
        return records, position

    def compact(self) -> None:
        """Take out what later records of the same key replace."""
        seen: set[bytes] = set()
        for place in reversed(range(self.stable())):
            slot = self.slots[place]
            if slot is None or (slot[0] is not None and slot[0].state != "committed"):
                continue
            key = slot[1].key or b""
            if key in seen:
                self.slots[place] = None
            seen.add(key)

    def _changed(self) -> None:
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter()


class Cluster:
    """All topics, the transaction coordinator, and the group's offsets."""

    def __init__(self, partitions: int, chance: random.Random, later: Later) -> None:
        self.partitions = partitions
        self.inputs = {(name, p): Journal(name, p) for name in INPUTS for p in range(partitions)}
        self.changelog = [Journal("changelog", p) for p in range(partitions)]
        self.visible = [Committed({}, "") for _ in range(partitions)]
        self.commits: list[Transaction] = []
        self.control: list[Entry] = []
        self.moved: dict[int, tuple[int, Mapping[str, int]]] = {}  # partition -> (commits before, offsets) by hand
        self.slow_marks_s = 0.0
        self.transactional = True
        self._chance = chance
        self._later = later
        self._epochs = [0] * partitions
        self._last: list[Transaction | None] = [None] * partitions

    def produce(self, name: str, partition: int, key: bytes | None, value: bytes, now_ms: int) -> int:
        """Append a record to an input without any transaction; returns its offset."""
        journal = self.inputs[name, partition]
        journal.add(Line(name, partition, len(journal.slots), key, value, now_ms))
        return len(journal.slots) - 1

    def init_producer(self, partition: int) -> int:
        """InitProducerId: end what is open, wait for its marks, fence everyone before."""
        self._abort(partition)
        self._finish(partition)
        self._epochs[partition] += 1
        return self._epochs[partition]

    def append(
        self,
        partition: int,
        epoch: int,
        changelog: Sequence[tuple[bytes, bytes]],
        outputs: Mapping[str, Sequence[Outgoing]],
        now_ms: int,
    ) -> int:
        """Produce the records of a step; returns the changelog's position after them."""
        self._check(partition, epoch)
        step = self._current(partition, epoch, now_ms)
        transaction = step if self.transactional else None
        journal = self.changelog[partition]
        for key, value in changelog:
            journal.add(Entry(len(journal.slots), key, value), transaction)
            if key == MARKER_KEY:
                step.marker = decode_marker(value)
        for name, records in outputs.items():
            for record in records:
                step.published.append((name, record))
                if name == "internal":
                    assert record.partition is not None
                    goal = self.inputs[name, record.partition]
                    line = Line(name, goal.partition, len(goal.slots), record.key, record.value, now_ms)
                    goal.add(line, transaction)
        return len(journal.slots)

    def add_offsets(self, partition: int, epoch: int, committed: Committed) -> None:
        """TxnOffsetCommit; without transactions, OffsetCommit."""
        if not self.transactional:
            self.visible[partition] = committed
            return
        self._check(partition, epoch)
        self._current(partition, epoch).offsets = committed

    def end(self, partition: int, epoch: int) -> None:
        """EndTxn: commit whatever transaction this producer has open."""
        self._check(partition, epoch)
        transaction = self._last[partition]
        if transaction is not None and transaction.state == "open":
            self._decide(transaction, "committed")

    def order(self, size: int) -> list[int]:
        """The order in which so many requests arrive, of which the first is the changelog's."""
        order = self._chance.sample(range(size), size)
        return order if self.transactional else self.last(order)

    def last(self, order: list[int]) -> list[int]:
        """With the changelog at the end: its marker says that all of the step is there."""
        return sorted(order, key=lambda number: number == 0)

    def unsettled(self) -> bool:
        """Whether any mark is still on its way."""
        return any(last is not None and not last.complete for last in self._last)

    def move(self, partition: int, offsets: Mapping[str, int]) -> None:
        """Set the group's offsets of some inputs by hand, as `kafka-consumer-groups --reset-offsets` does."""
        before = self.position(partition)
        self.moved[partition] = len(self.commits), {**before, **offsets}
        self.visible[partition] = Committed(offsets, "")

    def steps(self, partition: int) -> list[tuple[Mapping[str, int], Transaction]]:
        """The committed steps of a partition, each with the offsets it started from."""
        found: list[tuple[Mapping[str, int], Transaction]] = []
        offsets: Mapping[str, int] = dict.fromkeys(INPUTS, 0)
        at, by_hand = self.moved.get(partition, (-1, offsets))
        for number, commit in enumerate(self.commits):
            if number == at:
                offsets = by_hand
            if commit.partition == partition and commit.marker is not None:
                found.append((offsets, commit))
                offsets = commit.marker.offsets
        return found

    def position(self, partition: int) -> Mapping[str, int]:
        """Where the next step of a partition starts."""
        at, offsets = self.moved.get(partition, (0, dict.fromkeys(INPUTS, 0)))
        for commit in self.commits[at:]:
            if commit.partition == partition and commit.marker is not None:
                offsets = commit.marker.offsets
        return offsets

    def images(self, partition: int) -> Mapping[str, changelog.Image]:
        """The fold of a changelog."""
        journal = self.changelog[partition]
        return changelog.latest(journal.read(0, len(journal.slots))[0])

    def _check(self, partition: int, epoch: int) -> None:
        if self.transactional and epoch != self._epochs[partition]:
            raise FencedError(f"epoch {epoch}, current is {self._epochs[partition]}")

    def _current(self, partition: int, epoch: int, now_ms: int = 0) -> Transaction:
        if not self.transactional:
            self.commits.append(Transaction(partition, epoch, "committed", complete=True, at_ms=now_ms))
            return self.commits[-1]
        last = self._last[partition]
        if last is not None and last.state == "open":
            return last
        self._finish(partition)  # CONCURRENT_TRANSACTIONS until the marks of the last one are written
        opened = self._last[partition] = Transaction(partition, epoch)
        self._later(TRANSACTION_TIMEOUT_S, partial(self._expire, opened))
        return opened

    def _expire(self, transaction: Transaction) -> None:
        if transaction.state == "open":
            self._epochs[transaction.partition] += 1
            self._decide(transaction, "aborted")

    def _abort(self, partition: int) -> None:
        last = self._last[partition]
        if last is not None and last.state == "open":
            self._decide(last, "aborted")

    def _decide(self, transaction: Transaction, state: str) -> None:
        transaction.state = state
        if state == "committed":
            self.commits.append(transaction)
        marks: list[Callable[[], None]] = [partial(journal.mark, transaction) for journal in transaction.journals]
        marks.append(partial(self._show, transaction))
        for mark in marks:
            self._later(self._chance.expovariate(200) + self._chance.random() * self.slow_marks_s, mark)
        self._later(self.slow_marks_s + 1.0, partial(self._complete, transaction))

    def _show(self, transaction: Transaction) -> None:
        if not transaction.complete and transaction.state == "committed" and transaction.offsets is not None:
            self.visible[transaction.partition] = transaction.offsets

    def _complete(self, transaction: Transaction) -> None:
        for journal in transaction.journals:
            journal.mark(transaction)
        self._show(transaction)
        transaction.complete = True

    def _finish(self, partition: int) -> None:
        last = self._last[partition]
        if last is not None and not last.complete:
            self._complete(last)


class SimulatedLog:
    """See `seams.Log`; what one owner of one partition holds of Kafka."""

    def __init__(self, cluster: Cluster, partition: int, wire: Faults, clock: Any) -> None:
        self.transactional = cluster.transactional
        self._cluster = cluster
        self._partition = partition
        self._wire = wire
        self._clock = clock
        self._epoch = -1

    async def _do(self, name: str, operation: Callable[[], Any]) -> Any:
        return await self._wire.around(name, operation, UnknownOutcomeError)

    async def acquire(self) -> None:
        self._epoch = -1
        self._epoch = await self._do("acquire", partial(self._cluster.init_producer, self._partition))

    async def committed(self) -> Committed:
        found: Committed = await self._do("committed", lambda: self._cluster.visible[self._partition])
        return found

    async def earliest(self) -> Mapping[str, int]:
        return dict.fromkeys(INPUTS, 0)

    async def bounds(self) -> tuple[int, int]:
        end: int = await self._do("bounds", self._cluster.changelog[self._partition].stable)
        return 0, end

    async def changelog(self, start: int, end: int) -> AsyncGenerator[tuple[Sequence[Entry], int], None]:
        idle_s = 0.0
        while start < end:
            read = partial(self._cluster.changelog[self._partition].read, start, CHUNK)
            entries, position = await self._do("changelog", read)
            if position > start:
                start, idle_s = position, 0.0
                yield entries, position
                continue
            if idle_s > PATIENCE_S:
                raise UnknownOutcomeError(f"the changelog does not go on at {start}, expected up to {end}")
            await self._clock.sleep(0.1)
            idle_s += 0.1

    async def begin(self) -> None:
        await self._do("begin", lambda: None)

    async def append(self, changelog: Sequence[tuple[bytes, bytes]], outputs: Mapping[str, Sequence[Outgoing]]) -> int:
        # Requests to several brokers, of which some may arrive and others not.
        parts: list[tuple[Sequence[tuple[bytes, bytes]], Mapping[str, Sequence[Outgoing]]]]
        parts = [(changelog, {}), *(((), {name: records}) for name, records in outputs.items())]
        ends = {}
        for number in self._cluster.order(len(parts)):
            now_ms = self._clock.now_ms()
            send = partial(self._cluster.append, self._partition, self._epoch, *parts[number], now_ms)
            ends[number] = await self._do("append", send)
        d: int = ends[0]
        return d

    async def offsets(self, offsets: Mapping[str, int], metadata: str) -> None:
        committed = Committed(dict(offsets), metadata)
        await self._do("offsets", partial(self._cluster.add_offsets, self._partition, self._epoch, committed))

    async def commit(self) -> None:
        await self._do("commit", partial(self._cluster.end, self._partition, self._epoch))

    async def release(self) -> None:
        self._epoch = -1
