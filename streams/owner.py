"""The task of one owned partition: its inbox, its steps, and when its timers may fire.

Each partition has a task of its own, so that their transactions overlap: with one task for all, 32 partitions at
40 ms each would cost more than a second a round. A step takes whatever has arrived, so batches grow with load.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import structlog

from streams.metrics import Metrics
from streams.partition import Partition
from streams.seams import INPUTS, Clock, FencedError, UnknownOutcomeError
from streams.transport import Fetched

STEP_RECORDS: Final = 2000
INBOX_STEPS: Final = 2  # of one input; beyond it is not read on
SAMPLES: Final = 64
FIRST_RETRY_S: Final = 0.05
LAST_RETRY_S: Final = 2.0
EXPIRED_AT_ONCE: Final = 100  # people of a step: its marker names them

_epochs = itertools.count(1)
_log = structlog.get_logger(__name__)


class Flow(Protocol):
    """The part of the consumer that an owner steers."""

    async def open(self, partition: int, offsets: Mapping[str, int], epoch: int) -> None:
        """Read the inputs from these offsets on."""

    async def reopen(self, partition: int, name: str, epoch: int) -> None:
        """Go on reading an input."""

    def close(self, partition: int, name: str) -> None:
        """Stop reading an input."""


class Sampler(Protocol):
    """Tells owners where their inputs end."""

    def ask(self, owner: Owner) -> None:
        """Have `owner.sampled` called soon, with ends sampled after now."""


class Inbox:
    """What was read of one input and not yet handled."""

    def __init__(self) -> None:
        self._fetched: deque[Fetched] = deque()
        self.records = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing, not even the end of a transaction."""
        return not self._fetched

    def put(self, fetched: Fetched) -> None:
        """Add what one fetch returned."""
        self._fetched.append(fetched)
        self.records += len(fetched.records)

    def take(self, most: int) -> tuple[list[Any], int | None]:
        """At most so many records, and the offset after them; None if nothing was taken."""
        records: list[Any] = []
        position = None
        while self._fetched:
            first = self._fetched[0]
            room = most - len(records)
            if len(first.records) > room:
                if room:
                    records += first.records[:room]
                    position = records[-1].offset + 1
                    rest = Fetched(first.topic, first.partition, first.epoch, first.records[room:], first.position)
                    self._fetched[0] = rest
                break
            records += first.records
            position = first.position
            self._fetched.popleft()
        self.records -= len(records)
        return records, position


class Owner:
    """Runs a `Partition` from its assignment to its revocation.

    Parameters
    ----------
    number
        Of the partition.
    partition
        The protocol.
    step_records
        How many records one step takes at most.

    Attributes
    ----------
    ready
        Recovered and working.
    """

    def __init__(
        self,
        number: int,
        partition: Partition,
        flow: Flow,
        sampler: Sampler,
        clock: Clock,
        metrics: Metrics,
        step_records: int = STEP_RECORDS,
    ) -> None:
        self.number = number
        self.ready = False
        self._partition = partition
        self._flow = flow
        self._sampler = sampler
        self._clock = clock
        self._metrics = metrics
        self._step_records = step_records
        self._stopping = False
        self._wake = asyncio.Event()
        self._epoch = 0
        self._reset({})

    def _reset(self, offsets: Mapping[str, int]) -> None:
        self._inboxes = {name: Inbox() for name in INPUTS}
        self._closed: set[str] = set()
        self._positions: Mapping[str, int] = dict(offsets)
        self._samples: deque[tuple[int, Mapping[str, int]]] = deque()
        self._asked = False
        self._horizon_ms = 0  # everything published until then was read
        self._expired: list[str] = []

    # Called from outside

    @property
    def positions(self) -> Mapping[str, int]:
        """Input -> next offset to handle."""
        return self._positions

    def put(self, name: str, fetched: Fetched) -> None:
        """Take in what one fetch returned."""
        if fetched.epoch != self._epoch:
            return  # read for an earlier owner, or before the last seek
        inbox = self._inboxes[name]
        inbox.put(fetched)
        if inbox.records >= INBOX_STEPS * self._step_records and name not in self._closed:
            self._closed.add(name)
            self._flow.close(self.number, name)
        self._wake.set()

    def sampled(self, at_ms: int, ends: Mapping[str, int]) -> None:
        """Take in where the inputs ended at some time after `at_ms`."""
        self._asked = False
        if self._samples and (self._samples[-1][1] == ends or len(self._samples) == SAMPLES):
            self._samples.pop()  # the later sample says more, or there is no room for both
        self._samples.append((at_ms, ends))
        self._wake.set()

    def expire(self, people: Sequence[str]) -> None:
        """Take in who seems to have been idle for too long; who was said before and still waits is forgotten."""
        self._expired = list(people)
        self._wake.set()

    def review(self) -> None:
        """Have it look again at when timers fire: campaigns were paused or resumed."""
        self._wake.set()

    def stop(self) -> None:
        """Ask it to end after the step it is in."""
        self._stopping = True
        self._wake.set()

    # The task

    async def run(self, before: asyncio.Task[None] | None = None) -> None:
        """Take over and work until asked to stop; whatever is not foreseen here is raised.

        Parameters
        ----------
        before
            The task that had this partition in this process before.
        """
        if before is not None:
            await _ended(before)
        retry_s = FIRST_RETRY_S
        try:
            while not self._stopping:
                started_s = self._clock.monotonic_s()
                step = self._partition.step_number
                try:
                    await self._take_over()
                    self._metrics.recovery_seconds.observe(self._clock.monotonic_s() - started_s)
                    step = self._partition.step_number
                    await self._work()
                except FencedError as error:
                    self._metrics.fenced.inc()
                    _log.warning("fenced", partition=self.number, error=str(error))
                except UnknownOutcomeError as error:
                    _log.warning("starting again", partition=self.number, error=str(error))
                self._leave_flow()
                if self._partition.step_number > step:
                    retry_s = FIRST_RETRY_S
                if not self._stopping:
                    # If two believe to be the owner they fence each other, until one hears from the group.
                    await self._clock.sleep(retry_s)
                    retry_s = min(2 * retry_s, LAST_RETRY_S)
        finally:
            self._leave_flow()
            await self._partition.release()

    async def _take_over(self) -> None:
        await self._partition.start()
        self._epoch = next(_epochs)
        self._reset(self._partition.offsets)
        await self._flow.open(self.number, self._partition.offsets, self._epoch)
        self.ready = True
        _log.info("owned", partition=self.number, step=self._partition.step_number)

    def _leave_flow(self) -> None:
        self.ready = False
        self._epoch = 0
        for name in INPUTS:
            self._flow.close(self.number, name)

    async def _work(self) -> None:
        while not self._stopping:
            await self._waited()
            internal, offsets = self._take("internal", self._step_records, self._positions)
            events, offsets = self._take("events", self._step_records - len(internal), offsets)
            self._advance_horizon(offsets)
            self._positions = offsets
            due_ms = self._partition.next_due_ms()
            fire = due_ms is not None and due_ms <= self._horizon_ms
            expired, self._expired = self._expired[:EXPIRED_AT_ONCE], self._expired[EXPIRED_AT_ONCE:]
            if events or internal or fire or expired:
                await self._partition.step(events, internal, offsets, self._horizon_ms if fire else None, expired)
                await asyncio.sleep(0)  # others' turn, however much there is to do here
            await self._reopen()

    def _take(self, name: str, most: int, offsets: Mapping[str, int]) -> tuple[list[Any], Mapping[str, int]]:
        records, position = self._inboxes[name].take(most)
        return records, offsets if position is None else {**offsets, name: position}

    async def _reopen(self) -> None:
        for name in list(self._closed):
            if self._inboxes[name].records < self._step_records:
                self._closed.discard(name)
                await self._flow.reopen(self.number, name, self._epoch)

    def _advance_horizon(self, offsets: Mapping[str, int]) -> None:
        """A timer fires only once both inputs were read up to where they ended after it was due."""
        while self._samples and all(offsets[name] >= end for name, end in self._samples[0][1].items()):
            self._horizon_ms = max(self._horizon_ms, self._samples.popleft()[0])

    async def _waited(self) -> None:
        """Until there is something to do."""
        while not self._stopping:
            self._wake.clear()  # before looking, so that nothing that comes from now on is overlooked
            self._absorb_positions()
            wait_s = self._ask_if_due()
            arrived = any(inbox.records for inbox in self._inboxes.values())
            if arrived or self._expired or (wait_s is not None and wait_s <= 0):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    def _absorb_positions(self) -> None:
        """Ends of transactions move the position without any record."""
        for name, inbox in self._inboxes.items():
            if not inbox.records:
                _, self._positions = self._take(name, 0, self._positions)
        self._advance_horizon(self._positions)

    def _ask_if_due(self) -> float | None:
        """Seconds until the next timer can fire: 0 now, None unknown; asks for the ends if that is what is missing."""
        due_ms = self._partition.next_due_ms()
        if due_ms is None:
            return None
        if due_ms <= self._horizon_ms:
            return 0.0
        now_ms = self._clock.now_ms()
        if due_ms > now_ms:
            return (due_ms - now_ms) / 1e3
        if not self._asked and not (self._samples and self._samples[-1][0] >= due_ms):
            self._asked = True
            self._sampler.ask(self)
        return None


async def _ended(task: asyncio.Task[None]) -> None:
    """Wait for a task that was asked to stop, and no longer than its step may take."""
    done, _ = await asyncio.wait([task], timeout=1.0)
    if not done:
        task.cancel()
        await asyncio.wait([task])
