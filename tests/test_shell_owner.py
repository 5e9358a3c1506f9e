"""The task of one partition: when timers may fire, what is discarded, and that nothing it hears is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from streams.metrics import Metrics
from streams.owner import EXPIRED_AT_ONCE, INBOX_STEPS, STEP_RECORDS, Owner
from streams.seams import FencedError, UnknownOutcomeError
from streams.transport import Fetched
from tests.shell_world import FakeClock


class Steps:
    """A `Partition` that notes its steps."""

    def __init__(self) -> None:
        self.offsets: Mapping[str, int] = {"events": 0, "internal": 0}
        self.steps: list[tuple[list[int], list[int], int | None]] = []
        self.expired: list[list[str]] = []
        self.due_ms: int | None = None
        self.starts = 0
        self.fail: list[Exception] = []
        self.during: Callable[[], None] = lambda: None
        self.step_number = 0

    async def start(self) -> None:
        self.starts += 1

    async def step(
        self,
        events: list[Any],
        internal: list[Any],
        offsets: Mapping[str, int],
        until: int | None,
        expired: Sequence[str] = (),
    ) -> None:
        await asyncio.sleep(0)
        self.during()
        if self.fail:
            raise self.fail.pop()
        self.expired.append(list(expired))
        self.steps.append(([r.offset for r in events], [r.offset for r in internal], until))
        self.offsets = dict(offsets)
        self.step_number += 1
        if until is not None and self.due_ms is not None and self.due_ms <= until:
            self.due_ms = None

    def next_due_ms(self) -> int | None:
        return self.due_ms

    async def release(self) -> None:
        """Nothing to let go."""


class Desk:
    """The owner's surroundings: the flow of its inputs, and whoever samples their ends."""

    def __init__(self) -> None:
        self.partition = Steps()
        self.clock = FakeClock()
        self.opened: list[tuple[Mapping[str, int], int]] = []
        self.closed: list[str] = []
        self.reopened: list[str] = []
        self.asked = 0
        self.owner = Owner(0, self.partition, self, self, self.clock, Metrics())  # type: ignore[arg-type]

    async def open(self, _number: int, offsets: Mapping[str, int], epoch: int) -> None:
        self.opened.append((dict(offsets), epoch))

    async def reopen(self, _number: int, name: str, _epoch: int) -> None:
        self.reopened.append(name)

    def close(self, _number: int, name: str) -> None:
        self.closed.append(name)

    def ask(self, _owner: Owner) -> None:
        self.asked += 1

    def put(
        self, first: int, last: int, *, name: str = "events", position: int | None = None, epoch: int | None = None
    ) -> None:
        """A fetch of the records first … last; the position is the next one unless ends of transactions follow."""
        records: list[Any] = [SimpleNamespace(offset=offset) for offset in range(first, last + 1)]
        epoch = self.opened[-1][1] if epoch is None else epoch
        self.owner.put(name, Fetched(name, 0, epoch, records, last + 1 if position is None else position))


async def until(condition: Callable[[], bool]) -> None:
    """Let the owner run until something is so."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never happens")


async def quiet() -> None:
    """Let the owner do all it can do."""
    for _ in range(50):
        await asyncio.sleep(0)


def run(scenario: Callable[[Desk], Awaitable[None]]) -> Desk:
    """Run a scenario beside the owner's task."""
    desks: list[Desk] = []

    async def go() -> None:
        desk = Desk()
        desks.append(desk)
        task = asyncio.create_task(desk.owner.run())
        await until(lambda: desk.owner.ready)
        await scenario(desk)
        desk.owner.stop()
        await task

    asyncio.run(asyncio.wait_for(go(), 10))
    return desks[0]


def test_a_timer_waits_until_everything_published_before_it_was_read() -> None:
    """Due, and the ends were sampled after that: it fires once both positions have reached them, not before."""

    async def scenario(desk: Desk) -> None:
        desk.partition.due_ms = desk.clock.ms
        desk.put(0, 1)
        await until(lambda: desk.asked == 1)
        desk.owner.sampled(desk.clock.ms, {"events": 5, "internal": 1})
        desk.put(2, 4)
        await quiet()
        assert all(fired is None for _, _, fired in desk.partition.steps)
        desk.put(0, -1, name="internal", position=1)  # an aborted transaction: no record, but the end is reached
        await until(lambda: desk.partition.due_ms is None)

    desk = run(scenario)
    assert [step for step in desk.partition.steps if step[2] is not None] == [([], [], desk.clock.ms)]


def test_a_sample_from_before_the_timer_was_due_does_not_count() -> None:
    """What was published between the sample and the due time might cancel it: the ends are asked for again."""

    async def scenario(desk: Desk) -> None:
        desk.partition.due_ms = desk.clock.ms
        desk.put(0, 0)
        await until(lambda: desk.asked == 1)
        desk.owner.sampled(desk.clock.ms - 1, {"events": 1, "internal": 0})
        await until(lambda: desk.asked == 2)
        assert desk.partition.due_ms is not None
        desk.owner.sampled(desk.clock.ms, {"events": 1, "internal": 0})
        await until(lambda: desk.partition.due_ms is None)

    run(scenario)


def test_a_sample_that_arrives_during_a_step_is_not_forgotten() -> None:
    """The answer comes while the owner is busy and nothing else ever happens: the timer fires all the same."""

    async def scenario(desk: Desk) -> None:
        desk.partition.due_ms = desk.clock.ms

        def answer() -> None:
            if desk.asked:
                desk.owner.sampled(desk.clock.ms, {"events": 1, "internal": 0})

        desk.partition.during = answer
        desk.put(0, 0)
        await until(lambda: desk.partition.due_ms is None)

    run(scenario)


def test_what_was_read_for_an_earlier_start_is_discarded() -> None:
    """After an unknown outcome or a fence: START, a seek to the committed offsets, and only what is read from there."""

    async def scenario(desk: Desk) -> None:
        first = desk.opened[-1][1]
        desk.put(0, 1)
        await until(lambda: len(desk.partition.steps) == 1)
        desk.partition.fail = [FencedError("x"), UnknownOutcomeError("y")]
        for starts in (2, 3):
            desk.put(2, 3)
            desk.put(4, 5)
            await until(lambda starts=starts: len(desk.opened) == starts)  # type: ignore[misc]
            assert desk.opened[-1][0] == {"events": 2, "internal": 0}
            desk.put(2, 3, epoch=first)
        desk.put(2, 5)
        await until(lambda: len(desk.partition.steps) == 2)

    desk = run(scenario)
    assert [step[0] for step in desk.partition.steps] == [[0, 1], [2, 3, 4, 5]]


def test_a_full_inbox_stops_the_flow_and_an_emptied_one_lets_it_go_on() -> None:
    """Steps are bounded, and so is what waits for them; nothing is lost or handled twice on the way."""

    async def scenario(desk: Desk) -> None:
        total = 3 * INBOX_STEPS * STEP_RECORDS
        for first in range(0, total, 1500):
            desk.put(first, min(first + 1500, total) - 1)
        assert desk.closed == ["events"]
        await until(lambda: desk.partition.offsets["events"] == total)
        await until(lambda: desk.reopened == ["events"])

    desk = run(scenario)
    handled = [offset for events, _, _ in desk.partition.steps for offset in events]
    assert handled == list(range(3 * INBOX_STEPS * STEP_RECORDS))
    assert max(len(events) for events, _, _ in desk.partition.steps) == STEP_RECORDS


def test_an_idle_partition_makes_no_steps() -> None:
    """Ends of transactions that only move the position, and samples without a timer, change nothing."""

    async def scenario(desk: Desk) -> None:
        desk.put(0, -1, name="internal", position=7)
        desk.owner.sampled(desk.clock.ms, {"events": 0, "internal": 7})
        await quiet()
        assert desk.owner.positions["internal"] == 7

    assert run(scenario).partition.steps == []


def test_idle_people_are_given_to_steps_of_their_own_a_bounded_number_at_a_time() -> None:
    """Whoever the sweep proposes wakes the owner; a later proposal replaces what still waits."""

    async def scenario(desk: Desk) -> None:
        people = [f"u{number}" for number in range(EXPIRED_AT_ONCE + 5)]
        desk.owner.expire(people)
        await until(lambda: len(desk.partition.expired) == 2)
        assert desk.partition.expired == [people[:EXPIRED_AT_ONCE], people[EXPIRED_AT_ONCE:]]
        await quiet()

    assert len(run(scenario).partition.steps) == 2
