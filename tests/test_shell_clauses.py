"""Every clause of the protocol is load-bearing: without it, some failure loses or doubles a decision."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from streams.seams import ConflictError, FencedError, RefusedError, UnknownOutcomeError
from streams.view import View
from tests import test_shell_partition as battery
from tests.shell_world import FakeLog, FakeStore, Faults, Kafka, Redis

KINDS = ("before", "after", "lost", "unanswered", "late")


async def _failing(kafka: Kafka, redis: Redis, at: int, kind: str) -> None:
    """One operation fails."""
    await battery.live(kafka, redis, Faults(at, kind))


async def _interleaved(kafka: Kafka, redis: Redis, pause: int, resume: int) -> None:
    """A former owner is paused after some operation, comes back after some of the next one's, and that one goes on."""

    async def one() -> None:
        owner = battery.an_owner(kafka, redis, cache=1)
        await owner.start()
        await battery.work(owner, kafka)

    former, owner = one(), one()
    for coroutine, operations in ((former, pause), (owner, resume), (former, 10_000), (owner, 10_000)):
        if inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED:
            continue
        with contextlib.suppress(StopIteration, FencedError):
            for _ in range(operations):
                coroutine.send(None)
    await battery.live(kafka, redis, Faults())


async def _forgetful(kafka: Kafka, redis: Redis, until: int) -> None:
    owner = battery.an_owner(kafka, redis, cache=1)
    await owner.start()
    await battery.work(owner, kafka, until=until)
    redis.flush()
    await battery.work(owner, kafka)


def _right(kafka: Kafka, redis: Redis) -> bool:
    try:
        battery.check(kafka, redis)
    except (AssertionError, KeyError):
        return False
    return battery.whys(kafka) == battery.EXPECTED


def violated() -> bool:
    """Whether any of the battery's runs ends wrong."""
    operations = range(len(battery.OPERATIONS))
    runs: list[Callable[[Kafka, Redis], Any]] = []
    runs += [partial(_failing, at=at, kind=kind) for at in operations for kind in KINDS]
    runs += [partial(_interleaved, pause=pause, resume=resume) for pause in operations for resume in operations[3::5]]
    runs += [partial(_forgetful, until=until) for until in range(10)]
    for run in runs:
        kafka, redis = Kafka(), Redis()
        battery.fill(kafka)
        try:
            asyncio.run(asyncio.wait_for(run(kafka, redis), 5))
        except (AssertionError, FencedError, ConflictError, KeyError, RefusedError, TimeoutError, UnknownOutcomeError):
            return True
        if not _right(kafka, redis):
            return True
    return False


def no_fencing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Producers that do not fence each other."""
    monkeypatch.setattr(FakeLog, "_fence", lambda self, epoch: None)


def fetch_before_init(monkeypatch: pytest.MonkeyPatch) -> None:
    """Committed offsets fetched before the producer is initialised."""
    acquire, committed = FakeLog.acquire, FakeLog.committed

    async def acquire_late(self: FakeLog) -> None:
        self.__dict__["fetched"] = await committed(self)
        await acquire(self)

    async def fetched(self: FakeLog) -> Any:
        return self.__dict__["fetched"]

    monkeypatch.setattr(FakeLog, "acquire", acquire_late)
    monkeypatch.setattr(FakeLog, "committed", fetched)


def reuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The producer kept after an unknown outcome."""
    acquire = FakeLog.acquire

    async def once(self: FakeLog) -> None:
        if not self.epoch:
            await acquire(self)

    monkeypatch.setattr(FakeLog, "acquire", once)


def apply_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    """APPLY without compare-and-set."""

    async def apply(self: FakeStore, _before: Any, after: Any, changes: Any) -> None:
        def operation() -> None:
            self._write(changes)
            self.redis.meta = after

        await self._do("apply", operation)

    monkeypatch.setattr(FakeStore, "apply", apply)


def read_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    """READ without expecting n: a miss passes for a new person."""
    monkeypatch.setattr(FakeStore, "_at", lambda self, n: None)


def no_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    """START without bringing the view to n."""

    async def bring(self: View, target: Any, **_: Any) -> None:
        self._store.redis.meta = target  # type: ignore[attr-defined]

    monkeypatch.setattr(View, "bring", bring)


def offsets_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets committed outside the transaction, before it ends."""
    offsets = FakeLog.offsets

    async def at_once(self: FakeLog, *args: Any) -> None:
        await offsets(self, *args)
        self.kafka.offsets = self.pending_offsets

    monkeypatch.setattr(FakeLog, "offsets", at_once)


def test_the_whole_protocol_has_no_violation() -> None:
    """The battery that the clauses are tried with passes with all of them in place."""
    assert not violated()


@pytest.mark.parametrize(
    "remove",
    [no_fencing, fetch_before_init, reuse, apply_anyway, read_anyway, no_repair, offsets_alone],
    ids=lambda remove: remove.__name__,
)
def test_a_clause_removed_is_noticed(
    remove: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The battery fails as soon as one clause of the protocol is missing."""
    remove(monkeypatch)
    assert violated()
