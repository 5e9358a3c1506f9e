"""The same step on files: no Kafka, no Redis, a virtual clock.

The clock is the latest arrival time so far and never goes back. Timers due strictly before a line's arrival fire
first, each at its own time; those due at it fire after the line.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from decisioning import broadcast
from decisioning.batch import Batch
from decisioning.config import Config
from decisioning.effects import Effects, State, Stock
from decisioning.engine import Engine
from decisioning.events import arrival_ms
from decisioning.learning import UNLEARNED, Learning
from decisioning.unsubscribe import Links
from features.rows import RowTable

TOPIC = "events"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LINKS = Links("https://decisioning.invalid", b"decisioning-backtest")
"""Fixed, so that the same input gives the same bytes."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the file as a record; `offset` is its number from 0."""

    offset: int
    value: bytes
    timestamp: int
    topic: str = TOPIC
    partition: int = 0
    key: bytes | None = None


class Memory:
    """State of the one partition a backtest has, kept in memory, and the index of its timers."""

    def __init__(self) -> None:
        self.rows = RowTable()
        self.profiles: dict[str, bytes] = {}
        self.stock: dict[str, Stock] = {}
        self.state = State(0, 1, self.rows, self.profiles, self.stock)
        self._next: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def apply(self, effects: Effects) -> None:
        """Make the changes of a step the state of the next."""
        self.rows.put(effects.people, effects.rows)
        for person, profile in effects.profiles.items():
            if profile:
                self.profiles[person] = profile
            else:
                self.profiles.pop(person, None)
        for person, due_ms in effects.due.items():
            if due_ms is None:
                self._next.pop(person, None)
            elif self._next.get(person) != due_ms:
                self._next[person] = due_ms
                heapq.heappush(self._heap, (due_ms, person))
        for record in effects.catalog:
            broadcast.take_stock(self.stock, record.key, record.value)

    def next_due_ms(self) -> int | None:
        """When the next timer fires."""
        while self._heap and self._next.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, until_ms: int) -> list[str]:
        """Who has a timer at or before that time."""
        found = set()
        while (next_ms := self.next_due_ms()) is not None and next_ms <= until_ms:
            person = heapq.heappop(self._heap)[1]
            del self._next[person]  # the step says anew when the next one fires
            found.add(person)
        return sorted(found)


def run(
    config: Config,
    lines: Iterable[bytes],
    until_ms: int | None = None,
    memory: Memory | None = None,
    learning: Learning | None = None,
) -> Iterator[Effects]:
    """Play events through the engine.

    Parameters
    ----------
    config
        A checked configuration.
    lines
        One event as JSON each, in order of arrival; blank ones are skipped, malformed ones become dead letters.
    until_ms
        After the last line, timers due up to here fire; by default the last arrival.
    memory
        State to start from; empty by default. Afterwards it holds the state at the end.
    learning
        Learns from each step before the next one; by default nothing is learned.

    Yields
    ------
    Effects
        Of each step, in order. The same input gives the same bytes.
    """
    engine = Engine(config, LINKS)
    held = memory or Memory()
    clock_ms = 0
    offset = 0
    for offset, (value, arrived_ms) in enumerate(timed(lines)):
        yield from _fire_before(engine, held, arrived_ms, offset, learning)
        clock_ms = max(clock_ms, arrived_ms)
        batch = engine.decode([Line(offset, value, clock_ms)])
        batch.due, batch.fire_until_ms = held.due(clock_ms), clock_ms
        yield _step(engine, held, batch, clock_ms, learning)
    yield from _fire_before(engine, held, (clock_ms if until_ms is None else until_ms) + 1, offset + 1, learning)


def _fire_before(
    engine: Engine, held: Memory, before_ms: int, offset: int, learning: Learning | None
) -> Iterator[Effects]:
    while (now_ms := held.next_due_ms()) is not None and now_ms < before_ms:
        batch = engine.decode([])
        batch.offset, batch.due, batch.fire_until_ms = offset, held.due(now_ms), now_ms
        yield _step(engine, held, batch, now_ms, learning)


def _step(engine: Engine, held: Memory, batch: Batch, now_ms: int, learning: Learning | None) -> Effects:
    while missing := engine.reads(held.state, batch):
        held.rows.add_new(sorted(missing))
    effects = engine.step(held.state, batch, now_ms, UNLEARNED if learning is None else learning.models)
    held.apply(effects)
    if learning is not None:
        learning.take(effects.examples)
    return effects


def timed(lines: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Lines with the clock at their arrival; those before the first time known arrive at that time."""
    clock_ms: int | None = None
    waiting: list[bytes] = []
    for number, line in enumerate(lines):
        value = (line if number else line.removeprefix(BYTE_ORDER_MARK)).strip(b"\r\n\t ")
        if not value:
            continue
        arrived_ms = arrival_ms(value)
        if clock_ms is None and arrived_ms is None:
            waiting.append(value)
            continue
        clock_ms = max(clock_ms or 0, arrived_ms or 0)
        for early in waiting:
            yield early, clock_ms
        waiting.clear()
        yield value, clock_ms
    for early in waiting:
        yield early, clock_ms or 0
